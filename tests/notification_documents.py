"""Documents of notifications as the worker writes them, for tests of whoever reads them."""

from collections.abc import Iterable
from datetime import datetime, timedelta
from typing import Any

from enrich.notifications import notification, queue_item
from notifications.notice import Notice, Recipient, expiry
from notifications.states import Delivery, device_name, next_due, status_of, store
from schemas.notifications import Channel, Device

ADDRESS = "grace.hopper@example.org"
TOKEN = "dGhpcyBpcyBhIGRldmljZQ"
DEVICE = device_name(TOKEN)
KEY_OF_A_RULE = "5f2b1c0a9d8e7f6a5b4c3d2e1f0a9b8c"


def notice(id: str, created_at: datetime, *channels: Channel, **fields: Any) -> Notice:  # noqa: A002
    """Return a notice to `grace` that Ada answered her comment."""
    values: dict[str, Any] = {
        "id": id,
        "user_id": "grace",
        "type": "comment_reply",
        "title": "Ada answered your comment",
        "message": "“Thank you.”",
        "action_url": "/posts/types",
        "action_text": "Read the answer",
        "related_entity": None,
        "actor_id": "ada",
        "actor_name": "Ada",
        "actor_avatar": None,
        "channels": channels or ("inApp", "email", "push"),
        "priority": "high",
        "created_at": created_at,
        "expires_at": expiry(created_at),
        "recipient": Recipient(ADDRESS, (Device(token=TOKEN, platform="android"),)),
    }
    return Notice(**{**values, **fields})


def entry(of: Notice, deliveries: Iterable[Delivery] = (), /, **fields: Any) -> dict[str, Any]:
    """Return the item of the queue, with deliveries beside that in the application as a worker leaves them."""
    item = queue_item(of)
    outside = tuple(deliveries)
    if outside:
        all_of_them = (store(of.created_at), *outside)
        item |= {
            "status": status_of(all_of_them),
            "deliveries": [delivery.to_document() for delivery in all_of_them],
            "attempts": max(delivery.attempts for delivery in all_of_them),
            "processedAt": of.created_at + timedelta(seconds=1),
            "revision": 2,
        }
        if item["status"] == "pending":
            item["nextRetryAt"] = next_due(all_of_them)
        if item["status"] == "completed":
            item["completedAt"] = of.created_at + timedelta(seconds=2)
            item.pop("recipient", None)
    return {**item, **fields}


def shown(of: Notice) -> dict[str, Any]:
    """Return the notification as the application shows it."""
    return notification(of, of.words)


def email_log(of: Notice, status: str, *events: tuple[str, datetime, dict[str, Any]], **fields: Any) -> dict[str, Any]:
    """Return the log of its e-mail; events are types, moments and metadata."""
    delivery = Delivery(channel="email", state="waiting", since=of.created_at, next_attempt_at=of.created_at)
    return {
        "_id": delivery.key(of.id),
        "to": ADDRESS,
        "from": "The Blog <notifications@blog.example>",
        "subject": of.title,
        "templateId": of.type,
        "provider": "sendgrid",
        "status": status,
        "events": [
            {"type": "queued", "timestamp": of.created_at},
            *({"type": kind, "timestamp": at, **({"metadata": data} if data else {})} for kind, at, data in events),
        ],
        "notificationId": of.id,
        "userId": of.user_id,
        "createdAt": of.created_at,
        **fields,
    }


def push_log(of: Notice, status: str, **fields: Any) -> dict[str, Any]:
    """Return the log of its push message to the device."""
    delivery = Delivery(
        channel="push", device=DEVICE, state="waiting", since=of.created_at, next_attempt_at=of.created_at
    )
    return {
        "_id": delivery.key(of.id),
        "userId": of.user_id,
        "deviceToken": TOKEN,
        "platform": "android",
        "title": of.title,
        "body": of.message,
        "provider": "fcm",
        "status": status,
        "notificationId": of.id,
        "createdAt": of.created_at,
        **fields,
    }
