"""The command line as a whole, without servers: help, errors and exit codes."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from runtime.settings import ROOT
from tests import command_line

COMMANDS = (
    "bootstrap",
    "dead-letters",
    "doctor",
    "notifications",
    "replay",
    "settings",
    "suppressions",
    "topics",
    "verify",
    "worker",
)


def run(*arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    """Run a command; see `tests.command_line`."""
    return subprocess.CompletedProcess(arguments, *command_line.run(environment, *arguments))


def test_a_command_runs_in_a_process_that_has_imported_nothing_before() -> None:
    ended = subprocess.run(
        [sys.executable, "-c", "from ops.commands import main; main()", "worker"],
        cwd=ROOT,
        env={**os.environ, "COLUMNS": "200", "INKSTREAM_BATCH_RECORDS": "0"},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    forked = run("worker", INKSTREAM_BATCH_RECORDS="0")
    assert (ended.returncode, ended.stdout, ended.stderr) == (forked.returncode, forked.stdout, forked.stderr)


def test_the_help_lists_our_commands_and_needs_no_valid_settings() -> None:
    ended = run("--help", INKSTREAM_WEB_PORT="wrong")
    assert ended.returncode == 0
    listed = ended.stdout.partition("Commands:\n")[2].splitlines()
    assert [line.split()[0] for line in listed] == list(COMMANDS)
    assert "--datadir" not in ended.stdout


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_has_help(command: str) -> None:
    assert run(command, "--help").stdout.startswith(f"Usage: inkstream {command}")


@pytest.mark.parametrize("command", ["bootstrap", "doctor", "settings", "worker"])
def test_a_wrong_setting_is_reported_in_one_line_with_exit_code_2(command: str) -> None:
    ended = run(command, INKSTREAM_BATCH_RECORDS="0")
    assert ended.returncode == 2
    assert ended.stderr == "INKSTREAM_BATCH_RECORDS: input should be greater than or equal to 1; got '0'\n"


def test_the_value_of_a_secret_is_not_shown() -> None:
    ended = run("settings", INKSTREAM_ENVIRONMENT="production", INKSTREAM_KAFKA_SASL_PASSWORD="hush-hush")
    assert ended.returncode == 2
    assert "INKSTREAM_IP_HASH_KEY is the public development key" in ended.stderr
    assert "INKSTREAM_KAFKA_SASL_PASSWORD has no effect" in ended.stderr
    assert "hush-hush" not in ended.stderr


@pytest.mark.parametrize(
    ("command", "variable", "value"),
    [
        ("bootstrap", "INKSTREAM_MONGO_URL", "mongo://ada:hush-hush@x"),
        ("bootstrap", "INKSTREAM_POSTGRES_URL", "postgres//ada:hush-hush@x"),
        ("worker", "INKSTREAM_MONGO_URL", "mongo://ada:hush-hush@x"),
        ("worker", "INKSTREAM_REDIS_URL", "http://:hush-hush@x"),
        ("worker", "INKSTREAM_GEO_DATABASE", "topics.yaml"),  # which is there, and no database
    ],
)
def test_an_invalid_address_is_reported_with_its_setting(command: str, variable: str, value: str) -> None:
    ended = run(command, **{variable: value})
    assert ended.returncode == 2, ended.stderr
    assert ended.stderr.startswith(f"{variable}: ")
    assert "hush-hush" not in ended.stderr
    assert ended.stderr.count("\n") == 1


def test_a_wrong_topics_file_is_reported_with_its_line(tmp_path: Path) -> None:
    file = tmp_path / "topics.yaml"
    file.write_text("defaults:\n  partitons: 6\ntopics: {}\n")
    ended = run("worker", INKSTREAM_TOPICS_FILE=str(file))
    assert ended.returncode == 2
    assert ended.stderr.startswith("topics.yaml:2: unknown key partitons; did you mean partitions?")


@pytest.mark.parametrize("arguments", [("replay",), ("replay", "searches", "--since", "soon"), ("unknown",)])
def test_wrong_usage_has_exit_code_2(arguments: tuple[str, ...]) -> None:
    ended = run(*arguments)
    assert ended.returncode == 2
    assert "Traceback" not in ended.stderr
