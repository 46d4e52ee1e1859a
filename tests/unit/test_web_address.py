"""Where the worker's pages are, and the addresses of other servers: IPv6 in brackets, one clear line for the rest."""

import json
import os
import re
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from urllib.request import urlopen

import pytest
from aiokafka.conn import collect_hosts
from pydantic import SecretStr, ValidationError

from delivery.pipeline import Pipeline
from runtime.health import Health
from runtime.settings import Settings
from runtime.web_address import in_url, obstacle, url
from web.server import WebServer

ROOT = Path(__file__).parents[2]


class _Pages(HTTPServer):
    def __init__(self, host: str) -> None:
        self.address_family = socket.AF_INET6 if ":" in host else socket.AF_INET
        super().__init__((host, 0), _Answer)


class _Answer(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        self.send_response(200 if self.path == "/healthz" else 404)
        self.end_headers()

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002  # the library's name
        pass


@pytest.fixture(params=["127.0.0.1", "0.0.0.0", "::1", "::"])
def served(request: pytest.FixtureRequest) -> Iterator[tuple[str, int]]:
    with _Pages(request.param) as pages:
        thread = threading.Thread(target=pages.serve_forever, kwargs={"poll_interval": 0.02})
        thread.start()
        yield request.param, pages.server_port
        pages.shutdown()
        thread.join()


@pytest.mark.parametrize(
    ("host", "expected"),
    [
        ("127.0.0.1", "127.0.0.1"),
        ("worker.example", "worker.example"),
        ("::1", "[::1]"),
        ("2001:db8::7", "[2001:db8::7]"),
        ("fe80::1%eth0", "[fe80::1%25eth0]"),
    ],
)
def test_only_an_ipv6_address_has_brackets_in_a_url(host: str, expected: str) -> None:
    assert in_url(host) == expected
    assert url(host, 16066) == f"http://{expected}:16066"


def test_what_listens_on_all_addresses_is_reached_by_its_loopback_address() -> None:
    assert url("::", 80) == "http://[::1]:80"
    assert url("0.0.0.0", "80") == "http://127.0.0.1:80"


def test_the_pages_are_reached_at_their_url(served: tuple[str, int]) -> None:
    with urlopen(url(*served) + "/healthz", timeout=5) as response:
        assert response.status == 200


def test_the_image_finds_its_pages_wherever_they_are(served: tuple[str, int]) -> None:
    host, port = served
    found = re.search(r"HEALTHCHECK.*?CMD (\[.*?\])\n", (ROOT / "Dockerfile").read_text(), re.DOTALL)
    assert found
    command = [sys.executable, *json.loads(found[1])[1:]]
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "INKSTREAM_WEB_HOST": host}
    ended = subprocess.run(command, env={**environment, "INKSTREAM_WEB_PORT": str(port)}, check=False)
    assert ended.returncode == 0


@pytest.mark.parametrize("host", ["127.0.0.1", "0.0.0.0", "::1", "::", "localhost"])
def test_nothing_is_said_of_an_address_that_is_free(host: str) -> None:
    assert obstacle(host, 0) is None


@pytest.mark.parametrize(
    ("host", "named"),
    [
        ("2001:db8::7", "2001:db8::7"),
        ("192.0.2.1", "192.0.2.1"),
        ("no-such-host.invalid", "no-such-host.invalid"),
        ("::ffff:192.0.2.1", "::ffff:192.0.2.1"),
    ],
)
def test_an_address_of_another_machine_is_named_in_one_line_with_its_setting(host: str, named: str) -> None:
    problem = obstacle(host, 0)
    assert problem is not None
    assert problem.startswith("INKSTREAM_WEB_HOST: ")
    assert named in problem
    assert "\n" not in problem


def test_a_port_that_is_taken_is_named_with_its_setting(served: tuple[str, int]) -> None:
    host, port = served
    problem = obstacle(host, port)
    assert problem is not None
    assert f"{in_url(host)}:{port}" in problem
    assert "INKSTREAM_WEB_PORT" in problem


@pytest.mark.parametrize("host", ["127.0.0.1", "0.0.0.0", "::1", "::", "[::1]", "[::]", "fe80::1%lo", "worker-1"])
def test_a_worker_can_be_made_for_any_address(host: str) -> None:
    settings = Settings(web_host=host)
    made = Pipeline(settings, Health(), WebServer)
    assert made.conf.web_bind == host.strip("[]")
    assert made.conf.canonical_url.port == settings.web_port


@pytest.mark.parametrize("host", ["", "http://[::1]", "127.0.0.1:8080", "[::1]:8080", "[worker]", "a b", ":::1"])
def test_an_invalid_host_is_refused(host: str) -> None:
    with pytest.raises(ValidationError, match="set the port in INKSTREAM_WEB_PORT"):
        Settings(web_host=host)


@pytest.mark.parametrize(
    ("brokers", "expected"),
    [
        ("[::1]:9092", [("::1", 9092)]),
        ("[2001:db8::7]:19092,kafka-2:9092", [("2001:db8::7", 19092), ("kafka-2", 9092)]),
        ("127.0.0.1:9092, [::1]:9093", [("127.0.0.1", 9092), ("::1", 9093)]),
    ],
)
def test_brokers_may_have_ipv6_addresses(brokers: str, expected: list[tuple[str, int]]) -> None:
    hosts = collect_hosts(Settings(kafka_brokers=brokers).kafka_brokers, randomize=False)
    assert [(host, port) for host, port, _ in hosts] == expected


@pytest.mark.parametrize(
    "brokers", ["::1:9092", "", "[kafka]:9092", "[::1:9092", "kafka:port", "PLAINTEXT://kafka:9092"]
)
def test_an_invalid_list_of_brokers_is_refused(brokers: str) -> None:
    with pytest.raises(ValidationError, match="should be like kafka-1:9092"):
        Settings(kafka_brokers=brokers)


@pytest.mark.parametrize("setting", ["sendgrid_url", "mailgun_url", "ses_url", "site_url", "unsubscribe_url"])
def test_the_addresses_of_providers_and_pages_may_be_ipv6(setting: str) -> None:
    assert getattr(Settings.model_validate({setting: "http://[::1]:8080"}), setting) == "http://[::1]:8080"


def test_a_mail_server_may_have_an_ipv6_address() -> None:
    given = SecretStr("smtp://ada:secret@[::1]:2525")
    assert Settings(smtp_url=given).smtp_url == given
