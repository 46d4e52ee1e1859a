"""Plain Faust, as its guide shows it: a topic, an agent, `take` and `insert_many`, or events one by one.

Input: the way (`take` or `each`) and the BENCH_ environment. Output: documents. Faust commits by itself what the agent
has passed. It runs in this project's own environment, with the versions of Faust, mode and aiokafka that Inkstream
uses. README.md says what it promises.
"""

import os
import sys
from datetime import datetime
from typing import Any

import mode.loop

mode.loop.use("uvloop")

import faust  # noqa: E402  # the loop is chosen first
from faust.types import StreamT  # noqa: E402
from pymongo import AsyncMongoClient, WriteConcern  # noqa: E402
from pymongo.asynchronous.collection import AsyncCollection  # noqa: E402
from pymongo.errors import BulkWriteError, DuplicateKeyError  # noqa: E402

DUPLICATE_KEY = 11_000
TAKE, WITHIN_SECONDS = 2_000, 0.2

app = faust.App(
    os.environ["BENCH_GROUP"],
    broker=f"kafka://{os.environ['BENCH_KAFKA_BROKERS']}",
    autodiscover=False,
    store="memory://",
    datadir=os.environ["BENCH_DIRECTORY"],
    topic_allow_declare=False,
    topic_disable_leader=True,
    web_enabled=False,
)
topic = app.topic(os.environ["BENCH_TOPIC"], value_serializer="json")


def to_document(event: dict[str, Any]) -> dict[str, Any]:
    """Return the event with its id where MongoDB keeps it, and its time as a date."""
    event["_id"] = event.pop("eventId")
    event["timestamp"] = datetime.fromisoformat(event["timestamp"])
    return event


def page_views() -> AsyncCollection[dict[str, Any]]:
    """Return the collection, for the event loop that asks."""
    client: AsyncMongoClient[dict[str, Any]] = AsyncMongoClient(os.environ["BENCH_MONGO_URL"])
    name = os.environ["BENCH_COLLECTION"]
    return client.get_default_database().get_collection(name, write_concern=WriteConcern(w="majority", j=True))


async def take(stream: StreamT[Any]) -> None:
    """Insert what came, two thousand at a time; an event whose id is there already is stored already."""
    collection = page_views()
    async for events in stream.take(TAKE, within=WITHIN_SECONDS):
        try:
            await collection.insert_many([to_document(event) for event in events], ordered=False)
        except BulkWriteError as error:
            if any(failed["code"] != DUPLICATE_KEY for failed in error.details["writeErrors"]):
                raise


async def each(stream: StreamT[Any]) -> None:
    """Insert one event at a time; one whose id is there already is stored already."""
    collection = page_views()
    async for event in stream:
        try:
            await collection.insert_one(to_document(event))
        except DuplicateKeyError:
            continue


if __name__ == "__main__":
    app.agent(topic)({"take": take, "each": each}[sys.argv[1]])
    faust.Worker(app, loglevel="INFO").execute_from_commandline()
