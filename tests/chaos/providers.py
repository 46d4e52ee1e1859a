"""Run providers on loopback that fail in every way there is, and record what they accepted.

Input: messages.
Output: the replies of each provider's contract, and a `Take` for each accepted message: when, from which worker, and
whether the response was lost. What happens to a message follows from the seed, its key and the number of the attempt,
so it does not depend on who is faster. Some messages kill the worker that sends them.
"""

import asyncio
import base64
import json
import ssl
import time
from collections import Counter, defaultdict
from collections.abc import Callable, Mapping
from contextlib import AsyncExitStack
from dataclasses import dataclass
from datetime import UTC, datetime
from enum import Enum
from pathlib import Path
from random import Random
from typing import Any, Self

from aiohttp import web
from aiosmtpd.smtp import SMTP, Envelope, Session
from cryptography.hazmat.primitives.asymmetric import ec

from dev.providers import apns, fcm
from dev.providers.apns import ApnsServer
from dev.providers.fcm import FcmServer
from dev.providers.http2 import LoopbackServer, Mishap, Reply, Request
from dev.providers.mailgun import MailgunServer
from dev.providers.sendgrid import SendGridServer
from dev.providers.server import AcceptedEmail, Answer, EmailServer, Fault, HttpEmailServer
from dev.providers.smtp import SmtpServer
from dev.providers.web_push import PushService
from tests.chaos.fast_settings import NAME
from tests.chaos.workers import Workers

KEY, DOMAIN = "chaos", "mg.blog.example"
_AT_ONCE_SECONDS = 0.002


class Kill(Enum):
    """When a provider kills the worker that sends it a message."""

    BEFORE_TAKING = "just before the provider took it"
    AFTER_TAKING = "once the provider took it"
    AFTER_ANSWERING = "once the provider answered"


Trouble = Fault | Kill

WEIGHTS: Mapping[Trouble, float] = {
    Fault.FAIL: 10,
    Fault.THROTTLE: 5,
    Fault.CLOSE_BEFORE: 4,
    Fault.CLOSE_AFTER: 4,
    Fault.REFUSE: 2,
    Fault.REFUSE_RECIPIENT: 1,
    Fault.HANG: 1,
    Fault.REJECT_US: 0.6,
    Kill.BEFORE_TAKING: 0.4,
    Kill.AFTER_TAKING: 0.6,
    Kill.AFTER_ANSWERING: 0.6,
}
"""How often each fault occurs, relative to the others."""


@dataclass(frozen=True, slots=True)
class Take:
    """A message that a provider accepted.

    Attributes:
        key: The message's key.
        provider: The provider's name.
        provider_id: The provider's id of the message.
        at: When, in seconds since 1970.
        worker: The process that sent it; it may be dead by now.
        answered: Whether the provider sent its response.
    """

    key: str
    provider: str
    provider_id: str | None
    at: float
    worker: int
    answered: bool


class Providers:
    """All providers.

    Args:
        seed: Decides which message meets which fault.
        share: The share of messages that meet a fault.
        directory: For key files.

    Attributes:
        workers: Who sends messages; set before the first is sent.
        share: See above; 0 ends all faults.
        takes: The accepted messages, by key.
        met: How often each fault occurred.
        refused: Messages that were refused although no fault was planned: each in a sentence.
        at_work: Since when each worker sends messages, by the monotonic clock.
        on_take: Is called with each accepted message.
    """

    def __init__(self, seed: int, share: float, directory: Path) -> None:
        self.workers = Workers(())
        self.share = share
        self.takes: defaultdict[str, list[Take]] = defaultdict(list)
        self.met: Counter[str] = Counter()
        self.refused: list[str] = []
        self.at_work: dict[int, float] = {}
        self.on_take: Callable[[Take], None] = lambda _: None
        self._seed = seed
        self._directory = directory
        self._attempts: Counter[str] = Counter()
        self._stack = AsyncExitStack()
        self._sendgrid = _SendGrid(KEY)
        self._mailgun = _Mailgun(KEY, DOMAIN)
        self._smtp = _Smtp()
        self._fcm, self._apns, self._push_service = FcmServer(), _Apns(), PushService()

    async def __aenter__(self) -> Self:
        """Start all servers."""
        emails: Mapping[str, EmailServer] = {
            "sendgrid": self._sendgrid,
            "mailgun": self._mailgun,
            "smtp": self._smtp,
        }
        for name, server in emails.items():
            server.plan = self._plan(name, server)
            await self._stack.enter_async_context(server)
        pushes: Mapping[str, LoopbackServer] = {
            "fcm": self._fcm,
            "apns": self._apns,
            "web-push": self._push_service,
        }
        for name, push_server in pushes.items():
            push_server.script = self._script(name, push_server)
            await self._stack.enter_async_context(push_server)
        return self

    async def __aexit__(self, *_: object) -> None:
        """Stop all servers."""
        await self._stack.aclose()

    def subscribe(self) -> str:
        """Return the subscription of another browser."""
        return self._push_service.subscribe()

    def environment(self) -> dict[str, str]:
        """The settings with which a worker uses these servers."""
        account, key, trusted = (self._directory / name for name in ("fcm.json", "apns.p8", "trusted.pem"))
        account.write_text(json.dumps(self._fcm.service_account))
        key.write_text(self._apns.key)
        context = self._apns.certificate.client_context()
        trusted.write_text("".join(map(ssl.DER_cert_to_PEM_cert, context.get_ca_certs(binary_form=True))))
        vapid = ec.generate_private_key(ec.SECP256R1()).private_numbers().private_value.to_bytes(32)
        return {
            "INKSTREAM_SENDGRID_API_KEY": KEY,
            "INKSTREAM_SENDGRID_URL": self._sendgrid.url,
            "INKSTREAM_MAILGUN_API_KEY": KEY,
            "INKSTREAM_MAILGUN_DOMAIN": DOMAIN,
            "INKSTREAM_MAILGUN_URL": self._mailgun.url,
            "INKSTREAM_SMTP_URL": f"smtp://{self._smtp.host}:{self._smtp.port}",
            "INKSTREAM_PUSH_FILE": "",
            "INKSTREAM_FCM_SERVICE_ACCOUNT_FILE": str(account),
            "INKSTREAM_FCM_URL": self._fcm.url,
            "INKSTREAM_APNS_KEY_FILE": str(key),
            "INKSTREAM_APNS_KEY_ID": apns.KEY_ID,
            "INKSTREAM_APNS_TEAM_ID": apns.TEAM_ID,
            "INKSTREAM_APNS_TOPIC": apns.TOPIC,
            "INKSTREAM_APNS_URL": self._apns.url,
            "INKSTREAM_WEB_PUSH_PRIVATE_KEY": base64.urlsafe_b64encode(vapid).rstrip(b"=").decode(),
            "INKSTREAM_WEB_PUSH_SUBJECT": "mailto:news@blog.example",
            "SSL_CERT_FILE": str(trusted),
        }

    def _plan(self, name: str, server: Any) -> Callable[[AcceptedEmail], Answer]:
        """Return how an e-mail server responds to messages."""

        def answer(email: AcceptedEmail) -> Answer:
            trouble = self._meet(name, email.key)
            worker = self._worker(server.client)
            fault = trouble if isinstance(trouble, Fault) else self._kill(worker, trouble)
            if fault in (None, Fault.CLOSE_AFTER):
                self._take(Take(email.key, name, email.provider_id, time.time(), worker, fault is None))
            return fault

        return answer

    def _script(self, name: str, server: LoopbackServer) -> Callable[[Request], Reply | Mishap | None]:
        """Return how a push server responds to messages."""

        def act(request: Request) -> Reply | Mishap | None:
            key = _key_of(name, request)
            trouble = self._meet(name, key)
            worker = self._worker(request.headers["user-agent"])
            fault = trouble if isinstance(trouble, Fault) else self._kill(worker, trouble)
            if fault not in (None, Fault.CLOSE_AFTER):
                return _REFUSALS[name][fault]
            reply = server.answer(request)
            if reply.status < 300:
                self._take(Take(key, name, _id_of(name, reply), time.time(), worker, fault is None))
            else:
                self.refused.append(f"{name} refuses what {worker} gives it: {reply.status} {reply.body[:200]!r}")
            return Mishap.CLOSE if fault else reply

        return act

    def _meet(self, provider: str, key: str) -> Trouble | None:
        self._attempts[key] += 1
        chance = Random(f"{self._seed} {key} {self._attempts[key]}")
        if chance.random() >= self.share:
            return None
        [trouble] = chance.choices(list(WEIGHTS), list(WEIGHTS.values()))
        self.met[trouble.name.lower().replace("_", " ")] += 1
        return trouble

    def _kill(self, worker: int, when: Kill | None) -> Fault | None:
        """Kill the worker; return the fault that its message meets."""
        if when is None:
            return None
        if when is Kill.AFTER_ANSWERING:
            asyncio.get_running_loop().call_later(_AT_ONCE_SECONDS, self.workers.kill, worker, when.value)
            return None
        self.workers.kill(worker, when.value)
        return Fault.CLOSE_AFTER if when is Kill.AFTER_TAKING else Fault.CLOSE_BEFORE

    def _worker(self, name: str) -> int:
        """Return the process with this name, and note that it sends messages."""
        worker = int(name.removeprefix(NAME.format("")))
        if self.workers.has(worker):
            self.at_work.setdefault(worker, time.monotonic())
        return worker

    def _take(self, take: Take) -> None:
        self.takes[take.key].append(take)
        self.on_take(take)


class _OverHttp(HttpEmailServer):
    """Knows the sender of a message before it decides about it."""

    client = ""

    async def read(self, request: web.Request) -> AcceptedEmail:
        email = await super().read(request)
        self.client = request.headers["User-Agent"]
        return email


class _SendGrid(_OverHttp, SendGridServer):
    pass


class _Mailgun(_OverHttp, MailgunServer):
    pass


class _Smtp(SmtpServer):
    client = ""

    async def handle_DATA(self, server: SMTP, session: Session, envelope: Envelope) -> str:  # noqa: N802
        self.client = session.host_name or ""
        return await super().handle_DATA(server, session, envelope)


class _Apns(ApnsServer):
    """Accepts the tokens of many workers, each of which makes its own as it starts."""

    def answer(self, request: Request) -> Reply:
        self._last_made = datetime.min.replace(tzinfo=UTC)
        return super().answer(request)


def _key_of(provider: str, request: Request) -> str:
    match provider:
        case "fcm":
            tag: str = json.loads(request.body)["message"]["android"]["notification"]["tag"]
            return tag
        case "apns":
            return request.headers["apns-collapse-id"]
        case _:
            return request.headers["topic"]


def _id_of(provider: str, reply: Reply) -> str | None:
    match provider:
        case "fcm":
            name: str = json.loads(reply.body)["name"]
            return name
        case "apns":
            return reply.headers["apns-id"]
        case _:
            return reply.headers["location"]


_WAIT = {"retry-after": "1"}
_LOST: Mapping[Fault | None, Reply | Mishap] = {Fault.HANG: Mishap.HANG, Fault.CLOSE_BEFORE: Mishap.CLOSE}
_REFUSALS: Mapping[str, Mapping[Fault | None, Reply | Mishap]] = {
    "fcm": {
        **_LOST,
        Fault.FAIL: fcm.refusal(503, "UNAVAILABLE", "The service is overloaded.", code="UNAVAILABLE"),
        Fault.THROTTLE: fcm.refusal(429, "RESOURCE_EXHAUSTED", "Quota exceeded.", code="QUOTA_EXCEEDED", headers=_WAIT),
        Fault.REFUSE: fcm.refusal(400, "INVALID_ARGUMENT", "Invalid value.", field="message.notification.title"),
        Fault.REFUSE_RECIPIENT: fcm.refusal(404, "NOT_FOUND", "Not found.", code="UNREGISTERED"),
        Fault.REJECT_US: fcm.refusal(403, "PERMISSION_DENIED", "The caller does not have permission"),
    },
    "apns": {
        **_LOST,
        Fault.FAIL: apns.refusal(503, "ServiceUnavailable"),
        Fault.THROTTLE: apns.refusal(429, "TooManyRequests", _WAIT),
        Fault.REFUSE: apns.refusal(413, "PayloadTooLarge"),
        Fault.REFUSE_RECIPIENT: apns.refusal(410, "Unregistered"),
        Fault.REJECT_US: apns.refusal(403, "InvalidProviderToken"),
    },
    "web-push": {
        **_LOST,
        Fault.FAIL: Reply(500),
        Fault.THROTTLE: Reply(429, headers=_WAIT),
        Fault.REFUSE: Reply(413),
        Fault.REFUSE_RECIPIENT: Reply(410),
        Fault.REJECT_US: Reply(403),
    },
}
