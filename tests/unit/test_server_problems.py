"""The explanation why a server can't be used, for every kind of answer at its address."""

from pathlib import Path
from typing import Any

import psycopg
import pytest
import redis.exceptions
from aiokafka.errors import KafkaConnectionError, NodeNotReadyError, UnknownTopicOrPartitionError
from pymongo.errors import OperationFailure, ServerSelectionTimeoutError

from agents.server_problems import problem_of
from runtime.settings import Settings
from tests.stand_ins import self_signed, stand_in

VARIABLES = {
    "Kafka": "INKSTREAM_KAFKA_BROKERS",
    "MongoDB": "INKSTREAM_MONGO_URL",
    "PostgreSQL": "INKSTREAM_POSTGRES_URL",
    "Redis": "INKSTREAM_REDIS_URL",
}
ERRORS: dict[str, Exception] = {
    "Kafka": KafkaConnectionError("Unable to bootstrap from [('127.0.0.1', 1, <AddressFamily.AF_INET: 2>)]"),
    "MongoDB": ServerSelectionTimeoutError(
        "127.0.0.1:1: [Errno 111] Connection refused (configured timeouts: …), Timeout: 5s, Topology Description: <…>"
    ),
    "PostgreSQL": psycopg.OperationalError(
        'connection failed: connection to server at "127.0.0.1", port 1 failed: Connection refused\n\tIs the server up?'
    ),
    "Redis": redis.exceptions.ConnectionError("Error 111 connecting to 127.0.0.1:1. Connection refused."),
}


@pytest.fixture(autouse=True)
def hasty(monkeypatch: pytest.MonkeyPatch) -> None:
    """Wait for a server on this machine no longer than a fifth of a second."""
    monkeypatch.setattr(f"{problem_of.__module__}._ANSWER_SECONDS", 0.2)


every_server = pytest.mark.parametrize("server", list(VARIABLES))


def settings(port: int, host: str = "127.0.0.1", **others: Any) -> Settings:
    place = f"{host}:{port}"
    return Settings(
        kafka_brokers=place,
        mongo_url=f"mongodb://ada:hush-hush@{place}/x?replicaSet=rs0",
        postgres_url=f"postgresql://ada:hush-hush@{place}/x",
        redis_url=f"redis://:hush-hush@{place}/0",
        **others,
    )


def line(server: str, port: int, **others: Any) -> str:
    """Return the explanation, after checking that it has no secrets and no internals of the driver."""
    said = str(problem_of(ERRORS[server], settings(port, **others)))
    for hidden in ("\n", "hush-hush", "AF_INET", "<", "Errno", "Topology"):
        assert hidden not in said
    return said


@every_server
def test_a_refused_connection_names_the_setting(server: str) -> None:
    assert line(server, 1) == (
        f"{server} does not answer at 127.0.0.1:1: connection refused. Is it running? Check {VARIABLES[server]}."
    )


@every_server
def test_an_unknown_host_name_is_reported(server: str) -> None:
    assert line(server, 1, host="nowhere.invalid") == (
        f"{server} does not answer at nowhere.invalid:1: the host name nowhere.invalid is not known. "
        f"Correct {VARIABLES[server]}."
    )


@every_server
def test_a_web_server_is_recognised(server: str) -> None:
    with stand_in("web server") as port:
        assert line(server, port) == (
            f"{server} at 127.0.0.1:{port} is a web server. Correct the address in {VARIABLES[server]}."
        )


@pytest.mark.parametrize("server", ["Kafka", "MongoDB", "PostgreSQL"])
def test_another_of_our_servers_is_recognised(server: str) -> None:
    with stand_in("redis") as port:
        assert line(server, port).startswith(f"{server} at 127.0.0.1:{port} is Redis. Correct")


@pytest.mark.parametrize(
    ("server", "advice"),
    [
        ("Kafka", "Set INKSTREAM_KAFKA_SECURITY_PROTOCOL to SSL or SASL_SSL."),
        ("MongoDB", "Add tls=true to INKSTREAM_MONGO_URL."),
        ("Redis", "Use rediss:// in INKSTREAM_REDIS_URL."),
    ],
)
def test_a_server_that_expects_tls_names_the_setting_to_change(server: str, advice: str, tmp_path: Path) -> None:
    with stand_in("silent", self_signed(tmp_path / "server.pem")) as port:
        assert line(server, port) == f"{server} at 127.0.0.1:{port} expects TLS. {advice}"


def test_an_untrusted_certificate_names_the_setting_to_change(tmp_path: Path) -> None:
    with stand_in("silent", self_signed(tmp_path / "server.pem")) as port:
        said = line("Kafka", port, kafka_security_protocol="SSL")
    assert said.startswith(f"Kafka at 127.0.0.1:{port} has a certificate that is not trusted: self-signed certificate")
    assert said.endswith("Set INKSTREAM_KAFKA_CA_FILE to the authority that signed it.")


def test_a_server_without_tls_is_reported_if_the_settings_ask_for_tls() -> None:
    with stand_in("closing") as port:
        said = line("Kafka", port, kafka_security_protocol="SSL")
    assert said.startswith(f"Kafka at 127.0.0.1:{port} does not speak TLS. Set INKSTREAM_KAFKA_SECURITY_PROTOCOL to")


@every_server
@pytest.mark.parametrize("kind", ["closing", "silent"])
def test_a_closed_or_silent_connection_names_the_setting(server: str, kind: str) -> None:
    with stand_in(kind) as port:
        said = line(server, port)
    assert said.startswith(f"{server} at 127.0.0.1:{port} ")
    assert VARIABLES[server] in said


def test_of_several_addresses_all_are_named() -> None:
    several = settings(1).model_copy(update={"kafka_brokers": "127.0.0.1:1,127.0.0.1:2"})
    assert str(problem_of(ERRORS["Kafka"], several)).startswith(
        "Kafka does not answer at 127.0.0.1:1, 127.0.0.1:2: connection refused."
    )


@pytest.mark.parametrize(
    ("error", "server"),
    [
        (OperationFailure("Authentication failed.", 18), "MongoDB"),
        (OperationFailure("Command ping requires authentication", 13), "MongoDB"),
        (psycopg.OperationalError('connection to server at "::1", port 1 failed: FATAL:  password authentication '
                                  'failed for user "ada"'), "PostgreSQL"),
        (redis.exceptions.AuthenticationError("invalid username-password pair or user is disabled."), "Redis"),
    ],
)  # fmt: skip
def test_refused_credentials_are_reported_as_such(error: Exception, server: str) -> None:
    said = str(problem_of(error, settings(1)))
    assert said.startswith(f"{server} at 127.0.0.1:1 refuses the credentials: ")
    assert said.endswith(f"Check user and password in {VARIABLES[server]}.")
    assert "hush-hush" not in said


def test_kafkas_refusal_of_a_request_is_shown_unchanged() -> None:
    error = UnknownTopicOrPartitionError("there is no topic x; `inkstream bootstrap` creates it")
    assert str(problem_of(error, settings(1))) == (
        "Kafka at 127.0.0.1:1: there is no topic x; `inkstream bootstrap` creates it."
    )


def test_an_error_without_a_server_suggests_doctor() -> None:
    assert str(problem_of(TimeoutError(), settings(1))) == (
        "A server did not answer in time. Run `inkstream doctor` to see which."
    )
    assert str(problem_of(TimeoutError(), settings(1), "Redis")).startswith("Redis does not answer at 127.0.0.1:1: ")


def test_a_broker_that_is_not_ready_is_not_reported_in_aiokafkas_terms() -> None:
    said = str(
        problem_of(NodeNotReadyError("Attempt to send a request to node which is not ready (node id 1)."), settings(1))
    )
    assert said.startswith("Kafka does not answer at 127.0.0.1:1: connection refused.")
