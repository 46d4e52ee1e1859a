"""Notifications in MongoDB as delivery needs them: their content, and which channels have been sent.

Input: ids and items of the queue. Output: documents, and marks that keep their first value. Every write may be
repeated.
"""

from collections.abc import Mapping
from datetime import datetime
from typing import Any

from pymongo.asynchronous.database import AsyncDatabase

from notifications.item import Item
from schemas.notifications import Channel
from sinks.collections import NOTIFICATIONS

_LOG_FIELDS: Mapping[Channel, str] = {"email": "emailId", "push": "pushId"}


class Notifications:
    """The notifications of all users.

    Every method raises `PyMongoError` if MongoDB fails, and may then be repeated.

    Args:
        database: The platform's database.
    """

    def __init__(self, database: AsyncDatabase[dict[str, Any]]) -> None:
        self._notifications = database[NOTIFICATIONS.name]

    async def find(self, notification_id: str) -> dict[str, Any] | None:
        """Return a notification; `None` if there is none."""
        return await self._notifications.find_one({"_id": notification_id})

    async def mark_sent(self, item: Item) -> None:
        """Mark the channels on which a provider has taken the notification, each with its first message's log."""
        for channel in _LOG_FIELDS:
            arrived = [
                delivery
                for delivery in item.deliveries
                if delivery.channel == channel and delivery.state in ("sent", "delivered")
            ]
            if not arrived:
                continue
            first = min(arrived, key=lambda delivery: delivery.since)
            key = first.key(item.notification_id)
            await self._notifications.update_one(*_mark(item.notification_id, channel, key, first.since))

    async def mark_arrived(self, notification_id: str, channel: Channel, key: str, sent_at: datetime) -> None:
        """Mark a channel on which a message has arrived, as a receipt says; `key` names the message's log."""
        await self._notifications.update_one(*_mark(notification_id, channel, key, sent_at))


def _mark(notification_id: str, channel: Channel, key: str, sent_at: datetime) -> tuple[dict[str, Any], dict[str, Any]]:
    """Return the filter and the update that mark a channel, unless it is marked."""
    at = f"channels.{channel}"
    marks = {f"{at}.sent": True, f"{at}.sentAt": sent_at, f"{at}.{_LOG_FIELDS[channel]}": key}
    return {"_id": notification_id, f"{at}.sent": False}, {"$set": marks}
