"""Measure latency at a steady rate: from an event's Kafka timestamp until MongoDB shows it as durable.

Input: an alternative.
Output: quantiles, measured the same way for every alternative, from outside. One event in 50 is a sample: it carries a
session of its own. The declared index on `sessionId` finds it whatever an alternative does with ids, and a tight loop
asks MongoDB, with read concern `majority`, for the samples that it has not seen yet. Started as a program, this module
is the sender: in a process of its own, as sending would delay the queries.
"""

import argparse
import asyncio
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import orjson
from aiokafka import AIOKafkaProducer
from pymongo.read_concern import ReadConcern

from bench import traffic
from bench.arena import Arena, Database, until_stored
from bench.programs import Program, RunningProgram, running

RATE = 5_000
SECONDS = 20.0
UNCOUNTED_SECONDS = 3.0
"""At the beginning, while the alternative warms up."""
SAMPLE_EVERY = 50
STRAGGLE_SECONDS = 30.0
POLL_SECONDS = 0.004
PARTITIONS = 4
_TICK_SECONDS = 0.01
_WINDOW = 40
"""Samples asked for at once; 0.4 s of them, and looking them up costs MongoDB less than a hundredth of its time."""
_FIRST_EVENTS = 200
_FIRST_SEED, _SEED = 101, 102


@dataclass(frozen=True, slots=True)
class Latency:
    """How long samples were on their way.

    Attributes:
        p50_ms: The median.
        p99_ms: Of a hundred, one takes longer.
        samples: How many were looked for.
        missing: How many of them had not come half a minute after the last was sent; they count as the slowest.
    """

    p50_ms: float
    p99_ms: float
    samples: int
    missing: int


def quantile(values: Sequence[float], share: float) -> float:
    """Return the least of the values that at least this share of them does not exceed (nearest rank)."""
    if not values:
        raise ValueError("there are no values")
    ordered = sorted(values)
    rank = -int(-share * len(ordered) // 1)  # rounded up
    return ordered[max(rank, 1) - 1]


def latency_of(sent: Sequence[float], seen: Mapping[int, float], until: float) -> Latency:
    """Return the quantiles.

    Args:
        sent: When each sample was sent, in seconds since 1970.
        seen: When samples were seen first, by their position in `sent`.
        until: When the looking ended; what was not seen by then counts as if it had come then.
    """
    waits = [(seen.get(number, until) - moment) * 1000 for number, moment in enumerate(sent)]
    missing = sum(number not in seen for number in range(len(sent)))
    return Latency(quantile(waits, 0.5), quantile(waits, 0.99), len(sent), missing)


async def measure(arena: Arena, program: Program, *, validated: bool, number: int) -> Latency:
    """Run an alternative, send page views at a steady rate, and look when they come.

    Args:
        arena: Where.
        program: The alternative.
        validated: Whether MongoDB checks the documents.
        number: Of this measurement, for a topic of its own.

    Raises:
        ProgramError: The alternative ended, or stored nothing in time.
    """
    namespace = f"latency-{number}."
    topic = namespace + traffic.PAGE_VIEWS
    await traffic.create(arena.brokers, namespace, PARTITIONS)
    async with arena.database(namespace, validated=validated) as (database, url):
        async with running(program, await arena.task(topic, url)) as running_program:
            # What an alternative needs to start is another figure's.
            await traffic.fill(arena.brokers, topic, traffic.page_views(_FIRST_EVENTS, _FIRST_SEED))
            await until_stored(database, _FIRST_EVENTS, running_program)
            command = [sys.executable, "-m", "bench.latency", arena.brokers, topic]
            sender = await asyncio.create_subprocess_exec(
                *command, stdout=asyncio.subprocess.PIPE, start_new_session=True
            )
            try:
                telling = asyncio.create_task(sender.communicate())
                seen = await _look(database, running_program, telling)
                until = time.time()
            finally:
                if sender.returncode is None:
                    sender.kill()
        if sender.returncode:
            raise RuntimeError(f"the sender ended with exit code {sender.returncode}")
        sent: list[float] = orjson.loads(telling.result()[0])
    await traffic.delete(arena.brokers, namespace)
    uncounted = round(UNCOUNTED_SECONDS * RATE / SAMPLE_EVERY)
    counted = {sample - uncounted: moment for sample, moment in seen.items() if sample >= uncounted}
    return latency_of(sent[uncounted:], counted, until)


async def _look(
    database: Database, running_program: RunningProgram, telling: "asyncio.Task[tuple[bytes, bytes]]"
) -> dict[int, float]:
    """Return when each sample was seen first; until all are, or for a bounded time after the last was sent."""
    views = database.get_collection("pageViews", read_concern=ReadConcern("majority"))
    total = round((UNCOUNTED_SECONDS + SECONDS) * RATE / SAMPLE_EVERY)
    unseen = list(range(total))
    seen: dict[int, float] = {}
    deadline: float | None = None
    while unseen and not running_program.has_ended:
        # What comes next is among the first that have not come.
        sessions = {traffic.sample_session(number): number for number in unseen[:_WINDOW]}
        found = await views.find({"sessionId": {"$in": list(sessions)}}, {"sessionId": 1, "_id": 0}).to_list()
        now = time.time()
        for number in {sessions[document["sessionId"]] for document in found}:
            seen[number] = now
            unseen.remove(number)
        if telling.done():
            deadline = deadline or time.monotonic() + STRAGGLE_SECONDS
            if time.monotonic() > deadline:
                break
        await asyncio.sleep(POLL_SECONDS)
    await telling
    return seen


async def send(brokers: str, topic: str) -> list[float]:
    """Send page views at the rate; return the Kafka timestamp of each sample, in seconds since 1970."""
    sampled: list[float] = []
    total = round((UNCOUNTED_SECONDS + SECONDS) * RATE)
    views: list[dict[str, Any]] = list(traffic.sampled_page_views(total, SAMPLE_EVERY, _SEED))
    async with AIOKafkaProducer(bootstrap_servers=brokers, acks="all", compression_type="lz4") as producer:
        began = time.perf_counter()
        sent = 0
        while sent < total:
            due = min(round((time.perf_counter() - began) * RATE), total)
            for view in views[sent:due]:
                now = time.time_ns() // 1_000_000
                if view["sessionId"].startswith("sample-"):
                    sampled.append(now / 1000)
                record = traffic.record_of(view)
                await producer.send(topic, record.value, key=record.key, timestamp_ms=now)
            sent = max(sent, due)
            await asyncio.sleep(_TICK_SECONDS)
    return sampled


def main() -> None:
    """Send, and print the timestamps of the samples."""
    parser = argparse.ArgumentParser(description="Send page views at a steady rate.")
    parser.add_argument("brokers")
    parser.add_argument("topic")
    arguments = parser.parse_args()
    sys.stdout.buffer.write(orjson.dumps(asyncio.run(send(arguments.brokers, arguments.topic))))


if __name__ == "__main__":
    main()
