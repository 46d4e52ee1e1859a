"""Every command while a server is unavailable or another one answers: one line with server, setting and fix."""

import asyncio
from collections.abc import Iterable
from pathlib import Path

import pytest

from ops.commands import __all__ as modules
from tests.command_line import Ended, inkstream
from tests.integration.pipeline import Pipeline
from tests.stand_ins import self_signed, stand_in

VARIABLES = {
    "Kafka": "INKSTREAM_KAFKA_BROKERS",
    "MongoDB": "INKSTREAM_MONGO_URL",
    "PostgreSQL": "INKSTREAM_POSTGRES_URL",
    "Redis": "INKSTREAM_REDIS_URL",
}
REASON = ("--reason", "x")
NEEDS: dict[tuple[str, ...], tuple[str, ...]] = {
    ("bootstrap", "--wait", "0"): ("Kafka", "MongoDB", "PostgreSQL"),
    ("bootstrap", "--check", "--wait", "0"): ("Kafka", "MongoDB", "PostgreSQL"),
    ("worker",): ("Kafka",),
    ("replay", "searches"): ("Kafka",),
    ("replay", "searches", "--dry-run"): ("Kafka",),
    ("dead-letters", "list"): ("Kafka",),
    ("dead-letters", "list", "--json"): ("Kafka",),
    ("dead-letters", "show", "x"): ("Kafka",),
    ("dead-letters", "acknowledge", "x", *REASON): ("Kafka",),
    ("dead-letters", "discard", "x", *REASON): ("Kafka",),
    ("dead-letters", "reopen", "x", *REASON): ("Kafka",),
    ("verify", "counts"): ("MongoDB", "PostgreSQL"),
    ("notifications", "show", "x"): ("MongoDB",),
    ("notifications", "failed"): ("MongoDB",),
    ("notifications", "retry", "x"): ("MongoDB",),
    ("notifications", "cancel", "x"): ("MongoDB",),
    ("suppressions", "list"): ("PostgreSQL",),
    ("suppressions", "add", "email", "ada@example.org"): ("PostgreSQL",),
    ("suppressions", "remove", "email", "ada@example.org"): ("PostgreSQL",),
    ("doctor",): ("Kafka", "MongoDB", "PostgreSQL", "Redis"),
    ("settings",): (),
    ("topics",): (),
    ("notifications", "preview"): (),
}
HURRY = "import ops.commands.worker as worker; worker.WAIT_FOR_KAFKA_SECONDS = 0"
INTERNALS = ("Traceback", "Unclosed", "AF_INET", "object at 0x", "Errno", "never retrieved", "hush-hush")
AT_ONCE = 2


def environment(port: int) -> dict[str, str]:
    """Return settings that lead to the port, whichever server is meant."""
    place = f"127.0.0.1:{port}"
    return {
        "INKSTREAM_KAFKA_BROKERS": place,
        "INKSTREAM_MONGO_URL": f"mongodb://ada:hush-hush@{place}/x?replicaSet=rs0",
        "INKSTREAM_POSTGRES_URL": f"postgresql://ada:hush-hush@{place}/x",
        "INKSTREAM_REDIS_URL": f"redis://:hush-hush@{place}/0",
    }


async def all_ended(
    settings: dict[str, str], commands: Iterable[tuple[str, ...]]
) -> list[tuple[tuple[str, ...], Ended]]:
    """Run commands, some at once; return each with how it ended."""
    limit = asyncio.Semaphore(AT_ONCE)

    async def run(arguments: tuple[str, ...]) -> tuple[tuple[str, ...], Ended]:
        async with limit:
            return arguments, await ended(settings, *arguments)

    return list(await asyncio.gather(*map(run, commands)))


async def ended(settings: dict[str, str], *arguments: str) -> Ended:
    """Run a command; what it says has nothing that only a driver's developers know, and no secret."""
    done = await inkstream(settings, *arguments, prelude=HURRY)
    for internal in INTERNALS:
        assert internal not in done.errors, (arguments, done.errors)
        assert internal not in done.output, (arguments, done.output)
    return done


def test_every_command_is_tried() -> None:
    assert {arguments[0].replace("-", "_") for arguments in NEEDS} == {*modules} - {"main"}


async def test_without_servers_each_command_names_those_that_it_needs_one_per_line() -> None:
    commands = [arguments for arguments in NEEDS if arguments != ("doctor",)]
    for arguments, done in await all_ended(environment(1), commands):
        needs = NEEDS[arguments] if arguments[0] == "bootstrap" else NEEDS[arguments][:1]
        assert done.code == (1 if needs else 0), (arguments, done)
        assert done.errors.splitlines() == [
            f"{server} does not answer at 127.0.0.1:1: connection refused. Is it running? Check {VARIABLES[server]}."
            for server in needs
        ], (arguments, done)


@pytest.mark.parametrize("server", list(VARIABLES))
async def test_with_one_server_away_doctor_and_its_commands_name_it_alone(pipeline: Pipeline, server: str) -> None:
    variable = VARIABLES[server]
    settings = {**pipeline.environment, variable: environment(1)[variable]}
    commands = [("bootstrap", "--wait", "0"), ("verify", "counts"), ("doctor",)]
    for arguments, done in await all_ended(settings, commands):
        if server not in NEEDS[arguments]:
            assert "does not answer" not in done.errors, (arguments, done)
            continue
        assert done.code == 1, (arguments, done)
        told = done.output if arguments == ("doctor",) else done.errors
        assert told.count("does not answer at 127.0.0.1:1: connection refused") == 1, (arguments, done)
        assert f"Is it running? Check {variable}" in told


@pytest.mark.parametrize(
    ("kind", "has_tls", "words"),
    [("web server", False, "is a web server"), ("silent", True, "expects TLS"), ("closing", False, "127.0.0.1")],
)
async def test_another_protocol_is_reported_in_one_line(kind: str, has_tls: bool, words: str, tmp_path: Path) -> None:
    commands = {
        "Kafka": ("dead-letters", "list"),
        "MongoDB": ("notifications", "failed"),
        "PostgreSQL": ("suppressions", "list"),
    }
    with stand_in(kind, self_signed(tmp_path / "server.pem") if has_tls else None) as port:
        found = await all_ended(environment(port), commands.values())
        doctor = await ended(environment(port), "doctor", "--json")
    for server, (_, done) in zip(commands, found, strict=True):
        (line,) = done.errors.splitlines()
        assert done.code == 1
        assert line.startswith(f"{server} at 127.0.0.1:{port} ")
        # PostgreSQL agrees on TLS by its own protocol.
        assert words in line or (server, has_tls) == ("PostgreSQL", True)
        assert VARIABLES[server] in line or "INKSTREAM_KAFKA_SECURITY_PROTOCOL" in line
    assert doctor.code == 1
    assert doctor.output.count(f"at 127.0.0.1:{port}") >= len(VARIABLES)


async def test_refused_credentials_are_reported_with_their_setting(pipeline: Pipeline) -> None:
    url = pipeline.environment["INKSTREAM_POSTGRES_URL"].replace("inkstream:", "nobody:")
    done = await ended({**pipeline.environment, "INKSTREAM_POSTGRES_URL": url}, "suppressions", "list")
    (line,) = done.errors.splitlines()
    assert done.code == 1
    assert "refuses the credentials" in line
    assert line.endswith("Check user and password in INKSTREAM_POSTGRES_URL.")


@pytest.mark.parametrize(
    ("variable", "value", "arguments"),
    [
        ("INKSTREAM_KAFKA_CA_FILE", "nowhere.pem", ("dead-letters", "list")),
        ("INKSTREAM_KAFKA_CERTIFICATE_FILE", "nowhere.pem", ("worker",)),
        ("INKSTREAM_MONGO_URL", "mongodb://127.0.0.1:1/x?tlsCAFile=nowhere.pem", ("notifications", "failed")),
    ],
)
async def test_a_missing_tls_file_is_a_wrong_setting(variable: str, value: str, arguments: tuple[str, ...]) -> None:
    settings = {**environment(1), "INKSTREAM_KAFKA_SECURITY_PROTOCOL": "SSL", variable: value}
    done = await ended(settings, *arguments)
    (line,) = done.errors.splitlines()
    assert done.code == 2
    assert line.startswith(f"{variable}: ")
    assert "nowhere.pem" in line
