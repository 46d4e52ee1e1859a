"""Notifications that services request."""

from typing import Annotated, Literal

from pydantic import AfterValidator, ConfigDict, Field, Strict
from pydantic_core import PydanticCustomError

from schemas.event import Event, Moment
from schemas.fields import WHOLE, Flag, Id, Label, Link, Name, Prose, Value

Channel = Literal["inApp", "email", "push"]
Priority = Literal["low", "medium", "high", "urgent"]
Platform = Literal["ios", "android", "web"]


def _at_least_one(channels: tuple[Channel, ...]) -> tuple[Channel, ...]:
    # Not by `min_length`, which also complains of no item where the first one was wrong.
    if not channels:
        raise PydanticCustomError("too_short", "should have at least 1 item")
    return channels


Channels = Annotated[
    tuple[Channel, ...],
    Field(max_length=10, fail_fast=True, json_schema_extra={"minItems": 1}),
    AfterValidator(_at_least_one),
]
"""Where to tell a user, at least in one place."""


class RelatedEntity(Value):
    """What a notification is about."""

    id: Id
    type: Name


class Device(Value):
    """A device that push messages reach.

    `token` is the device's; on `web` it is the browser's subscription as JSON, with `endpoint` and `keys`.
    """

    token: Annotated[str, Field(min_length=1, max_length=4096, repr=False)]
    platform: Platform


class NotificationRequested(Event):
    """A service requests a notification for a user, in the application unless `channels` names others.

    `email` and `devices` are where to reach the user; without them, they are looked up. They are kept in the queue
    until it is delivered. A blank `email` counts as missing; an unreadable one fails only the e-mail, as
    `invalid-address`. A `transactional` request is about something that the user asked for or must know, such as a new
    password: it is sent regardless of the user's preferences.

    `actionUrl` leads to the site: a path, or a URL with one of its hosts; a request with any other is refused.
    `actorAvatar` may be on any host; an invalid URL is left out.
    """

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [
                {
                    "userId": "author-uuid-789",
                    "type": "comment_reply",
                    "title": "Ada answered your comment",
                    "message": "“Thank you, that was the missing piece.”",
                    "actionUrl": "/posts/introduction-to-typescript#comment-uuid-345",
                    "actionText": "Read the answer",
                    "relatedEntity": {"id": "comment-uuid-345", "type": "comment"},
                    "actorId": "user-uuid-456",
                    "actorName": "Ada",
                    "actorAvatar": "https://blog.example/avatars/ada.webp",
                    "channels": ["inApp", "email"],
                    "priority": "high",
                    "email": "alan@example.org",
                    "devices": [{"token": "dGhpcyBpcyBhIGRldmljZQ", "platform": "android"}],
                    "timestamp": "2026-01-31T12:00:00Z",
                }
            ]
        }
    )

    user_id: Id
    type: Name
    title: Label
    message: Prose
    action_url: Link | None = None
    action_text: Label | None = None
    related_entity: RelatedEntity | None = None
    actor_id: Id | None = None
    actor_name: Label | None = None
    actor_avatar: Link | None = None
    channels: Channels = ("inApp",)
    priority: Priority = "medium"
    expires_at: Moment | None = None
    max_attempts: Annotated[int, Strict(), Field(ge=1, le=100), WHOLE] = 5
    email: Annotated[str, Field(max_length=1024)] | None = Field(None, exclude=True, repr=False)
    devices: Annotated[tuple[Device, ...], Field(max_length=20, fail_fast=True)] = Field((), exclude=True, repr=False)
    transactional: Flag = False
    timestamp: Moment | None = None
