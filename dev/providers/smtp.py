"""A mail server on loopback: SMTP (RFC 5321), with TLS, authentication and SMTPUTF8 if requested.

Input: messages; each is parsed as a mail reader would.
"""

import asyncio
import ssl
import warnings
from collections import defaultdict
from datetime import timedelta
from email import message_from_bytes
from email.header import decode_header, make_header
from email.message import EmailMessage
from email.policy import default as reader
from enum import StrEnum
from typing import Literal

from aiosmtpd.smtp import SMTP, AuthResult, Envelope, LoginPassword, Session

from dev.providers.server import AcceptedEmail, Answer, EmailServer, Fault, Plan, Reply

_HOST = "127.0.0.1"
_READ_OTHERWISE = {"from", "to", "subject", "content-type", "content-transfer-encoding", "mime-version"}


class Step(StrEnum):
    """A command that can be answered otherwise."""

    RSET = "RSET"
    MAIL = "MAIL"
    RCPT = "RCPT"


class SmtpServer(EmailServer):
    """Takes messages; of anybody, or of one user.

    Attributes:
        replies: What to answer to a command in place of `250`, the next times that it comes, each as `550 5.1.1 ...`.
            `Fault.CLOSE_BEFORE` ends the connection, and `Fault.HANG` lets it wait.
        mailboxes: What to answer to `RCPT` of these addresses, each time.
        connections: How many there have been.

    Args:
        plan: See `EmailServer`; what it decides is said when all of the message has come.
        retry_after: SMTP has no way to say it.
        port: Where to listen; 0 for any that is free.
        user: Name and password of the only one who may send; `None` for all.
        tls: The server's certificate.
        implicit: Whether TLS begins with the first byte; else after STARTTLS, which is demanded.
        unicode: Whether addresses outside ASCII are taken (RFC 6531).
    """

    def __init__(
        self,
        plan: Plan = (),
        retry_after: timedelta = timedelta(seconds=2),
        port: int = 0,
        *,
        user: tuple[str, str] | None = None,
        tls: ssl.SSLContext | None = None,
        implicit: bool = False,
        unicode: bool = True,
    ) -> None:
        super().__init__(plan, retry_after)
        self.port = port
        self.replies: defaultdict[Step, list[str | Fault]] = defaultdict(list)
        self.mailboxes: dict[str, str] = {}
        self.connections = 0
        self._user = user
        self._tls = tls
        self._implicit = implicit
        self._unicode = unicode
        self._server: asyncio.Server | None = None
        self._open: set[_Conversation] = set()

    @property
    def host(self) -> str:
        """Where it listens."""
        return _HOST

    async def start(self) -> None:
        """Listen on loopback; return when connections are taken."""
        context = self._tls if self._implicit else None
        self._server = await asyncio.get_running_loop().create_server(self._begin, _HOST, self.port, ssl=context)
        self.port = self._server.sockets[0].getsockname()[1]

    async def stop(self) -> None:
        """End all connections, and listen no more."""
        self._stopping.set()
        if self._server:
            self._server.close()
        self.drop_connections()

    def drop_connections(self) -> None:
        """End all connections, as a server does with those that are silent."""
        for conversation in set(self._open):
            conversation.drop()

    def _begin(self) -> "_Conversation":
        with warnings.catch_warnings():
            # It warns of passwords without TLS, which is how it should be tried.
            warnings.simplefilter("ignore", UserWarning)
            conversation = _Conversation(
                self,
                hostname="mail.example",
                enable_SMTPUTF8=self._unicode,
                tls_context=None if self._implicit else self._tls,
                require_starttls=self._tls is not None and not self._implicit,
                authenticator=self._authenticate,
                auth_required=self._user is not None,
                auth_require_tls=False,
                loop=asyncio.get_running_loop(),
            )
        self.connections += 1
        self._open.add(conversation)
        return conversation

    def _authenticate(
        self, server: SMTP, session: Session, envelope: Envelope, mechanism: str, data: object
    ) -> AuthResult:
        right = isinstance(data, LoginPassword) and self._user == (data.login.decode(), data.password.decode())
        return AuthResult(success=right, handled=False)

    async def handle_RSET(self, server: SMTP, session: Session, envelope: Envelope) -> str:  # noqa: N802
        """Forget what was said."""
        return await self._reply(Step.RSET, server) or "250 2.0.0 OK"

    async def handle_MAIL(  # noqa: N802
        self, server: SMTP, session: Session, envelope: Envelope, address: str, options: list[str]
    ) -> str:
        """Take the sender."""
        if reply := await self._reply(Step.MAIL, server):
            return reply
        envelope.mail_from = address
        envelope.mail_options.extend(options)
        return "250 2.1.0 OK"

    async def handle_RCPT(  # noqa: N802
        self, server: SMTP, session: Session, envelope: Envelope, address: str, options: list[str]
    ) -> str:
        """Take the recipient."""
        if reply := self.mailboxes.get(address) or await self._reply(Step.RCPT, server):
            return reply
        envelope.rcpt_tos.append(address)
        envelope.rcpt_options.extend(options)
        return "250 2.1.5 OK"

    async def handle_DATA(self, server: SMTP, session: Session, envelope: Envelope) -> str:  # noqa: N802
        """Take the message, or not, as planned."""
        email = _read(envelope)
        answer: Answer = self.decide(email)
        match answer:
            case None:
                self.accepted.append(email)
                return f"250 2.0.0 OK: queued as {email.key[:10]}"
            case Reply():
                return f"{answer.status} {answer.body}"
            case Fault.CLOSE_AFTER:
                self.accepted.append(email)
                return await self._end(server)
            case Fault.CLOSE_BEFORE:
                return await self._end(server)
            case Fault.HANG:
                await self._stopping.wait()
                return await self._end(server)
            case _:
                return _REFUSALS[answer].format(to=email.to, subject=email.subject)

    async def _reply(self, step: Step, server: SMTP) -> str | None:
        if not self.replies[step]:
            return None
        reply = self.replies[step].pop(0)
        if reply is Fault.HANG:
            await self._stopping.wait()
        return reply if isinstance(reply, str) else await self._end(server)

    async def _end(self, server: SMTP) -> str:
        if isinstance(server.transport, asyncio.Transport):
            server.transport.abort()
        # The conversation's task is cancelled when the connection is lost, which is at the next turn of the loop.
        await asyncio.Event().wait()
        raise AssertionError

    def forget(self, conversation: "_Conversation") -> None:
        """Take note that a connection has ended."""
        self._open.discard(conversation)


class _Conversation(SMTP):
    def connection_lost(self, error: Exception | None) -> None:
        self.event_handler.forget(self)
        super().connection_lost(error)

    def drop(self) -> None:
        if isinstance(self.transport, asyncio.Transport):
            self.transport.abort()


_REFUSALS = {
    Fault.REFUSE: "554 5.6.0 The subject is not to our taste: {subject}",
    Fault.REFUSE_RECIPIENT: "550 5.1.1 <{to}>: there is nobody of this name",
    Fault.THROTTLE: "450 4.7.28 Too many messages from you; slow down",
    Fault.FAIL: "451 4.3.0 Local error in processing",
    Fault.REJECT_US: "530 5.7.0 Authentication required",
}


def _read(envelope: Envelope) -> AcceptedEmail:
    raw = envelope.original_content or b""
    message = message_from_bytes(raw, _class=EmailMessage, policy=reader)
    message_id = str(message["Message-ID"]).strip("<>")
    return AcceptedEmail(
        key=message_id.partition("@")[0],
        to=envelope.rcpt_tos[0],
        sender=_header(message, "From"),
        subject=_header(message, "Subject"),
        text=_part(message, "plain"),
        html=_part(message, "html"),
        headers={name: str(value) for name, value in message.items() if name.lower() not in _READ_OTHERWISE},
        metadata={},
        provider_id=message_id,
        raw=raw,
    )


def _header(message: EmailMessage, name: str) -> str:
    # Not by the reader's own way, which leaves the space between two encoded words in a name (RFC 2047, section 6.2).
    written = next((str(value) for at, value in message.raw_items() if at.lower() == name.lower()), "")
    return str(make_header(decode_header(written)))


def _part(message: EmailMessage, kind: Literal["plain", "html"]) -> str:
    part = message.get_body((kind,))
    return str(part.get_content()).replace("\r\n", "\n") if part else ""
