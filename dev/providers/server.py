"""What the providers' servers share: what they keep, how they are told to fail, and how HTTP servers run.

Input: requests by the provider's contract. Output: its replies. Each request is checked as the provider would; a valid
one is kept, unless the plan says otherwise.
"""

import asyncio
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from enum import Enum, auto
from typing import Any, Self

from aiohttp import web

_HOST = "127.0.0.1"
_MEGABYTE = 2**20


@dataclass(frozen=True, slots=True)
class AcceptedEmail:
    """An e-mail that a provider took, whichever provider it was.

    Attributes:
        key: The idempotency key, as the provider's contract carries it.
        to: The recipient's address.
        sender: As the reader sees it, decoded.
        subject: Likewise.
        text: The plain part.
        html: The HTML part.
        headers: What was asked for beyond these, by name.
        metadata: Names and values for receipts, without the key.
        provider_id: What the server called it in its reply.
        accepted_at: When, in UTC.
        raw: The bytes that came.
    """

    key: str
    to: str
    sender: str
    subject: str
    text: str
    html: str
    headers: Mapping[str, str]
    metadata: Mapping[str, str]
    provider_id: str
    raw: bytes = field(repr=False)
    accepted_at: datetime = field(default_factory=lambda: datetime.now(UTC))


class Fault(Enum):
    """A way to fail that every provider has; each says it in its own words."""

    REFUSE = auto()
    """Will not have this message."""
    REFUSE_RECIPIENT = auto()
    """Knows no such recipient."""
    THROTTLE = auto()
    """Asks to wait."""
    FAIL = auto()
    """Is broken for the moment."""
    REJECT_US = auto()
    """Will not have anything from us."""
    HANG = auto()
    """Says nothing until it is stopped, and keeps nothing."""
    CLOSE_BEFORE = auto()
    """Ends the connection, and keeps nothing."""
    CLOSE_AFTER = auto()
    """Keeps the message, and ends the connection without a word."""


@dataclass(frozen=True, slots=True)
class Reply:
    """An HTTP reply in full, for what `Fault` does not have."""

    status: int
    body: Mapping[str, Any] | str = ""
    headers: Mapping[str, str] = field(default_factory=dict)


Answer = Fault | Reply | None
"""What to do with a message; `None` is to accept it."""
Plan = Callable[[AcceptedEmail], Answer] | Iterable[Answer]
"""Decides on each message; or the answers to the next ones in turn, after which all are accepted."""


class EmailServer:
    """Keeps what it accepts, and fails as planned.

    Attributes:
        accepted: In the order of their coming.
        plan: What to answer; may be set at any time.
        retry_after: How long it asks to wait when it throttles.
    """

    def __init__(self, plan: Plan = (), retry_after: timedelta = timedelta(seconds=2)) -> None:
        self.accepted: list[AcceptedEmail] = []
        self.retry_after = retry_after
        self.plan = plan
        self._stopping = asyncio.Event()

    @property
    def plan(self) -> Plan:
        """The plan as it was set."""
        return self._plan

    @plan.setter
    def plan(self, plan: Plan) -> None:
        self._plan = plan
        self._script: Iterator[Answer] = iter(()) if callable(plan) else iter(plan)

    def decide(self, email: AcceptedEmail) -> Answer:
        """Return what the plan has for a message."""
        return self._plan(email) if callable(self._plan) else next(self._script, None)

    async def __aenter__(self) -> Self:
        """Start."""
        await self.start()
        return self

    async def __aexit__(self, *_: object) -> None:
        """Stop."""
        await self.stop()

    async def start(self) -> None:
        """Listen on loopback; return when connections are taken."""
        raise NotImplementedError

    async def stop(self) -> None:
        """End all connections, and listen no more."""
        raise NotImplementedError


class Invalid(Exception):  # noqa: N818
    """A request that the provider would not accept.

    Attributes:
        reply: What it would say.
    """

    def __init__(self, reply: Reply) -> None:
        super().__init__(reply.status)
        self.reply = reply


class HttpEmailServer(EmailServer):
    """A provider with an HTTP API of one path.

    Args:
        plan: See `EmailServer`.
        retry_after: Likewise.
        port: Where to listen; 0 for any that is free.
    """

    def __init__(self, plan: Plan = (), retry_after: timedelta = timedelta(seconds=2), port: int = 0) -> None:
        super().__init__(plan, retry_after)
        self._port = port
        self._runner: web.AppRunner | None = None

    @property
    def url(self) -> str:
        """Where it listens: the provider's base URL."""
        return f"http://{_HOST}:{self._port}"

    async def start(self) -> None:
        """Listen on loopback; return when connections are taken."""
        application = web.Application(client_max_size=30 * _MEGABYTE)
        application.router.add_post(self.path(), self._handle)
        self._runner = web.AppRunner(application, access_log=None, shutdown_timeout=0.1)
        await self._runner.setup()
        await web.TCPSite(self._runner, _HOST, self._port).start()
        self._port = self._runner.addresses[0][1]

    async def stop(self) -> None:
        """End all connections, and listen no more."""
        self._stopping.set()
        if self._runner:
            await self._runner.cleanup()

    def path(self) -> str:
        """Return the path of the one request, as aiohttp's router has it."""
        raise NotImplementedError

    async def read(self, request: web.Request) -> AcceptedEmail:
        """Read a request.

        Raises:
            Invalid: If the provider would not take it.
        """
        raise NotImplementedError

    def acceptance(self, email: AcceptedEmail) -> Reply:
        """Return the reply to what was accepted."""
        raise NotImplementedError

    def refusal(self, fault: Fault, email: AcceptedEmail) -> Reply:
        """Return the reply to what is refused, throttled, failed or rejected."""
        raise NotImplementedError

    async def _handle(self, request: web.Request) -> web.Response:
        try:
            email = await self.read(request)
        except Invalid as error:
            return _response(error.reply)
        answer = self.decide(email)
        match answer:
            case None:
                self.accepted.append(email)
                return _response(self.acceptance(email))
            case Reply():
                return _response(answer)
            case Fault.HANG:
                await self._stopping.wait()
            case Fault.CLOSE_AFTER:
                self.accepted.append(email)
            case Fault.CLOSE_BEFORE:
                pass
            case _:
                return _response(self.refusal(answer, email))
        if request.transport:
            request.transport.abort()
        # Nobody is there to read it.
        return web.Response(status=500)


def _response(reply: Reply) -> web.Response:
    if isinstance(reply.body, str):
        return web.Response(status=reply.status, text=reply.body, headers=reply.headers)
    return web.json_response(dict(reply.body), status=reply.status, headers=reply.headers)
