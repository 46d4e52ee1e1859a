"""Creates notifications and their items in the queue.

Input: notices, from requests and from the rules for domain events. Output: the notification, unread and unsent, and the
queue's item from which it is delivered. Both have the notice's id, so an event that is read twice notifies once.
"""

from collections.abc import Collection, Iterator, Mapping
from dataclasses import replace
from datetime import datetime
from typing import Any

from enrich.context import Context
from enrich.documents import Document, GroupedNotification, Write
from notifications.item import URGENCY
from notifications.links import ForeignLink, Site, picture
from notifications.notice import Notice, Recipient, Words
from notifications.rules import Rules, requested
from notifications.states import store
from schemas.envelope import Envelope, InvalidEvent
from schemas.event import Event
from schemas.notifications import Channel, NotificationRequested

COLLECTION = "notifications"
QUEUE = "notificationQueue"


class Notifier:
    """Describes the notifications that rules make of domain events.

    Args:
        rules: Whom to tell what.
    """

    def __init__(self, rules: Rules) -> None:
        self._rules = rules

    @property
    def events(self) -> Collection[str]:
        """The names of the events that become notifications."""
        return self._rules.events

    def documents(self, event: Envelope[Event]) -> Iterator[Write]:
        """Describe the notifications of an event, and their items in the queue, as they are asked for."""
        return (write for notice in self._rules.notices(event) for write in _writes(notice))


def documents(event: Envelope[NotificationRequested], context: Context) -> list[Write]:
    """Describe the notification that a service asks for, and its item in the queue.

    Raises:
        InvalidEvent: Its link does not lead to the site.
    """
    notice = requested(event)
    if notice.action_url is not None:
        notice = replace(notice, action_url=_link(notice.action_url, context.site))
    return _writes(notice)


def notification(notice: Notice, words: Words, id: str | None = None) -> dict[str, Any]:  # noqa: A002  # MongoDB's name
    """Return a notification.

    Args:
        notice: Whom to tell, and how.
        words: What it says: the notice's own, or those of all that it is gathered with.
        id: The document's, where it is not the notice's.
    """
    entity = notice.related_entity
    body = {
        "_id": id or notice.id,
        "userId": notice.user_id,
        "type": notice.type,
        "title": words.title,
        "message": words.message,
        "actionUrl": words.action_url,
        "actionText": words.action_text,
        "relatedEntity": {"id": entity.id, "type": entity.type} if entity else None,
        "actorId": notice.actor_id,
        "actorName": notice.actor_name,
        "actorAvatar": picture(notice.actor_avatar) if notice.actor_avatar else None,
        "channels": {
            "inApp": {"enabled": "inApp" in notice.channels, "read": False},
            "email": {"enabled": "email" in notice.channels, "sent": False},
            "push": {"enabled": "push" in notice.channels, "sent": False},
        },
        "priority": notice.priority,
        "createdAt": notice.created_at,
        "expiresAt": notice.expires_at,
    }
    return _known(body)


def queue_item(notice: Notice, id: str | None = None, due: datetime | None = None) -> dict[str, Any]:  # noqa: A002
    """Return a notification's item in the queue; completed where the application is all there is to it.

    What a person can be reached at stays in it until there is nothing more to send.

    Args:
        notice: Whom to tell, and how.
        id: The notification's, where it is not the notice's.
        due: When to send it; `None` is at once.
    """
    outside = [channel for channel in notice.channels if channel != "inApp"]
    body = {
        "_id": id or notice.id,
        "status": "pending" if outside else "completed",
        "priority": URGENCY[notice.priority],
        "notificationId": id or notice.id,
        "userId": notice.user_id,
        "type": notice.type,
        "channels": list(notice.channels),
        "attempts": 0,
        "maxAttempts": notice.max_attempts,
        "nextRetryAt": due if outside else None,
        "errors": [],
        "createdAt": notice.created_at,
        "completedAt": None if outside else notice.created_at,
        "expiresAt": notice.expires_at,
        "transactional": notice.transactional,
        "deliveries": [store(notice.created_at).to_document()] if "inApp" in notice.channels else [],
        "recipient": _reached_at(notice.recipient, outside),
    }
    return _known(body)


def _link(link: str, site: Site) -> str | None:
    if not link.strip():
        return None
    try:
        return site.stored(link)
    except ForeignLink as error:
        # Without its link a notification means something else, so its producer should get the error.
        raise InvalidEvent("schema", f"actionUrl: {error}") from None


def _writes(notice: Notice) -> list[Write]:
    if notice.gather is not None:
        return [GroupedNotification(COLLECTION, notice)]
    return [Document(COLLECTION, notification(notice, notice.words)), Document(QUEUE, queue_item(notice))]


def _reached_at(recipient: Recipient | None, outside: Collection[Channel]) -> dict[str, Any] | None:
    if recipient is None or not outside:
        return None
    devices = [{"token": device.token, "platform": device.platform} for device in recipient.devices]
    return _known({"email": recipient.email, "devices": devices})


def _known(body: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in body.items() if value is not None}
