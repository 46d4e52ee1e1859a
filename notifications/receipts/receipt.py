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
"""What can be reported only of a message that arrived."""

GIVEN_UP: Final[frozenset[Kind]] = frozenset({"bounced", "token_gone"})
"""What is reported of a message that its provider took and could not deliver."""

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
        id: The report's identity: the same whenever the provider repeats it, and unique among all events.
        data: What it says.
    """

    id: str
    data: DeliveryReceived

    def payload(self) -> dict[str, Any]:
        """Return the payload of the event `delivery.reported` as a producer sends it: with the recipient."""
        body = self.data.model_dump(mode="json", by_alias=True, exclude_none=True)
        return body if self.data.recipient is None else {**body, "recipient": self.data.recipient}


@dataclass(frozen=True, slots=True)
class Report:
    """What a provider says, in its own words but for the kind; every text as it came.

    Attributes:
        event_id: The provider's id of the report; `None` where it gave none.
        kind: What happened.
        timestamp: When.
        provider_id: What the provider calls the message.
        given: What was given along with the message, by name.
        recipient: The address.
        permanent: Of a bounce: whether the address is the reason, for good.
        code: A short name of the reason.
        message: What there is to say of it.
        url: What was clicked.
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
    """Make a receipt of a report: what is too long to be an id or a link is left out, and so is every address."""
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
    """Return what a server said in one line of 500 characters at most; each address becomes `<recipient>`.

    So does the recipient's part before the `@` where it stands alone. A bounce names the recipient, or where the
    recipient's mail is forwarded to: both are personal.
    """
    said = " ".join(text[:_READ].split())
    said = _ADDRESS.sub("<recipient>", _replaced(said, recipient or ""))
    said = _replaced(said, (recipient or "").rpartition("@")[0])
    return _TWICE.sub("<recipient>", said)[:_LONGEST_MESSAGE]


def earliest(known: datetime | None, at: datetime) -> datetime:
    """Return the earlier of two moments, of which the first may not be known."""
    return at if known is None else min(known, at)


def as_kept(moment: datetime) -> datetime:
    """Return a moment as MongoDB keeps it: in whole milliseconds."""
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
    """Name what has no id of its own, or one too long: the same whenever it comes again."""
    return sha256(to_json(value)).hexdigest()


def _link(url: str | None, recipient: str | None) -> str | None:
    # Only the recipient's own address: an @ stands in many a link that is nobody's.
    link = (url or "")[: _LONGEST_LINK + 1]
    for written in {recipient or "", quote(recipient or "", safe="")}:
        link = _replaced(link, written)
    return link if link and len(link) <= _LONGEST_LINK else None


def _replaced(text: str, word: str) -> str:
    """Replace a word, in whatever case, where it stands alone."""
    return re.sub(rf"(?<!\w){re.escape(word)}(?!\w)", "<recipient>", text, flags=re.IGNORECASE) if word else text
