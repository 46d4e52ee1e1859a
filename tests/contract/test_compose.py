import ast
import dataclasses
import json
import re
import sys
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import yaml

from dev.compose import SERVERS
from dev.inbox import push_messages
from dev.ports import Ports
from dev.servers import jars
from dev.servers.postgres import Postgres
from runtime.settings import Settings

ROOT = Path(__file__).parents[2]
SCHEMA = Path(__file__).with_name("compose-specification") / "compose-spec.json"
COMPOSE = (ROOT / "docker-compose.yml").read_text()
DOCKERFILE = (ROOT / "Dockerfile").read_text()
INBOX_DOCKERFILE = (ROOT / "dev" / "inbox.Dockerfile").read_text()
INBOX_DIRECTORY = "/var/lib/inbox"
PLATFORM: dict[str, Any] = yaml.safe_load(COMPOSE)
SERVICES: dict[str, dict[str, Any]] = PLATFORM["services"]
ONE_SHOT = {"mongo-initiate", "bootstrap"}
MONGO = ("mongo-primary", "mongo-secondary-1", "mongo-secondary-2")
PORT = re.compile(r"^127\.0\.0\.1:\$\{(?P<setting>\w+):-(?P<port>\d+)\}:(?P<inside>\d+)$")


def test_the_file_is_valid_by_the_compose_specification() -> None:
    jsonschema.Draft7Validator(json.loads(SCHEMA.read_text())).validate(PLATFORM)


def test_the_schema_refuses_what_is_not_of_the_specification() -> None:
    wrong = {"services": {"kafka": {"image": "kafka", "port": ["1:1"]}}}
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.Draft7Validator(json.loads(SCHEMA.read_text())).validate(wrong)


def test_host_ports_are_those_of_the_native_servers_and_bound_to_this_machine() -> None:
    published = [(port, PORT.fullmatch(port)) for service in SERVICES.values() for port in service.get("ports", ())]
    assert all(match for _, match in published), published
    found = {match["setting"]: int(match["port"]) for _, match in published if match}
    # The controller's port is of use inside the container alone.
    expected = {
        Ports.setting(name): port for name, port in dataclasses.asdict(Ports()).items() if name != "kafka_controller"
    }
    assert found == expected


def test_the_platform_is_the_one_of_the_requirement() -> None:
    assert {SERVICES[name]["image"] for name in MONGO} == {"mongo:7"}
    assert all(SERVICES[name]["command"][:3] == ["mongod", "--replSet", "rs0"] for name in MONGO)
    assert SERVICES["worker"]["environment"]["INKSTREAM_MONGO_URL"] == (
        "mongodb://mongo-primary:27017,mongo-secondary-1:27017,mongo-secondary-2:27017/blog-platform?replicaSet=rs0"
    )
    script = SERVICES["mongo-initiate"]["entrypoint"][-1]
    assert re.findall(r'host: "([\w-]+):27017", priority: (\d)', script) == list(zip(MONGO, "211", strict=True))
    assert SERVICES["postgres"]["image"] == "postgres:16"
    assert SERVICES["redis"]["image"] == "redis:7"


def test_kafka_is_of_the_same_release_as_the_native_one() -> None:
    lock = jars.read_lock(ROOT / "dev" / "servers" / "kafka.jars")
    versions = {jar.coordinates.rpartition(":")[2] for jar in lock if jar.coordinates.startswith("org.apache.kafka:")}
    assert {f"apache/kafka:{version}" for version in versions} == {SERVICES["kafka"]["image"]}


def test_the_worker_has_the_same_role_as_on_the_native_postgres() -> None:
    native = Postgres(ROOT, 5432).url.replace("127.0.0.1", "postgres")
    assert SERVICES["worker"]["environment"]["INKSTREAM_POSTGRES_URL"] == native
    owner, password, database = (
        SERVICES["postgres"]["environment"][f"POSTGRES_{x}"] for x in ("USER", "PASSWORD", "DB")
    )
    assert Postgres(ROOT, 5432).owner_url == f"postgresql://{owner}:{password}@127.0.0.1:5432/{database}"


def test_every_server_has_a_health_check_and_starts_again() -> None:
    for name in SERVICES.keys() - ONE_SHOT:
        assert SERVICES[name]["restart"] == "unless-stopped", name
        assert "healthcheck" in SERVICES[name] or (name == "worker" and "\nHEALTHCHECK " in DOCKERFILE), name


def test_what_ends_by_itself_is_waited_for_until_it_has_done_its_work() -> None:
    for name, service in SERVICES.items():
        for needed, how in service.get("depends_on", {}).items():
            expected = "service_completed_successfully" if needed in ONE_SHOT else "service_healthy"
            assert how == {"condition": expected}, f"{name} on {needed}"
    assert SERVICES["worker"]["depends_on"].keys() == {"bootstrap", "inbox"}
    assert SERVICES["bootstrap"]["depends_on"].keys() == {"kafka", "mongo-initiate", "postgres", "redis"}


def test_every_volume_is_declared_and_used_and_every_file_that_is_mounted_exists() -> None:
    mounted = [volume.split(":") for service in SERVICES.values() for volume in service.get("volumes", ())]
    named = {source for source, *_ in mounted if not source.startswith(".")}
    assert named == PLATFORM["volumes"].keys()
    assert all((ROOT / source).is_file() for source, *_ in mounted if source.startswith("."))


def test_every_setting_exists() -> None:
    known = {f"INKSTREAM_{name.upper()}" for name in Settings.model_fields}
    assert SERVICES["worker"]["environment"].keys() <= known
    ports = {Ports.setting(field.name) for field in dataclasses.fields(Ports)}
    assert set(re.findall(r"\$\{(\w+)", COMPOSE)) <= known | ports
    assert set(re.findall(r"\b(INKSTREAM_\w+)=", DOCKERFILE)) <= known


def test_the_worker_is_scraped_and_checked_where_it_listens() -> None:
    port = SERVICES["worker"]["environment"]["INKSTREAM_WEB_PORT"]
    match = PORT.fullmatch(SERVICES["worker"]["ports"][0])
    assert match is not None
    assert port == match["inside"] == str(Settings.model_fields["web_port"].default) == str(Ports().worker)
    jobs = yaml.safe_load((ROOT / "deploy" / "prometheus.yml").read_text())["scrape_configs"]
    assert [target for job in jobs for config in job["static_configs"] for target in config["targets"]] == [
        f"worker:{port}"
    ]
    assert f"EXPOSE {port}" in DOCKERFILE


def test_the_servers_that_are_started_without_the_worker_exist() -> None:
    # The inbox is a process of this machine then, as the worker is (dev/compose.py).
    assert set(SERVERS) == SERVICES.keys() - ONE_SHOT - {"worker", "prometheus", "inbox"}


def test_the_worker_sends_to_the_inbox() -> None:
    settings, inbox = SERVICES["worker"]["environment"], SERVICES["inbox"]
    smtp, page = [PORT.fullmatch(port) for port in inbox["ports"]]
    assert smtp is not None
    assert page is not None
    assert settings["INKSTREAM_SMTP_URL"] == f"smtp://inbox:{smtp['inside']}"
    shared = f"inbox-data:{INBOX_DIRECTORY}"
    assert shared in SERVICES["worker"]["volumes"]
    assert shared in inbox["volumes"]
    assert settings["INKSTREAM_PUSH_FILE"].endswith(f"{INBOX_DIRECTORY}/{push_messages.FILE}}}")
    assert (smtp["inside"], page["inside"]) == (str(Ports().smtp), str(Ports().inbox))
    assert f'"--smtp-port", "{smtp["inside"]}", "--port", "{page["inside"]}"' in INBOX_DOCKERFILE
    assert f'"{INBOX_DIRECTORY}"' in INBOX_DOCKERFILE


def test_the_image_of_the_inbox_has_what_the_inbox_imports() -> None:
    imported = {
        node.module.partition(".")[0]
        for path in (ROOT / "dev" / "inbox").glob("*.py")
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.ImportFrom) and node.module
    }
    libraries = imported - sys.stdlib_module_names - {"dev"}
    installed = re.search(r"--constraint \S+ (.*)$", INBOX_DOCKERFILE, re.MULTILINE)
    assert installed is not None
    assert set(installed[1].split()) == libraries
    ignore = (ROOT / "dev" / "inbox.Dockerfile.dockerignore").read_text().splitlines()
    assert all((ROOT / line.removeprefix("!")).exists() for line in ignore if line.startswith("!"))


def test_the_image_runs_without_rights_and_holds_what_the_program_needs() -> None:
    assert re.findall(r"^USER (\w+)$", DOCKERFILE, re.MULTILINE) == ["inkstream"]
    ignore = (ROOT / ".dockerignore").read_text().splitlines()
    assert "*" in ignore  # nothing but what follows
    kept = [line.removeprefix("!") for line in ignore if line.startswith("!")]
    assert all((ROOT / name).exists() for name in kept), kept
    assert {"topics.yaml", "pyproject.toml", "requirements/runtime.txt"} <= set(kept)
