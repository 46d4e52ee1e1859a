"""Notifications: what a user is to be told, and its place in the queue.

In comes a request, out go the notification, unread and unsent, and the queue entry from which it will be delivered.
Both have the request's id, so that a request read twice notifies once. Neither holds an address or a device: the schema
excludes them from every document.
"""

from enrich.context import Context
from enrich.documents import Document, Write
from enrich.verbatim import payload
from notifications.notice import expiry
from schemas.event import Envelope
from schemas.notifications import NotificationRequested, Priority

URGENCY: dict[Priority, int] = {"low": 1, "medium": 2, "high": 3, "urgent": 4}
"""The queue's `priority`: higher is more urgent."""


def documents(event: Envelope[NotificationRequested], _: Context) -> list[Write]:
    """Describe the notification and its entry in the queue."""
    return [_notification(event), _queue_entry(event)]


def _notification(event: Envelope[NotificationRequested]) -> Document:
    request = event.data
    return Document(
        "notifications",
        payload(request, without=frozenset({"max_attempts", "transactional"}))
        | {
            "_id": event.id,
            "channels": {
                "inApp": {"enabled": "inApp" in request.channels, "read": False},
                "email": {"enabled": "email" in request.channels, "sent": False},
                "push": {"enabled": "push" in request.channels, "sent": False},
            },
            "createdAt": event.time,
            "expiresAt": request.expires_at or expiry(event.time),
        },
    )


def _queue_entry(event: Envelope[NotificationRequested]) -> Document:
    request = event.data
    return Document(
        "notificationQueue",
        {
            "_id": event.id,
            "status": "pending",
            "priority": URGENCY[request.priority],
            "notificationId": event.id,
            "userId": request.user_id,
            "type": request.type,
            "channels": list(dict.fromkeys(request.channels)),
            "attempts": 0,
            "maxAttempts": request.max_attempts,
            "errors": [],
            "createdAt": event.time,
        },
    )
