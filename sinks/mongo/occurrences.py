"""Stores errors in log lines: each line in `systemLogs`, and its count in the error's group in `errorLogs`.

Both are written in one transaction, or neither. After a crash: a line that is already stored is not counted again.
"""

from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager

import pymongo
import structlog
from pymongo.asynchronous.client_session import AsyncClientSession
from pymongo.errors import BulkWriteError
from pymongo.read_concern import ReadConcern

from enrich.documents import Occurrence
from runtime.metrics import STORED_DOCUMENTS_SPOILED
from sinks.collections import ERROR_LOGS, SYSTEM_LOGS
from sinks.mongo.client import Mongo
from sinks.mongo.error_groups import COUNTERS, group_updates
from sinks.mongo.errors import blames_document, is_same_id, refusal_of_fault
from sinks.mongo.outcome import Placed, Tally, sift, update_faults
from sinks.mongo.stored_documents import is_sound, repair

log = structlog.get_logger(__name__)

_LINES_PER_TRANSACTION = 500
"""Well within MongoDB's 60 s for a transaction, and its advice of 1,000 documents."""


class Occurrences:
    """Writes occurrences of errors.

    Args:
        mongo: The connection.
    """

    def __init__(self, mongo: Mongo) -> None:
        self._mongo = mongo
        self._database = mongo.database

    async def write(self, occurrences: Sequence[Placed[Occurrence]], tally: Tally) -> None:
        """Write log lines and count them in their groups; a line that can't be stored is refused alone.

        Raises:
            PyMongoError: MongoDB refuses or does not answer.
        """
        for start in range(0, len(occurrences), _LINES_PER_TRANSACTION):
            chunk = occurrences[start : start + _LINES_PER_TRANSACTION]
            await sift(chunk, lambda some: self._count(some, tally), tally)

    async def _count(self, occurrences: Sequence[Placed[Occurrence]], tally: Tally) -> None:
        """Write log lines and add those that are new to their groups; a group's problem never loses a line.

        A group that can't be updated because somebody has changed it is repaired. If that does not help, the group is
        left as it is, and its lines are stored without it.
        """
        by_id = {write.line["_id"]: write for _, write in reversed(occurrences)}
        repaired, left = set[str](), set[str]()
        while True:
            try:
                lines, counted = await self._count_once(by_id, left)
                break
            except _GroupNotUpdatedError as failure:
                group = failure.group
                if group not in repaired and await self._repair(group):
                    repaired.add(group)
                elif failure.blames_content and await is_sound(self._database, ERROR_LOGS.name, group):
                    raise failure.error from None  # so one of these occurrences is invalid
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

    async def _repair(self, group: str) -> bool:
        return await repair(self._database, ERROR_LOGS.name, group, COUNTERS, "number", 0)

    async def _count_once(self, by_id: Mapping[str, Occurrence], left: Collection[str]) -> tuple[int, int]:
        """Write lines, by id, and update their groups except those in `left`, in one transaction: all of it or nothing.

        Returns:
            How many lines are new, and how many of these were counted in their groups.

        Raises:
            _GroupNotUpdatedError: Somebody else changed a group so that it can't be updated.
        """
        attempts = 0

        async def count_new(session: AsyncClientSession) -> tuple[int, int]:
            nonlocal attempts
            attempts += 1
            if attempts > 1:
                await self._mongo.end_abandoned_transactions()
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

        # The limit holds for all retries together, which are needed if another writer updates the same groups.
        with pymongo.timeout(self._mongo.timeout.total_seconds()):
            async with self._mongo.client.start_session() as session:
                return await session.with_transaction(count_new, read_concern=ReadConcern("snapshot"))


class _GroupNotUpdatedError(Exception):
    """The update of a group failed because of the group's content, or an occurrence's.

    Attributes:
        group: Its id.
        error: MongoDB's error.
        blames_content: Whether an occurrence may be to blame.
    """

    def __init__(self, group: str, error: BulkWriteError, *, blames_content: bool) -> None:
        super().__init__(group)
        self.group = group
        self.error = error
        self.blames_content = blames_content


@contextmanager
def _named_group(groups: Sequence[str]) -> Iterator[None]:
    """Name the group whose update failed; the groups are updated in this order."""
    try:
        yield
    except BulkWriteError as error:
        fault = update_faults(error)[0]
        if is_same_id(fault):
            raise
        # If both together are too large, the group is the problem: the line itself was accepted.
        may_be_content = blames_document(fault) and refusal_of_fault(fault).reason != "too-large"
        raise _GroupNotUpdatedError(groups[fault["index"]], error, blames_content=may_be_content) from None
