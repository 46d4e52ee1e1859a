"""Measure how fresh `posts."viewCount"` is: page views at a steady rate, and how long each takes to reach PostgreSQL.

The program starts a platform of its own and one worker with the agents that count, and sends views of many posts with a
long tail, some of them late.
Output: how old views were when they were counted, from the worker's own histogram, and whether the counts are exact;
exit code 1 if they are not, or are too late.
`--hot` puts so many views into one window beforehand, so that counting that one is slow.
"""

import argparse
import asyncio
import random
import sys
import tempfile
import time
import urllib.request
from collections import Counter
from datetime import UTC, datetime, timedelta
from pathlib import Path

import orjson
import psutil
import psycopg
from aiokafka import AIOKafkaProducer
from prometheus_client.parser import text_string_to_metric_families
from pymongo import AsyncMongoClient
from rich.console import Console
from rich.table import Table

from dev.stack import Platform, Ports
from dev.worker import Worker
from enrich.view_windows import LENGTH, start_of
from ops import bootstrap
from runtime.settings import ROOT, Settings
from schemas.topics import load
from sinks.collections import NAMES
from sinks.mongo.client import Mongo

AGENTS = "page-views,view-windows,post-view-counts"
POSTS = [f"post-{number}" for number in range(1_000)]
LATE_SHARE = 0.05
BATCH = timedelta(milliseconds=50)
SETTLED_WITHIN_SECONDS = 60.0
BROWSER = "Mozilla/5.0 (X11; Linux x86_64; rv:130.0) Gecko/20100101 Firefox/130.0"
console = Console(highlight=False)


async def send(brokers: str, rate: int, seconds: float, chance: random.Random) -> Counter[str]:
    """Send views at a rate; return how many each post got."""
    sent: Counter[str] = Counter()
    async with AIOKafkaProducer(bootstrap_servers=brokers, acks="all", linger_ms=5) as producer:
        began = time.monotonic()
        while (passed := time.monotonic() - began) < seconds:
            for _ in range(int(passed * rate) - sent.total()):
                post_id = POSTS[min(int(chance.paretovariate(0.6)) - 1, len(POSTS) - 1)]
                sent[post_id] += 1
                late = chance.uniform(0, 3_600) if chance.random() < LATE_SHARE else 0
                view = {
                    "eventId": f"{post_id}-{sent[post_id]}",
                    "type": "page.viewed",
                    "postId": post_id,
                    "postSlug": post_id,
                    "sessionId": f"session-{chance.randrange(100_000)}",
                    "ipAddress": "81.2.69.160",
                    "userAgent": BROWSER,
                    "timestamp": (datetime.now(UTC) - timedelta(seconds=late)).isoformat(),
                }
                await producer.send("page-views", orjson.dumps(view), key=post_id.encode())
            await asyncio.sleep(BATCH.total_seconds())
    return sent


async def heat(url: str, views: int, seconds: float) -> None:
    """Put so many views of the first post into the window that is now, where that lasts long enough; else the next."""
    window_end = start_of(datetime.now(UTC)) + LENGTH
    if (window_end - datetime.now(UTC)).total_seconds() < seconds + views / 15_000:
        console.print(f"waiting for the window that begins at {window_end:%H:%M:%S}")
        await asyncio.sleep((window_end - datetime.now(UTC)).total_seconds())
    start = start_of(datetime.now(UTC))
    client: AsyncMongoClient[dict[str, object]] = AsyncMongoClient(url)
    collection = client.get_default_database()["pageViews"]
    for first in range(0, views, 5_000):
        await collection.insert_many(
            [
                {
                    "_id": f"hot-{number}",
                    "postId": POSTS[0],
                    "postSlug": POSTS[0],
                    "sessionId": f"session-{number}",
                    "ipAddress": "0" * 32,
                    "userAgent": BROWSER,
                    "device": {"type": "desktop", "os": "Linux", "browser": "Firefox"},
                    "timeSpent": 0,
                    "scrollDepth": 0,
                    "interacted": False,
                    "source": "direct",
                    "timestamp": start,
                }
                for number in range(first, min(first + 5_000, views))
            ],
            ordered=False,
        )
    await client.close()


def quantile(buckets: dict[float, float], share: float) -> float:
    """Return the quantile of a Prometheus histogram, in seconds, as `histogram_quantile` does."""
    wanted = share * buckets[float("inf")]
    below, before = 0.0, 0.0
    for bound, count in sorted(buckets.items()):
        if count >= wanted:
            return bound if bound == float("inf") else below + (bound - below) * (wanted - before) / (count - before)
        below, before = bound, count
    return below


def histogram(page: str, name: str) -> dict[float, float]:
    """Return the buckets of a histogram, up to each bound, from a page of metrics."""
    return {
        float(sample.labels["le"]): sample.value
        for family in text_string_to_metric_families(page)
        for sample in family.samples
        if sample.name == f"{name}_bucket"
    }


async def run(platform: Platform, rate: int, seconds: float, hot: int, most: float) -> int:
    """Measure; return the exit code."""
    environment = platform.environment() | {
        "INKSTREAM_AGENTS": AGENTS,
        "INKSTREAM_WEB_PORT": str(platform.ports.worker),
    }
    settings = Settings.model_validate(
        {name.removeprefix("INKSTREAM_").lower(): value for name, value in environment.items()}
    )
    mongo = Mongo.connect(settings.mongo_url.get_secret_value())
    await bootstrap.converge(settings, load(ROOT / "topics.yaml", NAMES).all.values(), mongo, check=False)
    await mongo.close()
    with psycopg.connect(platform.postgres.owner_url) as connection:
        connection.execute(
            "INSERT INTO users (id, email, \"passwordHash\") VALUES ('author', 'author@example.org', '')"
        )
        connection.cursor().executemany(
            "INSERT INTO posts (id, slug, title, \"authorId\") VALUES (%s, %s, '', 'author')",
            [(post_id, post_id) for post_id in POSTS],
        )
    if hot:
        await heat(platform.mongo.url, hot, seconds)

    worker = Worker(
        environment,
        host=settings.web_host,
        port=settings.web_port,
        log=platform.directory / "worker.log",
        report=console.print,
    )
    await worker.start()
    try:
        process = psutil.Process(worker.pid)
        before = process.cpu_times()
        console.print(f"sending {rate:,} views/s for {seconds:.0f} s")
        expected = await send(settings.kafka_brokers, rate, seconds, random.Random(5))
        total = expected.total()
        if hot:
            expected[POSTS[0]] += hot
        settling = time.monotonic()
        while (counts := view_counts(platform)) != expected:
            if time.monotonic() - settling > SETTLED_WITHIN_SECONDS:
                break
            await asyncio.sleep(0.1)
        settled_after = time.monotonic() - settling
        after = process.cpu_times()
        page = await asyncio.to_thread(read, f"{worker.url}/metrics")
    finally:
        await worker.stop()

    ages = histogram(page, "inkstream_counted_after_seconds")
    recounts = histogram(page, "inkstream_count_seconds")
    table = Table(title=f"{total:,} views of {len(POSTS):,} posts, {rate:,}/s, {hot:,} in one window beforehand")
    for column in ("", "p50", "p99"):
        table.add_column(column, justify="left" if not column else "right")
    for title, buckets in {"from Kafka to PostgreSQL": ages, "counting what was gathered": recounts}.items():
        table.add_row(title, f"{quantile(buckets, 0.5):.2f} s", f"{quantile(buckets, 0.99):.2f} s")
    console.print(table)
    cpu = (after.user + after.system - before.user - before.system) / total * 1e6
    console.print(f"settled {settled_after:.1f} s after the last view; the worker took {cpu:.0f} µs of CPU for a view")
    wrong = sum((counts - expected).values()) + sum((expected - counts).values())
    if wrong:
        console.print(f"{wrong:,} views are counted wrongly", style="bold red")
        return 1
    latest = quantile(ages, 0.99)
    console.print(f"every post's count is exact; p99 {latest:.1f} s, at most {most:.0f} s allowed")
    return 0 if latest <= most else 1


def read(url: str) -> str:
    """Return a page."""
    with urllib.request.urlopen(url, timeout=10) as response:
        return response.read().decode()  # type: ignore[no-any-return]


def view_counts(platform: Platform) -> Counter[str]:
    """Return the platform's count of each post that has views."""
    with psycopg.connect(platform.postgres.owner_url) as connection:
        return Counter(dict(connection.execute('SELECT id, "viewCount" FROM posts WHERE "viewCount" > 0').fetchall()))


def main() -> None:
    """Run the benchmark."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n\n")[0])
    parser.add_argument("--rate", type=int, default=2_000, help="views a second (default %(default)s)")
    parser.add_argument("--seconds", type=float, default=60, help="send for so long (default %(default)s)")
    parser.add_argument("--hot", type=int, default=0, help="views in one window beforehand (default %(default)s)")
    parser.add_argument("--most", type=float, default=15, help="highest accepted p99, seconds (default %(default)s)")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="inkstream-bench-") as directory:
        platform = Platform(Path(directory), Ports.free())
        try:
            platform.up(console.print)
            code = asyncio.run(run(platform, arguments.rate, arguments.seconds, arguments.hot, arguments.most))
        finally:
            platform.forget()
    sys.exit(code)


if __name__ == "__main__":
    main()
