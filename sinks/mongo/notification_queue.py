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
"""How long a worker may hold an item: more than an attempt on every channel takes, time-outs and all."""

_PRIORITIES = tuple(sorted(URGENCY.values(), reverse=True))
OLDEST_IN = 8
"""One in so many of what is claimed is the oldest there is, whatever its priority: so nothing waits for ever."""

MOST_COUNTED = 10_000
"""Beyond this the backlog is not counted, only that it is long."""

_ERRORS_KEPT = 50
_READY: Mapping[str, Any] = {"status": "pending", "nextRetryAt": None}


class Claim(NamedTuple):
    """An item that is ours for a while.

    Attributes:
        id: The item's id.
        token: Names this claim of the item; no other has it.
        item: The item as it was when it was claimed.
    """

    id: str
    token: str
    item: dict[str, Any]


class Backlog(NamedTuple):
    """What is ready and nobody has taken.

    Attributes:
        items: How many, up to `MOST_COUNTED`.
        oldest: When the oldest was asked for; `None` where there are none.
    """

    items: int
    oldest: datetime | None


class NotificationQueue:
    """The queue, as one worker sees it.

    Every method raises `PyMongoError` where MongoDB is not up to it, and may be repeated then.

    Args:
        database: The platform's database.
        worker: Names this process among all workers, for whoever looks at a claim.
        chance: Decides who takes which of many.
    """

    def __init__(self, database: AsyncDatabase[dict[str, Any]], worker: str, chance: random.Random) -> None:
        self._items = database[NOTIFICATION_QUEUE.name]
        self._worker = worker
        self._chance = chance

    async def wake(self, now: datetime) -> int:
        """Make ready what is due, and what was claimed by workers that never came back; return how many are."""
        due = await self._items.update_many(
            {"status": "pending", "nextRetryAt": {"$lte": now}}, {"$unset": {"nextRetryAt": ""}}
        )
        lost = await self._items.update_many(
            {"status": "processing", "lease.until": {"$lte": now}},
            {"$set": {"status": "pending"}, "$unset": {"lease": "", "nextRetryAt": ""}},
        )
        return due.modified_count + lost.modified_count

    async def claim(self, limit: int, now: datetime) -> list[Claim]:
        """Claim what is ready: the most urgent first, of these the oldest, and now and then the oldest of all.

        Returns:
            At most so many claims; fewer where other workers were faster, or nothing is ready.
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
        """Write the deliveries of an item that is still ours, upon what was read; durable when it returns.

        Args:
            claim: The claim.
            item: The item as it was read.
            deliveries: All of its deliveries, as they are from now on.
            errors: What went wrong. Of all errors the last 50 are kept.
            now: When that was.

        Returns:
            The item as it is now; `None` where it is no longer ours, or has changed since it was read.
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
        """Read an item again; `None` where it is no longer ours."""
        found = await self._items.find_one({"_id": claim.id, "lease.token": claim.token})
        return None if found is None else Item.from_document(found)

    async def release(self, claim: Claim, item: Item, now: datetime) -> bool:
        """Give an item back: its status follows from its deliveries.

        Returns:
            Whether it is given back; not so where it is no longer ours, or has changed since it was read.
        """
        result = await self._items.update_one(_as_read(claim, item), status_update(item, now))
        return result.matched_count == 1

    async def put_back(self, claim: Claim, until: datetime, now: datetime) -> None:
        """Give an item back whose notification is missing, to be claimed later; the first time, write down since when.

        Args:
            claim: The claim.
            until: When to look again.
            now: When it was missing.
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
        """Let an item fail that can't be read; nothing of it is touched but errors that are no list."""
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
        """Take in what a provider reports of a message, whoever may hold its item; return whether that changed it.

        Args:
            item_id: The item's id.
            key: Names the message, as `Delivery.key` does.
            confirmation: What is reported.
            now: When that was.
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
            # Whoever holds it, or takes up what a dead worker left, says what its status is.
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
        """Return how much could be claimed now."""
        ready = await self._items.count_documents(_READY, limit=MOST_COUNTED)
        oldest = await self._oldest_ready(1)
        created_at = oldest[0].get("createdAt") if oldest else None
        return Backlog(ready, created_at if isinstance(created_at, datetime) else None)

    async def is_any_ready(self) -> bool:
        """Return whether there is something to claim."""
        return await self._items.find_one(_READY, {"_id": 1}) is not None

    async def _most_urgent(self, limit: int) -> list[str]:
        """Return what is most urgent; of many that are equally so another part each time, as others choose too."""
        ready = self._items.find(_READY, {"priority": 1}).sort([("priority", -1), ("createdAt", 1)])
        candidates = await ready.limit(4 * limit).to_list()
        if len(candidates) == 4 * limit and candidates[0].get("priority") == candidates[-1].get("priority"):
            start = limit * self._chance.randrange(4)
            candidates = candidates[start : start + limit]
        return [candidate["_id"] for candidate in candidates[:limit]]

    async def _oldest(self, limit: int) -> list[str]:
        """Return the oldest of all priorities, a small part of what is asked for, and now and then none."""
        count, rest = divmod(limit, OLDEST_IN)
        count += self._chance.randrange(OLDEST_IN) < rest
        if not count:
            return []
        return [item["_id"] for item in await self._oldest_ready(count)]

    async def _oldest_ready(self, count: int) -> list[dict[str, Any]]:
        """Return ids and moments of the oldest that are ready, by one short walk of the index for each priority."""
        found: list[dict[str, Any]] = []
        for priority in _PRIORITIES:
            ready = self._items.find({**_READY, "priority": priority}, {"createdAt": 1}).sort("createdAt", 1)
            found += await ready.limit(count).to_list()
        return sorted(found, key=_created_at)[:count]


def _as_read(claim: Claim, item: Item) -> dict[str, Any]:
    """Return the filter that finds an item only while it is ours, and as it was read."""
    return {"_id": claim.id, "lease.token": claim.token, "revision": item.revision or None}


def status_update(item: Item, now: datetime) -> dict[str, Any]:
    """Return the update that gives an item the status of its deliveries, and nobody's lease."""
    status = status_of(item.deliveries)
    due = next_due(item.deliveries) if status == "pending" else None
    if due is not None and item.expires_at is not None:
        due = min(due, item.expires_at)  # then what waits is skipped
    unset = {"lease": "", "missingSince": ""}
    changes: dict[str, Any] = {"status": status}
    if due is not None and due > now:
        changes["nextRetryAt"] = due
    else:
        unset["nextRetryAt"] = ""
    if status == "completed":
        changes["completedAt"] = now
        unset["recipient"] = ""  # where to reach somebody is kept for no longer than it is needed
    else:
        unset["completedAt"] = ""
    return {"$set": changes, "$unset": unset}


def _noted(errors: Iterable[str], now: datetime) -> dict[str, Any]:
    noted = [{"message": error, "timestamp": now} for error in errors]
    return {"$push": {"errors": {"$each": noted, "$slice": -_ERRORS_KEPT}}} if noted else {}


def _urgency(claim: Claim) -> tuple[float, datetime]:
    # Somebody may have changed an item so that it can't be read: it comes first, and fails.
    priority = claim.item.get("priority")
    return -priority if isinstance(priority, int | float) else -URGENCY["urgent"], _created_at(claim.item)


def _created_at(item: Mapping[str, Any]) -> datetime:
    created_at = item.get("createdAt")
    return created_at if isinstance(created_at, datetime) else datetime.min.replace(tzinfo=UTC)
