"""Mailgun's webhooks: their signature, and their events.

Input: the body of a request, which holds the signature as well. Output: receipts. A request holds one event, of which
only `event` is required.
Source: https://documentation.mailgun.com/docs/mailgun/user-manual/webhooks/webhook-payloads,
https://documentation.mailgun.com/docs/mailgun/user-manual/webhooks/securing-webhooks, and of events
https://documentation.mailgun.com/docs/mailgun/user-manual/events/event-structure.
"""

import hmac
import re
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from typing import Final

from pydantic import Field, TypeAdapter

from notifications.receipts.receipt import Receipt, Report, receipt
from notifications.replies import confirms_gone
from providers.webhooks.base import (
    MARGIN,
    Detail,
    Names,
    Payload,
    Text,
    Unreadable,
    Unverified,
    When,
    parsed,
    require_fresh,
)
from schemas.receipts import Kind

PROVIDER: Final = "mailgun"

MAX_AGE: Final = timedelta(hours=8) + MARGIN
"""Mailgun repeats a request for 8 hours, apparently with the first signature; a bounce must not be lost."""

_KINDS: Mapping[str, Kind] = {
    "delivered": "delivered",
    "opened": "opened",
    "clicked": "clicked",
    "failed": "bounced",
    "complained": "complained",
    "unsubscribed": "unsubscribed",
}
# Why Mailgun gives up a message, where the address is the reason, for good. Not so `old`, which is tried too often,
# and `suppress-unsubscribe`: people who unsubscribed may subscribe again.
_FOR_ADDRESS = {"suppress-bounce", "suppress-complaint"}

_SECONDS = re.compile(r"[0-9]{1,11}")


class _Signature(Payload):
    timestamp: Text = None
    token: Text = None
    signature: Text = None

    @property
    def signed_at(self) -> datetime | None:
        """The time of the signature, soon after the event, and the same when Mailgun repeats the request."""
        seconds = _SECONDS.fullmatch(self.timestamp or "")
        return datetime.fromtimestamp(int(seconds[0]), UTC) if seconds else None


class _Signed(Payload):
    signature: _Signature


class _DeliveryStatus(Detail):
    code: Text = None
    message: Text = None
    description: Text = None


class _Headers(Detail):
    message_id: Text = Field(None, alias="message-id")


class _Message(Detail):
    headers: _Headers = _Headers()


class _ClientInfo(Detail):
    bot: Text = None


class _Event(Payload):
    event: str
    timestamp: When = None
    id: Text = None
    severity: Text = None
    reason: Text = None
    recipient: Text = None
    url: Text = None
    message: _Message = _Message()
    delivery_status: _DeliveryStatus = Field(_DeliveryStatus(), alias="delivery-status")
    client_info: _ClientInfo = Field(_ClientInfo(), alias="client-info")
    variables: Names = Field(default_factory=dict, alias="user-variables")


class _Body(_Signed):
    event: _Event = Field(alias="event-data")


_SIGNED = TypeAdapter(_Signed)
_BODY = TypeAdapter(_Body)


def verify(body: bytes, signing_key: str, now: datetime, max_age: timedelta = MAX_AGE) -> None:
    """Check that a request comes from Mailgun: its signature is HMAC with SHA-256, of a timestamp and a random token.

    The signature does not cover the event. Anybody who sees one request, which requires breaking TLS, can forge others
    with it for as long as `max_age`.

    Args:
        body: As it came.
        signing_key: The HTTP webhook signing key.
        now: The current time, with a zone.
        max_age: How long ago it may have been signed.

    Raises:
        Unverified: It does not, or that can't be verified.
    """
    if not signing_key:
        raise Unverified("no signing key is set")
    try:
        signed = parsed(_SIGNED, body).signature
    except Unreadable:
        raise Unverified("its body has no signature") from None
    if not signed.timestamp or not signed.token or not signed.signature:
        raise Unverified("its signature lacks the timestamp, the token or itself")
    expected = hmac.new(signing_key.encode(), (signed.timestamp + signed.token).encode(), "sha256").hexdigest()
    if not hmac.compare_digest(expected.encode(), signed.signature.encode()):
        raise Unverified("its signature is not by Mailgun's key")
    require_fresh(signed.timestamp, now, max_age)


def read(body: bytes) -> list[Receipt]:
    """Read the receipt of a verified request; the list is empty if the event is not about delivery.

    Raises:
        Unreadable: It is not an event.
    """
    posted = parsed(_BODY, body)
    kind = _KINDS.get(posted.event.event)
    if kind is None:
        return []
    at = posted.event.timestamp or posted.signature.signed_at
    if at is None:
        raise Unreadable("timestamp: should be a moment")
    return [receipt(PROVIDER, _report(posted.event, kind, at))]


def _is_permanent(event: _Event) -> bool:
    """Whether the address is the reason; a `bounce` follows from the first digit, so the text decides too."""
    if event.reason in _FOR_ADDRESS:
        return True
    status = event.delivery_status
    said = status.message or status.description
    return event.reason == "bounce" and confirms_gone(said, status.code, event.recipient)


def _report(event: _Event, kind: Kind, at: datetime) -> Report:
    status = event.delivery_status
    is_given_up = event.severity != "temporary"
    return Report(
        # Ids are unique within a day only.
        event_id=event.id and f"{at.astimezone(UTC):%Y-%m-%d}:{event.id}",
        kind=kind if kind != "bounced" or is_given_up else "deferred",
        timestamp=at,
        provider_id=event.message.headers.message_id and event.message.headers.message_id.strip("<>"),
        given=event.variables,
        recipient=event.recipient,
        permanent=kind == "bounced" and is_given_up and _is_permanent(event),
        code="machine" if event.client_info.bot else status.code or event.reason,
        message=status.message or status.description,
        url=event.url,
    )
