"""The settings of docs/deploy.md, as they stand: the block makes an `.env` with which the real worker starts.

Only the servers' addresses are others here, and they come from the environment, which goes before `.env`.
"""

import configparser
import json
import os
import re
import subprocess
import sys
from collections.abc import AsyncIterator, Mapping
from pathlib import Path

import pytest
from dotenv import dotenv_values

from dev.stack import Platform
from runtime.settings import ROOT
from tests.command_line import Ended
from tests.integration.pipeline import Pipeline

ADDRESSES = ("INKSTREAM_KAFKA_BROKERS", "INKSTREAM_MONGO_URL", "INKSTREAM_POSTGRES_URL", "INKSTREAM_REDIS_URL")


def block() -> str:
    found = re.search(r"```sh\n(cat > \.env <<END\n.*?)```", (ROOT / "docs/deploy.md").read_text(), re.DOTALL)
    assert found is not None
    return found[1]


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    """Where the page's block was run."""
    subprocess.run(["sh", "-eu"], input=block(), cwd=tmp_path, text=True, check=True)
    return tmp_path


@pytest.fixture
async def deployed(platform: Platform, directory: Path) -> AsyncIterator[Pipeline]:
    """Topics, collections and tables, made with the settings of development: one broker has no three replicas."""
    pipeline = Pipeline(platform)
    pipeline.own_tables()
    # As on the page: no namespace.
    pipeline.namespace = pipeline.environment["INKSTREAM_NAMESPACE"] = ""
    await pipeline.prepare()
    yield pipeline
    await pipeline.forget()


def environment(addresses: Mapping[str, str]) -> dict[str, str]:
    """Return the environment of a machine on which nothing of Inkstream is set but the servers' addresses."""
    machine = {name: value for name, value in os.environ.items() if not name.startswith(("INKSTREAM_", "AWS_"))}
    return machine | {name: addresses[name] for name in ADDRESSES} | {"COLUMNS": "200"}


def inkstream(directory: Path, addresses: Mapping[str, str], *arguments: str) -> Ended:
    command = [sys.executable, "-c", "from ops.commands import main; main()", *arguments]
    ended = subprocess.run(
        command, cwd=directory, env=environment(addresses), capture_output=True, text=True, timeout=120, check=False
    )
    return Ended(ended.returncode, ended.stdout, ended.stderr)


async def test_the_worker_starts_with_the_block_as_it_stands(deployed: Pipeline, directory: Path) -> None:
    with deployed.worker_in(directory, environment(deployed.environment)) as worker:
        await worker.until_ready()
        assert worker.terminate() == 0


async def test_doctor_and_bootstrap_name_existing_topics_with_too_few_replicas(
    deployed: Pipeline, directory: Path
) -> None:
    doctor = inkstream(directory, deployed.environment, "doctor", "--json")
    assert doctor.code == 1, doctor
    found = [finding for finding in json.loads(doctor.output)["findings"] if finding["subject"] == "replicas"]
    replicas, in_sync = (finding["what"] for finding in found)
    assert re.match(r"\d+ topics with fewer than 3 replicas: (__consumer_offsets 1, )?\S+ 1, ", replicas)
    assert re.match(r"\d+ topics with min\.insync\.replicas under 2: ", in_sync)
    assert {finding["state"] for finding in found} == {"problem"}
    assert "kafka-reassign-partitions" in found[0]["advice"]

    bootstrap = inkstream(directory, deployed.environment, "bootstrap")
    assert bootstrap.code == 1, bootstrap
    assert "Kafka: blocked topic page-views: has 1 replicas, 3 are declared" in bootstrap.output
    assert "min.insync.replicas" not in bootstrap.output, "with one replica that would stop every write"


async def test_fewer_replicas_that_are_accepted_by_name_are_a_note(deployed: Pipeline, directory: Path) -> None:
    env = directory / ".env"
    text = env.read_text()
    env.write_text(text.replace("INKSTREAM_REPLICATION=3\n", "INKSTREAM_ALLOW_FEWER_REPLICAS=true\n"))
    doctor = inkstream(directory, deployed.environment, "doctor", "--json")
    found = [finding for finding in json.loads(doctor.output)["findings"] if finding["subject"] == "replicas"]
    assert {finding["state"] for finding in found} == {"note"}
    assert all(finding["advice"].startswith("accepted by INKSTREAM_ALLOW_FEWER_REPLICAS; else ") for finding in found)
    assert inkstream(directory, deployed.environment, "bootstrap").code == 0


def test_a_broker_too_few_is_an_error_that_says_how_many_there_are(platform: Platform, directory: Path) -> None:
    ended = inkstream(directory, Pipeline(platform).environment, "bootstrap")
    assert ended.code == 1
    assert "Traceback" not in ended.errors
    assert re.search(r"^Kafka at \S+: topic \S+: .*replication factor", ended.errors), ended.errors


@pytest.mark.parametrize("command", ["worker", "bootstrap", "doctor", "verify"])
@pytest.mark.parametrize("left_out", ["INKSTREAM_REPLICATION", "INKSTREAM_SITE_URL", "INKSTREAM_SENDGRID_API_KEY"])
def test_what_is_left_out_of_the_block_is_named(
    platform: Platform, directory: Path, command: str, left_out: str
) -> None:
    env = directory / ".env"
    env.write_text("".join(line for line in env.read_text().splitlines(True) if not line.startswith(left_out)))
    arguments = ("verify", "counts") if command == "verify" else (command,)
    ended = inkstream(directory, Pipeline(platform).environment, *arguments)
    assert (ended.code, ended.output) == (2, "")
    [line] = ended.errors.splitlines()
    assert left_out in line


def test_the_block_needs_no_quotes_so_that_docker_and_systemd_read_it_as_a_shell_does(directory: Path) -> None:
    assert not re.search(r"['\"]", (directory / ".env").read_text())


def test_the_unit_of_the_page_restarts_a_worker_unless_its_settings_are_wrong() -> None:
    found = re.search(r"<!-- unit -->\n```ini\n(.*?)```", (ROOT / "docs/deploy.md").read_text(), re.DOTALL)
    assert found is not None
    unit = configparser.ConfigParser(interpolation=None)
    unit.optionxform = str  # type: ignore[assignment,method-assign]
    unit.read_string(found[1])
    assert unit["Service"]["ExecStart"].endswith("/inkstream worker")
    assert (unit["Service"]["Restart"], unit["Service"]["RestartPreventExitStatus"]) == ("always", "2")
    assert unit["Service"]["Environment"] == "INKSTREAM_WEB_PORT=%i"


def test_the_block_has_every_setting_once(directory: Path) -> None:
    lines = [line.partition("=")[0] for line in (directory / ".env").read_text().splitlines()]
    assert len(set(lines)) == len(lines)
    assert set(lines) == set(dotenv_values(directory / ".env"))
