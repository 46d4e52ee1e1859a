"""The MongoDB sink: takes the writes that events became, and returns once they are durable.

Each write has the same effect when it is carried out again, so after any failure the caller tries all of them again:
what was stored before the failure counts as a duplicate then. A document that MongoDB refuses for what it holds is
named in the outcome, and stops no other.
"""

import asyncio
import os
from collections import Counter, defaultdict
from collections.abc import Awaitable, Callable, Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import timedelta
from typing import Any, NamedTuple, Self, TypeVar
from urllib.parse import parse_qsl

import pymongo
import structlog
from bson.decimal128 import Decimal128
from bson.int64 import Int64
from pymongo import AsyncMongoClient, UpdateOne
from pymongo.asynchronous.client_session import AsyncClientSession
from pymongo.errors import BulkWriteError, ConfigurationError, OperationFailure
from pymongo.read_concern import ReadConcern

from enrich.documents import Document, Gathering, Occurrence, Part, Write
from runtime.metrics import STORED_DOCUMENTS_SPOILED
from runtime.patches import pymongo as patch
from sinks.collections import COLLECTIONS, ERROR_LOGS, NOTIFICATION_QUEUE, NOTIFICATIONS, SYSTEM_LOGS
from sinks.mongo.database import NamespacedDatabase
from sinks.mongo.error_groups import COUNTERS, group_updates
from sinks.mongo.errors import (
    Refusal,
    UnknownRefusalError,
    blames_content,
    blames_document,
    blames_stored_document,
    is_same_id,
    is_transient,
    refusal_of_error,
    refusal_of_fault,
)
from sinks.mongo.late_updates import PartSum, completion
from sinks.mongo.notification_groups import GroupResult, NotificationGroups

__all__ = ["Mongo", "Outcome", "Refusal", "UnknownRefusalError", "is_transient"]

log = structlog.get_logger(__name__)

_LINES_PER_TRANSACTION = 500
"""Well within MongoDB's 60 s for a transaction, and its advice of 1,000 documents."""
_PING_SECONDS = 4
"""Shorter than the callers' timeouts, so that the driver says what is wrong."""

_ABANDONED_AFTER = timedelta(seconds=2)

_PYTHON_TYPES: Mapping[str, tuple[type, ...]] = {"number": (int, float, Int64, Decimal128), "array": (list,)}
"""What PyMongo makes of a BSON type."""

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
    gathered: Sequence[GroupResult] = ()


_Placed = tuple[int, WriteT]
"""A write, after its position in what `write` was given."""


class _Tally:
    """The outcome as it grows, while collections are written at the same time."""

    def __init__(self) -> None:
        self.written: Counter[str] = Counter()
        self.duplicates: Counter[str] = Counter()
        self.refused: list[tuple[int, Refusal]] = []
        self.gathered: list[GroupResult] = []

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

    def __init__(self, client: AsyncMongoClient[dict[str, Any]], namespace: str, timeout: timedelta) -> None:
        self._client = client
        self._timeout = timeout
        self._database = NamespacedDatabase(client, namespace)
        self._gathered = NotificationGroups(self._database)

    @classmethod
    def connect(cls, url: str, namespace: str = "", *, timeout: timedelta = timedelta(seconds=15)) -> Self:
        """Make a client for the replica set at `url`; it connects at the first use.

        Args:
            url: `mongodb://...`, with credentials and TLS options where needed. The database is `blog-platform`
                where the URL names none. Its write concern and read preference have no effect.
            namespace: Begins the name of each collection.
            timeout: How long a single operation may take, with the driver's own retries, before it raises a
                transient error.

        Raises:
            MongoUrlError: The URL is wrong, as far as that can be told without DNS, or a file for TLS can't be read.
        """
        patch.apply()
        _check_files(url)
        try:
            client = patch.Client(
                url,
                appname=_application(namespace),
                w="majority",
                journal=True,
                # Whatever the URL says: a secondary may lack views that are stored, and they would not be counted.
                readPreference="primary",
                retryWrites=True,
                timeoutMS=round(timeout.total_seconds() * 1000),
                serverSelectionTimeoutMS=5_000,
                connectTimeoutMS=5_000,
                tz_aware=True,
            )
        except (ConfigurationError, OSError, ValueError) as error:  # an option, a file of certificates, a port
            raise patch.MongoUrlError(str(error)) from error
        return cls(client, namespace, timeout)

    @property
    def database(self) -> NamespacedDatabase:
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
        with pymongo.timeout(_PING_SECONDS):
            await self._client.admin.command("ping")

    async def write(self, writes: Sequence[Write]) -> Outcome:
        """Carry out all writes, and return when they are durable.

        Raises:
            PyMongoError: If MongoDB is not up to it. Some of the writes may have been carried out; trying all again
                is safe, and sensible where `is_transient` says so. The rest are bugs.
            UnknownRefusalError: MongoDB refuses for a reason that is not known to be a document's content.
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
            self._write_gatherings(gatherings, tally),
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
        with _explained(name):
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
        completed = 0
        if late_fields is not None:
            updates = [completion(write.body, late_fields) for _, write in documents]
            try:
                completed = (await self._database[name].bulk_write(updates, ordered=False)).modified_count
            except BulkWriteError as error:
                failed = {fault["index"]: fault for fault in _update_faults(error)}
                completed = error.details["nModified"]
                for at, fault in failed.items():
                    index, write = documents[at]
                    if await self._repair_lists(name, write.body["_id"]):
                        await self._sift([documents[at]], lambda some: self._complete(name, some, tally), tally)
                    else:
                        _require_content(error, fault)
                        tally.refuse(index, refusal_of_fault(fault))
                # Those that failed are counted by themselves.
                documents = [placed for at, placed in enumerate(documents) if at not in failed]
        tally.count(name, written=completed, duplicates=len(documents) - completed)

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
            failed = {fault["index"]: fault for fault in _update_faults(error)}
        stored = [position for position in range(len(groups)) if position not in failed]
        duplicates = unchanged + sum(sums[position].repeated for position in stored)
        tally.count(name, written=sum(len(groups[position]) for position in stored) - duplicates, duplicates=duplicates)
        for position, fault in failed.items():
            await self._add_failed_parts(name, groups[position], fault, tally)

    async def _add_failed_parts(
        self, name: str, parts: list[_Placed[Part]], fault: dict[str, Any], tally: _Tally
    ) -> None:
        """Deal with the parts of one document whose common update failed."""
        if is_same_id(fault) or await self._repair_lists(name, parts[0][1].id):
            # Another writer made the document after we had looked for it, and now we shall find it; or the update was
            # stopped by what somebody had put there.
            attempts = [parts]
        elif len(parts) > 1:
            attempts = [[part] for part in parts]
        else:
            _require_content(BulkWriteError({"writeErrors": [fault]}), fault)
            tally.refuse(parts[0][0], refusal_of_fault(fault))
            return
        for attempt in attempts:
            await self._sift(attempt, lambda some: self._add_parts(name, some, tally), tally)

    async def _write_occurrences(self, occurrences: Sequence[_Placed[Occurrence]], tally: _Tally) -> None:
        with _explained(f"{SYSTEM_LOGS.name} and {ERROR_LOGS.name}"):
            for start in range(0, len(occurrences), _LINES_PER_TRANSACTION):
                chunk = occurrences[start : start + _LINES_PER_TRANSACTION]
                await self._sift(chunk, lambda some: self._count_occurrences(some, tally), tally)

    async def _count_occurrences(self, occurrences: Sequence[_Placed[Occurrence]], tally: _Tally) -> None:
        """Write log lines and move their groups by those that are new; a group never costs a line.

        A group that can't be moved, as somebody has changed it, is repaired. Where that does not help it is left as it
        is, and its lines are stored without it.
        """
        by_id = {write.line["_id"]: write for _, write in reversed(occurrences)}
        repaired, left = set[str](), set[str]()
        while True:
            try:
                lines, counted = await self._count_once(by_id, left)
                break
            except _GroupNotMovedError as failure:
                group = failure.group
                if group not in repaired and await self._repair(ERROR_LOGS.name, group, COUNTERS, "number", 0):
                    repaired.add(group)
                elif failure.blames_content and await self._is_sound(ERROR_LOGS.name, group):
                    raise failure.error from None  # so one of these occurrences is not as it should be
                else:
                    left.add(group)
        for group in left:
            STORED_DOCUMENTS_SPOILED.labels(ERROR_LOGS.name, "left").inc()
            log.error(
                "an error group is left as it is, its lines stored without it",
                collection=ERROR_LOGS.name,
                group=group,
                advice="correct or delete the group",
            )
        tally.count(SYSTEM_LOGS.name, written=lines, duplicates=len(occurrences) - lines)
        tally.count(ERROR_LOGS.name, written=counted, duplicates=len(occurrences) - counted)

    async def _count_once(self, by_id: Mapping[str, Occurrence], left: Collection[str]) -> tuple[int, int]:
        """Write lines, by id, and move their groups, but for those left out, in one transaction: all of it or nothing.

        Returns:
            How many lines are new, and how many of these were counted in their groups.

        Raises:
            _GroupNotMovedError: A group was changed by somebody else so that it can't be moved.
        """
        attempts = 0

        async def count_new(session: AsyncClientSession) -> tuple[int, int]:
            nonlocal attempts
            attempts += 1
            if attempts > 1:
                await self._end_abandoned_transactions()
            known = self._database[SYSTEM_LOGS.name].find({"_id": {"$in": list(by_id)}}, {"_id": 1}, session=session)
            known_ids = {line["_id"] async for line in known}
            new = [write for line_id, write in by_id.items() if line_id not in known_ids]
            counted = [write for write in new if write.group["_id"] not in left]
            if new:
                await self._database[SYSTEM_LOGS.name].insert_many(
                    [write.line for write in new], ordered=False, session=session
                )
            if new and (updates := group_updates(counted)):
                with _named_group(list(updates)):
                    await self._database[ERROR_LOGS.name].bulk_write(list(updates.values()), session=session)
            return len(new), len(counted)

        # The limit holds for all repetitions together, which it takes where another writer moves the same groups.
        with pymongo.timeout(self._timeout.total_seconds()):
            async with self._client.start_session() as session:
                return await session.with_transaction(count_new, read_concern=ReadConcern("snapshot"))

    async def _is_sound(self, name: str, document_id: str) -> bool:
        """Whether a stored document passes its collection's rules, or is not there."""
        unsound = {"_id": document_id, "$nor": [COLLECTIONS[name].validator]}
        return await self._database[name].find_one(unsound, {"_id": 1}) is None

    async def _repair_lists(self, name: str, document_id: str) -> bool:
        """Make lists of what somebody else has put where late fields are lists; return whether there was such."""
        late_fields = COLLECTIONS[name].late_fields
        lists = () if late_fields is None else late_fields.united
        return await self._repair(name, document_id, lists, "array", [])

    async def _repair(self, name: str, document_id: str, fields: Sequence[str], kind: str, value: object) -> bool:
        """Give a stored document fields that our updates can go on from, where it has others there.

        Args:
            name: The collection.
            document_id: The document.
            fields: Which of its fields to look at.
            kind: The BSON type that they should have.
            value: What they get where they have another.

        Returns:
            Whether there was such a field.
        """
        found = await self._database[name].find_one({"_id": document_id}) or {}
        spoiled = [field for field in fields if field in found and not isinstance(found[field], _PYTHON_TYPES[kind])]
        if not spoiled:
            return False
        changes = [
            # Where another worker was faster, nothing matches.
            UpdateOne({"_id": document_id, field: {"$eq": found[field]}}, {"$set": {field: value}})
            for field in spoiled
        ]
        try:
            await self._database[name].bulk_write(changes)
        except BulkWriteError as error:
            _update_faults(error)  # where the validator is strict, any other field may be in the way
            return False
        STORED_DOCUMENTS_SPOILED.labels(name, "repaired").inc()
        log.warning(
            "repaired a stored document that somebody else has changed", collection=name, id=document_id, fields=spoiled
        )
        return True

    async def _write_gatherings(self, gatherings: Sequence[_Placed[Gathering]], tally: _Tally) -> None:
        with _explained(f"{NOTIFICATIONS.name} and {NOTIFICATION_QUEUE.name}"):
            await self._sift(gatherings, lambda some: self._gather(some, tally), tally)

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
        Only our own user's sessions are seen, which every user may end. Those of other installations are left alone.
        """
        idle = await self._client.admin.aggregate(
            [
                {"$currentOp": {"idleSessions": True}},
                {
                    "$match": {
                        "type": "idleSession",
                        "appName": _application(self.database.namespace),
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
    return _faults(error, blames_document)


def _update_faults(error: BulkWriteError) -> list[dict[str, Any]]:
    """Return the updates that failed for what they or stored documents hold, or raise the error where it has others."""
    return _faults(error, lambda fault: blames_document(fault) or blames_stored_document(fault))


def _check_files(url: str) -> None:
    """Refuse files for TLS that can't be read, of which the driver would tell without a name."""
    for name, file in parse_qsl(url.partition("?")[2]):
        if name.lower() in ("tlscafile", "tlscertificatekeyfile") and not os.access(file, os.R_OK):
            raise patch.MongoUrlError(f"{name}: {file} can't be read")


def _faults(error: BulkWriteError, is_known: Callable[[Mapping[str, Any]], bool]) -> list[dict[str, Any]]:
    faults: list[dict[str, Any]] = error.details.get("writeErrors", [])
    if is_transient(error) or not all(map(is_known, faults)):
        raise error
    return faults


def _require_content(error: BulkWriteError, fault: Mapping[str, Any]) -> None:
    if not blames_document(fault):
        raise error


class _GroupNotMovedError(Exception):
    """A group's update failed for what the group holds, or an occurrence.

    Attributes:
        group: Its id.
        error: What MongoDB said.
        blames_content: Whether an occurrence may be to blame.
    """

    def __init__(self, group: str, error: BulkWriteError, *, blames_content: bool) -> None:
        super().__init__(group)
        self.group = group
        self.error = error
        self.blames_content = blames_content


@contextmanager
def _named_group(groups: Sequence[str]) -> Iterator[None]:
    """Name the group whose update failed, of those that are updated in this order."""
    try:
        yield
    except BulkWriteError as error:
        fault = _update_faults(error)[0]
        if is_same_id(fault):
            raise
        # What is too large together is the group's matter: the line itself was taken.
        may_be_content = blames_document(fault) and refusal_of_fault(fault).reason != "too-large"
        raise _GroupNotMovedError(groups[fault["index"]], error, blames_content=may_be_content) from None


def _application(namespace: str) -> str:
    """Return how MongoDB knows the sessions of an installation; it takes 128 bytes."""
    return f"{namespace}inkstream"[-128:]


@contextmanager
def _explained(collection: str) -> Iterator[None]:
    """Say what to do where MongoDB refuses a write for a reason that is neither passing nor known."""
    try:
        yield
    except OperationFailure as error:
        if is_transient(error):
            raise
        raise UnknownRefusalError(collection, error) from None
