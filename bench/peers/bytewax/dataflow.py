"""Bytewax 0.21: KafkaSource, one step that makes documents of a batch, and a sink of one's own with `insert_many`.

Input: the BENCH_ environment. Output: documents. Run as a program, it makes the recovery store the first time and
becomes `python -m bytewax.run`, which loads it again as a module. README.md says what it promises.
"""

import os
import sys
from datetime import datetime
from pathlib import Path
from typing import Any

import bytewax.operators as op  # type: ignore[import-not-found]
import orjson
from bytewax.connectors.kafka import KafkaSource, KafkaSourceMessage  # type: ignore[import-not-found]
from bytewax.dataflow import Dataflow  # type: ignore[import-not-found]
from bytewax.outputs import DynamicSink, StatelessSinkPartition  # type: ignore[import-not-found]
from bytewax.recovery import init_db_dir  # type: ignore[import-not-found]
from pymongo import MongoClient
from pymongo.errors import BulkWriteError

Document = dict[str, Any]
DUPLICATE_KEY = 11_000
SNAPSHOT_SECONDS = 10
"""The default, said because a recovery store asks for it: from how long ago a restarted dataflow reads again."""


def to_documents(messages: list[KafkaSourceMessage]) -> list[Document]:
    """Return a batch's events, each with its id where MongoDB keeps it, and its time as a date."""
    documents = []
    for message in messages:
        document = orjson.loads(message.value)
        document["_id"] = document.pop("eventId")
        document["timestamp"] = datetime.fromisoformat(document["timestamp"])
        documents.append(document)
    return documents


class Insert(StatelessSinkPartition):  # type: ignore[misc]
    """Insert each batch at once; an event whose id is there already is stored already."""

    def __init__(self) -> None:
        client: MongoClient[Document] = MongoClient(os.environ["BENCH_MONGO_URL"], w="majority", journal=True)
        self._collection = client.get_default_database()[os.environ["BENCH_COLLECTION"]]

    def write_batch(self, items: list[Document]) -> None:
        """Write a batch. Raises what is no duplicate."""
        try:
            self._collection.insert_many(items, ordered=False)
        except BulkWriteError as error:
            if any(failed["code"] != DUPLICATE_KEY for failed in error.details["writeErrors"]):
                raise


class Sink(DynamicSink):  # type: ignore[misc]
    """MongoDB, written by each worker for itself."""

    def build(self, _step_id: str, _worker_index: int, _worker_count: int) -> Insert:
        """Return the worker's part of the sink."""
        return Insert()


def page_views() -> Dataflow:
    """Return the dataflow."""
    dataflow = Dataflow("page_views")
    source = KafkaSource([os.environ["BENCH_KAFKA_BROKERS"]], [os.environ["BENCH_TOPIC"]], batch_size=2_000)
    messages = op.input("kafka", dataflow, source)
    documents = op.flat_map_batch("documents", messages, to_documents)
    op.output("mongodb", documents, Sink())
    return dataflow


def main() -> None:
    """Create the recovery store if it is missing, and become Bytewax's own runner."""
    # The offsets are in this store: the source uses no consumer group of Kafka's.
    store = Path(os.environ["BENCH_DIRECTORY"]) / "recovery"
    if not store.exists():
        store.mkdir()
        init_db_dir(store, 1)
    run = [sys.executable, "-m", "bytewax.run", f"{__file__}:page_views()"]
    options = [
        "--recovery-directory",
        str(store),
        "--snapshot-interval",
        str(SNAPSHOT_SECONDS),
        "--backup-interval",
        "0",
    ]
    os.execv(sys.executable, [*run, *options])


if __name__ == "__main__":
    main()
