"""What operators read and change of notifications: one notification, the failures, retries and cancellations.

Input: ids and selections. Output: documents as they are stored, and the results of changes. A change applies only to
the item as it was read, and never to one that a worker has leased, so that commands and workers never undo each other.

After a crash: a change is one write, so it is made or not, and may be repeated.
"""

from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from datetime import datetime
from typing import Any, Literal, NamedTuple

from pymongo import DESCENDING
from pymongo.asynchronous.collection import AsyncCollection
from pymongo.asynchronous.database import AsyncDatabase
from pymongo.errors import ExecutionTimeout, OperationFailure

from notifications.item import Item, UnreadableItemError
from notifications.states import Delivery, cancel, expired, plan, retry
from schemas.notifications import Channel
from sinks.collections import EMAIL_LOGS, NOTIFICATION_QUEUE, NOTIFICATIONS, PUSH_NOTIFICATION_LOGS
from sinks.mongo.notification_queue import status_update

UNREADABLE = "unreadable"
"""The reason of an item that failed because no worker could read it."""

_LONGEST_SEARCH_MS = 20_000
_TRIES = 5
_MOST_LOGS = 100

Document = Mapping[str, Any]


class SearchTooLongError(Exception):
    """The search for a provider's id among the logs of push messages took too long."""


class StoredNotification(NamedTuple):
    """What is stored of one notification; each part may have expired.

    Attributes:
        id: The notification's id; the log's, if only a log without a notification is left.
        entry: Its item of the queue.
        notification: The notification's document.
        email_logs: The logs of its e-mails, the oldest first.
        push_logs: The logs of its push messages, likewise.
    """

    id: str
    entry: Document | None
    notification: Document | None
    email_logs: tuple[Document, ...]
    push_logs: tuple[Document, ...]

    @property
    def item(self) -> Item | None:
        """Its item of the queue as delivery reads it; `None` if it is missing or can't be read."""
        return None if self.entry is None else _read(self.entry)

    @property
    def user_id(self) -> str | None:
        """The recipient; `None` if a log of another service does not say."""
        parts = (self.entry, self.notification, *self.email_logs, *self.push_logs)
        return next((part["userId"] for part in parts if part is not None and part.get("userId")), None)

    def log(self, delivery: Delivery) -> Document | None:
        """Return the log of a delivery."""
        key = delivery.key(self.id)
        return next((log for log in (*self.email_logs, *self.push_logs) if log["_id"] == key), None)


class Selection(NamedTuple):
    """Filters for failures; all that are set apply.

    Attributes:
        since: Failed at this time or later.
        type: The type of notification.
        reason: The error code.
    """

    since: datetime | None = None
    type: str | None = None
    reason: str | None = None


class Failure(NamedTuple):
    """A delivery or an item that failed.

    Attributes:
        id: The notification's.
        user_id: The recipient.
        type: The notification's.
        channel: The delivery's channel; `None` if the whole item failed, because it could not be read.
        device: For `push`, the device.
        provider: The provider of the last attempt; `None` if there was none.
        reason: The error's code.
        message: The error's text.
        attempts: How many attempts there were.
        since: When it failed.
    """

    id: str
    user_id: str
    type: str
    channel: Channel | None
    device: str | None
    provider: str | None
    reason: str
    message: str
    attempts: int
    since: datetime


class FailureCount(NamedTuple):
    """How many deliveries failed on one channel, with one provider, for one reason, and when the last did."""

    reason: str
    channel: Channel | None
    provider: str | None
    failures: int
    latest: datetime


ActionStatus = Literal["changed", "unknown", "held", "under way", "contended", "nothing to do", "expired", "unreadable"]
"""The status of a request to change an item.

`changed`: changed, or in a dry run would be. `unknown`: there is no such item. `held`: a worker has it now. `under
way`: a worker stopped during an attempt, and no other has recovered the item yet. `contended`: the item changed during
each try. `nothing to do`: nothing failed, or nothing waits. `expired`: it would not be sent any more.
"""


class ActionResult(NamedTuple):
    """The result of a request to change an item.

    Attributes:
        id: The item's id.
        verdict: The status; the commands' JSON output has it under this name.
        worker: The worker that has the item.
        until: When its lease ends at the latest; or when the item expired.
    """

    id: str
    verdict: ActionStatus
    worker: str | None = None
    until: datetime | None = None


class NotificationAdmin:
    """Reads and changes notifications for operators.

    Every method raises `PyMongoError` if MongoDB fails, and may then be repeated.

    Args:
        database: The platform's database; moments of its documents have a zone.
    """

    def __init__(self, database: AsyncDatabase[dict[str, Any]]) -> None:
        self._queue = database[NOTIFICATION_QUEUE.name]
        self._notifications = database[NOTIFICATIONS.name]
        self._emails = database[EMAIL_LOGS.name]
        self._pushes = database[PUSH_NOTIFICATION_LOGS.name]

    async def find(self, name: str) -> StoredNotification | None:
        """Return the notification of an id: its own, a log's, or a provider's id of a message.

        Raises:
            SearchTooLongError: Only the logs of push messages are left to search, and there are too many.
        """
        if (stored := await self._of_notification(name)) is not None:
            return stored
        log = await self._log(name)
        if log is None:
            return None
        stored = (
            await self._of_notification(log["notificationId"], log.get("userId")) if "notificationId" in log else None
        )
        if stored is not None:
            return stored
        emails, pushes = ((log,), ()) if "to" in log else ((), (log,))
        return StoredNotification(log["_id"], None, None, emails, pushes)

    async def failure_counts(self, chosen: Selection) -> list[FailureCount]:
        """Count the failures by reason, channel and provider, the most frequent first."""
        names = {name: f"${name}" for name in ("reason", "channel", "provider")}
        counted = await self._queue.aggregate(
            [
                *_failures(chosen),
                {"$group": {"_id": names, "count": {"$sum": 1}, "latest": {"$max": "$since"}}},
                {"$sort": {"count": -1, "latest": -1, "_id": 1}},
            ]
        )
        return [
            FailureCount(
                group["_id"]["reason"],
                group["_id"].get("channel"),
                group["_id"].get("provider"),
                group["count"],
                group["latest"],
            )
            async for group in counted
        ]

    async def failures(self, chosen: Selection, limit: int) -> list[Failure]:
        """Return the latest failures, newest first."""
        found = await self._queue.aggregate([*_failures(chosen), {"$sort": {"since": -1, "_id": 1}}, {"$limit": limit}])
        return [
            Failure(
                one["_id"],
                one["userId"],
                one["type"],
                one.get("channel"),
                one.get("device"),
                one.get("provider"),
                one["reason"],
                one["message"],
                one["attempts"],
                one["since"],
            )
            async for one in found
        ]

    async def failed(self, chosen: Selection) -> list[str]:
        """Return the ids of the items whose deliveries failed, the oldest first."""
        found = await self._queue.aggregate(
            [
                *_failures(chosen),
                {"$group": {"_id": "$_id", "since": {"$min": "$since"}}},
                {"$sort": {"since": 1, "_id": 1}},
            ]
        )
        return [one["_id"] async for one in found]

    async def retry(
        self, item_id: str, now: datetime, *, reason: str | None = None, dry_run: bool = False
    ) -> ActionResult:
        """Retry the failed deliveries of an item, or all of one that no worker could read.

        Args:
            item_id: The item's id.
            now: The current time.
            reason: Retry only deliveries with this error code.
            dry_run: Change nothing; return what would be done.
        """

        def retried(status: str, item: Item) -> ActionResult | dict[str, Any]:
            after = [
                retry(delivery, now) if delivery.state == "failed" and reason in (None, delivery.code) else delivery
                for delivery in item.deliveries
            ]
            is_unread = status == "failed" and not any(delivery.state == "failed" for delivery in item.deliveries)
            if after == list(item.deliveries) and not (is_unread and reason in (None, UNREADABLE)):
                return ActionResult(item_id, "nothing to do")
            if expired(item.expires_at, now):
                return ActionResult(item_id, "expired", until=item.expires_at)
            if is_unread:
                return {"$set": {"status": "pending"}, "$unset": {"nextRetryAt": "", "completedAt": ""}}
            return _update(item, after, now)

        return await self._change(item_id, retried, dry_run=dry_run)

    async def cancel(self, item_id: str, now: datetime, *, dry_run: bool = False) -> ActionResult:
        """Cancel the waiting deliveries of an item; sent messages can't be recalled.

        Args:
            item_id: The item's id.
            now: The current time.
            dry_run: Change nothing; return what would be done.
        """

        def cancelled(status: str, item: Item) -> ActionResult | dict[str, Any]:
            if status != "pending":
                return ActionResult(item_id, "nothing to do")
            waiting = (*item.deliveries, *(plan(channel, now) for channel in item.unplanned))
            return _update(item, [cancel(one, now) if one.state == "waiting" else one for one in waiting], now)

        return await self._change(item_id, cancelled, dry_run=dry_run)

    async def _change(
        self, item_id: str, decide: Callable[[str, Item], ActionResult | dict[str, Any]], *, dry_run: bool
    ) -> ActionResult:
        """Apply the update that `decide` returns for the item as it was read, or return why there is none."""
        for _ in range(_TRIES):
            entry = await self._queue.find_one({"_id": item_id})
            if entry is None:
                return ActionResult(item_id, "unknown")
            if entry["status"] == "processing":
                lease = entry.get("lease", {})
                return ActionResult(item_id, "held", worker=lease.get("worker"), until=lease.get("until"))
            item = _read(entry)
            if item is None:
                return ActionResult(item_id, "unreadable")
            if any(delivery.state == "sending" for delivery in item.deliveries):
                return ActionResult(item_id, "under way")
            decided = decide(entry["status"], item)
            if isinstance(decided, ActionResult):
                return decided
            if dry_run or await self._write(entry["status"], item, decided):
                return ActionResult(item_id, "changed")
        return ActionResult(item_id, "contended")

    async def _write(self, status: str, item: Item, update: dict[str, Any]) -> bool:
        """Change an item if it is as it was read; return whether it was."""
        result = await self._queue.update_one(
            {"_id": item.id, "status": status, "lease": None, "revision": item.revision or None},
            {**update, "$inc": {"revision": 1}},
        )
        return result.matched_count == 1

    async def _of_notification(self, notification_id: str, user_id: str | None = None) -> StoredNotification | None:
        entry = await self._queue.find_one({"_id": notification_id})
        notification = await self._notifications.find_one({"_id": notification_id})
        stored = StoredNotification(notification_id, entry, notification, (), ())
        user_id = stored.user_id or user_id
        if user_id is None:
            return None
        emails, pushes = [await self._logs(logs, stored, user_id) for logs in (self._emails, self._pushes)]
        if entry is None and notification is None and not emails and not pushes:
            return None
        return stored._replace(email_logs=emails, push_logs=pushes)

    async def _logs(
        self, logs: AsyncCollection[dict[str, Any]], stored: StoredNotification, user_id: str
    ) -> tuple[Document, ...]:
        """Return the logs of a notification, by their keys and by the user: both are indexed."""
        deliveries = stored.item.deliveries if stored.item is not None else ()
        keys = [delivery.key(stored.id) for delivery in deliveries]
        of_it = logs.find({"$or": [{"_id": {"$in": keys}}, {"userId": user_id, "notificationId": stored.id}]})
        return tuple(await of_it.sort("createdAt", 1).limit(_MOST_LOGS).to_list())

    async def _log(self, name: str) -> Document | None:
        """Return a log by its own id, or by the provider's id; of several, the latest."""
        for logs in (self._emails, self._pushes):
            if (log := await logs.find_one({"_id": name})) is not None:
                return log
        newest = [("createdAt", DESCENDING)]
        if (log := await self._emails.find_one({"providerId": name}, sort=newest)) is not None:
            return log
        try:
            # The specification has no index for it: all of them are read.
            return await self._pushes.find_one({"providerId": name}, max_time_ms=_LONGEST_SEARCH_MS)
        except OperationFailure as error:
            if isinstance(error, ExecutionTimeout) or error.timeout:
                raise SearchTooLongError from error
            raise


def _failures(chosen: Selection) -> list[dict[str, Any]]:
    """Return the stages that yield the failures of failed items, with the fields of `Failure`.

    If no delivery of an item failed, the item itself did.
    """
    wanted: dict[str, Any] = {"state": "failed"}
    if chosen.since is not None:
        wanted["since"] = {"$gte": chosen.since}
    if chosen.reason is not None:
        wanted["error.code"] = chosen.reason
    of_items: dict[str, Any] = {"deliveries.state": {"$ne": "failed"}}
    if chosen.since is not None:
        of_items["processedAt"] = {"$gte": chosen.since}
    either: list[dict[str, Any]] = [{"deliveries": {"$elemMatch": wanted}}]
    if chosen.reason in (None, UNREADABLE):
        either.append(of_items)
    return [
        {
            "$match": {
                "status": "failed",
                **({} if chosen.type is None else {"type": chosen.type}),
                "$or": either,
            }
        },
        {
            "$project": {
                "userId": 1,
                "type": 1,
                "processedAt": 1,
                "createdAt": 1,
                "lastError": {"$last": "$errors.message"},
                "delivery": {
                    "$filter": {
                        "input": {"$ifNull": ["$deliveries", []]},
                        "cond": {"$eq": ["$$this.state", "failed"]},
                    }
                },
            }
        },
        {"$unwind": {"path": "$delivery", "preserveNullAndEmptyArrays": True}},
        {
            "$match": {
                "$or": [
                    {"delivery": None},
                    {f"delivery.{name}": condition for name, condition in wanted.items()},
                ]
            }
        },
        {
            "$project": {
                "userId": 1,
                "type": 1,
                "channel": "$delivery.channel",
                "device": "$delivery.device",
                "provider": "$delivery.provider",
                "reason": {"$ifNull": ["$delivery.error.code", UNREADABLE]},
                "message": {"$ifNull": ["$delivery.error.message", {"$ifNull": ["$lastError", ""]}]},
                "attempts": {"$ifNull": ["$delivery.attempts", 0]},
                "since": {"$ifNull": ["$delivery.since", {"$ifNull": ["$processedAt", "$createdAt"]}]},
            }
        },
    ]


def _read(entry: Document) -> Item | None:
    """Return an item of the queue as delivery reads it; `None` if it can't be read."""
    with suppress(UnreadableItemError):
        return Item.from_document(entry)
    return None


def _update(item: Item, after: Sequence[Delivery], now: datetime) -> dict[str, Any]:
    """Return the update that sets an item's deliveries, and the status that follows from them."""
    update = status_update(replace(item, deliveries=tuple(after)), now)
    update["$set"]["deliveries"] = [delivery.to_document() for delivery in after]
    update["$set"]["attempts"] = max((delivery.attempts for delivery in after), default=0)
    return update
