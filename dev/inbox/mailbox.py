"""Store mails as files in a directory, `<moment>-<digits>.eml`: byte for byte, and only the newest.

Input: messages as SMTP brought them. Output: lists, newest first, and one mail as a reader shows it. A mail is stored
once `add` returns. A part of a mail that can't be read is shown as it came, and raises nothing.

Format: https://www.rfc-editor.org/rfc/rfc5322; sender and recipients of the envelope come first, as `Return-Path`
and `Delivered-To`, as servers write them at final delivery.
"""

import re
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime
from email import message_from_bytes
from email.errors import HeaderParseError
from email.header import decode_header, make_header
from email.message import Message
from email.parser import BytesHeaderParser
from pathlib import Path
from secrets import token_hex
from typing import NamedTuple

FOLDER = "mails"
"""Where they are in the inbox's directory."""

KEPT = 5_000
"""How many mails are kept; of more, the oldest are deleted."""

_NAME = re.compile(r"(\d{8}T\d{12})-[0-9a-f]{8}")
_MOMENT = "%Y%m%dT%H%M%S%f"
_ENVELOPE = frozenset(("return-path", "delivered-to"))


class Mail(NamedTuple):
    """A mail as a list shows it.

    Attributes:
        id: Its file, without the ending.
        received: When it came; UTC.
        sender: From whom it says that it is.
        recipients: The addresses that it was delivered to.
        subject: Its subject; may be empty.
        message_id: What the sender named it; may be empty.
    """

    id: str
    received: datetime
    sender: str
    recipients: tuple[str, ...]
    subject: str
    message_id: str


class OpenMail(NamedTuple):
    """A mail as a reader shows it.

    Attributes:
        mail: The mail.
        headers: All of its headers, in its order.
        html: Its HTML part; `None` where it has none.
        text: Its plain part; `None` where it has none.
    """

    mail: Mail
    headers: tuple[tuple[str, str], ...]
    html: str | None
    text: str | None


class Mailbox:
    """All mails that are kept.

    Args:
        directory: Where they are; created if it is missing.
        kept: How many there may be.

    Raises:
        OSError: The directory can't be read, or not made.
    """

    def __init__(self, directory: Path, kept: int = KEPT) -> None:
        self._directory = directory
        self._kept = kept
        directory.mkdir(parents=True, exist_ok=True)
        self._mails = {path.stem: _listed(path) for path in sorted(directory.glob("*.eml")) if _is_ours(path)}
        self._forget_oldest()

    def __len__(self) -> int:
        """Return how many mails there are."""
        return len(self._mails)

    def add(self, sender: str, recipients: Sequence[str], content: bytes, received: datetime) -> str:
        """Keep a mail; return its id.

        Args:
            sender: Of the envelope; empty for a bounce.
            recipients: Of the envelope.
            content: The message.
            received: Now.

        Raises:
            OSError: It can't be written; nothing of it is left then.
        """
        id_ = f"{received.astimezone(UTC).strftime(_MOMENT)}-{token_hex(4)}"
        envelope = "".join([f"Return-Path: <{sender}>\r\n", *(f"Delivered-To: {to}\r\n" for to in recipients)])
        path = self._path(id_)
        # Under another name first: readers of the directory never see half a mail.
        partial = path.with_suffix(".partial")
        try:
            partial.write_bytes(envelope.encode() + content)
            partial.replace(path)
        except OSError:
            partial.unlink(missing_ok=True)
            raise
        self._mails[id_] = _listed(path)
        self._forget_oldest()
        return id_

    def newest(self, recipient: str = "") -> list[Mail]:
        """Return all mails to addresses that contain these letters, the newest first."""
        wanted = recipient.strip().casefold()
        return [
            mail
            for mail in reversed(self._mails.values())
            if not wanted or any(wanted in address.casefold() for address in mail.recipients)
        ]

    def open(self, id_: str) -> OpenMail | None:
        """Return a mail; `None` if there is no mail with this id."""
        content = self.raw(id_)
        if content is None:
            return None
        message = message_from_bytes(content)
        return OpenMail(
            self._mails[id_],
            tuple((name, value) for name, value in _headers(message) if name.lower() not in _ENVELOPE),
            _part(message, "text/html"),
            _part(message, "text/plain"),
        )

    def raw(self, id_: str) -> bytes | None:
        """Return all bytes of a mail; `None` if there is no mail with this id."""
        if id_ not in self._mails:
            return None
        try:
            return self._path(id_).read_bytes()
        except FileNotFoundError:
            # Somebody deleted it by hand.
            del self._mails[id_]
            return None

    def _forget_oldest(self) -> None:
        for id_ in list(self._mails)[: -self._kept]:
            del self._mails[id_]
            self._path(id_).unlink(missing_ok=True)

    def _path(self, id_: str) -> Path:
        return self._directory / f"{id_}.eml"


def _is_ours(path: Path) -> bool:
    return _NAME.fullmatch(path.stem) is not None


def _listed(path: Path) -> Mail:
    with path.open("rb") as file:
        message = BytesHeaderParser().parse(file)
    headers = [(name.lower(), value) for name, value in _headers(message)]

    def first(wanted: str) -> str:
        return next((value for name, value in headers if name == wanted), "")

    return Mail(
        id=path.stem,
        received=datetime.strptime(path.stem.partition("-")[0], _MOMENT).replace(tzinfo=UTC),
        sender=first("from") or first("return-path"),
        recipients=tuple(value for name, value in headers if name == "delivered-to"),
        subject=first("subject"),
        message_id=first("message-id"),
    )


def _headers(message: Message) -> Iterator[tuple[str, str]]:
    for name, value in message.raw_items():
        # Where bytes came as they are (RFC 6532), the parser keeps them as surrogates.
        written = str(value).encode(errors="surrogateescape").decode(errors="replace")
        try:
            yield name, " ".join(str(make_header(decode_header(written))).split())
        except (HeaderParseError, LookupError, ValueError):
            yield name, " ".join(written.split())


def _part(message: Message, content_type: str) -> str | None:
    for part in message.walk():
        if part.get_content_type() == content_type and part.get_content_disposition() != "attachment":
            content = part.get_payload(decode=True)
            if not isinstance(content, bytes):
                continue
            try:
                text = content.decode(part.get_content_charset("utf-8"), errors="replace")
            except LookupError:
                text = content.decode(errors="replace")
            return text.replace("\r\n", "\n")
    return None
