"""Receipts: what providers report about messages that they accepted, in one form for all providers."""

from typing import Annotated, Literal

from pydantic import ConfigDict, Field

from schemas.event import Event, Moment
from schemas.fields import Flag, Id, Link, Name, Prose

Kind = Literal["delivered", "opened", "clicked", "bounced", "complained", "deferred", "unsubscribed", "token_gone"]


class DeliveryReceived(Event):
    """A provider reported the status of a message.

    `key` and `notificationId` come back from what was given along with the message; `key` finds it best, as it comes
    back unchanged from every provider. Without either, `providerId` names the message as the provider does; it is
    `unknown` where the provider did not even say that.

    `permanent` belongs to `bounced`: nothing ever arrives at this recipient, so that nothing may be sent there again.
    Where it is false, this message alone is given up. Of a `deferred` message the provider tries again by itself.
    `recipient` is the address, or for `push` the token; it becomes part of no document, and no other field may hold it.
    """

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [
                {
                    "channel": "email",
                    "provider": "sendgrid",
                    "providerId": "14c5d75ce93",
                    "notificationId": "0190b3a4-5c6d-7e8f-9a0b-1c2d3e4f5a6b",
                    "key": "5f2b1c0a9d8e7f6a5b4c3d2e1f0a9b8c",
                    "kind": "bounced",
                    "permanent": True,
                    "recipient": "alan@example.org",
                    "code": "5.1.1",
                    "message": "550 5.1.1 <recipient>: no such user",
                    "timestamp": "2026-01-31T12:00:07Z",
                },
                {
                    "channel": "push",
                    "provider": "fcm",
                    "providerId": "projects/blog/messages/0:1500415314455276",
                    "kind": "token_gone",
                    "recipient": "dGhpcyBpcyBhIGRldmljZQ",
                    "code": "UNREGISTERED",
                    "timestamp": "2026-01-31T12:00:01Z",
                },
            ]
        }
    )

    channel: Literal["email", "push"]
    provider: Name
    provider_id: Id
    notification_id: Id | None = None
    key: Id | None = None
    kind: Kind
    permanent: Flag = False
    recipient: Annotated[str, Field(min_length=1, max_length=4096)] | None = Field(None, exclude=True, repr=False)
    code: Name | None = None
    message: Prose | None = None
    url: Link | None = None
    timestamp: Moment
