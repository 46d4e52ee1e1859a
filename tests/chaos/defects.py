"""Switch a defect on in a worker, so that it can be seen whether the judge finds it.

Input: a defect's name, in a worker that is about to begin.
Output: the product in that process has the defect, and no other. A place that the product no longer has ends the
worker, so that no defect seems harmless because it is not there.
"""

import random
from collections import deque
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Mapping, Sequence
from datetime import datetime, timedelta
from typing import Any
from uuid import uuid4
from zlib import crc32

import pymongo

from sinks.collections import ERROR_LOGS, SYSTEM_LOGS
from sinks.mongo.error_groups import group_updates
from sinks.mongo.outcome import Outcome
from sinks.postgres import pool
from tests.chaos.points import end_for_want_of, wrap

_FORGOTTEN = 0.2
_WRONG_OF = 1_000
_PATIENCE_SECONDS = 2.0

_PLAIN_PLUS = {
    "given.views - coalesce(known.views, 0) AS difference": "given.views AS difference",
    " AND given.views > coalesce(known.views, 0)": "",
    "SET views = excluded.views,": "SET views = known.views + excluded.views,",
}
"""What makes of the rule of counting a plain `+=`."""


def commit_before_write() -> None:
    """Offsets are committed before the batch is written: after a kill, documents or dead letters are missing."""

    def wrapper(original: Callable[..., Awaitable[None]]) -> Callable[..., Awaitable[None]]:
        async def call(store: Any, batches: AsyncIterator[Any]) -> None:
            await original(store, _committed(batches))

        return call

    wrap("agents.store", "Store.__call__", wrapper)


def no_idempotent_id() -> None:
    """A document whose id is there already is stored again under a fresh one: there are more than were sent."""

    def wrapper(original: Callable[..., Awaitable[None]]) -> Callable[..., Awaitable[None]]:
        async def complete(sink: Any, name: str, documents: Sequence[Any], tally: Any) -> None:
            await original(sink, name, documents, tally)
            again = [(at, write._replace(body={**write.body, "_id": uuid4().hex})) for at, write in documents]
            await sink._insert(name, again, tally)

        return complete

    wrap("sinks.mongo.writer", "MongoWriter._complete", wrapper)


def plus_equals() -> None:
    """Each count of a window is added to the post's views, absolute as it is: `viewCount` is too high."""

    _change_query("raise_windows", _PLAIN_PLUS)


def moved_twice() -> None:
    """The platform's count gets its views twice, and our table says once: `viewCount` is too high."""
    _change_query("move_view_counts", {"+ counted.difference": "+ 2 * counted.difference"})


def move_lost() -> None:
    """The platform's count gets no views, and our table says that it has them: `viewCount` is too low."""
    _change_query("move_view_counts", {"= greatest(": "= free.count_before + 0 * greatest("})


def plus_equals_groups() -> None:
    """Lines that are there already count once more in their groups: `occurrenceCount` is too high."""

    def wrapper(original: Callable[..., Awaitable[None]]) -> Callable[..., Awaitable[None]]:
        async def count_occurrences(sink: Any, occurrences: Sequence[Any], tally: Any) -> None:
            by_id = {write.line["_id"]: write for _, write in occurrences}
            found = sink._database[SYSTEM_LOGS.name].find({"_id": {"$in": list(by_id)}}, {"_id": 1})
            known = [by_id[line["_id"]] async for line in found]
            await original(sink, occurrences, tally)
            if known:
                await sink._database[ERROR_LOGS.name].bulk_write(list(group_updates(known).values()))

        return count_occurrences

    wrap("sinks.mongo.occurrences", "Occurrences._count", wrapper)


def drop_on_store_error() -> None:
    """A batch that MongoDB does not take within two seconds counts as done: after an outage documents are missing."""

    class Once:
        def __init__(self, dependency: Any) -> None:
            self._dependency = dependency

        async def run(self, operation: Callable[[], Awaitable[Any]]) -> Any:
            try:
                with pymongo.timeout(_PATIENCE_SECONDS):
                    return await operation()
            except Exception as error:
                if not self._dependency.is_transient(error):
                    raise
                return Outcome({}, {}, [])

    wrap("agents.store", "Retrier", lambda _: lambda dependency, health: Once(dependency))


def commit_past_the_unfinished() -> None:
    """When a batch is finished, those in flight are committed with it: after a kill, documents are missing."""

    def wrapper(_: Callable[..., Any]) -> Callable[..., Any]:
        def finish(tracker: Any, number: int, partitions: Iterable[Any]) -> dict[Any, int]:
            committable = {}
            for partition in partitions:
                state = tracker._partitions.get(partition)
                spans = dict(state.begun) if state is not None else {}
                if number in spans:
                    committable[partition] = max(end for _, end in spans.values())
                    state.begun = deque((begun, span) for begun, span in state.begun if begun != number)
            return committable

        return finish

    wrap("delivery.commit", "OffsetTracker.finish", wrapper)


def dead_letters_forgotten() -> None:
    """One in five batches sends none of its dead letters: records that were refused are in no dead-letter topic."""

    def wrapper(original: Callable[..., Awaitable[None]]) -> Callable[..., Awaitable[None]]:
        async def send(sender: Any, topic: str, records: Sequence[Any], letters: Sequence[Any]) -> None:
            await original(sender, topic, records, [] if random.random() < _FORGOTTEN else letters)

        return send

    wrap("delivery.dead_letters.writer", "DeadLetters.send", wrapper)


def wrong_document() -> None:
    """Of 1,000 documents one has a moment that is a millisecond off: it is not as computed without faults."""

    def wrapper(original: Callable[..., Awaitable[None]]) -> Callable[..., Awaitable[None]]:
        async def insert(sink: Any, name: str, documents: Sequence[Any], tally: Any) -> None:
            await original(sink, name, [(at, _slightly_wrong(write)) for at, write in documents], tally)

        return insert

    wrap("sinks.mongo.writer", "MongoWriter._insert", wrapper)


DEFECTS: Mapping[str, Callable[[], None]] = {
    "commit-before-write": commit_before_write,
    "no-idempotent-id": no_idempotent_id,
    "plus-equals": plus_equals,
    "moved-twice": moved_twice,
    "move-lost": move_lost,
    "plus-equals-groups": plus_equals_groups,
    "drop-on-store-error": drop_on_store_error,
    "commit-past-the-unfinished": commit_past_the_unfinished,
    "dead-letters-forgotten": dead_letters_forgotten,
    "wrong-document": wrong_document,
}
"""All defects, by name."""


def apply(name: str) -> None:
    """Give this process a defect.

    Raises:
        KeyError: There is no such defect.
        SystemExit: The product no longer has the place where it would be.
    """
    DEFECTS[name]()


def _change_query(name: str, changes: Mapping[str, str]) -> None:
    """Let this process have another query of the name."""

    def wrapper(original: Callable[[], Mapping[str, str]]) -> Callable[[], Mapping[str, str]]:
        statement = original()[name]
        for part, other in changes.items():
            if part not in statement:
                end_for_want_of(f"{part!r} in the query {name}")
            statement = statement.replace(part, other)
        queries = {**original(), name: statement}
        return lambda: queries

    wrap("sinks.postgres.pool", "_queries", wrapper)
    pool.query.cache_clear()


async def _committed(batches: AsyncIterator[Any]) -> AsyncIterator[Any]:
    async for batch in batches:
        await batch.commit()
        batch._commit = _nothing
        yield batch


async def _nothing(_: Any) -> None:
    pass


def _slightly_wrong(write: Any) -> Any:
    """Return a document as it is, or one of few that are wrong: always the same ones."""
    if crc32(str(write.body["_id"]).encode()) % _WRONG_OF:
        return write
    moment = next((name for name, value in write.body.items() if isinstance(value, datetime)), None)
    if moment is None:
        return write
    return write._replace(body={**write.body, moment: write.body[moment] + timedelta(milliseconds=1)})
