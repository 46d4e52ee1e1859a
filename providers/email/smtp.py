"""SMTP: any mail server that takes messages for delivery.

Input: an e-mail. Output: the outcome, as `notifications.replies` reads the server's reply. Connections are reused; an
error on a connection closes it. SMTP has no idempotency keys: a message sent twice is delivered twice, with the same
`Message-ID`, by which some mailboxes show it once.
"""

import asyncio
import re
import ssl
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from email.message import EmailMessage
from email.policy import EmailPolicy
from email.utils import format_datetime
from enum import Enum
from typing import Literal, NamedTuple, Self
from urllib.parse import unquote, urlsplit

import aiosmtplib
from pydantic import SecretStr

from notifications.messages import Email
from notifications.outcome import Failed, Misconfigured, Outcome, Refused, Sent
from notifications.replies import of_smtp, outcome
from providers.base import without_asking
from providers.email.addresses import (
    Envelope,
    added_headers,
    address,
    encodable,
    encode,
    one_line,
    without_personal,
)
from providers.http import TIMEOUT
from runtime.settings import Settings

Tls = Literal["none", "starttls", "implicit"]

_SCHEMES: Mapping[str, tuple[Tls, int]] = {
    "smtp": ("none", 25),
    "smtp+starttls": ("starttls", 587),
    "smtps": ("implicit", 465),
}

_LINE_BREAK = "\r\n"
_LEFT_OPEN = re.compile(r"\r(?!\n)|\n(?![ \t])")
_COURTESY_SECONDS = 1.0
# Exim, for one, takes 1,000 by default and then says 421, which is no reason to slow down.
_EMAILS_A_CONNECTION = 100
_FIRST_FAULT = 400
# Behind a proxy or filter a mailbox, or its grey list, first answers to the content (RFC 3463, sections 3.2 and 3.3).
_OF_RECIPIENT = re.compile(r"\s*4\.[12]\.\d|.{0,120}gr[ea]y[ -]?list", re.IGNORECASE | re.DOTALL)


class _Step(Enum):
    """The phase of the dialogue. From `DATA` on, the server may have the message."""

    CONNECT = "CONNECT"
    MAIL = "MAIL"
    RCPT = "RCPT"
    DATA = "DATA"


class _WrittenEmail(NamedTuple):
    message: Email
    envelope: Envelope
    message_id: str
    content: bytes


@dataclass
class _Connection:
    client: aiosmtplib.SMTP
    emails: int = 0


class Smtp:
    """Sends e-mails by SMTP (RFC 5321).

    Args:
        host: The server's name, which its certificate must match.
        port: Usually 587 for `starttls`, and 465 for `implicit`.
        username: `None` if the server requires none.
        password: The user's password.
        tls: `starttls` requires STARTTLS; `implicit` uses TLS from the first byte.
        timeout: The time-out of one e-mail, connection included.
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

    @classmethod
    def from_settings(cls, settings: Settings) -> Self:
        """Make the provider of the settings."""
        return cls.from_url(settings.smtp_url)

    @classmethod
    def from_url(cls, smtp_url: SecretStr) -> Self:
        """Make the provider of a URL: `smtp://`, `smtp+starttls://` or `smtps://`, user, password, host and port."""
        url = urlsplit(smtp_url.get_secret_value())
        tls, port = _SCHEMES[url.scheme]
        return cls(
            url.hostname or "",
            url.port or port,
            unquote(url.username) if url.username else None,
            SecretStr(unquote(url.password)) if url.password else None,
            tls=tls,
        )

    async def send(self, message: Email) -> Outcome:
        """Send an e-mail. The provider's id is its `Message-ID`, which a bounce names."""
        envelope = address(message)
        if not isinstance(envelope, Envelope):
            return without_asking(envelope)
        return await self._attempt(_write(message, envelope))

    async def close(self) -> None:
        """Quit and close all connections."""
        while self._idle:
            client = self._idle.pop().client
            with suppress(aiosmtplib.SMTPException, OSError):
                await client.quit(timeout=_COURTESY_SECONDS)
            client.close()

    async def _attempt(self, written_email: _WrittenEmail) -> Outcome:
        step = _Step.CONNECT
        connection = None
        usable = False
        try:
            async with asyncio.timeout(self._timeout.total_seconds()):
                connection = await self._connect()
                extensions = await _extensions(connection.client, written_email)
                step = _Step.MAIL
                sender, recipient = written_email.envelope
                await connection.client.mail(sender.address, options=extensions, encoding="utf-8")
                step = _Step.RCPT
                await connection.client.rcpt(recipient.address, encoding="utf-8")
                step = _Step.DATA
                await connection.client.data(written_email.content)
            usable = True
            return Sent(written_email.message_id)
        except aiosmtplib.SMTPResponseException as error:
            usable = error.code >= _FIRST_FAULT
            return _outcome(step, error.code, error.message, written_email.message)
        except aiosmtplib.SMTPNotSupported:
            said = "the server takes no address outside ASCII"
            return Refused("SMTPUTF8", said, recipient_is_gone=False, was_asked=False)
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
        connection.emails += 1
        if usable and connection.emails < _EMAILS_A_CONNECTION:
            self._idle.append(connection)
        else:
            connection.client.close()


async def _is_alive(connection: _Connection) -> bool:
    """Check a kept connection: a server closes it when idle, and its last reply may still be unread."""
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
    """Keeps headers as they were written.

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


def _write(message: Email, envelope: Envelope) -> _WrittenEmail:
    """Write the message by RFC 5322 and MIME, as plain text and HTML, in ASCII only."""
    message_id = f"{message.key}@{envelope.sender.domain}"
    headers = {
        "From": envelope.sender.encoded(_LINE_BREAK),
        "To": envelope.recipient.encoded(_LINE_BREAK),
        "Subject": encode(one_line(message.subject), _LINE_BREAK),
        "Date": format_datetime(datetime.now(UTC)),
        "Message-ID": f"<{message_id}>",
    }
    written = EmailMessage(policy=_POLICY)
    for name, value in (headers | added_headers(message)).items():
        written[name] = value
    written.set_content(encodable(message.text))
    written.add_alternative(encodable(message.html), subtype="html")
    return _WrittenEmail(message, envelope, message_id, written.as_bytes())


async def _extensions(client: aiosmtplib.SMTP, written_email: _WrittenEmail) -> list[str]:
    """Return the SMTP extensions for characters beyond ASCII (RFC 6531).

    Raises:
        SMTPNotSupported: If the server does not offer it.
    """
    if all(mailbox.is_ascii for mailbox in written_email.envelope):
        return []
    if client.is_ehlo_or_helo_needed:
        await client.ehlo()
    if not client.supports_extension("smtputf8"):
        raise aiosmtplib.SMTPNotSupported("SMTPUTF8")
    return ["SMTPUTF8"]


def _outcome(step: _Step, code: int, text: str, message: Email) -> Outcome:
    """Return the outcome of a reply. From `RCPT` on it is about this message alone, as far as one reply shows.

    But for what a server says of itself after the content: then it is not up to any message.
    """
    said = without_personal(text, message)
    if code < _FIRST_FAULT:
        # Not a valid reply at this step: the effect is unknown.
        return Failed(str(code), said, may_have_arrived=step is _Step.DATA)
    category = of_smtp(step.value, code, text, message.to, message.subject)
    about_message = step is _Step.RCPT or (
        step is _Step.DATA and (category != "transient" or _OF_RECIPIENT.match(text) is not None)
    )
    return outcome(category, str(code), said, about_message=about_message)


def _lost(step: _Step, error: OSError) -> Outcome:
    cause = error if isinstance(error, ssl.SSLCertVerificationError) else error.__cause__
    if isinstance(cause, ssl.SSLCertVerificationError):
        return Misconfigured("certificate", cause.verify_message)
    if step is _Step.CONNECT:
        return Failed(type(error).__name__, "the server can't be reached", may_have_arrived=False)
    return Failed(type(error).__name__, "the server's reply did not come", may_have_arrived=step is _Step.DATA)
