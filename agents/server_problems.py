"""Explains in one line why a server can't be used: its address, the cause, and the setting to check.

Input: an error raised by a client, and the settings. Output: a `Problem`. Clients of Kafka and the stores often hide
the cause, so this module opens a plain connection to the address to find it. Passwords are never shown.
"""

import re
import socket
import ssl
import struct
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import NamedTuple
from urllib.parse import urlsplit

from aiokafka.errors import KafkaConnectionError, KafkaError, KafkaTimeoutError, NodeNotReadyError, RequestTimedOutError

from delivery.kafka import ssl_context
from runtime.settings import Settings
from sinks import servers
from sinks.postgres.pool import OtherInstallationError
from sinks.postgres.post_locks import PostsLockedError
from sinks.servers import STORE_ERRORS

SERVER_ERRORS: tuple[type[Exception], ...] = (KafkaError, TimeoutError, *STORE_ERRORS)
"""Errors that clients raise when a server does not answer, or refuses a connection or a request."""

_TIMEOUT_SECONDS = 3.0
_ANSWER_SECONDS = 1.0
_DETAILS = re.compile(r"\n| \(configured timeouts|, Timeout: |, full error: ")  # the driver's internal state follows
_PREFIX = re.compile(
    r"^(?:\[Error \d+\] )?\w+(?:Error|Exception|Timeout): "  # Kafka's
    r"|^(?:connection failed: )?connection to server (?:at|on) .*? failed: (?:FATAL: +)?"  # PostgreSQL's
    r"|^[^ ]+:\d+: (?:\[Errno -?\d+\] )?"  # MongoDB's
)
_HTTP = b"GET / HTTP/1.0\r\n\r\n"
_API_VERSIONS = struct.pack(">ihhih", 10, 18, 0, 17, -1)
"""Kafka's request ApiVersions, version 0, with correlation id 17 and no client id: https://kafka.apache.org/protocol"""

_KAFKA, _MONGODB, _POSTGRESQL, _REDIS = "Kafka", "MongoDB", "PostgreSQL", "Redis"
_VARIABLES: Mapping[str, str] = {
    _KAFKA: "INKSTREAM_KAFKA_BROKERS",
    _MONGODB: "INKSTREAM_MONGO_URL",
    _POSTGRESQL: "INKSTREAM_POSTGRES_URL",
    _REDIS: "INKSTREAM_REDIS_URL",
}
_WITH_TLS: Mapping[str, str] = {
    _KAFKA: "Set INKSTREAM_KAFKA_SECURITY_PROTOCOL to SSL or SASL_SSL",
    _MONGODB: "Add tls=true to INKSTREAM_MONGO_URL",
    _POSTGRESQL: "Add sslmode=require to INKSTREAM_POSTGRES_URL",
    _REDIS: "Use rediss:// in INKSTREAM_REDIS_URL",
}
_WITHOUT_TLS: Mapping[str, str] = {
    _KAFKA: "Set INKSTREAM_KAFKA_SECURITY_PROTOCOL to PLAINTEXT or SASL_PLAINTEXT, or correct INKSTREAM_KAFKA_BROKERS",
    _MONGODB: "Remove tls=true from INKSTREAM_MONGO_URL, or correct its address",
    _POSTGRESQL: "Remove sslmode from INKSTREAM_POSTGRES_URL, or correct its address",
    _REDIS: "Use redis:// in INKSTREAM_REDIS_URL, or correct its address",
}
_TRUST: Mapping[str, str] = {
    _KAFKA: "Set INKSTREAM_KAFKA_CA_FILE to the authority that signed it",
    _MONGODB: "Add tlsCAFile=… to INKSTREAM_MONGO_URL",
    _POSTGRESQL: "Add sslrootcert=… to INKSTREAM_POSTGRES_URL",
    _REDIS: "Add ssl_ca_certs=… to INKSTREAM_REDIS_URL",
}
_CREDENTIALS: Mapping[str, str] = {
    _KAFKA: "Check INKSTREAM_KAFKA_SECURITY_PROTOCOL, and INKSTREAM_KAFKA_SASL_MECHANISM, …_USERNAME and …_PASSWORD",
    **{name: f"Check user and password in {_VARIABLES[name]}" for name in (_MONGODB, _POSTGRESQL, _REDIS)},
}
_KAFKA_CONNECTIONS = (KafkaConnectionError, KafkaTimeoutError, NodeNotReadyError, RequestTimedOutError)


class ServerError(Exception):
    """Servers do not answer, or refuse a request. The message has one line for each, with what to try."""


class Problem(NamedTuple):
    """Why a server can't be used.

    Attributes:
        server: Its name.
        what: What is wrong, with the address, such as `does not answer at 127.0.0.1:1: connection refused`.
        advice: What to try, with the setting; may be empty.
    """

    server: str
    what: str
    advice: str

    def __str__(self) -> str:
        """Return it as one line."""
        return f"{self.server} {self.what}. {self.advice}." if self.advice else f"{self.server} {self.what}."


class _Answer(NamedTuple):
    """The result of a plain connection to an address.

    Attributes:
        cause: Why it can't be used, in a few words; empty if the expected server answers.
        advice: What to try.
        is_reached: Whether the connection was accepted.
    """

    cause: str
    advice: str
    is_reached: bool = True


def problem_of(error: BaseException, settings: Settings, server: str | None = None) -> Problem:
    """Return why a server can't be used; takes some seconds if the server does not respond.

    Args:
        error: The error raised by a client.
        settings: The addresses of the servers.
        server: The server's name; if missing, it is derived from the error.
    """
    server = server or (_KAFKA if isinstance(error, KafkaError) else servers.server_of(error))
    if server is None:
        return Problem("A server", "did not answer in time", "Run `inkstream doctor` to see which")
    places, has_tls = _places(server, settings)
    shown = ", ".join(f"[{host}]:{port}" if ":" in host else f"{host}:{port}" for host, port in places)
    at = f"at {shown}" if shown else f"at the address of {_VARIABLES[server]}"
    told = first_line(error)
    if isinstance(error, PostsLockedError):
        return Problem(
            server,
            f"{at}: {told}",
            "Run it again when the lock is released (docs/troubleshooting.md, Posts are locked)",
        )
    if isinstance(error, OtherInstallationError):
        return Problem(server, f"{at}: {told}", "")
    kind = servers.kind_of_refusal(error)
    if kind == "credentials":
        return Problem(server, f"{at} refuses the credentials: {told}", _CREDENTIALS[server])
    if kind == "untrusted":
        return Problem(server, f"{at} has a certificate that is not trusted: {told}", _TRUST[server])
    if not (isinstance(error, (TimeoutError, *_KAFKA_CONNECTIONS)) or servers.is_about_connection(error)):
        return Problem(server, f"{at}: {told}", "")
    context = ssl_context(settings) if server == _KAFKA else None
    with ThreadPoolExecutor(max(1, len(places))) as pool:
        answers = list(pool.map(lambda place: _ask(server, place, context, has_tls=has_tls), places))
    for answer in sorted(answers, key=lambda answer: answer.is_reached, reverse=True):
        if answer.cause:
            return Problem(server, _sentence(at, answer), answer.advice)
    if server == _KAFKA:
        if "bootstrap" in told.lower():
            what = f"{at} closes the connection; Kafka does so if credentials are missing or invalid"
            return Problem(server, what, _CREDENTIALS[server])
        advice = "Set the brokers' advertised.listeners to addresses that are reachable from here"
        return Problem(server, f"{at} answers, but a broker is not reachable at its advertised address", advice)
    return Problem(server, f"{at} can't be used: {told}", f"Is it running? Check {_VARIABLES[server]}")


def first_line(error: BaseException) -> str:
    """Return an error's message without the address and the driver's internal state."""
    return _PREFIX.sub("", with_address(error))


def with_address(error: BaseException) -> str:
    """Return an error's message without the driver's internal state; it may contain the address."""
    return _DETAILS.split(str(error).strip() or type(error).__name__, maxsplit=1)[0].rstrip(".")


def _sentence(at: str, answer: _Answer) -> str:
    return f"{at} {answer.cause}" if answer.is_reached else f"does not answer {at}: {answer.cause}"


def _places(server: str, settings: Settings) -> tuple[list[tuple[str, int]], bool]:
    """Return a server's addresses, and whether connections use TLS from the first byte."""
    if server == _KAFKA:
        places = []
        for broker in settings.kafka_brokers.split(","):
            # As aiokafka reads it: the default port is 9092.
            parts = urlsplit(f"//{broker.strip()}")
            places.append((parts.hostname or "", parts.port or 9092))
        return places, settings.kafka_security_protocol.endswith("SSL")
    url = {_MONGODB: settings.mongo_url, _POSTGRESQL: settings.postgres_url, _REDIS: settings.redis_url}[server]
    return servers.addresses(server, url.get_secret_value())


def _ask(server: str, place: tuple[str, int], context: ssl.SSLContext | None, *, has_tls: bool) -> _Answer:
    """Find out what answers at an address."""
    variable = _VARIABLES[server]
    try:
        said = _hear(place, _HTTP)
        if (other := _other(said)) not in (None, server):
            return _Answer(f"is {other}", f"Correct the address in {variable}")
        # PostgreSQL agrees on TLS by its own protocol, and says itself what it wants.
        if server == _POSTGRESQL or other == server:
            return _Answer("", "")
        speaks_tls = said[:2] == b"\x15\x03" or _speaks_tls(place, None)
        if not has_tls and speaks_tls:
            if _other(_hear(place, _HTTP, _lenient())) is not None:
                return _Answer("is a web server", f"Correct the address in {variable}")
            return _Answer("expects TLS", _WITH_TLS[server])
        if has_tls and not speaks_tls:
            return _Answer("does not speak TLS", _WITHOUT_TLS[server])
        if context is not None:
            _speaks_tls(place, context)
        if server == _KAFKA and _hear(place, _API_VERSIONS, context)[4:8] != struct.pack(">i", 17):
            return _Answer("does not answer as Kafka does", f"Correct the address in {variable}")
    except ssl.SSLCertVerificationError as error:
        return _Answer(f"has a certificate that is not trusted: {error.verify_message}", _TRUST[server])
    except socket.gaierror:
        return _Answer(f"the host name {place[0]} is not known", f"Correct {variable}", is_reached=False)
    except ConnectionRefusedError:
        return _Answer("connection refused", f"Is it running? Check {variable}", is_reached=False)
    except TimeoutError:
        advice = f"Is it running, and does a firewall allow the connection? Check {variable}"
        return _Answer(f"no connection within {_TIMEOUT_SECONDS:.0f} s", advice, is_reached=False)
    except OSError as error:
        cause = (error.strerror or type(error).__name__).lower()
        return _Answer(cause, f"Is it running? Check {variable}", is_reached=False)
    return _Answer("", "")


def _other(said: bytes) -> str | None:
    """Return the kind of server by its answer to an HTTP request; `None` if unknown."""
    if b"MongoDB" in said:
        return _MONGODB
    if said.startswith(b"HTTP/"):
        return "a web server"
    if said.startswith((b"-ERR ", b"-NOAUTH ", b"-DENIED ")):
        return _REDIS
    return None


def _hear(place: tuple[str, int], request: bytes, context: ssl.SSLContext | None = None) -> bytes:
    """Return the first bytes of an answer; empty if there is none or the connection is closed.

    Raises:
        OSError: The connection is not accepted.
    """
    with socket.create_connection(place, _TIMEOUT_SECONDS) as plain:
        try:
            with context.wrap_socket(plain, server_hostname=place[0]) if context else plain as connection:
                connection.settimeout(_ANSWER_SECONDS)
                connection.sendall(request)
                return connection.recv(256)
        except OSError:
            return b""


def _speaks_tls(place: tuple[str, int], context: ssl.SSLContext | None) -> bool:
    """Whether an address speaks TLS.

    Raises:
        ssl.SSLCertVerificationError: The context does not trust its certificate.
        OSError: The connection is not accepted.
    """
    with socket.create_connection(place, _TIMEOUT_SECONDS) as plain:
        plain.settimeout(_ANSWER_SECONDS)
        try:
            with (context or _lenient()).wrap_socket(plain, server_hostname=place[0]):
                return True
        except ssl.SSLCertVerificationError:
            raise
        except OSError:
            return False


def _lenient() -> ssl.SSLContext:
    """Return a context that accepts every certificate; nothing secret is sent over it."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    return context
