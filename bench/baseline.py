"""The baseline: aiokafka `getmany` → orjson → `insert_many` → commit, and nothing else.

Input: the BENCH_ environment, how many batches may be in flight (one is the loop that everybody writes first, two is
about the limit for Python on this path), and in how many processes.
Output: documents as they came, with the event's id as `_id`. No validation, no enrichment, no dead letters: one invalid
record or one duplicate ends it.
"""

import asyncio
import multiprocessing
import os
import sys
from collections import deque
from collections.abc import Collection, Iterable
from datetime import datetime
from typing import Any

import orjson
import uvloop
from aiokafka import AIOKafkaConsumer, ConsumerRebalanceListener, TopicPartition
from pymongo import AsyncMongoClient, WriteConcern


async def copy(in_flight: int, processes: int) -> None:
    """Copy this process' share of the topic into `pageViews` until stopped."""
    client: AsyncMongoClient[dict[str, Any]] = AsyncMongoClient(os.environ["BENCH_MONGO_URL"])
    collection = client.get_default_database().get_collection(
        os.environ["BENCH_COLLECTION"], write_concern=WriteConcern(w="majority", j=True)
    )
    topic, shared_out = os.environ["BENCH_TOPIC"], asyncio.Event()

    class UntilShared(ConsumerRebalanceListener):  # type: ignore[misc]
        """Holds everything up until each process has its share of the partitions.

        A rebalance with batches in flight has them read twice, and the first duplicate is the end.
        """

        async def on_partitions_revoked(self, revoked: Iterable[TopicPartition]) -> None:
            """Happens before anything was read."""

        async def on_partitions_assigned(self, assigned: Collection[TopicPartition]) -> None:
            """Begin, when all have come."""
            if len(assigned) * processes == len(consumer.partitions_for_topic(topic)):
                shared_out.set()

    consumer = AIOKafkaConsumer(
        bootstrap_servers=os.environ["BENCH_KAFKA_BROKERS"],
        group_id=os.environ["BENCH_GROUP"],
        enable_auto_commit=False,
        auto_offset_reset="earliest",
    )
    consumer.subscribe([topic], listener=UntilShared())
    await consumer.start()
    await shared_out.wait()
    writing: deque[asyncio.Task[None]] = deque()

    async def write(
        documents: list[dict[str, Any]], offsets: dict[Any, int], before: asyncio.Task[None] | None
    ) -> None:
        await collection.insert_many(documents, ordered=False)
        if before is not None:
            await before
        await consumer.commit(offsets)

    while True:
        fetched = await consumer.getmany(timeout_ms=500, max_records=2_000)
        documents = []
        for records in fetched.values():
            for record in records:
                document = orjson.loads(record.value)
                document["_id"] = document.pop("eventId")
                document["timestamp"] = datetime.fromisoformat(document["timestamp"])
                documents.append(document)
        if not documents:
            continue
        offsets = {partition: records[-1].offset + 1 for partition, records in fetched.items()}
        writing.append(asyncio.create_task(write(documents, offsets, writing[-1] if writing else None)))
        while len(writing) >= in_flight:
            await writing.popleft()


async def copy_while_parent_lives(in_flight: int, processes: int) -> None:
    """Copy until the process that started this one is gone, however it went."""
    parent = multiprocessing.parent_process()
    assert parent is not None
    asyncio.get_running_loop().add_reader(parent.sentinel, os._exit, 0)
    await copy(in_flight, processes)


def _in_child(in_flight: int, processes: int) -> None:
    uvloop.run(copy_while_parent_lives(in_flight, processes))


def main() -> None:
    """Run one process, or several that share the topic's partitions, until the first ends."""
    in_flight, processes = int(sys.argv[1]), int(sys.argv[2]) if len(sys.argv) > 2 else 1
    spawning = multiprocessing.get_context("spawn")
    for _ in range(processes - 1):
        spawning.Process(target=_in_child, args=(in_flight, processes), daemon=True).start()
    uvloop.run(copy(in_flight, processes))


if __name__ == "__main__":
    main()
