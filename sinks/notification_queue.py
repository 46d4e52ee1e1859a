"""The queue of notifications in MongoDB: who works on what, and until when.

In come items, once each by their id; out go claims, each to one worker for a bounded time. A claim carries a token that
no other claim of its item has, and every write names it: what a worker writes after it has lost its claim is refused.
An item that its worker never finished is there for others once the claim has run out.

An item that is `pending` with a `nextRetryAt` waits; without one it is ready. `wake` turns the first into the second,
so that looking for what is ready never reads what is not.
"""

import random
import uuid
from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime, timedelta
from typing import Any, NamedTuple

from pymongo.asynchronous.database import AsyncDatabase
from pymongo.errors import BulkWriteError

from sinks.collections import NOTIFICATION_QUEUE
from sinks.mongo_faults import is_same_id

LEASE = timedelta(seconds=60)
"""How long a worker may hold an item: more than an attempt on every channel takes, time-outs and all."""

PRIORITIES = (4, 3, 2, 1)
OLDEST_IN = 8
"""One in so many of what is claimed is the oldest there is, whatever its priority: so nothing waits for ever."""

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

    async def add(self, items: Sequence[dict[str, Any]]) -> None:
        """Put items into the queue; those whose `_id` is there already stay as they are."""
        if not items:
            return
        try:
            await self._items.insert_many(items, ordered=False)
        except BulkWriteError as error:
            if not all(map(is_same_id, error.details["writeErrors"])):
                raise

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

    async def write(self, claim: Claim, changes: Mapping[str, Any]) -> bool:
        """Set fields of an item that is still ours; return whether it is."""
        result = await self._items.update_one({"_id": claim.id, "lease.token": claim.token}, {"$set": dict(changes)})
        return result.matched_count == 1

    async def release(self, claim: Claim, changes: Mapping[str, Any], errors: Iterable[Mapping[str, Any]]) -> bool:
        """Set fields of an item that is still ours, and give it back; return whether it was.

        Args:
            claim: The claim.
            changes: Among them `status`; a `nextRetryAt` of `None` means that it is ready at once, or never again.
            errors: What went wrong this time. Of all errors the last 50 are kept.
        """
        set_fields = {name: value for name, value in changes.items() if value is not None}
        unset_fields = {"lease": "", **{name: "" for name, value in changes.items() if value is None}}
        result = await self._items.update_one(
            {"_id": claim.id, "lease.token": claim.token},
            {
                "$set": set_fields,
                "$unset": unset_fields,
                "$push": {"errors": {"$each": [dict(error) for error in errors], "$slice": -50}},
            },
        )
        return result.matched_count == 1

    async def next_due(self) -> datetime | None:
        """Return when the next item is due that waits."""
        waiting = self._items.find({"status": "pending", "nextRetryAt": {"$ne": None}}, {"nextRetryAt": 1})
        first = await waiting.sort("nextRetryAt", 1).limit(1).to_list()
        return first[0]["nextRetryAt"] if first else None

    async def _most_urgent(self, limit: int) -> list[str]:
        """Return what is most urgent; of many that are equally so another part each time, as others choose too."""
        ready = self._items.find(_READY, {"priority": 1}).sort([("priority", -1), ("createdAt", 1)])
        candidates = await ready.limit(4 * limit).to_list()
        if len(candidates) == 4 * limit and candidates[0]["priority"] == candidates[-1]["priority"]:
            start = limit * self._chance.randrange(4)
            candidates = candidates[start : start + limit]
        return [candidate["_id"] for candidate in candidates[:limit]]

    async def _oldest(self, limit: int) -> list[str]:
        """Return the oldest of all priorities, a small part of what is asked for, and now and then none."""
        count, rest = divmod(limit, OLDEST_IN)
        count += self._chance.randrange(OLDEST_IN) < rest
        if not count:
            return []
        found: list[dict[str, Any]] = []
        for priority in PRIORITIES:
            ready = self._items.find({**_READY, "priority": priority}, {"createdAt": 1}).sort("createdAt", 1)
            found += await ready.limit(count).to_list()
        found.sort(key=lambda item: item["createdAt"])
        return [item["_id"] for item in found[:count]]


def _urgency(claim: Claim) -> tuple[int, datetime]:
    return -claim.item["priority"], claim.item["createdAt"]
