"""The MongoDB sink: takes the writes that events became, and returns once they are durable.

Each write has the same effect when it is carried out again, so after any failure the caller tries all of them again:
what was stored before the failure counts as a duplicate then. A document that MongoDB refuses for what it holds is
named in the outcome, and stops no other.
"""

import asyncio
from collections import Counter, defaultdict
from collections.abc import Awaitable, Callable, Sequence
from datetime import timedelta
from typing import Any, NamedTuple, Self, TypeVar

import pymongo
from pymongo import AsyncMongoClient
from pymongo.asynchronous.client_session import AsyncClientSession
from pymongo.asynchronous.database import AsyncDatabase
from pymongo.errors import BulkWriteError
from pymongo.read_concern import ReadConcern

from enrich.documents import Document, Gathering, Occurrence, Part, Write
from sinks import mongo_driver
from sinks.collections import COLLECTIONS, ERROR_LOGS, NOTIFICATIONS, SYSTEM_LOGS
from sinks.error_groups import group_updates
from sinks.gathered_notifications import GatheredNotifications, Joined
from sinks.mongo_faults import (
    Refusal,
    blames_content,
    blames_document,
    is_same_id,
    is_transient,
    refusal_of_error,
    refusal_of_fault,
)
from sinks.parts import PartSum, completion

__all__ = ["Mongo", "Outcome", "Refusal", "is_transient"]

DEFAULT_DATABASE = "blog-platform"

_LINES_PER_TRANSACTION = 500
"""Well within MongoDB's 60 s for a transaction, and its advice of 1,000 documents."""
_APPLICATION = "inkstream"
_ABANDONED_AFTER = timedelta(seconds=2)

WriteT = TypeVar("WriteT", bound=Write)


class Outcome(NamedTuple):
    """What became of the writes; each of them is counted once for every collection that it is for.

    Attributes:
        written: How many made or changed a document, per collection.
        duplicates: How many changed nothing as they had been carried out before, per collection.
        refused: The writes that can never be carried out: their positions in what was given, and why.
        gathered: What became of each group of notices.
    """

    written: dict[str, int]
    duplicates: dict[str, int]
    refused: list[tuple[int, Refusal]]
    gathered: Sequence[Joined] = ()


_Placed = tuple[int, WriteT]
"""A write, after its position in what `write` was given."""


class _Tally:
    """The outcome as it grows, while collections are written at the same time."""

    def __init__(self) -> None:
        self.written: Counter[str] = Counter()
        self.duplicates: Counter[str] = Counter()
        self.refused: list[tuple[int, Refusal]] = []
        self.gathered: list[Joined] = []

    def count(self, collection: str, *, written: int, duplicates: int) -> None:
        self.written[collection] += written
        self.duplicates[collection] += duplicates

    def refuse(self, index: int, refusal: Refusal) -> None:
        self.refused.append((index, refusal))

    def outcome(self) -> Outcome:
        return Outcome(dict(+self.written), dict(+self.duplicates), sorted(self.refused), tuple(self.gathered))


class Mongo:
    """The platform's MongoDB database, to write to. What it acknowledges is durable (`w: majority, j: true`)."""

    name = "mongodb"
    is_transient = staticmethod(is_transient)

    def __init__(self, client: AsyncMongoClient[dict[str, Any]], timeout: timedelta) -> None:
        self._client = client
        self._timeout = timeout
        self._database = client.get_default_database(DEFAULT_DATABASE)
        self._gathered = GatheredNotifications(self._database)

    @classmethod
    def connect(cls, url: str, *, timeout: timedelta = timedelta(seconds=15)) -> Self:
        """Make a client for the replica set at `url`; it connects at the first use.

        Args:
            url: `mongodb://...`, with credentials and TLS options where needed. The database is `blog-platform`
                where the URL names none.
            timeout: How long a single operation may take, with the driver's own retries, before it raises a
                transient error.
        """
        mongo_driver.mend()
        client: AsyncMongoClient[dict[str, Any]] = AsyncMongoClient(
            url,
            appname=_APPLICATION,
            w="majority",
            journal=True,
            retryWrites=True,
            timeoutMS=round(timeout.total_seconds() * 1000),
            serverSelectionTimeoutMS=5_000,
            connectTimeoutMS=5_000,
            tz_aware=True,
        )
        return cls(client, timeout)

    @property
    def database(self) -> AsyncDatabase[dict[str, Any]]:
        """The database itself, for what is not writing."""
        return self._database

    async def close(self) -> None:
        """Close all connections."""
        await self._client.close()

    async def ping(self) -> None:
        """Return when a primary answers.

        Raises:
            PyMongoError: If none does in time; `is_transient` tells whether one may later.
        """
        await self._client.admin.command("ping")

    async def write(self, writes: Sequence[Write]) -> Outcome:
        """Carry out all writes, and return when they are durable.

        Raises:
            PyMongoError: If MongoDB is not up to it. Some of the writes may have been carried out; trying all again
                is safe, and sensible where `is_transient` says so. The rest are bugs.
        """
        documents: defaultdict[str, list[_Placed[Document]]] = defaultdict(list)
        parts: defaultdict[str, list[_Placed[Part]]] = defaultdict(list)
        occurrences: list[_Placed[Occurrence]] = []
        gatherings: list[_Placed[Gathering]] = []
        for index, write in enumerate(writes):
            match write:
                case Document():
                    documents[write.collection].append((index, write))
                case Part():
                    parts[write.collection].append((index, write))
                case Occurrence():
                    occurrences.append((index, write))
                case Gathering():
                    gatherings.append((index, write))
        tally = _Tally()
        # All of them to their end, even where one fails: nothing may go on writing after this has raised.
        results = await asyncio.gather(
            *(
                self._write_collection(name, documents[name], parts[name], tally)
                for name in documents.keys() | parts.keys()
            ),
            self._write_occurrences(occurrences, tally),
            self._sift(gatherings, lambda some: self._gather(some, tally), tally),
            return_exceptions=True,
        )
        errors = [result for result in results if isinstance(result, BaseException)]
        if errors:
            # A bug before a transient fault: it would otherwise hide behind retries.
            raise min(errors, key=is_transient)
        return tally.outcome()

    async def _write_collection(
        self, name: str, documents: list[_Placed[Document]], parts: list[_Placed[Part]], tally: _Tally
    ) -> None:
        # Documents first, so that a part which comes in the same batch meets its document and no placeholder is made.
        await self._sift(documents, lambda some: self._insert(name, some, tally), tally)
        await self._sift(parts, lambda some: self._add_parts(name, some, tally), tally)

    async def _sift(
        self,
        items: Sequence[_Placed[WriteT]],
        store: Callable[[Sequence[_Placed[WriteT]]], Awaitable[None]],
        tally: _Tally,
    ) -> None:
        """Store all items at once; where the content of one stops them, halve them until it stands alone."""
        if not items:
            return
        try:
            await store(items)
        except Exception as error:
            if not blames_content(error):
                raise
            if len(items) == 1:
                tally.refuse(items[0][0], refusal_of_error(error))
                return
            middle = len(items) // 2
            await self._sift(items[:middle], store, tally)
            await self._sift(items[middle:], store, tally)

    async def _insert(self, name: str, documents: Sequence[_Placed[Document]], tally: _Tally) -> None:
        try:
            await self._database[name].insert_many([write.body for _, write in documents], ordered=False)
        except BulkWriteError as error:
            faults = _content_faults(error)
            known = [documents[fault["index"]] for fault in faults if is_same_id(fault)]
            refused = [fault for fault in faults if not is_same_id(fault)]
            for fault in refused:
                tally.refuse(documents[fault["index"]][0], refusal_of_fault(fault))
            tally.count(name, written=len(documents) - len(faults), duplicates=0)
            await self._sift(known, lambda some: self._complete(name, some, tally), tally)
        else:
            tally.count(name, written=len(documents), duplicates=0)

    async def _complete(self, name: str, documents: Sequence[_Placed[Document]], tally: _Tally) -> None:
        """Bring in documents whose `_id` was there already: as a placeholder, to complete; or as themselves."""
        late_fields = COLLECTIONS[name].late_fields
        completed, refused = 0, 0
        if late_fields is not None:
            updates = [completion(write.body, late_fields) for _, write in documents]
            try:
                completed = (await self._database[name].bulk_write(updates, ordered=False)).modified_count
            except BulkWriteError as error:
                faults = _content_faults(error)
                completed, refused = error.details["nModified"], len(faults)
                for fault in faults:
                    tally.refuse(documents[fault["index"]][0], refusal_of_fault(fault))
        tally.count(name, written=completed, duplicates=len(documents) - completed - refused)

    async def _add_parts(self, name: str, parts: Sequence[_Placed[Part]], tally: _Tally) -> None:
        of_document: defaultdict[str, list[_Placed[Part]]] = defaultdict(list)
        for index, write in parts:
            of_document[write.id].append((index, write))
        groups = list(of_document.values())
        sums = [PartSum([write for _, write in group]) for group in groups]
        failed: dict[int, dict[str, Any]] = {}
        try:
            result = await self._database[name].bulk_write([part_sum.update() for part_sum in sums], ordered=False)
            unchanged = result.matched_count - result.modified_count
        except BulkWriteError as error:
            unchanged = error.details["nMatched"] - error.details["nModified"]
            failed = {fault["index"]: fault for fault in _content_faults(error)}
        stored = [position for position in range(len(groups)) if position not in failed]
        duplicates = unchanged + sum(sums[position].repeated for position in stored)
        tally.count(name, written=sum(len(groups[position]) for position in stored) - duplicates, duplicates=duplicates)
        for position, fault in failed.items():
            await self._add_failed_parts(name, groups[position], fault, tally)

    async def _add_failed_parts(
        self, name: str, parts: list[_Placed[Part]], fault: dict[str, Any], tally: _Tally
    ) -> None:
        """Deal with the parts of one document whose common update failed."""
        if is_same_id(fault):
            # Another writer made the document after we had looked for it. Now we shall find it.
            attempts = [parts]
        elif len(parts) > 1:
            attempts = [[part] for part in parts]
        else:
            tally.refuse(parts[0][0], refusal_of_fault(fault))
            return
        for attempt in attempts:
            await self._sift(attempt, lambda some: self._add_parts(name, some, tally), tally)

    async def _write_occurrences(self, occurrences: Sequence[_Placed[Occurrence]], tally: _Tally) -> None:
        for start in range(0, len(occurrences), _LINES_PER_TRANSACTION):
            chunk = occurrences[start : start + _LINES_PER_TRANSACTION]
            await self._sift(chunk, lambda some: self._count_occurrences(some, tally), tally)

    async def _count_occurrences(self, occurrences: Sequence[_Placed[Occurrence]], tally: _Tally) -> None:
        """Write log lines and move their groups by those that are new, in one transaction: all of it or nothing."""
        by_id = {write.line["_id"]: write for _, write in reversed(occurrences)}

        attempts = 0

        async def count_new(session: AsyncClientSession) -> int:
            nonlocal attempts
            attempts += 1
            if attempts > 1:
                await self._end_abandoned_transactions()
            known = self._database[SYSTEM_LOGS.name].find({"_id": {"$in": list(by_id)}}, {"_id": 1}, session=session)
            known_ids = {line["_id"] async for line in known}
            new = [write for line_id, write in by_id.items() if line_id not in known_ids]
            if new:
                await self._database[SYSTEM_LOGS.name].insert_many(
                    [write.line for write in new], ordered=False, session=session
                )
                await self._database[ERROR_LOGS.name].bulk_write(list(group_updates(new)), session=session)
            return len(new)

        # The limit holds for all repetitions together, which it takes where another writer moves the same groups.
        with pymongo.timeout(self._timeout.total_seconds()):
            async with self._client.start_session() as session:
                new = await session.with_transaction(count_new, read_concern=ReadConcern("snapshot"))
        for name in (SYSTEM_LOGS.name, ERROR_LOGS.name):
            tally.count(name, written=new, duplicates=len(occurrences) - new)

    async def _gather(self, gatherings: Sequence[_Placed[Gathering]], tally: _Tally) -> None:
        """Bring notices into the notifications of their groups."""
        results = await self._gathered.join([write.notice for _, write in gatherings])
        joined = sum(result.joined for result in results)
        tally.count(NOTIFICATIONS.name, written=joined, duplicates=len(gatherings) - joined)
        tally.gathered += results

    async def _end_abandoned_transactions(self) -> None:
        """Abort transactions that a worker began and, as it was killed, will never end.

        MongoDB leaves them open for a minute, with locks on the groups that they moved. A worker that is alive never
        rests this long between two statements; one that was frozen finds its transaction aborted, and begins it again.
        Only our own user's sessions are seen, which every user may end.
        """
        idle = await self._client.admin.aggregate(
            [
                {"$currentOp": {"idleSessions": True}},
                {
                    "$match": {
                        "type": "idleSession",
                        "appName": _APPLICATION,
                        "transaction.timeInactiveMicros": {"$gt": _ABANDONED_AFTER.total_seconds() * 1e6},
                    }
                },
            ]
        )
        sessions = [{"id": operation["lsid"]["id"]} async for operation in idle]
        if sessions:
            await self._client.admin.command("killSessions", sessions)


def _content_faults(error: BulkWriteError) -> list[dict[str, Any]]:
    """Return the single writes that failed for what their documents hold, or raise the error where it has any other."""
    faults: list[dict[str, Any]] = error.details.get("writeErrors", [])
    if is_transient(error) or not all(blames_document(fault) for fault in faults):
        raise error
    return faults
