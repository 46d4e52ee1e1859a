"""A real worker's pages on IPv6: where they answer, and what it says where it can't listen."""

import socket
import urllib.request

import pytest

from runtime.web_address import in_url
from tests.integration.pipeline import Pipeline, Worker, until

TOPIC = "searches"


def answers(host: str, port: int) -> bool:
    try:
        with urllib.request.urlopen(f"http://{in_url(host)}:{port}/healthz", timeout=5) as response:
            return bool(response.status == 200)
    except OSError:
        return False


async def until_answers(worker: Worker, host: str) -> None:
    async def alive() -> bool:
        assert worker.process.poll() is None, worker.log.read_text()
        return answers(host, worker.port)

    await until(alive, f"the worker answers on {host}")


@pytest.mark.parametrize(
    ("setting", "reached", "unreached"),
    [
        ("::", ["::1", "127.0.0.1"], []),
        ("::1", ["::1"], ["127.0.0.1"]),
        ("[::1]", ["::1"], []),
        ("0.0.0.0", ["127.0.0.1"], ["::1"]),
    ],
)
async def test_the_pages_answer_where_the_setting_says(
    pipeline: Pipeline, setting: str, reached: list[str], unreached: list[str]
) -> None:
    with pipeline.worker(agents=TOPIC, web_host=setting) as worker:
        for host in reached:
            await until_answers(worker, host)
        assert not any(answers(host, worker.port) for host in unreached)
        assert worker.terminate() == 0


@pytest.mark.parametrize("host", ["2001:db8::7", "192.0.2.1", "no-such-host.invalid"])
async def test_a_worker_that_cannot_listen_says_so_in_one_line(pipeline: Pipeline, host: str) -> None:
    with pipeline.worker(agents=TOPIC, web_host=host) as worker:
        assert worker.process.wait(60) == 1
        lines = worker.log.read_text().strip().splitlines()
    assert len(lines) == 1
    assert "INKSTREAM_WEB_HOST" in lines[0]
    assert host in lines[0]


async def test_a_worker_whose_port_is_taken_names_the_port(pipeline: Pipeline) -> None:
    with socket.create_server(("::1", 0), family=socket.AF_INET6) as taken:
        port = taken.getsockname()[1]
        with pipeline.worker(agents=TOPIC, web_host="::1", web_port=port) as worker:
            assert worker.process.wait(60) == 1
            (line,) = worker.log.read_text().strip().splitlines()
    assert f"[::1]:{port}" in line
    assert "INKSTREAM_WEB_PORT" in line
