"""A real HTTP server on loopback, by HTTP/1.1 and HTTP/2, that can be told to fail.

Input: requests. Output: the replies of a provider's contract, or those of a script. Hypercorn speaks the protocols. All
is in memory and gone with the server.
"""

import asyncio
import contextlib
import json
import ssl
import tempfile
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from enum import Enum
from ipaddress import ip_address
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from hypercorn.asyncio.tcp_server import TCPServer
from hypercorn.asyncio.worker_context import WorkerContext
from hypercorn.config import Config
from hypercorn.typing import ASGIReceiveCallable, ASGISendCallable, Scope
from hypercorn.utils import wrap_app

_HOST = "127.0.0.1"
_IDLE_SECONDS = 60
_END_SECONDS = 1.0


@dataclass(frozen=True, slots=True)
class Request:
    """What a client asked.

    Attributes:
        method: In capitals.
        path: Without the query.
        headers: Names in lower case; of a repeated header the last.
        body: The whole.
        http_version: `1.1` or `2`.
    """

    method: str
    path: str
    headers: Mapping[str, str]
    body: bytes = field(repr=False)
    http_version: str


@dataclass(frozen=True, slots=True)
class Reply:
    """What a client is answered."""

    status: int
    body: bytes = b""
    headers: Mapping[str, str] = field(default_factory=dict)


class Mishap(Enum):
    """What can happen instead of an answer."""

    HANG = "the connection stays open, and nothing comes until the client closes it"
    CLOSE = "the connection is closed"


Act = Reply | Mishap
Script = Callable[[Request], Act | None] | list[Act]
"""What to do instead of a provider's work: said for each request (`None`: the work), or in order until none is left."""


def json_reply(status: int, content: Any, headers: Mapping[str, str] | None = None) -> Reply:  # noqa: ANN401
    """Make a reply of JSON."""
    return Reply(status, json.dumps(content).encode(), {"content-type": "application/json", **(headers or {})})


class Certificate:
    """A certificate for 127.0.0.1 and localhost, made on the spot and good for a day."""

    def __init__(self) -> None:
        key = ec.generate_private_key(ec.SECP256R1())
        name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "localhost")])
        now = datetime.now(UTC)
        certificate = (
            x509.CertificateBuilder()
            .subject_name(name)
            .issuer_name(name)
            .public_key(key.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(now - timedelta(hours=1))
            .not_valid_after(now + timedelta(days=1))
            .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
            .add_extension(
                x509.SubjectAlternativeName([x509.DNSName("localhost"), x509.IPAddress(ip_address(_HOST))]),
                critical=False,
            )
            .sign(key, SHA256())
        )
        self._key = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
        self._certificate = certificate.public_bytes(Encoding.PEM)

    def server_context(self) -> ssl.SSLContext:
        """Make what a server needs, with HTTP/2 offered first."""
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.set_alpn_protocols(["h2", "http/1.1"])
        with tempfile.TemporaryDirectory() as directory:
            path = Path(directory, "server.pem")
            path.write_bytes(self._key + self._certificate)
            context.load_cert_chain(path)
        return context

    def client_context(self) -> ssl.SSLContext:
        """Make what a client needs to trust this certificate, and no other."""
        return ssl.create_default_context(cadata=self._certificate.decode())


class LoopbackServer(ABC):
    """A server on a free port of 127.0.0.1, for as long as its `async with` lasts.

    Args:
        certificate: Makes it speak TLS; `None` for plain text.

    Attributes:
        script: What to do instead of the provider's work.
        requests: All that came, in order; also those which the script dealt with.
        connections: How many were made.
    """

    def __init__(self, certificate: Certificate | None = None) -> None:
        self.script: Script = []
        self.requests: list[Request] = []
        self.connections = 0
        self._certificate = certificate
        self._server: asyncio.Server | None = None
        self._open: dict[asyncio.Task[Any], asyncio.StreamWriter] = {}
        self._context = WorkerContext(None)
        self._config = Config()
        self._config.errorlog = None
        self._config.keep_alive_timeout = _IDLE_SECONDS

    @abstractmethod
    def answer(self, request: Request) -> Reply:
        """Do the provider's work."""

    @property
    def url(self) -> str:
        """Where it is: scheme, address and port."""
        assert self._server, "it is not started"
        port = self._server.sockets[0].getsockname()[1]
        return f"{'https' if self._certificate else 'http'}://{_HOST}:{port}"

    async def __aenter__(self) -> Self:
        """Listen."""
        context = self._certificate.server_context() if self._certificate else None
        self._server = await asyncio.start_server(self._serve, _HOST, 0, ssl=context)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        """Close the port and all connections."""
        assert self._server
        self._server.close()
        await self._context.terminated.set()  # ends the wait of idle connections
        for writer in self._open.values():
            writer.transport.abort()
        if self._open:
            # Of a connection that was closed amid a request, Hypercorn's tasks may wait for ever.
            _, waiting = await asyncio.wait([*self._open], timeout=_END_SECONDS)
            for task in waiting:
                task.cancel()
            await asyncio.gather(*waiting, return_exceptions=True)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        task = asyncio.current_task()
        assert task
        self._open[task] = writer

        async def application(scope: Scope, receive: ASGIReceiveCallable, send: ASGISendCallable) -> None:
            request = await _read(scope, receive)
            if request is None:
                return
            self.requests.append(request)
            match self._act(request):
                case Mishap.HANG:
                    while (await receive())["type"] != "http.disconnect":
                        pass
                case Mishap.CLOSE:
                    writer.transport.abort()
                case Reply() as reply:
                    await _write(reply, send)

        try:
            with contextlib.suppress(OSError):
                loop = asyncio.get_running_loop()
                wrapped = wrap_app(application, self._config.wsgi_max_body_size, "asgi")
                await TCPServer(wrapped, loop, self._config, self._context, {}, reader, writer)
        finally:
            del self._open[task]

    def script_for(self, request: Request) -> Script:
        """Return the script that a request is subject to."""
        return self.script

    def _act(self, request: Request) -> Act:
        script = self.script_for(request)
        if callable(script):
            return script(request) or self.answer(request)
        return script.pop(0) if script else self.answer(request)


async def _read(scope: Scope, receive: ASGIReceiveCallable) -> Request | None:
    """Return a request; `None` where its sender went away before it was whole."""
    assert scope["type"] == "http"
    body = b""
    while True:
        event = await receive()
        if event["type"] != "http.request":
            return None
        body += event.get("body", b"")
        if not event.get("more_body"):
            break
    headers = {name.decode().lower(): value.decode() for name, value in scope["headers"]}
    return Request(scope["method"], scope["path"], headers, body, scope["http_version"])


async def _write(reply: Reply, send: ASGISendCallable) -> None:
    headers = {"content-length": str(len(reply.body)), **reply.headers}
    raw = [(name.encode(), value.encode()) for name, value in headers.items()]
    await send({"type": "http.response.start", "status": reply.status, "headers": raw})
    await send({"type": "http.response.body", "body": reply.body, "more_body": False})
