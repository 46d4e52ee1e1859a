"""A receipt: what a provider reports of a message after it accepted it.

Input: a `Report`, as a provider's webhook module reads it. Output: a `Receipt`, without addresses and with an id that
is the same whenever the provider repeats the report.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from hashlib import sha256
from typing import Any, Final, NamedTuple
from urllib.parse import quote

from pydantic_core import to_json

from schemas.fields import UNKNOWN
from schemas.receipts import DeliveryReceived, Kind

ARRIVED: Final[frozenset[Kind]] = frozenset({"delivered", "opened", "clicked", "complained"})
"""The kinds of receipts that show that a message arrived."""

GIVEN_UP: Final[frozenset[Kind]] = frozenset({"bounced", "token_gone"})
"""The kinds of receipts of a message that its provider accepted but could not deliver."""

_LONGEST_ID = 256

_LONGEST_LINK = 8192

_LONGEST_MESSAGE = 500

_READ = 2_000

# It begins where a word does: tried within one as well, it would take a time that grows with the square of its length.
_ADDRESS = re.compile(r"(?:<|(?<![^\s<>()\[\]\"',;:=]))[^\s<>()\[\]\"',;:=]+(?:@|%40)[^\s<>()\[\]\"',;:=]+>?")

_TWICE = re.compile(r"<+recipient>+")


class Receipt(NamedTuple):
    """What a provider reports of a message.

    Attributes:
        id: The report's id: the same whenever the provider repeats it, and unique among all events.
        data: Its content.
    """

    id: str
    data: DeliveryReceived

    def payload(self) -> dict[str, Any]:
        """Return the payload of the event `delivery.reported` as a producer sends it: with the recipient."""
        body = self.data.model_dump(mode="json", by_alias=True, exclude_none=True)
        return body if self.data.recipient is None else {**body, "recipient": self.data.recipient}


@dataclass(frozen=True, slots=True)
class Report:
    """A provider's report with its own texts; only the kind is normalised.

    Attributes:
        event_id: The provider's id of the report; `None` if it has none.
        kind: What happened.
        timestamp: When.
        provider_id: The provider's id of the message.
        given: The metadata that was sent with the message, by name.
        recipient: The address.
        permanent: Whether a bounce is permanent because of the address.
        code: The code of the reason.
        message: The text of the reason.
        url: The URL that was clicked.
    """

    event_id: str | None
    kind: Kind
    timestamp: datetime
    provider_id: str | None
    given: Mapping[str, object]
    recipient: str | None = field(repr=False)
    permanent: bool = False
    code: str | None = None
    message: str | None = field(repr=False, default=None)
    url: str | None = field(repr=False, default=None)


def receipt(provider: str, report: Report) -> Receipt:
    """Return the receipt of a report, without ids and links that are too long, and without addresses in texts."""
    recipient = report.recipient
    data = DeliveryReceived.model_validate(
        {
            "channel": "email",
            "provider": provider,
            "providerId": _id(report.provider_id) or UNKNOWN,
            "notificationId": _id(report.given.get("notificationId")),
            "key": _id(report.given.get("key")),
            "kind": report.kind,
            "permanent": report.permanent,
            "recipient": recipient if recipient and len(recipient) <= _LONGEST_ID else None,
            "code": None if report.code is None else without_addresses(report.code, None)[:_LONGEST_ID] or None,
            "message": None
            if report.message is None
            else without_addresses(report.message, recipient)[:_LONGEST_MESSAGE] or None,
            "url": _link(report.url, recipient),
            "timestamp": report.timestamp,
        }
    )
    name = report.event_id or _digest(report)
    identity = f"{provider}:{name}"
    return Receipt(identity if len(identity) <= _LONGEST_ID else f"{provider}:{_digest(name)}", data)


def without_addresses(text: str, recipient: str | None) -> str:
    """Return a server's text in one line of at most 500 characters; each address becomes `<recipient>`.

    So does the recipient's part before the `@` where it stands alone. A bounce names the recipient, or where the
    recipient's mail is forwarded to: both are personal.
    """
    said = " ".join(text[:_READ].split())
    said = _ADDRESS.sub("<recipient>", _replaced(said, recipient or ""))
    said = _replaced(said, (recipient or "").rpartition("@")[0])
    return _TWICE.sub("<recipient>", said)[:_LONGEST_MESSAGE]


def earliest(known: datetime | None, at: datetime) -> datetime:
    """Return the earlier of two times, of which the first may be unknown."""
    return at if known is None else min(known, at)


def as_kept(moment: datetime) -> datetime:
    """Return a time with the precision of MongoDB: whole milliseconds."""
    utc = moment.astimezone(UTC)
    return utc.replace(microsecond=utc.microsecond // 1000 * 1000)


def text_of(value: object) -> str | None:
    """Return a text that is not empty, or the digits of a number; `None` for anything else."""
    if isinstance(value, int | float) and not isinstance(value, bool):
        return str(value)
    return value if isinstance(value, str) and value else None


def _id(value: object) -> str | None:
    text = text_of(value)
    return text if text and len(text) <= _LONGEST_ID else None


def _digest(value: object) -> str:
    """Return an id for a value without one, or with one that is too long; the same for the same value."""
    return sha256(to_json(value)).hexdigest()


def _link(url: str | None, recipient: str | None) -> str | None:
    # Only the recipient's own address: an @ stands in many a link that is nobody's.
    link = (url or "")[: _LONGEST_LINK + 1]
    for written in {recipient or "", quote(recipient or "", safe="")}:
        link = _replaced(link, written)
    return link if link and len(link) <= _LONGEST_LINK else None


def _replaced(text: str, word: str) -> str:
    """Replace a whole word, ignoring case."""
    return re.sub(rf"(?<!\w){re.escape(word)}(?!\w)", "<recipient>", text, flags=re.IGNORECASE) if word else text
