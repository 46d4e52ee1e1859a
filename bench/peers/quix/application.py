"""Quix Streams 3.28: a topic into a sink, with the library's own MongoDBSink or with a batching sink of one's own.

Input: the sink (`upsert`: MongoDBSink by the event's id; `insert`: `insert_many`) and the BENCH_ environment. Output:
documents; the offsets are committed once the sink has flushed. README.md says what each promises.
"""

import os
import sys
from datetime import datetime
from typing import Any

from pymongo import MongoClient
from pymongo.errors import BulkWriteError
from quixstreams import Application  # type: ignore[import-not-found]
from quixstreams.sinks import BaseSink, BatchingSink, SinkBatch  # type: ignore[import-not-found]
from quixstreams.sinks.community.mongodb import MongoDBSink  # type: ignore[import-not-found]

DUPLICATE_KEY = 11_000
MONGO_URL = os.environ["BENCH_MONGO_URL"]
WRITE_CONCERN: dict[str, Any] = {"w": "majority", "journal": True}


class Insert(BatchingSink):  # type: ignore[misc]
    """Insert each batch at once; an event whose id is there already is stored already."""

    def setup(self) -> None:
        """Connect to MongoDB."""
        client: MongoClient[dict[str, Any]] = MongoClient(MONGO_URL, **WRITE_CONCERN)
        self._collection = client.get_default_database()[os.environ["BENCH_COLLECTION"]]

    def write(self, batch: SinkBatch) -> None:
        """Write the records of one partition since the last commit. Raises what is no duplicate."""
        try:
            self._collection.insert_many([item.value for item in batch], ordered=False)
        except BulkWriteError as error:
            if any(failed["code"] != DUPLICATE_KEY for failed in error.details["writeErrors"]):
                raise


def upsert() -> BaseSink:
    """Return the library's sink, which finds a document by its id and replaces it, or adds it."""
    server, _, options = MONGO_URL.partition("?")
    address, _, database = server.removeprefix("mongodb://").partition("/")
    host, _, port = address.rpartition(":")
    return MongoDBSink(
        host=host,
        port=int(port),
        db=database,
        collection=os.environ["BENCH_COLLECTION"],
        document_matcher=lambda record: {"_id": record.value["_id"]},
        update_method="ReplaceOne",
        replicaSet=dict(option.split("=") for option in options.split("&"))["replicaSet"],
        **WRITE_CONCERN,
    )


def to_document(event: dict[str, Any]) -> dict[str, Any]:
    """Return the event with its id where MongoDB keeps it, and its time as a date."""
    event["_id"] = event.pop("eventId")
    event["timestamp"] = datetime.fromisoformat(event["timestamp"])
    return event


def main() -> None:
    """Run the application until stopped."""
    application = Application(
        broker_address=os.environ["BENCH_KAFKA_BROKERS"],
        consumer_group=os.environ["BENCH_GROUP"],
        auto_offset_reset="earliest",
        # A batch is what came since the last commit: five seconds of it unless a number is set.
        commit_every=8_000,
        commit_interval=1.0,
        auto_create_topics=False,
        state_dir=os.environ["BENCH_DIRECTORY"],
    )
    topic = application.topic(os.environ["BENCH_TOPIC"], value_deserializer="json", key_deserializer="bytes")
    sink = upsert() if sys.argv[1] == "upsert" else Insert()
    application.dataframe(topic).apply(to_document).sink(sink)
    application.run()


if __name__ == "__main__":
    main()
