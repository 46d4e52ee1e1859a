"""Writes to MongoDB what events became, and returns once it is durable.

Each write has the same effect when it is repeated. After any error the caller retries all writes: what was stored
before the error then counts as a duplicate. A document that MongoDB refuses because of its content is reported in the
outcome, and the others are stored.
"""

import asyncio
from collections import defaultdict
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from pymongo.errors import BulkWriteError, OperationFailure

from enrich.documents import Document, GroupedNotification, Occurrence, PartialUpdate, Write
from sinks.collections import COLLECTIONS, ERROR_LOGS, NOTIFICATION_QUEUE, NOTIFICATIONS, SYSTEM_LOGS
from sinks.mongo.client import Mongo
from sinks.mongo.errors import UnknownRefusalError, is_same_id, is_transient, refusal_of_fault
from sinks.mongo.late_updates import CombinedUpdate, completion
from sinks.mongo.notification_groups import NotificationGroups
from sinks.mongo.occurrences import Occurrences
from sinks.mongo.outcome import Outcome, Placed, Tally, content_faults, require_content, sift, update_faults
from sinks.mongo.stored_documents import repair_lists


class MongoWriter:
    """Writes to the platform's MongoDB database.

    Args:
        mongo: The connection.
    """

    name = Mongo.name
    is_transient = staticmethod(is_transient)

    def __init__(self, mongo: Mongo) -> None:
        self._database = mongo.database
        self._occurrences = Occurrences(mongo)
        self._groups = NotificationGroups(mongo.database)

    async def write(self, writes: Sequence[Write]) -> Outcome:
        """Carry out all writes, and return when they are durable.

        Raises:
            PyMongoError: MongoDB refuses or does not answer. Some of the writes may have been carried out; retrying all
                of them is safe, and useful if `is_transient` says so. Other errors are bugs.
            UnknownRefusalError: MongoDB refuses a write for a reason that is not known to be a document's content.
        """
        documents: defaultdict[str, list[Placed[Document]]] = defaultdict(list)
        updates: defaultdict[str, list[Placed[PartialUpdate]]] = defaultdict(list)
        occurrences: list[Placed[Occurrence]] = []
        grouped: list[Placed[GroupedNotification]] = []
        for index, write in enumerate(writes):
            match write:
                case Document():
                    documents[write.collection].append((index, write))
                case PartialUpdate():
                    updates[write.collection].append((index, write))
                case Occurrence():
                    occurrences.append((index, write))
                case GroupedNotification():
                    grouped.append((index, write))
        tally = Tally()
        # Await all of them, even if one fails: nothing may go on writing after this has raised.
        results = await asyncio.gather(
            *(
                self._write_collection(name, documents[name], updates[name], tally)
                for name in documents.keys() | updates.keys()
            ),
            self._write_occurrences(occurrences, tally),
            self._write_grouped(grouped, tally),
            return_exceptions=True,
        )
        errors = [result for result in results if isinstance(result, BaseException)]
        if errors:
            # Raise a bug rather than a transient error: retries would otherwise hide it.
            raise min(errors, key=is_transient)
        return tally.outcome()

    async def _write_collection(
        self, name: str, documents: list[Placed[Document]], updates: list[Placed[PartialUpdate]], tally: Tally
    ) -> None:
        # Documents first, so that a late update in the same batch finds its document and creates no placeholder.
        with _explained(name):
            await sift(documents, lambda some: self._insert(name, some, tally), tally)
            await sift(updates, lambda some: self._update(name, some, tally), tally)

    async def _insert(self, name: str, documents: Sequence[Placed[Document]], tally: Tally) -> None:
        try:
            await self._database[name].insert_many([write.body for _, write in documents], ordered=False)
        except BulkWriteError as error:
            faults = content_faults(error)
            known = [documents[fault["index"]] for fault in faults if is_same_id(fault)]
            refused = [fault for fault in faults if not is_same_id(fault)]
            for fault in refused:
                tally.refuse(documents[fault["index"]][0], refusal_of_fault(fault))
            tally.count(name, written=len(documents) - len(faults), duplicates=0)
            await sift(known, lambda some: self._complete(name, some, tally), tally)
        else:
            tally.count(name, written=len(documents), duplicates=0)

    async def _complete(self, name: str, documents: Sequence[Placed[Document]], tally: Tally) -> None:
        """Complete placeholders by their documents; a document that was stored before is a duplicate."""
        late_fields = COLLECTIONS[name].late_fields
        completed = 0
        if late_fields is not None:
            updates = [completion(write.body, late_fields) for _, write in documents]
            try:
                completed = (await self._database[name].bulk_write(updates, ordered=False)).modified_count
            except BulkWriteError as error:
                failed = {fault["index"]: fault for fault in update_faults(error)}
                completed = error.details["nModified"]
                for at, fault in failed.items():
                    index, write = documents[at]
                    if await repair_lists(self._database, name, write.body["_id"]):
                        await sift([documents[at]], lambda some: self._complete(name, some, tally), tally)
                    else:
                        require_content(error, fault)
                        tally.refuse(index, refusal_of_fault(fault))
                # Those that failed are counted separately.
                documents = [placed for at, placed in enumerate(documents) if at not in failed]
        tally.count(name, written=completed, duplicates=len(documents) - completed)

    async def _update(self, name: str, updates: Sequence[Placed[PartialUpdate]], tally: Tally) -> None:
        of_document: defaultdict[str, list[Placed[PartialUpdate]]] = defaultdict(list)
        for index, write in updates:
            of_document[write.id].append((index, write))
        groups = list(of_document.values())
        combined = [CombinedUpdate([write for _, write in group]) for group in groups]
        failed: dict[int, dict[str, Any]] = {}
        try:
            result = await self._database[name].bulk_write([each.update() for each in combined], ordered=False)
            unchanged = result.matched_count - result.modified_count
        except BulkWriteError as error:
            unchanged = error.details["nMatched"] - error.details["nModified"]
            failed = {fault["index"]: fault for fault in update_faults(error)}
        stored = [position for position in range(len(groups)) if position not in failed]
        duplicates = unchanged + sum(combined[position].repeated for position in stored)
        tally.count(name, written=sum(len(groups[position]) for position in stored) - duplicates, duplicates=duplicates)
        for position, fault in failed.items():
            await self._retry_updates(name, groups[position], fault, tally)

    async def _retry_updates(
        self, name: str, updates: list[Placed[PartialUpdate]], fault: dict[str, Any], tally: Tally
    ) -> None:
        """Retry the late updates of one document whose combined update failed."""
        if is_same_id(fault) or await repair_lists(self._database, name, updates[0][1].id):
            # Another writer created the document meanwhile, and the retry finds it; or a value that somebody had put
            # there stopped the update.
            attempts = [updates]
        elif len(updates) > 1:
            attempts = [[update] for update in updates]
        else:
            require_content(BulkWriteError({"writeErrors": [fault]}), fault)
            tally.refuse(updates[0][0], refusal_of_fault(fault))
            return
        for attempt in attempts:
            await sift(attempt, lambda some: self._update(name, some, tally), tally)

    async def _write_occurrences(self, occurrences: Sequence[Placed[Occurrence]], tally: Tally) -> None:
        with _explained(f"{SYSTEM_LOGS.name} and {ERROR_LOGS.name}"):
            await self._occurrences.write(occurrences, tally)

    async def _write_grouped(self, grouped: Sequence[Placed[GroupedNotification]], tally: Tally) -> None:
        with _explained(f"{NOTIFICATIONS.name} and {NOTIFICATION_QUEUE.name}"):
            await sift(grouped, lambda some: self._join(some, tally), tally)

    async def _join(self, grouped: Sequence[Placed[GroupedNotification]], tally: Tally) -> None:
        """Add notices to the notifications of their groups."""
        results = await self._groups.join([write.notice for _, write in grouped])
        joined = sum(result.joined for result in results)
        tally.count(NOTIFICATIONS.name, written=joined, duplicates=len(grouped) - joined)
        tally.gathered += results


@contextmanager
def _explained(collection: str) -> Iterator[None]:
    """Name the collection if MongoDB refuses a write for a reason that is neither transient nor known."""
    try:
        yield
    except OperationFailure as error:
        if is_transient(error):
            raise
        raise UnknownRefusalError(collection, error) from None
