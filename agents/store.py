"""Store: what the agents do with their topic's records.

In come record batches; out go documents in MongoDB, and dead letters for the records that can't become any. After a
crash the batch is read again, and writing it again leaves no trace.

Where two agents read the same topic, one of them judges which records are valid events.
"""

import time
from collections.abc import AsyncIterable, Awaitable, Callable, Iterable, Iterator, Sequence
from functools import partial
from itertools import islice

from delivery.batch import Record, RecordBatch
from delivery.dead_letters.writer import DeadLetter, DeadLetters
from delivery.retry import until_done
from enrich.documents import Write
from runtime.health import Health
from runtime.metrics import DOCUMENTS_DUPLICATE, DOCUMENTS_WRITTEN, STORED_AFTER_SECONDS, WRITE_SECONDS
from schemas.cloudevents import Decoder
from schemas.envelope import Envelope, InvalidEvent
from schemas.event import Event
from sinks.mongo.outcome import Outcome
from sinks.mongo.writer import MongoWriter

Describe = Callable[[Envelope[Event]], Iterable[Write]]
"""Makes the writes of an event; raises `InvalidEvent` at once for one that can't be described."""

MOST_WRITES = 10_000
"""How many writes are made and written at once, about 20 MB: an event may notify a hundred thousand people."""

Announce = Callable[[Sequence[Write], Outcome, Sequence[Record]], Awaitable[None]]
"""Takes some writes of a batch once they are durable, what became of them, and the records that they come from."""


class Store:
    """The agent of one topic: decode, enrich, write, commit.

    Args:
        name: The agent's name, for metrics.
        decoder: Reads the topic's records.
        describe: Makes writes of an event.
        mongo: Takes the documents.
        dead_letters: Takes what can't be stored.
        health: Where to report that MongoDB is down.
        announce: Makes known what was written, durably, before the batch is committed; `None` where nobody waits for
            it.
        judges: Whether records that are no valid events are dead letters of this agent; else they are another's, and
            those alone are this one's that MongoDB refuses.
    """

    def __init__(
        self,
        name: str,
        decoder: Decoder,
        describe: Describe,
        mongo: MongoWriter,
        dead_letters: DeadLetters,
        health: Health,
        announce: Announce | None = None,
        *,
        judges: bool = True,
    ) -> None:
        self._name = name
        self._decoder = decoder
        self._describe = describe
        self._mongo = mongo
        self._dead_letters = dead_letters
        self._health = health
        self._announce = announce
        self._judges = judges

    async def __call__(self, batches: AsyncIterable[RecordBatch]) -> None:
        """Handle batches for as long as they come; the commit is the last thing done with each."""
        async for batch in batches:
            invalid: list[DeadLetter] = []
            refused: dict[tuple[int, int], DeadLetter] = {}
            for writes, origins in self._portions(batch.records, invalid):
                with WRITE_SECONDS.labels(self._name).time():
                    outcome = await until_done(partial(self._mongo.write, writes), self._mongo, self._health)
                for at, refusal in outcome.refused:
                    record = origins[at]  # of which several documents may be refused: the first counts
                    refused.setdefault((record.partition, record.offset), DeadLetter(record, *refusal))
                if self._announce:
                    await self._announce(writes, outcome, batch.records)
                self._measure(origins, outcome)
            letters = [*invalid, *refused.values()] if self._judges else [*refused.values()]
            await self._dead_letters.send(batch.topic, batch.records, letters)
            await batch.commit()

    def _portions(
        self, records: Iterable[Record], invalid: list[DeadLetter]
    ) -> Iterator[tuple[list[Write], list[Record]]]:
        """Yield what to write and the record that each write comes from, in portions; mostly a batch is one.

        Records that are no valid events are added to `invalid`.
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
