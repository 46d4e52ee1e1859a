"""SendGrid's Event Webhook: its signature, and its events.

Input: the body of a request and two of its headers. Output: receipts. A request holds many events, of each of which
only `event` is required.
Source: https://www.twilio.com/docs/sendgrid/for-developers/tracking-events/event, and of the signature
https://www.twilio.com/docs/sendgrid/for-developers/tracking-events/getting-started-event-webhook-security-features.
"""

from base64 import b64decode
from collections.abc import Mapping
from datetime import datetime, timedelta
from typing import Any, Final

from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric.ec import ECDSA, SECP256R1, EllipticCurvePublicKey
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import load_der_public_key
from pydantic import Field, TypeAdapter

from notifications.receipts.receipt import Receipt, Report, receipt
from notifications.replies import confirms_gone
from providers.webhooks.base import (
    MARGIN,
    Flag,
    Payload,
    Text,
    Unreadable,
    Unverified,
    When,
    parsed,
    require_fresh,
    shaped,
)
from schemas.receipts import Kind

PROVIDER: Final = "sendgrid"
SIGNATURE_HEADER: Final = "X-Twilio-Email-Event-Webhook-Signature"
TIMESTAMP_HEADER: Final = "X-Twilio-Email-Event-Webhook-Timestamp"

MAX_AGE: Final = timedelta(hours=24) + MARGIN
"""SendGrid repeats a request for 24 hours. Whether it signs again is not documented, and a bounce must not be lost."""

_KINDS: Mapping[str, Kind] = {
    "delivered": "delivered",
    "open": "opened",
    "click": "clicked",
    "bounce": "bounced",
    "dropped": "bounced",
    "deferred": "deferred",
    "spamreport": "complained",
    "unsubscribe": "unsubscribed",
    "group_unsubscribe": "unsubscribed",
}
# Permanent reasons why SendGrid sends nothing to an address. People who unsubscribed may subscribe again, and what is
# "Invalid" by its own rules may be a mailbox all the same.
_DROPPED_FOR_ADDRESS = {"bounced address", "spam reporting address"}
# What SendGrid makes of a server's words, where that is turned on; "Unclassified" leaves them to us.
# https://www.twilio.com/docs/sendgrid/for-developers/tracking-events/event#bounce-classifications
_CLASSIFIED_AS_GONE = {"invalid address", "unclassified", ""}

_EVENTS: TypeAdapter[list[Any]] = TypeAdapter(list[Any])


class _Event(Payload):
    event: str
    timestamp: When = None
    sg_event_id: Text = None
    sg_message_id: Text = None
    email: Text = None
    status: Text = None
    type: Text = None
    bounce_classification: Text = None
    reason: Text = None
    response: Text = None
    url: Text = None
    sg_machine_open: Flag = False
    # What was given along stands among the event's own fields.
    key: Text = None
    notification_id: Text = Field(None, alias="notificationId")


def verify(
    body: bytes,
    signature: str | None,
    timestamp: str | None,
    public_key: str,
    now: datetime,
    max_age: timedelta = MAX_AGE,
) -> None:
    """Check that a request comes from SendGrid: its signature is ECDSA with P-256 and SHA-256, of timestamp and body.

    A request that is played again within `max_age` does no harm, as its events have the same ids.

    Args:
        body: As it came, to the byte.
        signature: The header `SIGNATURE_HEADER`; `None` if it is missing.
        timestamp: The header `TIMESTAMP_HEADER`; likewise.
        public_key: The verification key as SendGrid shows it: base64 of DER.
        now: The current time, with a zone.
        max_age: How long ago it may have been signed.

    Raises:
        Unverified: It does not, or that can't be verified.
    """
    if not signature or not timestamp:
        raise Unverified("it has no signature, or no timestamp")
    key = _key(public_key)
    try:
        key.verify(b64decode(signature, validate=True), timestamp.encode() + body, ECDSA(SHA256()))
    except (InvalidSignature, ValueError):
        raise Unverified("its signature is not of this body by SendGrid's key") from None
    require_fresh(timestamp, now, max_age)


def read(body: bytes, received_at: datetime) -> list[Receipt]:
    """Read the receipts of a verified request. Events that are not about delivery are ignored.

    Args:
        body: As it came.
        received_at: When; it stands for the time of an event that has none.

    Raises:
        Unreadable: It is not an array of events, or some of them are invalid; then it has the receipts of the others.
    """
    receipts: list[Receipt] = []
    wrong: list[str] = []
    elements = parsed(_EVENTS, body)
    for position, element in enumerate(elements):
        try:
            event = shaped(_Event, element)
        except Unreadable as error:
            wrong.append(f"event {position}: {error}")
            continue
        if kind := _KINDS.get(event.event):
            receipts.append(receipt(PROVIDER, _report(event, kind, event.timestamp or received_at)))
    if wrong:
        raise Unreadable("; ".join(wrong[:5]), receipts)
    return receipts


def _key(public_key: str) -> EllipticCurvePublicKey:
    try:
        key = load_der_public_key(b64decode(public_key, validate=True))
    except (ValueError, UnsupportedAlgorithm):
        raise Unverified("the verification key that is set is no DER in base64") from None
    if not isinstance(key, EllipticCurvePublicKey) or not isinstance(key.curve, SECP256R1):
        raise Unverified("the configured verification key is not a P-256 key")
    return key


def _report(event: _Event, kind: Kind, at: datetime) -> Report:
    return Report(
        event_id=event.sg_event_id,
        kind=kind,
        timestamp=at,
        # Before the dot it is what the API called it, in X-Message-Id; behind it stand SendGrid's own servers.
        provider_id=event.sg_message_id and event.sg_message_id.partition(".")[0],
        given={"key": event.key, "notificationId": event.notification_id},
        recipient=event.email,
        permanent=_is_permanent(event),
        code="machine" if event.sg_machine_open else event.status or event.type,
        message=event.reason or event.response,
        url=event.url,
    )


def _is_permanent(event: _Event) -> bool:
    """Whether the address is the reason: neither a server that blocks us nor the message's content is."""
    if event.event == "dropped":
        return (event.reason or "").lower() in _DROPPED_FOR_ADDRESS
    return (
        event.event == "bounce"
        and event.type in (None, "bounce")
        and (event.bounce_classification or "").lower() in _CLASSIFIED_AS_GONE
        and confirms_gone(event.reason, event.status, event.email)
    )
