"""Grouped notifications in MongoDB: "Ada and 9 others", one notification for events of one kind.

Input: notices. Output: the notification of each group with all of them merged, or a new one if the last was read. A
write succeeds only if nobody has changed the notification since it was read; otherwise it is repeated on the new state,
so of any number of writers one always succeeds.

After a crash: the item of the queue is written first, so no notification stays without delivery, and the batch that is
read again adds the one that is missing.
"""

from collections import defaultdict
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import replace
from datetime import datetime
from typing import Any, NamedTuple

import structlog
from pymongo import InsertOne, UpdateOne
from pymongo.asynchronous.collection import AsyncCollection
from pymongo.asynchronous.database import AsyncDatabase
from pymongo.errors import BulkWriteError
from pymongo.read_concern import ReadConcern

from enrich.notifications import notification, queue_item
from notifications.grouping import NotificationGroup, merge
from notifications.notice import Notice
from runtime.metrics import STORED_DOCUMENTS_SPOILED
from sinks.collections import NOTIFICATION_QUEUE, NOTIFICATIONS
from sinks.mongo.errors import is_same_id

log = structlog.get_logger(__name__)

_READ_AT_ONCE = 1_000
_CHANGING = ("title", "message", "actionUrl", "actionText", "actorId", "actorName", "actorAvatar", "gathered")
"""The fields that another notice may change; all others stay as the first notice set them."""


class GroupResult(NamedTuple):
    """The result of merging notices into one group.

    Attributes:
        notification: The stored notification.
        joined: How many notices changed it; the others had been counted before.
        due: When e-mail and push are sent; `None` if the item is in the queue already, or there is nothing to send.
    """

    notification: Mapping[str, Any]
    joined: int
    due: datetime | None


class _Change(NamedTuple):
    """A group with new notices.

    Attributes:
        stored: The latest notification of the group as it was read; `None` if there is none.
        merged: The merged group.
        joined: The notices that changed it.
    """

    stored: Mapping[str, Any] | None
    merged: NotificationGroup
    joined: Sequence[Notice]

    @property
    def is_new(self) -> bool:
        return self.stored is None or self.stored["_id"] != self.merged.id


class NotificationGroups:
    """The notifications of groups.

    Args:
        database: The platform's database.
    """

    def __init__(self, database: AsyncDatabase[dict[str, Any]]) -> None:
        # A notification that was read ends its generation: a failover must not undo what was read from MongoDB.
        self._notifications = database.get_collection(NOTIFICATIONS.name, read_concern=ReadConcern("majority"))
        self._queue = database[NOTIFICATION_QUEUE.name]

    async def join(self, notices: Iterable[Notice]) -> list[GroupResult]:
        """Merge notices into the notifications of their groups, durably, with one write for each group.

        Raises:
            PyMongoError: MongoDB fails, or refuses some. The whole call may be repeated.
        """
        missing = _by_group(notices)
        results: list[GroupResult] = []
        while missing:
            latest = await self._latest(missing)
            changes = {group: _next(latest.get(group), some) for group, some in missing.items()}
            documents = {group: _document(change) for group, change in changes.items() if change.joined}
            items = {group: _item(change) for group, change in changes.items() if change.is_new}
            await _write(self._queue, {group: InsertOne(item) for group, item in items.items()})
            lost = await _write(
                self._notifications,
                {group: _compare_and_set(changes[group].stored, document) for group, document in documents.items()},
            )
            for group in missing.keys() - lost:
                stored = documents.get(group) or latest[group]
                results.append(GroupResult(stored, len(changes[group].joined), items.get(group, {}).get("nextRetryAt")))
            # The server responds to a write that lost when the one that won is durable, so now that one is found.
            missing = {group: missing[group] for group in lost}
        return results

    async def _latest(self, groups: Collection[str]) -> dict[str, dict[str, Any]]:
        """Return the latest notification of each group that has one."""
        latest: dict[str, dict[str, Any]] = {}
        names = list(groups)
        for start in range(0, len(names), _READ_AT_ONCE):
            # The ids of a group's generations begin with the group and a dash; the dot is the next character. Regular
            # expressions in one `$in` would scan the whole index.
            ranges = [
                {"_id": {"$gte": f"{group}-", "$lt": f"{group}."}} for group in names[start : start + _READ_AT_ONCE]
            ]
            async for document in self._notifications.find({"$or": ranges}):
                group, _, generation = document["_id"].rpartition("-")
                if not generation.isdecimal():
                    continue
                if group not in latest or int(generation) > _generation(latest[group]):
                    latest[group] = document
        return latest


def _by_group(notices: Iterable[Notice]) -> dict[str, list[Notice]]:
    by_group: defaultdict[str, list[Notice]] = defaultdict(list)
    for notice in notices:
        assert notice.gather is not None
        by_group[notice.gather.group].append(notice)
    return by_group


def _generation(document: Mapping[str, Any]) -> int:
    return int(document["_id"].rpartition("-")[2])


def _next(stored: Mapping[str, Any] | None, notices: Iterable[Notice]) -> _Change:
    """Return the group with the notices; a new generation if the latest can't be read."""
    if stored is None or _is_readable(stored):
        return _change(stored, notices)
    STORED_DOCUMENTS_SPOILED.labels(NOTIFICATIONS.name, "left").inc()
    log.error("a grouped notification is unreadable, so a new one begins", notification=stored["_id"])
    change = _change(None, notices)
    return change._replace(merged=replace(change.merged, generation=_generation(stored) + 1))


def _is_readable(stored: Mapping[str, Any]) -> bool:
    try:
        NotificationGroup.from_document(stored["gathered"])
        return isinstance(stored["channels"]["inApp"]["read"], bool) and isinstance(stored["gathered"]["version"], int)
    except (AttributeError, KeyError, TypeError, ValueError):
        return False


def _change(stored: Mapping[str, Any] | None, notices: Iterable[Notice]) -> _Change:
    before = None if stored is None else NotificationGroup.from_document(stored["gathered"])
    was_read = stored is not None and bool(stored["channels"]["inApp"]["read"])
    merged, joined = before, list[Notice]()
    for notice in notices:
        # Only what is stored can have been read; a generation that begins here is unread.
        is_stored = before is not None and merged is not None and merged.id == before.id
        after = merge(merged, notice, was_read=was_read and is_stored)
        if after != merged:
            merged = after
            joined.append(notice)
    assert merged is not None
    return _Change(stored, merged, joined)


def _first(change: _Change) -> Notice:
    """Return the first of the new notices, with the person who acted last."""
    first = min(change.joined, key=lambda notice: (notice.created_at, notice.id))
    newest = change.merged.newest[0]
    return replace(
        first,
        actor_id=newest.actor_id,
        actor_name=newest.actor_name,
        actor_avatar=change.merged.actor_avatar,
    )


def _document(change: _Change) -> dict[str, Any]:
    """Return the new document of the group's notification."""
    made = notification(_first(change), change.merged.words, change.merged.id)
    version = 1 if change.is_new or change.stored is None else change.stored["gathered"]["version"] + 1
    made["gathered"] = change.merged.document() | {"version": version}
    if change.is_new or change.stored is None:
        return made
    kept = {name: value for name, value in change.stored.items() if name not in _CHANGING}
    return kept | {name: made[name] for name in _CHANGING if name in made}


def _item(change: _Change) -> dict[str, Any]:
    """Return the new notification's item in the queue."""
    first = _first(change)
    assert first.gather is not None
    return queue_item(first, change.merged.id, first.created_at + first.gather.wait)


def _compare_and_set(
    stored: Mapping[str, Any] | None, document: Mapping[str, Any]
) -> InsertOne[dict[str, Any]] | UpdateOne:
    """Return the write that succeeds if all is as it was read, and otherwise fails because the `_id` exists."""
    if stored is None or stored["_id"] != document["_id"]:
        return InsertOne(dict(document))
    as_it_was = {
        "_id": stored["_id"],
        "channels.inApp.read": False,
        "gathered.version": stored["gathered"]["version"],
    }
    changes = {
        "$set": {name: document[name] for name in _CHANGING if name in document},
        "$unset": {name: "" for name in _CHANGING if name not in document},
        # If nothing matches, it is inserted: either another writer changed it and the `_id` exists, or it was deleted.
        "$setOnInsert": {name: value for name, value in document.items() if name not in (*_CHANGING, "_id")},
    }
    return UpdateOne(as_it_was, changes, upsert=True)


async def _write(
    collection: AsyncCollection[dict[str, Any]], writes: Mapping[str, InsertOne[dict[str, Any]] | UpdateOne]
) -> set[str]:
    """Execute one write for each group; return the groups whose `_id` existed already."""
    inserts = {group: write for group, write in writes.items() if isinstance(write, InsertOne)}
    updates = {group: write for group, write in writes.items() if isinstance(write, UpdateOne)}
    # Separately: with both in one bulk write, PyMongo 4.20 silently drops the second kind if it has no connection at
    # first and retries (`_AsyncBulk._execute_command` looks for the next run only unless `retrying`).
    return await _write_alike(collection, inserts) | await _write_alike(collection, updates)


async def _write_alike(
    collection: AsyncCollection[dict[str, Any]],
    writes: Mapping[str, InsertOne[dict[str, Any]]] | Mapping[str, UpdateOne],
) -> set[str]:
    if not writes:
        return set()
    try:
        await collection.bulk_write(list(writes.values()), ordered=False)
    except BulkWriteError as error:
        groups = list(writes)
        faults = error.details["writeErrors"]
        others = [fault for fault in faults if not is_same_id(fault)]
        if others or error.details["writeConcernErrors"]:
            raise BulkWriteError({**error.details, "writeErrors": others}) from error
        return {groups[fault["index"]] for fault in faults}
    return set()
