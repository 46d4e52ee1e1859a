"""Notifications: a service asks that somebody be told something."""

from typing import Annotated, Literal

from pydantic import ConfigDict, Field

from schemas.event import Event, Moment
from schemas.fields import Id, Link, Name, Value

Channel = Literal["inApp", "email", "push"]
Priority = Literal["low", "medium", "high", "urgent"]
Platform = Literal["ios", "android", "web"]


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
    """A service wants a user told something, in the application unless `channels` says where.

    `email` and `devices` are where to reach the user; without them, they are looked up. They are kept in the queue
    until it is delivered. A blank `email` is none; one that can't be read fails its delivery as `invalid-address`, and
    nothing else of the request. A `transactional` request is about what the user asked for or must know, as a new
    password: it is sent whatever the user's preferences are.

    `actionUrl` leads to the site: a path, or a URL with one of its hosts; a request with any other is refused.
    `actorAvatar` may be anywhere; what is no address of a picture is left out.
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
    title: str
    message: str
    action_url: Link | None = None
    action_text: str | None = None
    related_entity: RelatedEntity | None = None
    actor_id: Id | None = None
    actor_name: str | None = None
    actor_avatar: Link | None = None
    channels: Annotated[tuple[Channel, ...], Field(min_length=1)] = ("inApp",)
    priority: Priority = "medium"
    expires_at: Moment | None = None
    max_attempts: Annotated[int, Field(ge=1, le=100)] = 5
    email: Annotated[str, Field(max_length=1024)] | None = Field(None, exclude=True, repr=False)
    devices: Annotated[tuple[Device, ...], Field(max_length=20)] = Field((), exclude=True, repr=False)
    transactional: bool = False
    timestamp: Moment | None = None
