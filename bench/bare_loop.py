"""The yardstick: aiokafka `getmany` → orjson → `insert_many` → commit, and nothing else.

In comes a topic, with how many batches may be in flight: one is the loop that everybody writes first, two is about the
limit for Python on this path. Out go documents as they came, with the event's id as `_id`. No validation, no
enrichment, no dead letters: one bad record ends it.
"""

import asyncio
import os
import sys
from collections import deque
from datetime import datetime

import orjson
import uvloop
from aiokafka import AIOKafkaConsumer
from pymongo import AsyncMongoClient, WriteConcern


async def main(topic: str, group: str, in_flight: int) -> None:
    """Copy the topic into `pageViews` until stopped."""
    client: AsyncMongoClient[dict[str, object]] = AsyncMongoClient(os.environ["INKSTREAM_MONGO_URL"])
    collection = client.get_default_database().get_collection(
        "pageViews", write_concern=WriteConcern(w="majority", j=True)
    )
    # The validator is Inkstream's, not the yardstick's.
    await client.get_default_database().command({"collMod": "pageViews", "validator": {}})
    consumer = AIOKafkaConsumer(
        topic,
        bootstrap_servers=os.environ["INKSTREAM_KAFKA_BROKERS"],
        group_id=group,
        enable_auto_commit=False,
        auto_offset_reset="earliest",
    )
    await consumer.start()
    writing: deque[asyncio.Task[None]] = deque()

    async def write(
        documents: list[dict[str, object]], offsets: dict[object, int], before: asyncio.Task[None] | None
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


if __name__ == "__main__":
    uvloop.run(main(sys.argv[1], sys.argv[2], int(sys.argv[3])))
