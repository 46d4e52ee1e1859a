"""Amazon SES by Amazon SNS: the signature of SNS, and the events of SES in its messages.

Input: the body of a request and the certificate that it names, which the caller fetches. Output: receipts, or a
subscription to confirm. A request contains one event, of which only `eventType` is required, besides what SNS signs.
Source: https://docs.aws.amazon.com/sns/latest/dg/sns-verify-signature-of-message.html,
https://docs.aws.amazon.com/sns/latest/dg/sns-message-and-json-formats.html, and of the events
https://docs.aws.amazon.com/ses/latest/dg/event-publishing-retrieving-sns-contents.html.
"""

import re
from base64 import b64decode
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Annotated, Any, Final, Literal
from urllib.parse import urlsplit

from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric.padding import PKCS1v15
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPublicKey
from cryptography.hazmat.primitives.hashes import SHA1, SHA256
from cryptography.x509 import InvalidVersion, load_pem_x509_certificate
from pydantic import BeforeValidator, Field, TypeAdapter
from pydantic.alias_generators import to_camel

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
    listed,
    parsed,
    require_recent,
    shaped,
)
from schemas.event import Moment
from schemas.receipts import Kind

PROVIDER: Final = "aws-ses"

MAX_AGE: Final = timedelta(hours=1) + MARGIN
"""SNS repeats a request for at most an hour, with the timestamp of the first."""

# No more than a region's name fits here: a bucket named `sns` has the host `sns.s3-us-west-2.amazonaws.com`.
_HOST = re.compile(r"sns\.[a-z]{2}(-[a-z]+)+-[0-9]{1,2}\.amazonaws\.com")
# Behind a question mark the same host answers with what anybody stored there.
_CERTIFICATE_PATH = re.compile(r"/SimpleNotificationService-[A-Za-z0-9]+\.pem")

_SIGNED_IN_NOTIFICATIONS = ("Message", "MessageId", "Subject", "Timestamp", "TopicArn", "Type")
_SIGNED_IN_CONFIRMATIONS = ("Message", "MessageId", "SubscribeURL", "Timestamp", "Token", "TopicArn", "Type")

# By each event's type, the field with what there is to say of it.
_DETAILS = {
    "Delivery": "delivery",
    "Bounce": "bounce",
    "Complaint": "complaint",
    "Open": "open",
    "Click": "click",
    "DeliveryDelay": "deliveryDelay",
    "Reject": "reject",
    "Rendering Failure": "failure",
    "RenderingFailure": "failure",
}
_KINDS: Mapping[str, Kind] = {
    "delivery": "delivered",
    "bounce": "bounced",
    "complaint": "complained",
    "open": "opened",
    "click": "clicked",
    "deliveryDelay": "deferred",
    "reject": "bounced",
    "failure": "bounced",
}
_SUPPRESSED = "OnAccountSuppressionList"
# Not so `UnsubscribedRecipient`: a person may subscribe again.
_SUB_TYPES_OF_ADDRESS = {"NoEmail", "Suppressed", _SUPPRESSED}
# What SES posts once when events are set up, in place of an event.
_GREETING = "Successfully validated SNS topic"


@dataclass(frozen=True, slots=True)
class Confirmation:
    """A subscription that begins when its URL is fetched.

    Attributes:
        url: Of Amazon SNS, over HTTPS; to be fetched once. Holds a token: not to be logged.
    """

    url: str = field(repr=False)


_AsSigned = Annotated[str | None, BeforeValidator(lambda value: value if isinstance(value, str) else None)]


class _Message(Payload):
    """A message of SNS; its texts are unchanged, because they are signed."""

    type: Literal["Notification", "SubscriptionConfirmation", "UnsubscribeConfirmation"] = Field(alias="Type")
    message_id: str = Field(alias="MessageId", min_length=1)
    topic_arn: str = Field(alias="TopicArn")
    message: str = Field(alias="Message", repr=False)
    timestamp: str = Field(alias="Timestamp")
    signature_version: str = Field(alias="SignatureVersion")
    signature: str = Field(alias="Signature")
    signing_cert_url: str = Field(alias="SigningCertURL")
    subject: _AsSigned = Field(None, alias="Subject")
    token: _AsSigned = Field(None, alias="Token", repr=False)
    subscribe_url: _AsSigned = Field(None, alias="SubscribeURL", repr=False)


_Texts = Annotated[
    tuple[str, ...], BeforeValidator(lambda value: [one for one in listed(value) if isinstance(one, str)])
]


class _CamelCase(Detail, alias_generator=to_camel):
    pass


class _Recipient(_CamelCase):
    email_address: Text = None
    status: Text = None
    diagnostic_code: Text = None


_Recipients = Annotated[tuple[_Recipient, ...], BeforeValidator(listed)]


class _Details(_CamelCase):
    """The fields of all types of events; each type has some of them."""

    timestamp: When = None
    bounce_type: Text = None
    bounce_sub_type: Text = None
    bounced_recipients: _Recipients = ()
    complained_recipients: _Recipients = ()
    complaint_sub_type: Text = None
    complaint_feedback_type: Text = None
    delayed_recipients: _Recipients = ()
    delay_type: Text = None
    recipients: _Texts = ()
    smtp_response: Text = None
    link: Text = None
    reason: Text = None
    error_message: Text = None


class _Mail(_CamelCase):
    message_id: Text = None
    destination: _Texts = ()
    tags: Names = Field(default_factory=dict)


_MESSAGE = TypeAdapter(_Message)
_MOMENT = TypeAdapter(Moment)
_OBJECT: TypeAdapter[dict[str, Any]] = TypeAdapter(dict[str, Any])


def certificate_url(body: bytes, topic_arn: str) -> str:
    """Return the URL of the certificate that signed a request, if it is at Amazon SNS; the caller fetches it.

    To be fetched without following redirects. It may be kept: a new certificate has a new URL.

    Args:
        body: As it came.
        topic_arn: The one topic that may be it: who does not even know that has us fetch nothing.

    Raises:
        Unverified: It is elsewhere, or the body is not a message of SNS, or of another topic.
    """
    message = _message(body)
    _require_topic(message, topic_arn)
    return _certificate_url(message)


def verify(body: bytes, certificate: bytes, topic_arn: str, now: datetime, max_age: timedelta = MAX_AGE) -> None:
    """Check that a request comes from Amazon SNS, and from our topic: its signature is RSA with SHA-1 or SHA-256.

    A request that is played again within `max_age` does no harm, as its event has the same id.

    Args:
        body: As it came.
        certificate: What `certificate_url` led to, PEM.
        topic_arn: The one topic that may be it.
        now: The current time, with a zone.
        max_age: How long ago it may have been published.

    Raises:
        Unverified: It does not, or that can't be verified.
    """
    message = _message(body)
    _certificate_url(message)
    _require_topic(message, topic_arn)
    if message.signature_version not in ("1", "2"):
        raise Unverified("its signature is of an unknown version")
    key = _key(certificate, now)
    try:
        key.verify(
            b64decode(message.signature, validate=True),
            _signed(message),
            PKCS1v15(),
            # Version 1 is what a topic has unless it is set otherwise.
            SHA1() if message.signature_version == "1" else SHA256(),  # noqa: S303
        )
    except (InvalidSignature, ValueError):
        raise Unverified("its signature is not of this message by the certificate's key") from None
    require_recent(_signed_at(message), now, max_age)


def read(body: bytes) -> list[Receipt] | Confirmation:
    """Read a verified request: receipts, or a subscription to confirm.

    There are none if the event is not about delivery. An event for several recipients has a receipt for
    each.

    Raises:
        Unverified: The URL of a subscription is not of Amazon SNS.
        Unreadable: It is not an event of SES.
    """
    message = parsed(_MESSAGE, body)
    if message.type == "SubscriptionConfirmation":
        return Confirmation(_subscribe_url(message))
    if message.type == "UnsubscribeConfirmation" or message.message.startswith(_GREETING):
        return []
    event = parsed(_OBJECT, message.message)
    name = next((name for name in map(event.get, ("eventType", "notificationType")) if isinstance(name, str)), None)
    if name is None:
        raise Unreadable("eventType: missing")
    about = _DETAILS.get(name)
    if about is None:
        return []
    mail, details = shaped(_Mail, event.get("mail")), shaped(_Details, event.get(about))
    if details.complaint_feedback_type == "not-spam":
        return []
    at = details.timestamp or _published(message)
    return [receipt(PROVIDER, report) for report in _reports(message.message_id, about, at, mail, details)]


def _reports(message_id: str, about: str, at: datetime, mail: _Mail, details: _Details) -> Iterator[Report]:
    # What is on the account's list of complaints was not sent at all.
    is_suppressed = details.complaint_sub_type == _SUPPRESSED
    for position, recipient in enumerate(_recipients(mail, details)):
        yield Report(
            event_id=f"{message_id}:{position}" if position else message_id,
            kind="bounced" if is_suppressed else _KINDS[about],
            timestamp=at,
            provider_id=mail.message_id,
            given={name: values[0] for name, values in mail.tags.items() if isinstance(values, list) and values},
            recipient=recipient.email_address,
            permanent=is_suppressed or (about == "bounce" and _is_permanent(details, recipient)),
            code=recipient.status
            or details.bounce_sub_type
            or details.complaint_sub_type
            or details.complaint_feedback_type
            or details.delay_type
            or (about if about in ("reject", "failure") else None),
            message=recipient.diagnostic_code or details.smtp_response or details.reason or details.error_message,
            url=details.link,
        )


def _is_permanent(details: _Details, recipient: _Recipient) -> bool:
    """Whether the address is the permanent reason: `General` is any reply of 5xx, so the server's text decides too.

    https://docs.aws.amazon.com/ses/latest/dg/notification-contents.html#bounce-types
    """
    if (details.bounce_type or "").lower() != "permanent":
        return False
    if details.bounce_sub_type in _SUB_TYPES_OF_ADDRESS:
        return True
    is_general = details.bounce_sub_type in (None, "General")
    return is_general and confirms_gone(recipient.diagnostic_code, recipient.status, recipient.email_address)


def _recipients(mail: _Mail, details: _Details) -> Sequence[_Recipient]:
    """Return the recipients of an event, at least one.

    Where the message went to one address, it is that one: a server may name another, to which it forwards.
    """
    named = details.bounced_recipients or details.complained_recipients or details.delayed_recipients
    if len(mail.destination) == 1:
        reported = named[0] if named else _Recipient()
        return [reported.model_copy(update={"email_address": mail.destination[0]})]
    # To which of several a click belongs, nobody can tell.
    return named or [_Recipient(emailAddress=address) for address in details.recipients] or [_Recipient()]


def _message(body: bytes) -> _Message:
    try:
        return parsed(_MESSAGE, body)
    except Unreadable as error:
        raise Unverified(f"it is no message of Amazon SNS: {error}") from None


def _require_topic(message: _Message, topic_arn: str) -> None:
    if message.topic_arn != topic_arn:
        raise Unverified("it is of another topic than the one that is set")


def _certificate_url(message: _Message) -> str:
    url = message.signing_cert_url
    if not _is_of_sns(url) or not _CERTIFICATE_PATH.fullmatch(urlsplit(url).path) or "?" in url or "#" in url:
        raise Unverified("its certificate is not with Amazon SNS")
    return url


def _subscribe_url(message: _Message) -> str:
    if message.subscribe_url is None or not _is_of_sns(message.subscribe_url):
        raise Unverified("the URL of the subscription is not of Amazon SNS")
    return message.subscribe_url


def _is_of_sns(url: str) -> bool:
    """Whether a URL is `https://sns.<region>.amazonaws.com/...`, without port, user or ambiguous parts."""
    # Before anything else, as urlsplit drops what it takes for stray: tabs, line breaks, blanks at the ends.
    if not re.fullmatch(r"https://[!-~]+", url) or "\\" in url:
        return False
    try:
        return _HOST.fullmatch(urlsplit(url).netloc) is not None
    except ValueError:
        return False


def _key(certificate: bytes, now: datetime) -> RSAPublicKey:
    try:
        read_certificate = load_pem_x509_certificate(certificate)
        key = read_certificate.public_key()
    except (ValueError, UnsupportedAlgorithm, InvalidVersion):
        raise Unverified("its certificate can't be read") from None
    if not isinstance(key, RSAPublicKey):
        raise Unverified("its certificate is not of an RSA key")
    if not read_certificate.not_valid_before_utc <= now <= read_certificate.not_valid_after_utc:
        raise Unverified("its certificate is not valid now")
    return key


def _signed(message: _Message) -> bytes:
    """Return the signed text: names and values alternately, one a line. A missing `Subject` has no line."""
    values = message.model_dump(by_alias=True)
    names = _SIGNED_IN_NOTIFICATIONS if message.type == "Notification" else _SIGNED_IN_CONFIRMATIONS
    return "".join(f"{name}\n{values[name]}\n" for name in names if values[name] is not None).encode()


def _signed_at(message: _Message) -> datetime:
    try:
        return _MOMENT.validate_python(message.timestamp)
    except ValueError:
        raise Unverified("its timestamp is no moment") from None


def _published(message: _Message) -> datetime:
    try:
        return _MOMENT.validate_python(message.timestamp)
    except ValueError:
        raise Unreadable("Timestamp: should be a moment") from None
