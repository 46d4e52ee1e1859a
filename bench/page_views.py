"""How fast page views get from Kafka to MongoDB: Inkstream beside bare loops, on the same machine, in one run.

In comes nothing: the script brings up a platform of its own, fills one topic, and runs all contenders in turn, each
over the whole topic into a fresh collection with the same indexes and write concern. Out comes a table of events per
second, and the ratio round by round; exit code 1 where the ratio's median is below `--least`.
"""

import argparse
import asyncio
import os
import random
import statistics
import subprocess
import sys
import tempfile
import time
import uuid
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime, timedelta
from pathlib import Path

import orjson
import psutil
from aiokafka import AIOKafkaConsumer, AIOKafkaProducer, TopicPartition
from pymongo import AsyncMongoClient
from rich.console import Console
from rich.table import Table

from dev.stack import Platform, Ports
from ops import kafka_topics
from ops.settings import ROOT, Settings
from schemas.topics import load
from sinks.collections import NAMES
from sinks.convergence import converge

PARTITIONS = 4
NAMESPACE = "bench."
TOPIC = NAMESPACE + "page-views"
console = Console()


def page_views(count: int, seed: int = 7) -> Iterator[tuple[bytes, bytes]]:
    """Yield the key and the value of so many page views of about 520 bytes, with a long tail of posts and readers."""
    chance = random.Random(seed)
    weights, agents = zip(*orjson.loads((ROOT / "dev/data/user-agents.json").read_bytes()), strict=True)
    posts = [str(uuid.UUID(int=chance.getrandbits(128), version=4)) for _ in range(1_000)]
    addresses = [".".join(str(chance.randint(1, 223)) for _ in range(4)) for _ in range(20_000)]
    referrers = [
        "https://www.google.com/", "https://t.co/x1", "https://www.reddit.com/r/python", "https://chatgpt.com/", None,
        *(f"https://blog{number}.example/links" for number in range(200)),
    ]  # fmt: skip
    start = datetime.now(UTC) - timedelta(minutes=5)
    for number in range(count):
        post = posts[min(int(chance.paretovariate(0.6)) - 1, len(posts) - 1)]
        view = {
            "eventId": str(uuid.UUID(int=chance.getrandbits(128), version=4)),
            "type": "page.viewed",
            "postId": post,
            "postSlug": f"a-post-about-{post[:8]}",
            "sessionId": f"session-{chance.randrange(100_000)}",
            "ipAddress": chance.choice(addresses),
            "userAgent": chance.choices(agents, weights)[0],
            "url": f"https://blog.example/posts/{post[:8]}",
            "referrer": chance.choice(referrers),
            "timestamp": (start + timedelta(milliseconds=number)).isoformat(),
        }
        yield post.encode(), orjson.dumps({name: value for name, value in view.items() if value is not None})


async def fill(environment: Mapping[str, str], count: int) -> None:
    """Create the topics and send the page views, compressed with lz4."""
    brokers = environment["INKSTREAM_KAFKA_BROKERS"]
    settings = Settings.model_validate({"kafka_brokers": brokers, "namespace": NAMESPACE, "partitions": PARTITIONS})
    topics = load(ROOT / "topics.yaml", NAMES, partitions=PARTITIONS).all.values()
    await kafka_topics.converge(settings, kafka_topics.declared(topics, NAMESPACE), check=False)
    producer = AIOKafkaProducer(
        bootstrap_servers=brokers, acks="all", compression_type="lz4", linger_ms=50, max_batch_size=262_144
    )
    await producer.start()
    sent = [await producer.send(TOPIC, value, key=key) for key, value in page_views(count)]
    await asyncio.gather(*sent)
    await producer.stop()


async def rewind(brokers: str, group: str) -> None:
    """Set the consumer group back to the topic's beginning."""
    consumer = AIOKafkaConsumer(bootstrap_servers=brokers, group_id=group, enable_auto_commit=False)
    await consumer.start()
    partitions = [TopicPartition(TOPIC, number) for number in range(PARTITIONS)]
    consumer.assign(partitions)
    await consumer.commit(dict.fromkeys(partitions, 0))
    await consumer.stop()


async def time_contender(command: list[str], environment: dict[str, str], url: str, count: int) -> tuple[float, float]:
    """Run a contender over the whole topic; return events/s from its first document to its last, and peak MiB."""
    client: AsyncMongoClient[dict[str, object]] = AsyncMongoClient(url)
    database = client.get_default_database()
    await converge(database, check=False)
    with tempfile.TemporaryFile() as log:
        process = subprocess.Popen(  # noqa: ASYNC220  # starting it is quick
            command, env={**os.environ, **environment, "INKSTREAM_MONGO_URL": url}, cwd=ROOT, stdout=log, stderr=log
        )
        try:
            watched = psutil.Process(process.pid)
            first: tuple[float, int] | None = None
            peak = 0
            stored = 0
            while stored < count:
                if process.poll() is not None:
                    log.seek(0)
                    raise RuntimeError(f"contender ended early:\n{log.read().decode()[:3_000]}")
                stored = await database["pageViews"].estimated_document_count()
                if stored and first is None:
                    first = (time.perf_counter(), stored)
                peak = max(peak, watched.memory_info().rss)
                await asyncio.sleep(0.02)
            assert first is not None
            rate = (stored - first[1]) / (time.perf_counter() - first[0])
        finally:
            process.terminate()
            process.wait(30)
    await client.drop_database(database.name)
    await client.close()
    return rate, peak / 2**20


def main() -> None:
    """Run the benchmark."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n\n")[0])
    parser.add_argument("--events", type=int, default=150_000, help="page views in the topic (default %(default)s)")
    parser.add_argument("--rounds", type=int, default=3, help="rounds of all contenders (default %(default)s)")
    parser.add_argument("--least", type=float, default=0.7, help="lowest accepted median ratio (default %(default)s)")
    arguments = parser.parse_args()

    with tempfile.TemporaryDirectory(prefix="inkstream-bench-") as directory:
        platform = Platform(Path(directory), Ports.free())
        try:
            platform.up(console.print)
            sys.exit(asyncio.run(compare(platform, arguments.events, arguments.rounds, arguments.least)))
        finally:
            platform.forget()


async def compare(platform: Platform, events: int, rounds: int, least: float) -> int:
    """Run both contenders in turn, print the table, return the exit code."""
    environment = platform.environment() | {
        "INKSTREAM_AGENTS": "page-views",
        "INKSTREAM_WEB_PORT": str(platform.ports.worker),
    }
    console.print(f"filling {TOPIC} with {events:,} page views")
    await fill(environment, events)
    table = Table(title=f"{events:,} page views, {PARTITIONS} partitions, majority and journaled; events/s")
    table.add_column("round")
    for column in ("bare loop", "bare, two in flight", "Inkstream", "ratio", "ratio to two in flight", "peak memory"):
        table.add_column(column, justify="right")
    ratios: list[tuple[float, float]] = []
    for number in range(1, rounds + 1):
        url = platform.mongo.url.replace("/blog-platform", f"/bench-{uuid.uuid4().hex[:8]}")
        bare = {
            in_flight: (await time_contender(bare_loop(number, in_flight), environment, url, events))[0]
            for in_flight in (1, 2)
        }
        await rewind(environment["INKSTREAM_KAFKA_BROKERS"], f"{NAMESPACE}inkstream.page-views")
        worker, peak = await time_contender(
            [sys.executable, "-c", "from ops.commands import main; main()", "worker"],
            environment | {"INKSTREAM_NAMESPACE": NAMESPACE},
            url,
            events,
        )
        ratios.append((worker / bare[1], worker / bare[2]))
        rates = [f"{rate:,.0f}" for rate in (bare[1], bare[2], worker)]
        table.add_row(str(number), *rates, *(f"{ratio:.2f}" for ratio in ratios[-1]), f"{peak:.0f} MiB")
    console.print(table)
    simple, pipelined = (statistics.median(column) for column in zip(*ratios, strict=True))
    console.print(f"median ratio to the bare loop {simple:.2f} (at least {least}), to two in flight {pipelined:.2f}")
    return 0 if simple >= least else 1


def bare_loop(number: int, in_flight: int) -> list[str]:
    """Return the command of the bare loop, in a consumer group of its own."""
    return [sys.executable, "-m", "bench.bare_loop", TOPIC, f"bare-{number}-{in_flight}", str(in_flight)]


if __name__ == "__main__":
    main()
