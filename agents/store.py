"""Store: what every topic's agent does with its records.

In come record batches; out go documents in MongoDB, and dead letters for the records that can't become any. After a
crash the batch is read again, and writing it again leaves no trace.
"""

import time
from collections.abc import AsyncIterable, Awaitable, Callable, Iterable, Sequence
from functools import partial

from delivery.batch import Record, RecordBatch
from delivery.dead_letters import DeadLetter, DeadLetters
from delivery.retry import until_done
from enrich.documents import Write
from enrich.enricher import Enricher
from ops.health import Health
from ops.metrics import DOCUMENTS_DUPLICATE, DOCUMENTS_WRITTEN, STORED_AFTER_SECONDS, WRITE_SECONDS
from schemas.cloudevents import Decoder
from schemas.event import InvalidEvent
from sinks.mongo import Mongo, Outcome

Announce = Callable[[Sequence[Write], Sequence[Record]], Awaitable[None]]
"""Takes the writes of a batch once they are durable, and the records that they come from."""


class Store:
    """The agent of one topic: decode, enrich, write, commit.

    Args:
        topic: The topic's name in Kafka, for metrics.
        decoder: Reads the topic's records.
        enricher: Makes documents of events.
        mongo: Takes the documents.
        dead_letters: Takes what can't be stored.
        health: Where to report that MongoDB is down.
        announce: Makes known what was written, durably, before the batch is committed; `None` where nobody waits for
            it.
    """

    def __init__(
        self,
        topic: str,
        decoder: Decoder,
        enricher: Enricher,
        mongo: Mongo,
        dead_letters: DeadLetters,
        health: Health,
        announce: Announce | None = None,
    ) -> None:
        self._topic = topic
        self._decoder = decoder
        self._enricher = enricher
        self._mongo = mongo
        self._dead_letters = dead_letters
        self._health = health
        self._announce = announce

    async def __call__(self, batches: AsyncIterable[RecordBatch]) -> None:
        """Handle batches for as long as they come; the commit is the last thing done with each."""
        async for batch in batches:
            writes, origins, invalid = self._documents(batch.records)
            with WRITE_SECONDS.labels(self._topic).time():
                outcome = await until_done(partial(self._mongo.write, writes), self._mongo, self._health)
            refused = _one_a_record(DeadLetter(origins[at], *refusal) for at, refusal in outcome.refused)
            await self._dead_letters.send(batch.topic, len(batch.records), [*invalid, *refused])
            if self._announce:
                await self._announce(writes, batch.records)
            await batch.commit()
            self._measure(origins, outcome)

    def _documents(self, records: Iterable[Record]) -> tuple[list[Write], list[Record], list[DeadLetter]]:
        """Return what to write, the record that each write comes from, and the records that are no valid events."""
        writes: list[Write] = []
        origins: list[Record] = []
        invalid: list[DeadLetter] = []
        decode, describe = self._decoder.decode, self._enricher.documents
        for record in records:
            try:
                made = describe(decode(record))
            except InvalidEvent as error:
                invalid.append(DeadLetter(record, error.reason, error.message))
            else:
                writes += made
                origins += [record] * len(made)
        return writes, origins, invalid

    def _measure(self, origins: Iterable[Record], outcome: Outcome) -> None:
        now = time.time_ns() // 1_000_000
        STORED_AFTER_SECONDS.observe(self._topic, [now - record.timestamp for record in origins])
        for collection, count in outcome.written.items():
            DOCUMENTS_WRITTEN.labels(collection).inc(count)
        for collection, count in outcome.duplicates.items():
            DOCUMENTS_DUPLICATE.labels(collection).inc(count)


def _one_a_record(letters: Iterable[DeadLetter]) -> Iterable[DeadLetter]:
    """Return the first letter of each record: several of its documents may have been refused."""
    return {(letter.record.partition, letter.record.offset): letter for letter in reversed([*letters])}.values()
