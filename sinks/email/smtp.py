"""SMTP: any mail server that takes messages for delivery.

In comes an e-mail; out goes what the server replied. Connections are kept for the next e-mail; whatever goes wrong on
one ends it. SMTP knows no idempotency: what is given twice is sent twice, with the same `Message-ID`, by which some
mailboxes show it once.
"""

import asyncio
import re
import ssl
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from email.message import EmailMessage
from email.policy import EmailPolicy
from email.utils import format_datetime
from enum import Enum
from typing import Literal, NamedTuple

import aiosmtplib
from pydantic import SecretStr

from notifications.messages import Email
from notifications.outcome import Failed, Misconfigured, Outcome, Refused, Sent, Throttled
from sinks.email.addresses import (
    Envelope,
    address,
    encodable,
    encode,
    one_line,
    unsubscribe_headers,
    without_personal,
)
from sinks.http import TIMEOUT

Tls = Literal["none", "starttls", "implicit"]

_LINE_BREAK = "\r\n"
_LEFT_OPEN = re.compile(r"\r(?!\n)|\n(?![ \t])")
_COURTESY_SECONDS = 1.0
# Exim, for one, takes 1,000 by default and then says 421, which is no reason to slow down.
_LETTERS_A_CONNECTION = 100
_FIRST_FAULT, _FIRST_PERMANENT, _CLOSING, _TOO_LARGE = 400, 500, 421, 552
_ENHANCED = re.compile(r"[245]\.(\d{1,3}\.\d{1,3})\b")

# RFC 4954, section 6: authentication is required, too weak, failed, or needs encryption.
_OF_AUTHENTICATION = {530, 534, 535, 538}
# RFC 3463, section 3.2: bad mailbox, system or syntax, ambiguous, moved; section 3.3: disabled. RFC 7505: null MX.
_GONE = {"1.1", "1.2", "1.3", "1.4", "1.6", "1.10", "2.1"}
# RFC 3463, section 3.2: the sender's syntax or system.
_OF_SENDER = {"1.7", "1.8"}
# RFC 3463, section 3.3: "a persistent transient failure", as its owner can make room; said with 552 all the same.
_FULL = "2.2"
# No code of RFC 3463 says "too much from you". Near it are congestion (section 3.5) and, in the registry of RFC 5248,
# a flood of mail; servers also close the connection for policy (421 4.7.x), or say it in words, as Amazon's
# "454 Throttling failure". Greylisting (451 4.7.1) is not meant: it concerns one recipient.
_CROWDED = {"4.5", "7.28"}
_SLOW_DOWN = re.compile(
    r"throttl|\brate\b|slow down|too (?:fast|quickly)|too many (?:connections|e?mails|messages|requests|sessions)"
    r"|(?:daily|hourly|message|sending) (?:limit|quota)",
    re.IGNORECASE,
)
_NO_RELAY = re.compile(r"\brelay", re.IGNORECASE)


class _Step(Enum):
    """How far the conversation is. From `DATA` on the server can have the message."""

    CONNECT = 1
    MAIL = 2
    RCPT = 3
    DATA = 4


class _Letter(NamedTuple):
    message: Email
    envelope: Envelope
    message_id: str
    content: bytes


@dataclass
class _Connection:
    client: aiosmtplib.SMTP
    letters: int = 0


class Smtp:
    """Sends e-mails by SMTP (RFC 5321).

    Args:
        host: The server's name, which its certificate is held against.
        port: Mostly 587 for `starttls`, and 465 for `implicit`.
        username: `None` where the server asks for none.
        password: The user's.
        tls: `starttls` demands that the server begins TLS; `implicit` has it from the first byte.
        timeout: For one e-mail, with all that it takes.
    """

    name = "smtp"
    may_repeat = True

    def __init__(
        self,
        host: str,
        port: int,
        username: str | None = None,
        password: SecretStr | None = None,
        *,
        tls: Tls,
        timeout: timedelta = TIMEOUT,
    ) -> None:
        self._host = host
        self._port = port
        self._username = username
        self._password = password
        self._tls = tls
        self._timeout = timeout
        self._idle: list[_Connection] = []

    async def send(self, message: Email) -> Outcome:
        """Hand an e-mail over. What the provider calls it is its `Message-ID`, which a bounce names."""
        envelope = address(message)
        return await self._hand_over(_write(message, envelope)) if isinstance(envelope, Envelope) else envelope

    async def close(self) -> None:
        """Say goodbye on all connections, and close them."""
        while self._idle:
            client = self._idle.pop().client
            with suppress(aiosmtplib.SMTPException, OSError):
                await client.quit(timeout=_COURTESY_SECONDS)
            client.close()

    async def _hand_over(self, letter: _Letter) -> Outcome:
        step = _Step.CONNECT
        connection = None
        usable = False
        try:
            async with asyncio.timeout(self._timeout.total_seconds()):
                connection = await self._connect()
                extensions = await _extensions(connection.client, letter)
                step = _Step.MAIL
                sender, recipient = letter.envelope
                await connection.client.mail(sender.address, options=extensions, encoding="utf-8")
                step = _Step.RCPT
                await connection.client.rcpt(recipient.address, encoding="utf-8")
                step = _Step.DATA
                await connection.client.data(letter.content)
            usable = True
            return Sent(letter.message_id)
        except aiosmtplib.SMTPResponseException as error:
            usable = error.code >= _FIRST_FAULT
            return _outcome(step, error.code, error.message, letter.message)
        except aiosmtplib.SMTPNotSupported:
            return Refused("SMTPUTF8", "the server takes no address outside ASCII", recipient_is_gone=False)
        except OSError as error:
            return _lost(step, error)
        except aiosmtplib.SMTPException as error:
            # What the library found missing: TLS, or a way to authenticate.
            return Misconfigured(type(error).__name__, error.message)
        finally:
            if connection:
                self._put_back(connection, usable)

    async def _connect(self) -> _Connection:
        if self._idle:
            kept = self._idle.pop()
            if await _is_alive(kept):
                return kept
            # The others were silent for longer still.
            for silent in self._idle:
                silent.client.close()
            self._idle.clear()
        client = aiosmtplib.SMTP(
            hostname=self._host,
            port=self._port,
            username=self._username,
            password=self._password.get_secret_value() if self._password else None,
            use_tls=self._tls == "implicit",
            start_tls=self._tls == "starttls",
            timeout=None,
        )
        await client.connect()
        return _Connection(client)

    def _put_back(self, connection: _Connection, usable: bool) -> None:
        connection.letters += 1
        if usable and connection.letters < _LETTERS_A_CONNECTION:
            self._idle.append(connection)
        else:
            connection.client.close()


async def _is_alive(connection: _Connection) -> bool:
    """Make sure of a connection that was kept: a server ends it after some silence, and may still have a letter."""
    alive = False
    try:
        await connection.client.rset(timeout=_COURTESY_SECONDS)
        alive = True
    except (aiosmtplib.SMTPException, OSError):
        pass
    finally:
        if not alive:
            connection.client.close()
    return alive


class _AsWritten(EmailPolicy):
    """Hands headers over as they were written.

    The library's own way folds a long URL, and some names, into encoded words, which are not read as what they were:
    https://github.com/python/cpython/issues/85725 and https://github.com/python/cpython/issues/121284.
    """

    def header_store_parse(self, name: str, value: str) -> tuple[str, str]:
        return name, value

    def fold_binary(self, name: str, value: str) -> bytes:
        if _LEFT_OPEN.search(value):
            raise ValueError(f"the header {name} has a line break in it")
        return f"{name}: {value}{_LINE_BREAK}".encode()


_POLICY = _AsWritten(linesep=_LINE_BREAK, cte_type="7bit")


def _write(message: Email, envelope: Envelope) -> _Letter:
    """Write the message as RFC 5322 and MIME have it: the text, and the same as HTML, in ASCII throughout."""
    message_id = f"{message.key}@{envelope.sender.domain}"
    headers = {
        "From": envelope.sender.encoded(_LINE_BREAK),
        "To": envelope.recipient.encoded(_LINE_BREAK),
        "Subject": encode(one_line(message.subject), _LINE_BREAK),
        "Date": format_datetime(datetime.now(UTC)),
        "Message-ID": f"<{message_id}>",
    }
    written = EmailMessage(policy=_POLICY)
    for name, value in (headers | unsubscribe_headers(message)).items():
        written[name] = value
    written.set_content(encodable(message.text))
    written.add_alternative(encodable(message.html), subtype="html")
    return _Letter(message, envelope, message_id, written.as_bytes())


async def _extensions(client: aiosmtplib.SMTP, letter: _Letter) -> list[str]:
    """Return what to ask the server for beyond ASCII (RFC 6531).

    Raises:
        SMTPNotSupported: If the server does not offer it.
    """
    if all(mailbox.is_ascii for mailbox in letter.envelope):
        return []
    if client.is_ehlo_or_helo_needed:
        await client.ehlo()
    if not client.supports_extension("smtputf8"):
        raise aiosmtplib.SMTPNotSupported("SMTPUTF8")
    return ["SMTPUTF8"]


def _outcome(step: _Step, code: int, text: str, message: Email) -> Outcome:
    """Say what a reply means (RFC 5321, section 4.2; its enhanced code, RFC 3463)."""
    said = without_personal(text, message)
    enhanced = _ENHANCED.match(text)
    status = enhanced[1] if enhanced else ""
    if code < _FIRST_FAULT:
        # Not a reply that this step can have: whatever speaks there, it isn't known what it did.
        return Failed(str(code), said, may_have_arrived=step is _Step.DATA)
    if code < _FIRST_PERMANENT:
        if status in _CROWDED or (code == _CLOSING and status.startswith("7.")) or _SLOW_DOWN.search(text):
            return Throttled(str(code), said, None)
        return Failed(str(code), said, may_have_arrived=False)
    if _refuses_us(step, code, status, text):
        return Misconfigured(str(code), said)
    if status == _FULL:
        return Failed(str(code), said, may_have_arrived=False)
    return Refused(str(code), said, recipient_is_gone=status in _GONE)


def _refuses_us(step: _Step, code: int, status: str, text: str) -> bool:
    """Tell whether a permanent refusal is of us or the sender, so that it would meet every message."""
    match step:
        case _Step.CONNECT:
            return True
        case _Step.MAIL:
            # All but the message's size (RFC 1870, section 6.1) is the sender's.
            return code != _TOO_LARGE
        case _Step.RCPT if _NO_RELAY.search(text):
            return True
        case _:
            return code in _OF_AUTHENTICATION or status in _OF_SENDER


def _lost(step: _Step, error: OSError) -> Outcome:
    cause = error if isinstance(error, ssl.SSLCertVerificationError) else error.__cause__
    if isinstance(cause, ssl.SSLCertVerificationError):
        return Misconfigured("certificate", cause.verify_message)
    if step is _Step.CONNECT:
        return Failed(type(error).__name__, "the server can't be reached", may_have_arrived=False)
    return Failed(type(error).__name__, "the server's reply did not come", may_have_arrived=step is _Step.DATA)
