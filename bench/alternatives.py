"""Define what is measured: the baseline, Inkstream, and what users would pick instead, in the table's order.

Each is a program that copies a topic of page views into a collection; the BENCH_ environment says where. How each peer
is configured, what its documentation promises, and what it did, is in the README.md of its directory.
"""

import sys
from collections.abc import Callable
from functools import partial
from typing import NamedTuple

from bench.peers.install import install_kafka_connect, install_python, python
from bench.worker import WORKER

BASELINE = "baseline, 2 in flight"
INKSTREAM = "Inkstream"


class Alternative(NamedTuple):
    """A row of the table.

    Attributes:
        name: What the row is called.
        command: The command line; its working directory is the root of this project.
        environment: Variables of its own.
        safe: Whether SIGKILL or an outage of MongoDB, and a restart afterwards, leave every event stored once.
        note: How it is configured, and which page of its documentation says so.
        install: Makes its environment, where it needs one; raises `InstallError` where that can't be had.
    """

    name: str
    command: list[str]
    environment: dict[str, str]
    safe: bool
    note: str
    install: Callable[[], None] | None


def _baseline(name: str, note: str, *arguments: str) -> Alternative:
    command = [sys.executable, "-m", "bench.baseline", *arguments]
    return Alternative(name, command, {}, safe=False, note=note, install=None)


def _kafka_connect(name: str, form: str, note: str, *, safe: bool) -> Alternative:
    command = [sys.executable, "bench/peers/kafka_connect/launch.py", form]
    return Alternative(name, command, {}, safe, note, install_kafka_connect)


def _peer(name: str, peer: str, program: str, note: str, *, safe: bool) -> Alternative:
    path, *arguments = program.split()
    command = [python(peer), f"bench/peers/{peer}/{path}", *arguments]
    return Alternative(name, command, {}, safe, note, partial(install_python, peer))


def _faust(name: str, way: str, note: str) -> Alternative:
    command = [sys.executable, "bench/peers/faust/application.py", way]
    return Alternative(name, command, {}, safe=False, note=note, install=None)


ALTERNATIVES: tuple[Alternative, ...] = (
    _baseline("baseline", "the loop that everybody writes first: one batch at a time", "1"),
    _baseline(BASELINE, "a batch is decoded while another is written", "2"),
    _baseline("baseline, 4 in flight", "more in flight than a commit in order can use well", "4"),
    _baseline("baseline, 2 in flight, 2 processes", "two consumers share the partitions", "2", "2"),
    Alternative(
        INKSTREAM,
        list(WORKER.command),
        {},
        safe=True,
        note="a worker as people run it, with everything on",
        install=None,
    ),
    _kafka_connect(
        "Kafka Connect, default",
        "default",
        "upsert by id, settings as they come (Sink Connector Write Model Strategies)",
        safe=True,
    ),
    _kafka_connect(
        "Kafka Connect, tuned",
        "tuned",
        "upsert by id, unordered, 2,000 a batch, 2 tasks (Connector Message Processing Properties)",
        safe=True,
    ),
    _kafka_connect(
        "Kafka Connect, insert",
        "insert",
        "as tuned, 1 task, InsertOneDefaultStrategy: stops at the first duplicate (Write Model Strategies)",
        safe=False,
    ),
    _peer(
        "Quix Streams, MongoDBSink",
        "quix",
        "application.py upsert",
        "upsert by id (Connectors, MongoDB Sink), a batch a second or 8,000 (Sinks, Performance Considerations)",
        safe=True,
    ),
    _peer(
        "Quix Streams, own sink",
        "quix",
        "application.py insert",
        "insert_many in a BatchingSink that forgives duplicates (Creating a Custom Sink)",
        safe=True,
    ),
    _peer(
        "Bytewax",
        "bytewax",
        "dataflow.py",
        "KafkaSource, 2,000 a batch; insert_many in a DynamicSink that forgives duplicates; recovery store (Recovery)",
        safe=True,
    ),
    _peer(
        "Pathway",
        "pathway",
        "pipeline.py",
        "its Kafka and MongoDB connectors, persistence (Persistence); _id is MongoDB's own, so twice is twice",
        safe=False,
    ),
    _faust("Faust, take", "take", "take(2000) and insert_many that forgives duplicates (Streams, take)"),
    _faust("Faust, one by one", "each", "insert_one for each event (Agents)"),
)
