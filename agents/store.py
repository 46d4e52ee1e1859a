"""Stores a topic's events as documents in MongoDB.

Input: record batches. Output: documents; invalid records become dead letters. After a crash: the batch is read again,
and writing it again changes nothing.

Where two agents read the same topic, one of them judges which records are valid events.
"""

import time
from collections.abc import AsyncIterable, Awaitable, Callable, Iterable, Iterator, Sequence
from functools import partial
from itertools import islice

from delivery.batch import Record, RecordBatch
from delivery.dead_letters.letter import DeadLetter
from delivery.dead_letters.writer import DeadLetters
from delivery.retry import Retrier
from enrich.documents import Write
from runtime.health import Health
from runtime.metrics import DOCUMENTS_DUPLICATE, DOCUMENTS_WRITTEN, STORED_AFTER_SECONDS, WRITE_SECONDS
from schemas.cloudevents import Decoder
from schemas.envelope import Envelope, InvalidEvent
from schemas.event import Event
from sinks.mongo.outcome import Outcome
from sinks.mongo.writer import MongoWriter

Describe = Callable[[Envelope[Event]], Iterable[Write]]
"""Makes the writes of an event; raises `InvalidEvent` at once for an event that can't be stored."""

MOST_WRITES = 10_000
"""Writes that are made and written at once, about 20 MB: an event may notify a hundred thousand people."""

AfterWrite = Callable[[Sequence[Write], Outcome, Sequence[Record]], Awaitable[None]]
"""An after-write hook: takes writes of a batch once they are durable, their outcome, and the batch's records."""


class Store:
    """The agent of one topic: decode, enrich, write, run the hooks, commit.

    Args:
        name: The agent's name, for metrics.
        decoder: Decodes the topic's records.
        describe: Makes the writes of an event.
        mongo: Stores the documents.
        dead_letters: Takes the records that can't be stored.
        health: Where to report that MongoDB is down.
        after_write: Run in this order after each write and before the batch is committed.
        judges: Whether this agent sends a dead letter for a record that is not a valid event. If not, another agent
            of the topic does, and this one sends dead letters only for what MongoDB refuses.
    """

    def __init__(
        self,
        name: str,
        decoder: Decoder,
        describe: Describe,
        mongo: MongoWriter,
        dead_letters: DeadLetters,
        health: Health,
        *,
        after_write: Sequence[AfterWrite] = (),
        judges: bool = True,
    ) -> None:
        self._name = name
        self._decoder = decoder
        self._describe = describe
        self._mongo = mongo
        self._dead_letters = dead_letters
        self._retrier = Retrier(mongo, health)
        self._after_write = after_write
        self._judges = judges

    async def __call__(self, batches: AsyncIterable[RecordBatch]) -> None:
        """Handle batches until the channel ends; the commit is the last step of each."""
        async for batch in batches:
            invalid: list[DeadLetter] = []
            refused: dict[tuple[int, int], DeadLetter] = {}
            for writes, origins in self._portions(batch.records, invalid):
                with WRITE_SECONDS.labels(self._name).time():
                    outcome = await self._retrier.run(partial(self._mongo.write, writes))
                for at, refusal in outcome.refused:
                    record = origins[at]  # several of its documents may be refused: the first reason counts
                    refused.setdefault((record.partition, record.offset), DeadLetter(record, *refusal))
                for hook in self._after_write:
                    await hook(writes, outcome, batch.records)
                self._measure(origins, outcome)
            letters = [*invalid, *refused.values()] if self._judges else [*refused.values()]
            await self._dead_letters.send(batch.topic, batch.records, letters)
            await batch.commit()

    def _portions(
        self, records: Iterable[Record], invalid: list[DeadLetter]
    ) -> Iterator[tuple[list[Write], list[Record]]]:
        """Yield writes and, for each, the record that it comes from; most batches are one portion.

        Records that are not valid events are added to `invalid`.
        """
        writes: list[Write] = []
        origins: list[Record] = []
        decode, describe = self._decoder.decode, self._describe
        for record in records:
            try:
                described = iter(describe(decode(record)))
            except InvalidEvent as error:
                invalid.append(DeadLetter(record, error.reason, error.message))
                continue
            while made := list(islice(described, MOST_WRITES)):
                writes += made
                origins += [record] * len(made)
                if len(writes) >= MOST_WRITES:
                    yield writes, origins
                    writes, origins = [], []
        yield writes, origins

    def _measure(self, origins: Iterable[Record], outcome: Outcome) -> None:
        now = time.time_ns() // 1_000_000
        STORED_AFTER_SECONDS.observe(self._name, [now - record.timestamp for record in origins])
        for collection, count in outcome.written.items():
            DOCUMENTS_WRITTEN.labels(collection).inc(count)
        for collection, count in outcome.duplicates.items():
            DOCUMENTS_DUPLICATE.labels(collection).inc(count)
