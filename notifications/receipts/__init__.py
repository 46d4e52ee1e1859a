"""Receipts: what a provider says happened to a message that it took, and what the log of an e-mail says then.

In come the bodies that providers post to a page, each in its provider's module, which checks the signature and reads
them; out go `Receipt`s, and of a log and a receipt what changes in the log. Receipts come in any order, late and more
than once; the log is the same in the end. Nothing here fetches, waits or looks at a clock.
"""

import json
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from hashlib import sha256
from typing import Annotated, Any, Final, NamedTuple, TypeVar
from urllib.parse import quote

from pydantic import BaseModel, BeforeValidator, ConfigDict, TypeAdapter, ValidationError, model_validator
from pydantic_core import to_json

from notifications.states import BOUNCED
from schemas.event import Moment
from schemas.fields import UNKNOWN
from schemas.receipts import DeliveryReceived, Kind

STATUSES: Final = ("queued", "sent", "failed", "delivered", "bounced")
"""How far an e-mail has come, the furthest last.

`failed` is before `delivered`, as an attempt that looked like a failure may have arrived after all; `bounced` is last,
as servers take messages and give them back later.
"""

KEPT_EVENTS: Final = 100
"""How many events of each type a log keeps, the earliest: scanners and previews open a mail thousands of times."""

MARGIN: Final = timedelta(minutes=15)
"""How far a provider's clock may be from ours, its queue included."""

ARRIVED: Final[frozenset[Kind]] = frozenset({"delivered", "opened", "clicked", "complained"})
"""What can be reported only of a message that arrived."""

GIVEN_UP: Final[frozenset[Kind]] = frozenset({"bounced", "token_gone"})
"""What is reported of a message that its provider took and could not deliver."""

_EVENT_TYPES: Mapping[Kind, str] = {
    "deferred": "queued",  # at the provider's
    "delivered": "delivered",
    "opened": "opened",
    "clicked": "clicked",
    "complained": "spam",
    "bounced": "bounced",
}

_LONGEST_ID = 256
_LONGEST_MESSAGE = 65_536
_LONGEST_LINK = 8192
_LONGEST_MESSAGE = 500
_READ = 2_000
# It begins where a word does: tried within one as well, it would take a time that grows with the square of its length.
_ADDRESS = re.compile(r"(?:<|(?<![^\s<>()\[\]\"',;:=]))[^\s<>()\[\]\"',;:=]+(?:@|%40)[^\s<>()\[\]\"',;:=]+>?")
_TWICE = re.compile(r"<+recipient>+")
_MOMENT: TypeAdapter[datetime] = TypeAdapter(Moment)

ReadT = TypeVar("ReadT")
PartT = TypeVar("PartT", bound="Part")


class Unverified(Exception):  # noqa: N818  # what a request is, not a fault of ours
    """A request that is not known to come from the provider; the message says why, and holds no secret."""


class Unreadable(ValueError):  # noqa: N818  # what a body is, not a fault of ours
    """A body that is not what the provider documents, in whole or in part; the message holds no value that came.

    Attributes:
        receipts: What could be read of it all the same: the rest is not lost for one event that is none.
    """

    def __init__(self, message: str, receipts: Iterable["Receipt"] = ()) -> None:
        super().__init__(message)
        self.receipts = tuple(receipts)


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


def _text(value: object) -> str | None:
    if isinstance(value, int | float) and not isinstance(value, bool):
        return str(value)
    return value if isinstance(value, str) and value else None


Text = Annotated[str | None, BeforeValidator(_text)]
"""A text that is of use and no more: a number counts as its digits, anything else as not there."""

Names = Annotated[dict[str, Any], BeforeValidator(lambda value: value if isinstance(value, dict) else {})]
"""What was given along with a message, by name; anything but an object counts as nothing."""


class Part(BaseModel):
    """A part of what a provider posts. Providers add fields as they like."""

    model_config = ConfigDict(frozen=True, extra="ignore")


class Detail(Part):
    """A part that an event can do without: whatever comes in its place counts as an empty one."""

    @model_validator(mode="before")
    @classmethod
    def _nothing_of_another_shape(cls, value: object) -> object:
        return value if isinstance(value, dict) else {}


def _moment(value: object) -> datetime | None:
    try:
        return _MOMENT.validate_python(value)
    except ValidationError:
        return None


def _flag(value: object) -> bool:
    return value is True or value == 1 or (isinstance(value, str) and value.lower() in ("true", "1", "yes"))


def listed(value: object) -> list[object]:
    """Return a list as it is, and anything else as an empty one."""
    return value if isinstance(value, list) else []


When = Annotated[datetime | None, BeforeValidator(_moment)]
"""A moment that an event can do without, as another says nearly the same; anything else counts as not there."""

Flag = Annotated[bool, BeforeValidator(_flag)]
"""Whether something is said to be so; anything but a yes is a no."""


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


def parsed(expected: TypeAdapter[ReadT], body: bytes | str) -> ReadT:
    """Read JSON.

    Raises:
        Unreadable: It is none, or not what is expected.
    """
    try:
        return expected.validate_json(body)
    except ValidationError as error:
        complaint = _complaint(error)
    try:
        return expected.validate_json(_with_whole_characters(body))
    except (ValueError, RecursionError):
        raise Unreadable(complaint) from None


def shaped(expected: type[PartT], value: object) -> PartT:
    """Read a value that came as JSON.

    Raises:
        Unreadable: It is not what is expected.
    """
    try:
        return expected.model_validate(value)
    except ValidationError as error:
        raise Unreadable(_complaint(error)) from None


def require_fresh(signed_at: str | None, now: datetime, max_age: timedelta) -> None:
    """Check a signed moment.

    Args:
        signed_at: Whole seconds since 1970.
        now: The present moment, with a zone.
        max_age: How long ago it may be, or how far ahead.

    Raises:
        Unverified: It is none, too long ago or too far ahead.
    """
    if signed_at is None or not re.fullmatch(r"[0-9]{1,11}", signed_at):
        raise Unverified("its timestamp is no number of seconds")
    require_recent(datetime.fromtimestamp(int(signed_at), UTC), now, max_age)


def require_recent(signed_at: datetime, now: datetime, max_age: timedelta) -> None:
    """Check a signed moment that is read already; see `require_fresh`."""
    if abs(now - signed_at) > max_age:
        raise Unverified(f"it was signed at {signed_at:%Y-%m-%dT%H:%M:%SZ}, further from now than {max_age}")


def without_addresses(text: str, recipient: str | None) -> str:
    """Return what a server said in one line of 500 characters at most; each address becomes `<recipient>`.

    So does the recipient's part before the `@` where it stands alone. A bounce names the recipient, or where the
    recipient's mail is forwarded to: both are personal.
    """
    said = " ".join(text[:_READ].split())
    said = _ADDRESS.sub("<recipient>", _replaced(said, recipient or ""))
    said = _replaced(said, (recipient or "").rpartition("@")[0])
    return _TWICE.sub("<recipient>", said)[:_LONGEST_MESSAGE]


def applied(log: Mapping[str, Any], receipt: Receipt) -> dict[str, Any]:
    """Return what a receipt changes in an e-mail's log.

    Whatever the order of the receipts, and however often each comes, the log ends the same:
    `events` is a set by type, moment and the receipt's id, in the order of time, of each type the `KEPT_EVENTS`
    earliest; `status` is the furthest of `STATUSES`; `sentAt` and `deliveredAt` are the earliest moment at which it
    must have been so. `error` is the first bounce's; what arrived after all has none.

    `unsubscribed` and what is of a push message change nothing.

    Args:
        log: The document as it stands in `emailLogs`; its moments have a zone.
        receipt: What was reported of that e-mail.

    Returns:
        Fields and their new values; `None` where a field is to go. Empty where nothing changes.
    """
    report = receipt.data
    event_type = _EVENT_TYPES.get(report.kind)
    if event_type is None or report.channel != "email":
        return {}
    at = as_kept(report.timestamp)
    reached = "bounced" if report.kind == "bounced" else "delivered" if report.kind in ARRIVED else "sent"
    events = _bounded([*log.get("events", ()), _event(event_type, at, receipt)])
    status = max(log.get("status", STATUSES[0]), reached, key=STATUSES.index)
    after: dict[str, Any] = {"events": events, "status": status, "sentAt": earliest(log.get("sentAt"), at)}
    if report.kind in ARRIVED:
        after["deliveredAt"] = earliest(log.get("deliveredAt"), at)
    if status == "delivered":
        after["error"] = None
    elif bounce := next((event for event in events if event["type"] == "bounced"), None):
        after["error"] = _error(bounce)
    return {name: value for name, value in after.items() if value != log.get(name)}


def _with_whole_characters(body: bytes | str) -> bytes:
    """Return JSON with a question mark for each half of a character: who cuts a text short may cut through an emoji.

    Raises:
        ValueError: It is no JSON.
        RecursionError: It is nested too deep.
    """
    text = body.decode("utf-8", "replace") if isinstance(body, bytes) else body
    return json.dumps(json.loads(text), ensure_ascii=False).encode("utf-8", "replace")


def _complaint(error: ValidationError) -> str:
    """Say what is wrong, without any value that came: the error itself would hold them."""
    details = error.errors(include_url=False, include_context=False, include_input=False)
    return "; ".join(f"{'.'.join(map(str, detail['loc'])) or 'the body'}: {detail['msg']}" for detail in details[:5])


def _event(event_type: str, at: datetime, receipt: Receipt) -> dict[str, Any]:
    report = receipt.data
    metadata = {
        "eventId": receipt.id,
        "provider": report.provider,
        "permanent": report.permanent if report.kind == "bounced" else None,
        "code": report.code,
        "message": report.message,
        "url": report.url,
    }
    known = {name: value for name, value in metadata.items() if value is not None}
    return {"type": event_type, "timestamp": at, "metadata": known}


def _bounded(events: Iterable[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Return each event once, in order, and of each type the earliest alone."""
    first: dict[tuple[datetime, str, str], dict[str, Any]] = {}
    for event in events:
        first.setdefault((event["timestamp"], event["type"], _of(event, "eventId") or ""), dict(event))
    counts: dict[str, int] = {}
    kept = []
    for _, event in sorted(first.items(), key=lambda item: item[0]):
        counts[event["type"]] = counts.get(event["type"], 0) + 1
        if counts[event["type"]] <= KEPT_EVENTS:
            kept.append(event)
    return kept


def _error(bounce: Mapping[str, Any]) -> dict[str, str]:
    return {"code": _of(bounce, "code") or BOUNCED, "message": _of(bounce, "message") or ""}


def _of(event: Mapping[str, Any], name: str) -> str | None:
    """Return what an event's metadata says, where it is one of ours; others keep there what they like."""
    metadata = event.get("metadata")
    value = metadata.get(name) if isinstance(metadata, Mapping) else None
    return value if isinstance(value, str) else None


def earliest(known: datetime | None, at: datetime) -> datetime:
    """Return the earlier of two moments, of which the first may not be known."""
    return at if known is None else min(known, at)


def as_kept(moment: datetime) -> datetime:
    """Return a moment as MongoDB keeps it: in whole milliseconds."""
    utc = moment.astimezone(UTC)
    return utc.replace(microsecond=utc.microsecond // 1000 * 1000)


def _id(value: object) -> str | None:
    text = _text(value)
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
