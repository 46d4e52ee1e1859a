"""The limit for Python on one core: aiokafka `getmany` → orjson → `insert_many`, two batches in flight, nothing else.

In comes a topic, out go documents as they came, with the event's id as `_id`. No validation, no enrichment, no dead
letters; offsets are committed as Inkstream does. It is the yardstick, not a contender for production.
"""

import asyncio
import os
import sys
from datetime import datetime

import orjson
import uvloop
from aiokafka import AIOKafkaConsumer
from pymongo import AsyncMongoClient, WriteConcern


async def main(topic: str, group: str) -> None:
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
    in_flight: asyncio.Task[None] | None = None

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
        before = in_flight
        offsets = {partition: records[-1].offset + 1 for partition, records in fetched.items()}
        in_flight = asyncio.create_task(write(documents, offsets, before))
        if before is not None:
            await before


if __name__ == "__main__":
    uvloop.run(main(sys.argv[1], sys.argv[2]))
