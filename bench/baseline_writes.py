"""The baseline of every path but page views: the writes that a topic's events amount to, prepared, and nothing else.

Input: a topic.
Output: the same inserts, updates and transactions that Inkstream carries out for it, prepared before the first is
written, in plain calls of the driver. The topic is read from Kafka again beside the writes, so that the cost of reading
is included. No decoding, no enrichment, no dead letters, no retries.
"""

import asyncio
import gc
import os
from collections import defaultdict, deque
from collections.abc import AsyncIterator, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

import uvloop
from aiokafka import AIOKafkaConsumer
from pymongo import AsyncMongoClient, UpdateOne
from pymongo.asynchronous.client_session import AsyncClientSession
from pymongo.errors import BulkWriteError
from pymongo.read_concern import ReadConcern

from bench.traffic import ends, namespace_of
from delivery.batch import Record
from enrich.documents import Document, Occurrence, PartialUpdate, Write
from enrich.enricher import Enricher
from enrich.geo import GeoDatabase
from runtime.settings import ROOT, Settings
from schemas.cloudevents import Decoder
from schemas.topics import load
from sinks.collections import COLLECTIONS, ERROR_LOGS, NAMES, SYSTEM_LOGS
from sinks.mongo.database import NamespacedDatabase
from sinks.mongo.error_groups import group_updates
from sinks.mongo.late_updates import CombinedUpdate, completion

LINES_PER_TRANSACTION = 500
_POLL_MILLISECONDS = 500


@dataclass
class Batch:
    """What is written for one batch of records.

    Attributes:
        records: How many records it comes from.
        inserts: Documents by collection.
        updates: What comes after them, by collection.
        transactions: Lines and updates of their groups, which belong together.
    """

    records: int
    inserts: dict[str, list[dict[str, Any]]] = field(default_factory=dict)
    updates: dict[str, list[UpdateOne]] = field(default_factory=dict)
    transactions: list[tuple[list[dict[str, Any]], list[UpdateOne]]] = field(default_factory=list)


class Preparation:
    """Makes batches of writes of batches of records, as Inkstream does.

    Args:
        topic: The topic's name as declared.
        settings: What a worker would be told.
    """

    def __init__(self, topic: str, settings: Settings) -> None:
        path = settings.geo_database_path()
        geo = GeoDatabase.open(path) if path and path.exists() else None
        self._decoder = Decoder(load(ROOT / "topics.yaml", NAMES).inbound[topic], settings.ahead_limit)
        self._enricher = Enricher(ip_hash_key=settings.ip_hash_key.get_secret_value().encode(), geo=geo)

    def writes(self, record: Record) -> list[Write]:
        """Return what a record amounts to."""
        return self._enricher.documents(self._decoder.decode(record))

    def batch(self, records: Sequence[Record]) -> Batch:
        """Return the writes of some records."""
        prepared = Batch(len(records))
        parts: defaultdict[str, defaultdict[str, list[PartialUpdate]]] = defaultdict(lambda: defaultdict(list))
        occurrences: list[Occurrence] = []
        for record in records:
            for write in self.writes(record):
                match write:
                    case Document():
                        prepared.inserts.setdefault(write.collection, []).append(write.body)
                    case PartialUpdate():
                        parts[write.collection][write.id].append(write)
                    case Occurrence():
                        occurrences.append(write)
        for collection, by_document in parts.items():
            prepared.updates[collection] = [CombinedUpdate(some).update() for some in by_document.values()]
        for first in range(0, len(occurrences), LINES_PER_TRANSACTION):
            chunk = occurrences[first : first + LINES_PER_TRANSACTION]
            prepared.transactions.append(([write.line for write in chunk], list(group_updates(chunk).values())))
        return prepared


async def read(brokers: str, topic: str, most: int) -> AsyncIterator[list[Record]]:
    """Yield all that is in a topic, in batches as a worker gets them."""
    left = sum((await ends(brokers, topic)).values())
    async with AIOKafkaConsumer(topic, bootstrap_servers=brokers, auto_offset_reset="earliest") as consumer:
        while left > 0:
            fetched = await consumer.getmany(timeout_ms=_POLL_MILLISECONDS, max_records=most)
            records = [record for records in fetched.values() for record in records]
            left -= len(records)
            yield records


async def write(client: AsyncMongoClient[dict[str, Any]], batch: Batch) -> None:
    """Carry out the writes of a batch: collections at the same time, and of each the inserts first."""
    database = NamespacedDatabase(client, namespace_of(os.environ["BENCH_TOPIC"]))

    async def write_collection(name: str) -> None:
        if documents := batch.inserts.get(name):
            try:
                await database[name].insert_many(documents, ordered=False)
            except BulkWriteError as error:
                await complete(name, [documents[fault["index"]] for fault in error.details["writeErrors"]])
        if updates := batch.updates.get(name):
            await database[name].bulk_write(updates, ordered=False)

    async def complete(name: str, documents: list[dict[str, Any]]) -> None:
        late_fields = COLLECTIONS[name].late_fields
        assert late_fields is not None  # nothing is sent twice, so a placeholder was there
        await database[name].bulk_write([completion(each, late_fields) for each in documents], ordered=False)

    async def write_transactions() -> None:
        for lines, updates in batch.transactions:

            async def both(
                session: AsyncClientSession, lines: list[dict[str, Any]] = lines, updates: list[UpdateOne] = updates
            ) -> None:
                await database[SYSTEM_LOGS.name].insert_many(lines, ordered=False, session=session)
                await database[ERROR_LOGS.name].bulk_write(updates, session=session)

            async with client.start_session() as session:
                await session.with_transaction(both, read_concern=ReadConcern("snapshot"))

    names = batch.inserts.keys() | batch.updates.keys()
    await asyncio.gather(*(write_collection(name) for name in names), write_transactions())


async def main() -> None:
    """Prepare everything; then write it, while the topic is read again, until stopped."""
    brokers, topic = os.environ["BENCH_KAFKA_BROKERS"], os.environ["BENCH_TOPIC"]
    settings = Settings()
    preparation = Preparation(topic.rpartition(".")[2], settings)
    batches = [preparation.batch(records) async for records in read(brokers, topic, settings.batch_records)]
    # Looking through what is ready-made again and again is no part of writing it.
    gc.freeze()
    gc.disable()
    async with (
        AsyncMongoClient[dict[str, Any]](os.environ["BENCH_MONGO_URL"], w="majority", journal=True) as client,
        AIOKafkaConsumer(
            topic,
            bootstrap_servers=brokers,
            group_id=os.environ["BENCH_GROUP"],
            enable_auto_commit=False,
            auto_offset_reset="earliest",
        ) as consumer,
    ):
        await write_all(client, consumer, batches, settings)
        await asyncio.Event().wait()


async def write_all(
    client: AsyncMongoClient[dict[str, Any]], consumer: AIOKafkaConsumer, batches: Iterable[Batch], settings: Settings
) -> None:
    """Write each batch once as many records have been read as it and those before it are made of."""
    writing: deque[asyncio.Task[None]] = deque()

    async def write_and_commit(batch: Batch, before: asyncio.Task[None] | None) -> None:
        await write(client, batch)
        if before is not None:
            await before
        await consumer.commit()

    records = 0
    for batch in batches:
        while records < batch.records:
            fetched = await consumer.getmany(timeout_ms=_POLL_MILLISECONDS, max_records=settings.batch_records)
            records += sum(map(len, fetched.values()))
        records -= batch.records
        writing.append(asyncio.create_task(write_and_commit(batch, writing[-1] if writing else None)))
        while len(writing) >= settings.batches_in_flight:
            await writing.popleft()
    await asyncio.gather(*writing)


if __name__ == "__main__":
    uvloop.run(main())
