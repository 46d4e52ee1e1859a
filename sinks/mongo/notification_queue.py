"""The queue of notifications in MongoDB: which worker has which item, and until when.

Input: items that other agents have stored. Output: claims, each for one worker and a bounded time. A claim has a token
that no other claim of its item has, and every write names it: a write after the claim was lost is refused. A write of
deliveries also names the revision that was read, so workers, receipts and commands never undo each other.

An item that is `pending` with a `nextRetryAt` waits; without one it is ready. `wake` makes waiting items ready, so that
a search for ready items never reads waiting ones.

After a crash: an item becomes available again when its claim has expired.
"""

import random
import uuid
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any, NamedTuple

from pymongo.asynchronous.database import AsyncDatabase

from notifications.item import URGENCY, Item, UnreadableItemError
from notifications.states import Confirmation, Delivery, confirm, next_due, status_of
from sinks.collections import NOTIFICATION_QUEUE

LEASE = timedelta(seconds=60)
"""How long a claim lasts: longer than an attempt on every channel, with its time-outs."""

_PRIORITIES = tuple(sorted(URGENCY.values(), reverse=True))
OLDEST_IN = 8
"""One of so many claims is the oldest item of any priority, so that nothing waits for ever."""

MOST_COUNTED = 10_000
"""The backlog is counted up to this number."""

_ERRORS_KEPT = 50
_READY: Mapping[str, Any] = {"status": "pending", "nextRetryAt": None}


class Claim(NamedTuple):
    """An item that this worker has claimed for a bounded time.

    Attributes:
        id: The item's id.
        token: Identifies this claim; no other claim has it.
        item: The item as it was when it was claimed.
    """

    id: str
    token: str
    item: dict[str, Any]


class Backlog(NamedTuple):
    """The ready items that no worker has claimed.

    Attributes:
        items: How many, up to `MOST_COUNTED`.
        oldest: When the oldest was requested; `None` if there are none.
    """

    items: int
    oldest: datetime | None


class NotificationQueue:
    """The queue, as one worker sees it.

    Every method raises `PyMongoError` if MongoDB fails, and may then be repeated.

    Args:
        database: The platform's database.
        worker: The name of this process, for people who look at a claim.
        chance: Spreads the claims of several workers.
    """

    def __init__(self, database: AsyncDatabase[dict[str, Any]], worker: str, chance: random.Random) -> None:
        self._items = database[NOTIFICATION_QUEUE.name]
        self._worker = worker
        self._chance = chance

    async def wake(self, now: datetime) -> int:
        """Make due items ready, and items whose claims have expired; return how many."""
        due = await self._items.update_many(
            {"status": "pending", "nextRetryAt": {"$lte": now}}, {"$unset": {"nextRetryAt": ""}}
        )
        lost = await self._items.update_many(
            {"status": "processing", "lease.until": {"$lte": now}},
            {"$set": {"status": "pending"}, "$unset": {"lease": "", "nextRetryAt": ""}},
        )
        return due.modified_count + lost.modified_count

    async def claim(self, limit: int, now: datetime) -> list[Claim]:
        """Claim ready items: the most urgent first, of these the oldest, and sometimes the oldest of all.

        Returns:
            At most `limit` claims; fewer if other workers were faster, or less is ready.
        """
        chosen = list(dict.fromkeys([*await self._oldest(limit), *await self._most_urgent(limit)]))[:limit]
        if not chosen:
            return []
        token = uuid.uuid4().hex
        await self._items.update_many(
            {"_id": {"$in": chosen}, **_READY},
            {
                "$set": {
                    "status": "processing",
                    "lease": {"worker": self._worker, "token": token, "until": now + LEASE},
                    "processedAt": now,
                }
            },
        )
        ours = self._items.find({"_id": {"$in": chosen}, "lease.token": token})
        return sorted([Claim(item["_id"], token, item) async for item in ours], key=_urgency)

    async def change(
        self, claim: Claim, item: Item, deliveries: Sequence[Delivery], errors: Iterable[str] = (), *, now: datetime
    ) -> Item | None:
        """Write the deliveries of a claimed item if it is as it was read; durable when it returns.

        Args:
            claim: The claim.
            item: The item as it was read.
            deliveries: All of its new deliveries.
            errors: Messages for the item's list of errors, which keeps the last 50.
            now: The time of the errors.

        Returns:
            The new item; `None` if the claim was lost, or the item has changed since it was read.
        """
        changes: dict[str, Any] = {
            "deliveries": [delivery.to_document() for delivery in deliveries],
            "attempts": max((delivery.attempts for delivery in deliveries), default=0),
        }
        if begun := [delivery.since for delivery in deliveries if delivery.state == "sending"]:
            changes["lastAttemptAt"] = max(begun)
        result = await self._items.update_one(
            _as_read(claim, item), {"$set": changes, "$inc": {"revision": 1}, **_noted(errors, now)}
        )
        return replace(item, deliveries=tuple(deliveries), revision=item.revision + 1) if result.matched_count else None

    async def leased(self, claim: Claim) -> Item | None:
        """Read an item again; `None` if the claim was lost."""
        found = await self._items.find_one({"_id": claim.id, "lease.token": claim.token})
        return None if found is None else Item.from_document(found)

    async def release(self, claim: Claim, item: Item, now: datetime) -> bool:
        """Release an item; its status follows from its deliveries.

        Returns:
            Whether it was released; `False` if the claim was lost, or the item has changed since it was read.
        """
        result = await self._items.update_one(_as_read(claim, item), status_update(item, now))
        return result.matched_count == 1

    async def put_back(self, claim: Claim, until: datetime, now: datetime) -> None:
        """Release an item whose notification is missing, to be claimed later; the first time, record when.

        Args:
            claim: The claim.
            until: When to look again.
            now: The current time.
        """
        await self._items.update_one(
            {"_id": claim.id, "lease.token": claim.token},
            {
                "$set": {"status": "pending", "nextRetryAt": until},
                "$min": {"missingSince": now},
                "$unset": {"lease": ""},
            },
        )

    async def give_up(self, claim: Claim, error: str, now: datetime) -> None:
        """Mark an item that can't be read as failed; nothing else is changed, except errors that are not a list."""
        noted = _noted([error], now)
        given = noted["$push"]["errors"]["$each"]
        is_list = isinstance(claim.item.get("errors", []), list)
        await self._items.update_one(
            {"_id": claim.id, "lease.token": claim.token},
            {
                "$set": {"status": "failed", **({} if is_list else {"errors": given})},
                "$unset": {"lease": "", "nextRetryAt": ""},
                **(noted if is_list else {}),
            },
        )

    async def confirm(self, item_id: str, key: str, confirmation: Confirmation, now: datetime) -> bool:
        """Apply a provider's report of a message, even if a worker has the item; return whether it changed.

        Args:
            item_id: The item's id.
            key: The message's key, as `Delivery.key` returns it.
            confirmation: The report.
            now: The current time.
        """
        while True:
            found = await self._items.find_one({"_id": item_id})
            if found is None:
                return False
            try:
                item = Item.from_document(found)
            except UnreadableItemError:
                return False
            deliveries = tuple(
                confirm(delivery, confirmation, now) if delivery.key(item.notification_id) == key else delivery
                for delivery in item.deliveries
            )
            if deliveries == item.deliveries:
                return False
            after = replace(item, deliveries=deliveries)
            lease = found.get("lease")
            token = lease.get("token") if isinstance(lease, Mapping) else None
            # Otherwise the worker that has it, or recovers it, sets its status.
            is_ours = token is None and not any(delivery.state == "sending" for delivery in deliveries)
            changes = status_update(after, now) if is_ours else {}
            changes.setdefault("$set", {})["deliveries"] = [delivery.to_document() for delivery in deliveries]
            result = await self._items.update_one(
                {"_id": item_id, "lease.token": token, "revision": item.revision or None},
                {**changes, "$inc": {"revision": 1}},
            )
            if result.matched_count:
                return True

    async def measure(self) -> Backlog:
        """Return the backlog."""
        ready = await self._items.count_documents(_READY, limit=MOST_COUNTED)
        oldest = await self._oldest_ready(1)
        created_at = oldest[0].get("createdAt") if oldest else None
        return Backlog(ready, created_at if isinstance(created_at, datetime) else None)

    async def is_any_ready(self) -> bool:
        """Return whether any item is ready."""
        return await self._items.find_one(_READY, {"_id": 1}) is not None

    async def _most_urgent(self, limit: int) -> list[str]:
        """Return the most urgent items; of many equally urgent ones a random part, as other workers choose too."""
        ready = self._items.find(_READY, {"priority": 1}).sort([("priority", -1), ("createdAt", 1)])
        candidates = await ready.limit(4 * limit).to_list()
        if len(candidates) == 4 * limit and candidates[0].get("priority") == candidates[-1].get("priority"):
            start = limit * self._chance.randrange(4)
            candidates = candidates[start : start + limit]
        return [candidate["_id"] for candidate in candidates[:limit]]

    async def _oldest(self, limit: int) -> list[str]:
        """Return the oldest items of all priorities: one in `OLDEST_IN` of the limit, and sometimes none."""
        count, rest = divmod(limit, OLDEST_IN)
        count += self._chance.randrange(OLDEST_IN) < rest
        if not count:
            return []
        return [item["_id"] for item in await self._oldest_ready(count)]

    async def _oldest_ready(self, count: int) -> list[dict[str, Any]]:
        """Return ids and times of the oldest ready items, by one short scan of the index for each priority."""
        found: list[dict[str, Any]] = []
        for priority in _PRIORITIES:
            ready = self._items.find({**_READY, "priority": priority}, {"createdAt": 1}).sort("createdAt", 1)
            found += await ready.limit(count).to_list()
        return sorted(found, key=_created_at)[:count]


def _as_read(claim: Claim, item: Item) -> dict[str, Any]:
    """Return the filter that matches an item only while the claim holds and it is as it was read."""
    return {"_id": claim.id, "lease.token": claim.token, "revision": item.revision or None}


def status_update(item: Item, now: datetime) -> dict[str, Any]:
    """Return the update that sets an item's status from its deliveries, and removes the lease."""
    status = status_of(item.deliveries)
    due = next_due(item.deliveries) if status == "pending" else None
    if due is not None and item.expires_at is not None:
        due = min(due, item.expires_at)  # waiting deliveries are skipped then
    unset = {"lease": "", "missingSince": ""}
    changes: dict[str, Any] = {"status": status}
    if due is not None and due > now:
        changes["nextRetryAt"] = due
    else:
        unset["nextRetryAt"] = ""
    if status == "completed":
        changes["completedAt"] = now
        unset["recipient"] = ""  # addresses are kept no longer than needed
    else:
        unset["completedAt"] = ""
    return {"$set": changes, "$unset": unset}


def _noted(errors: Iterable[str], now: datetime) -> dict[str, Any]:
    noted = [{"message": error, "timestamp": now} for error in errors]
    return {"$push": {"errors": {"$each": noted, "$slice": -_ERRORS_KEPT}}} if noted else {}


def _urgency(claim: Claim) -> tuple[float, datetime]:
    # An item that can't be read comes first, and fails.
    priority = claim.item.get("priority")
    return -priority if isinstance(priority, int | float) else -URGENCY["urgent"], _created_at(claim.item)


def _created_at(item: Mapping[str, Any]) -> datetime:
    created_at = item.get("createdAt")
    return created_at if isinstance(created_at, datetime) else datetime.min.replace(tzinfo=UTC)
