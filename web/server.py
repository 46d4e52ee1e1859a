"""The worker's web server: Faust's, with limits that keep clients from blocking the worker.

Input: requests from any client that reaches the port. Output: requests within the limits reach a page, each with its
whole body; all others are refused, counted and disconnected. Nothing is decompressed, and a body is read before its
page is called, so pages only see requests whose size and time are bounded.

A connection is for one request. It waits for its client until the whole request is there, and again until the client
has read the response. When there are too many connections, the one that has waited longest is closed: so a new request
is answered even while others hold all connections open.
"""

import asyncio
import resource
from collections.abc import Awaitable, Callable
from datetime import timedelta
from functools import partial
from typing import Any

from aiohttp.web import (
    Application,
    HTTPException,
    HTTPRequestEntityTooLarge,
    HTTPRequestTimeout,
    HTTPUnsupportedMediaType,
    Request,
    RequestHandler,
    Server,
    StreamResponse,
    middleware,
)
from faust.types import AppT

from runtime.metrics import WEB_CONNECTIONS, WEB_REFUSED
from runtime.patches.aiohttp import Runner
from runtime.patches.faust import Web

CONNECTIONS = 128
"""Most connections at once, and at most an eighth of the files that the process may open; each may hold a body."""

LARGEST_BODY = 2**20
"""Bytes. SendGrid posts 768 KB at most, Amazon SNS 256 KB."""

HEADERS_WITHIN = timedelta(seconds=10)
"""From the connection to the end of its first request's headers."""

BODY_WITHIN = timedelta(seconds=10)

RESPONSE_WITHIN = timedelta(seconds=10)
"""How long a client may take to read its response."""

_LINGER = timedelta(seconds=1)
"""How long the rest of a refused body is read, so that the client sees the response in place of a reset."""

_STOP_WITHIN = timedelta(seconds=5)
_TOO_SLOW = b"HTTP/1.1 408 Request Timeout\r\nConnection: close\r\nContent-Length: 0\r\n\r\n"

_REASONS = {408: "too-slow", 413: "too-large", 415: "compressed"}

_Handler = Callable[[Request], Awaitable[StreamResponse]]


class WebServer(Web):
    """Faust's web server with limits, and without Faust's own pages."""

    default_blueprints = ()
    production_blueprints = ()

    def __init__(self, app: AppT, **kwargs: Any) -> None:
        super().__init__(app, **kwargs)
        self.web_app = Application(client_max_size=LARGEST_BODY, middlewares=[self._one_whole_request])
        self._runner = Runner(
            self.web_app,
            _Connections,
            access_log=None,
            auto_decompress=False,
            lingering_time=_LINGER.total_seconds(),
            shutdown_timeout=_STOP_WITHIN.total_seconds(),
        )

    @middleware
    async def _one_whole_request(self, request: Request, handler: _Handler) -> StreamResponse:
        """Call the page once the whole request is there; the connection ends with the response.

        Raises:
            HTTPException: There is no such page, or the request is compressed, too large or too slow.
        """
        connections = self._runner.server
        assert isinstance(connections, _Connections)
        try:
            await _read_body(request, connections)
            connections.works(request.protocol)
            response = await handler(request)
        except HTTPException as refusal:
            if refusal.status in _REASONS:
                WEB_REFUSED.labels(_REASONS[refusal.status]).inc()
            refusal.force_close()
            raise
        else:
            response.force_close()
            return response
        finally:
            connections.waits(request.protocol, RESPONSE_WITHIN)


async def _read_body(request: Request, connections: "_Connections") -> None:
    if not request.body_exists or request.match_info.http_exception is not None:
        return  # nothing to read, or no page to read it for
    if request.headers.get("Content-Encoding", "identity").strip().lower() != "identity":
        raise HTTPUnsupportedMediaType(text="send it without Content-Encoding")
    if (request.content_length or 0) > LARGEST_BODY:
        raise HTTPRequestEntityTooLarge(LARGEST_BODY, request.content_length or 0)
    connections.waits(request.protocol, BODY_WITHIN + RESPONSE_WITHIN)
    try:
        async with asyncio.timeout(BODY_WITHIN.total_seconds()):
            await request.read()
    except TimeoutError:
        raise HTTPRequestTimeout(text=f"the body has to come within {BODY_WITHIN.seconds} s") from None


class _Connections(Server):
    """aiohttp's server, which knows what each connection waits for, and until when."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        files, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
        self._most = CONNECTIONS if files == resource.RLIM_INFINITY else max(1, min(CONNECTIONS, files // 8))
        self._open: dict[RequestHandler, asyncio.Transport] = {}
        # In the order in which they began to wait for their clients.
        self._waiting: dict[RequestHandler, asyncio.TimerHandle] = {}

    def connection_made(self, handler: RequestHandler, transport: asyncio.Transport) -> None:
        """Take a connection; where there are too many, close the one that has waited longest for its client."""
        super().connection_made(handler, transport)
        self._open[handler] = transport
        self.waits(handler, HEADERS_WITHIN, answer=_TOO_SLOW)
        if len(self._open) > self._most:
            WEB_REFUSED.labels("too-many").inc()
            self._drop(next(iter(self._waiting)))
        WEB_CONNECTIONS.set(len(self._open))

    def connection_lost(self, handler: RequestHandler, exc: BaseException | None = None) -> None:
        """Forget a connection."""
        self.works(handler)
        self._open.pop(handler, None)
        WEB_CONNECTIONS.set(len(self._open))
        super().connection_lost(handler, exc)

    def waits(self, handler: RequestHandler, within: timedelta, *, answer: bytes = b"") -> None:
        """Close the connection unless its client acts in time; a connection that already waits keeps its place."""
        if handler not in self._open:
            return
        if (timer := self._waiting.get(handler)) is not None:
            timer.cancel()
        late = partial(self._end_late, handler, answer)
        self._waiting[handler] = asyncio.get_running_loop().call_later(within.total_seconds(), late)

    def works(self, handler: RequestHandler) -> None:
        """Keep the connection: the worker has to act."""
        if (timer := self._waiting.pop(handler, None)) is not None:
            timer.cancel()

    def _end_late(self, handler: RequestHandler, answer: bytes) -> None:
        WEB_REFUSED.labels("too-slow").inc()
        if answer:  # nothing was written before it, so it goes out at once
            self._open[handler].write(answer)
            self._open[handler].close()
        else:
            self._drop(handler)

    def _drop(self, handler: RequestHandler) -> None:
        """Close the connection at once, whatever its client has not read yet."""
        self.works(handler)
        self._open.pop(handler).abort()
