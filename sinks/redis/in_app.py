"""Live data for applications: unread counts, and announcements of new notifications.

Input: users and stored notifications. Output: counts in Redis, each with an expiry, and a message to the channel of
each user, for services that hold the users' sockets. MongoDB is the source of truth: a count that Redis loses is
computed again, and an announcement that nobody received is in the list of notifications.
"""

from collections.abc import Collection, Iterable, Mapping
from datetime import timedelta
from typing import Any

from pydantic_core import to_json
from pymongo.asynchronous.database import AsyncDatabase
from pymongo.errors import PyMongoError
from redis.exceptions import RedisError

from sinks.collections import NOTIFICATIONS
from sinks.redis.connection import connect
from sinks.redis.refusals import RedisRefusals

_KEPT = timedelta(minutes=5)
"""The age that a count may reach, as notifications are marked as read in the platform's own services."""

_TIMEOUT_SECONDS = 1.0
_FEATURE = "in-app"
_USERS_AT_ONCE = 1_000
_SHOWN = ("type", "title", "message", "actionUrl", "actionText", "actorName", "actorAvatar", "priority", "createdAt")


class InApp:
    """The live state of users' notifications.

    Args:
        database: The platform's database.
        url: Where Redis is.
        prefix: Begins the name of every key and channel.
        refusals: Reports commands that Redis refuses.

    Raises:
        RedisUrlError: Not a Redis URL.
    """

    def __init__(
        self,
        database: AsyncDatabase[dict[str, Any]],
        url: str,
        prefix: str,
        refusals: RedisRefusals | None = None,
    ) -> None:
        self._refusals = refusals or RedisRefusals()
        self._notifications = database[NOTIFICATIONS.name]
        self._redis = connect(url, _TIMEOUT_SECONDS)
        self._unread = f"{prefix}unread:"
        self._channel = f"{prefix}notifications:"

    async def unread(self, users: Collection[str]) -> dict[str, int]:
        """Count each user's unread notifications, by the specification's aggregation.

        Raises:
            PyMongoError: MongoDB fails.
        """
        counted = await self._notifications.aggregate(
            [
                {"$match": {"userId": {"$in": list(users)}, "channels.inApp.read": False}},
                {"$group": {"_id": "$userId", "unreadCount": {"$sum": 1}}},
            ]
        )
        return dict.fromkeys(users, 0) | {row["_id"]: row["unreadCount"] async for row in counted}

    async def announce(self, notifications: Iterable[Mapping[str, Any]]) -> None:
        """Announce stored notifications to the users' applications, with new unread counts.

        If MongoDB or Redis fails, the rest is omitted.

        Args:
            notifications: Their documents.
        """
        by_user: dict[str, list[Mapping[str, Any]]] = {}
        for notification in notifications:
            by_user.setdefault(notification["userId"], []).append(notification)
        users = list(by_user)
        try:
            for start in range(0, len(users), _USERS_AT_ONCE):
                await self._announce({user: by_user[user] for user in users[start : start + _USERS_AT_ONCE]})
        except PyMongoError:
            return
        except RedisError as error:
            self._refusals.note(_FEATURE, error)
        else:
            self._refusals.succeeded(_FEATURE)

    async def _announce(self, by_user: Mapping[str, Iterable[Mapping[str, Any]]]) -> None:
        unread = await self.unread(by_user.keys())
        async with self._redis.pipeline(transaction=False) as commands:
            for user, new in by_user.items():
                commands.set(self._unread + user, unread[user], ex=_KEPT)
                for notification in new:
                    if not notification["channels"]["inApp"]["enabled"]:
                        continue
                    shown = {name: notification[name] for name in _SHOWN if name in notification}
                    message = {"id": notification["_id"], "unreadCount": unread[user], **shown}
                    commands.publish(self._channel + user, to_json(message))
            await commands.execute()

    async def close(self) -> None:
        """Close all connections."""
        await self._redis.aclose()
