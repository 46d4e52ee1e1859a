"""Measure delivery of notifications: a backlog through four workers, and an urgent message behind a long backlog.

The program starts a platform of its own, and a provider that answers after 50 ms. Backlogs of e-mails and of push
messages are delivered, in turn with as many concurrent HTTP posts of the baseline. Then urgent messages are put behind
a backlog of low priority, by the queue and by Kafka, and it is measured when the provider has them.
Output: tables and, in `docs/benchmarks/`, the figures; exit code 1 if one in a hundred takes longer than two seconds.
"""

import argparse
import asyncio
import subprocess
import sys
import time
import uuid
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime, timedelta
from itertools import islice
from pathlib import Path

import httpx
import orjson
import psycopg
from aiokafka import AIOKafkaProducer
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

from bench import report
from bench.arena import Arena, Database, arena
from bench.latency import quantile
from bench.programs import Command, RunningProgram, Task, running
from bench.slow_provider import DELAY_SECONDS
from bench.usage import Usage
from dev.ports import Ports
from dev.worker import Worker
from enrich.notifications import COLLECTION, QUEUE, notification, queue_item
from notifications.notice import Notice, expiry
from ops import bootstrap
from runtime.settings import ROOT, Settings
from schemas.notifications import Channel, Priority
from schemas.topics import load
from sinks.collections import NAMES
from sinks.mongo.client import Mongo
from sinks.postgres import migrations
from sinks.redis.wakeups import WakeUps

WORKERS = 4
AT_ONCE = 16
PEOPLE = 5_000
MOST_SECONDS = 2.0
"""Within which 99 of 100 urgent messages are to be with the provider."""

TOPIC = "notifications"
_LOOK_SECONDS = 0.1
_STILL_SECONDS = 60.0
_URGENT_EVERY_SECONDS = 0.2
_BATCH = 2_000
_WARM = 0.1
"""The share of a backlog that is not counted: workers start, connect and fill their caches."""

console = report.console()


@dataclass(frozen=True, slots=True)
class Drain:
    """One backlog that was delivered.

    Attributes:
        rate: Messages a second, from the first tenth taken to the last.
        cpu_us: CPU of all who send, for a message.
        mongod_us: CPU of the MongoDB server, for a message.
        provider_us: CPU of the provider, for a message.
        provider_share: How much of a core the provider took: near 1, it would be what is measured.
    """

    rate: float
    cpu_us: float
    mongod_us: float
    provider_us: float
    provider_share: float


@dataclass(frozen=True, slots=True)
class Waits:
    """How long urgent messages took to reach the provider.

    Attributes:
        p50: The median, in seconds.
        p99: Of a hundred, one takes longer.
        most: The longest.
        samples: How many there were.
        missing: How many never came.
        backlog_left: How many of the backlog were still waiting when the last of them was sent.
    """

    p50: float
    p99: float
    most: float
    samples: int
    missing: int
    backlog_left: int


@dataclass(slots=True)
class ChannelPath:
    """What was measured of one channel.

    Attributes:
        channel: The channel.
        baseline: Baseline posts.
        inkstream: The workers, in the same rounds.
    """

    channel: Channel
    baseline: list[Drain] = field(default_factory=list)
    inkstream: list[Drain] = field(default_factory=list)


class Provider:
    """The provider, a process of its own; use it as a context."""

    def __enter__(self) -> "Provider":
        """Start."""
        self._process = subprocess.Popen(
            [sys.executable, "-m", "bench.slow_provider"],
            cwd=ROOT,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            start_new_session=True,
        )
        assert self._process.stdout is not None
        self.url = f"http://127.0.0.1:{int(self._process.stdout.readline())}"
        self.pid = self._process.pid
        self._taken: list[tuple[float, str]] = []
        return self

    def __exit__(self, *_: object) -> None:
        """End."""
        self._process.kill()
        self._process.wait()

    async def taken(self) -> Sequence[tuple[float, str]]:
        """Return all that was taken so far: when, and of which notification."""
        # Reading all authorities that one may trust would cost more than the question.
        async with httpx.AsyncClient(trust_env=False, verify=False, timeout=30) as http:
            response = await http.get(f"{self.url}/taken/{len(self._taken)}")
        self._taken += map(tuple, orjson.loads(response.content))
        return self._taken


class Bench:
    """The platform with a database and a namespace for one measurement.

    Args:
        place: The platform.
        provider: Who takes messages.
    """

    def __init__(self, place: Arena, provider: Provider) -> None:
        self._place = place
        self._provider = provider
        self._directory = place.platform.directory
        self._account = self._directory / "fcm.json"
        self._account.write_text(orjson.dumps(_service_account(provider.url)).decode())

    async def prepare(self) -> None:
        """Make what all measurements share: people, and our tables."""
        platform = self._place.platform
        mongo = Mongo.connect(platform.mongo.url)
        settings = Settings.model_validate(
            {"kafka_brokers": platform.kafka.brokers, "postgres_url": platform.postgres.url}
        )
        await bootstrap.converge(settings, [], mongo, check=False)
        await mongo.close()
        with psycopg.connect(platform.postgres.owner_url) as connection:
            cursor = connection.cursor()
            people = [(f"reader-{number}", f"reader-{number}@reader.example") for number in range(PEOPLE)]
            cursor.executemany("INSERT INTO users (id, email, \"passwordHash\") VALUES (%s, %s, '')", people)
            devices = [(f"token-of-{user}", user) for user, _ in people]
            cursor.executemany("INSERT INTO devices (token, \"userId\", platform) VALUES (%s, %s, 'android')", devices)

    async def drain(self, channel: Channel, count: int) -> Drain:
        """Deliver a backlog by the workers."""
        async with self._run() as run:
            await run.fill(count, channel, "medium")
            async with run.workers(WORKERS):
                began = len(await self._provider.taken())
                await run.release()
                return await self._watch(run.usage(), began, count)

    async def baseline(self, count: int) -> Drain:
        """Post as many mails, as many at the same time, from as many processes."""
        began = len(await self._provider.taken())
        each = [count // WORKERS + (number < count % WORKERS) for number in range(WORKERS)]
        command = [sys.executable, "-m", "bench.baseline_posts", self._provider.url]
        async with AsyncExitStack() as stack:
            running_programs: list[RunningProgram] = []
            for mails in each:
                program = Command([*command, str(mails), str(AT_ONCE)], {})
                task = Task("", "", "", "", self._directory / f"baseline-{len(running_programs)}")
                running_programs.append(await stack.enter_async_context(running(program, task)))
            return await self._watch(
                Usage(*(running_program.pid for running_program in running_programs)), began, count
            )

    async def urgent(self, backlog: int, samples: int, *, by_kafka: bool) -> Waits:
        """Put urgent messages behind a backlog, one after another."""
        async with self._run() as run:
            await run.fill(backlog, "email", "low")
            async with run.workers(WORKERS, takes_requests=by_kafka):
                before = len(await self._provider.taken())
                await run.release()
                await self._until_taken(before + WORKERS * AT_ONCE)
                sent = await run.send_urgent(samples, by_kafka=by_kafka)
                left = await run.left()
                await asyncio.sleep(MOST_SECONDS * 2)
                came = {notification: moment for moment, notification in reversed(await self._provider.taken())}
        waits = [came[name] - moment for name, moment in sent.items() if name in came]
        missing = len(sent) - len(waits)
        waits += [float("inf")] * missing
        return Waits(quantile(waits, 0.5), quantile(waits, 0.99), max(waits), len(sent), missing, left)

    async def _until_taken(self, count: int) -> None:
        while len(await self._provider.taken()) < count:  # noqa: ASYNC110 - another process decides on it
            await asyncio.sleep(_LOOK_SECONDS)

    async def _watch(self, senders: Usage, began: int, count: int) -> Drain:
        """Look on until so many messages more are taken."""
        pid = self._place.platform.mongo.pid
        assert pid is not None
        usages = senders, Usage(pid), Usage(self._provider.pid)
        warm = int(count * _WARM)
        first: tuple[float, ...] | None = None
        seen, moved = 0, time.monotonic()
        while True:
            taken = await self._provider.taken()
            for usage in usages:
                usage.look()
            if len(taken) - began > seen:
                seen, moved = len(taken) - began, time.monotonic()
            if first is None and seen >= warm:
                first = tuple(usage.cpu_seconds for usage in usages)
                counted, at = seen, taken[began + seen - 1][0]
            if seen >= count:
                break
            if time.monotonic() - moved > _STILL_SECONDS:
                raise RuntimeError(f"{seen:,} of {count:,} messages are taken, and nothing moves")
            await asyncio.sleep(_LOOK_SECONDS)
        assert first is not None
        messages, seconds = max(1, count - counted), max(taken[began + count - 1][0] - at, _LOOK_SECONDS)
        ours, mongod, provider = [usage.cpu_seconds - start for usage, start in zip(usages, first, strict=True)]
        return Drain(
            rate=messages / seconds,
            cpu_us=ours / messages * 1e6,
            mongod_us=mongod / messages * 1e6,
            provider_us=provider / messages * 1e6,
            provider_share=provider / seconds,
        )

    @asynccontextmanager
    async def _run(self) -> AsyncIterator["_Run"]:
        namespace = f"bench-{uuid.uuid4().hex[:8]}."
        async with self._place.database(namespace, validated=True) as (database, url):
            postgres_url = self._place.platform.postgres.url
            await migrations.migrate(postgres_url, migrations.read(bootstrap.MIGRATIONS), namespace, check=False)
            environment = self._place.platform.environment() | {
                "INKSTREAM_MONGO_URL": url,
                "INKSTREAM_NAMESPACE": namespace,
                "INKSTREAM_EMAIL_PROVIDERS": "sendgrid",
                "INKSTREAM_SENDGRID_API_KEY": "key",
                "INKSTREAM_SENDGRID_URL": self._provider.url,
                "INKSTREAM_PUSH_FILE": "",
                "INKSTREAM_FCM_SERVICE_ACCOUNT_FILE": str(self._account),
                "INKSTREAM_FCM_URL": self._provider.url,
                "INKSTREAM_DELIVER_AT_ONCE": str(AT_ONCE),
                "INKSTREAM_NOTIFY_LIMIT": "1000000",
                "INKSTREAM_NOTIFY_DAILY_LIMIT": "1000000",
            }
            yield _Run(database, environment, self._directory / namespace)


class _Run:
    """One measurement."""

    def __init__(self, database: Database, environment: dict[str, str], directory: Path) -> None:
        self._database = database
        self._environment = environment
        self._directory = directory
        self._workers: list[Worker] = []
        values = {
            name.removeprefix("INKSTREAM_").lower(): value
            for name, value in environment.items()
            if name.startswith("INKSTREAM_")
        }
        self._settings = Settings.model_validate(values)

    async def fill(self, count: int, channel: Channel, priority: Priority) -> None:
        """Put a backlog into the queue that is not due yet."""
        began = datetime.now(UTC) - timedelta(minutes=1)
        never = datetime.now(UTC) + timedelta(days=1)
        notices = (
            _notice(channel, priority, began + timedelta(microseconds=number * 1_000), f"reader-{number % PEOPLE}")
            for number in range(count)
        )
        for some in _batches(notices):
            items = [queue_item(notice, due=never) for notice in some]
            stored = [notification(notice, notice.words) for notice in some]
            await self._database[COLLECTION].insert_many(stored, ordered=False)
            await self._database[QUEUE].insert_many(items, ordered=False)

    async def release(self) -> None:
        """Make the backlog due."""
        await self._database[QUEUE].update_many({"status": "pending"}, {"$unset": {"nextRetryAt": ""}})
        await self._wake()

    async def left(self) -> int:
        """Return how many items wait."""
        return await self._database[QUEUE].count_documents({"status": "pending"})

    def usage(self) -> Usage:
        """Return what the workers cost from now on."""
        return Usage(*(worker.pid for worker in self._workers if worker.pid is not None))

    @asynccontextmanager
    async def workers(self, count: int, *, takes_requests: bool = False) -> AsyncIterator[None]:
        """Run so many workers that deliver, and one that takes requests from Kafka, ready, while the block lasts."""
        if takes_requests:
            declared = load(ROOT / "topics.yaml", NAMES, partitions=WORKERS).inbound[TOPIC]
            mongo = Mongo.connect(self._settings.mongo_url.get_secret_value(), self._settings.namespace)
            await bootstrap.converge(self._settings, [declared], mongo, check=False)
            await mongo.close()
        agents = ["deliver"] * count + [TOPIC] * takes_requests
        for number, agent in enumerate(agents):
            port = Ports.free().worker
            self._workers.append(
                Worker(
                    self._environment | {"INKSTREAM_AGENTS": agent, "INKSTREAM_WEB_PORT": str(port)},
                    host="127.0.0.1",
                    port=port,
                    log=self._directory / f"worker-{number}.log",
                    report=console.print,
                )
            )
        try:
            for worker in self._workers:
                await worker.start()
            yield
        finally:
            await asyncio.gather(*(worker.stop() for worker in self._workers))

    async def send_urgent(self, count: int, *, by_kafka: bool) -> dict[str, float]:
        """Ask for urgent messages, at a steady pace; return when each was stored, or sent to Kafka."""
        sent: dict[str, float] = {}
        async with AsyncExitStack() as stack:
            producer = None
            if by_kafka:
                producer = AIOKafkaProducer(bootstrap_servers=self._settings.kafka_brokers, acks="all")
                await stack.enter_async_context(producer)
            for number in range(count):
                notice = _notice("email", "urgent", datetime.now(UTC), f"reader-{number % PEOPLE}")
                if producer is not None:
                    sent[notice.id] = time.time()
                    await producer.send_and_wait(self._settings.namespace + TOPIC, _request(notice))
                else:
                    await self._database[COLLECTION].insert_one(notification(notice, notice.words))
                    await self._database[QUEUE].insert_one(queue_item(notice))
                    sent[notice.id] = time.time()
                    await self._wake()
                await asyncio.sleep(_URGENT_EVERY_SECONDS)
        return sent

    async def _wake(self) -> None:
        """Wake the workers, as is done once items are stored."""
        redis_url = self._settings.redis_url.get_secret_value()
        wake_ups = WakeUps(redis_url, f"{self._settings.namespace}inkstream:")
        now = datetime.now(UTC)
        await wake_ups.announce([now], now)
        await wake_ups.close()


def _notice(channel: Channel, priority: Priority, created_at: datetime, user: str) -> Notice:
    return Notice(
        id=str(uuid.uuid4()),
        user_id=user,
        type="comment_reply",
        title="Ada answered your comment",
        message="“Thank you, that was the missing piece. I had looked at the first half of it for a week.”",
        action_url="/posts/introduction-to-typescript#comment-uuid-345",
        action_text="Read the answer",
        related_entity=None,
        actor_id="user-uuid-456",
        actor_name="Ada",
        actor_avatar=None,
        channels=("inApp", channel),
        priority=priority,
        created_at=created_at,
        expires_at=expiry(created_at),
    )


def _request(notice: Notice) -> bytes:
    return orjson.dumps(
        {
            "eventId": notice.id,
            "userId": notice.user_id,
            "type": notice.type,
            "title": notice.title,
            "message": notice.message,
            "actionUrl": notice.action_url,
            "actionText": notice.action_text,
            "channels": notice.channels,
            "priority": notice.priority,
        }
    )


def _batches(notices: Iterator[Notice]) -> Iterator[list[Notice]]:
    while some := list(islice(notices, _BATCH)):
        yield some


def _service_account(url: str) -> dict[str, str]:
    key = rsa.generate_private_key(public_exponent=65537, key_size=2048)
    pem = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    return {
        "project_id": "bench",
        "private_key_id": "key",
        "private_key": pem.decode(),
        "client_email": "bench@blog.example",
        "token_uri": f"{url}/token",
    }


def drained(paths: Sequence[ChannelPath]) -> report.Table:
    """Return the table of backlogs."""
    rows = []
    for path in paths:
        ratios = [ours.rate / baseline.rate for ours, baseline in zip(path.inkstream, path.baseline, strict=True)]
        rows.append(
            [
                path.channel,
                report.Spread.of([run.rate for run in path.baseline]).text(),
                report.Spread.of([run.rate for run in path.inkstream]).text(),
                report.Spread.of(ratios).text(".2f"),
                report.Spread.of([run.cpu_us for run in path.baseline]).text(),
                report.Spread.of([run.cpu_us for run in path.inkstream]).text(),
                report.Spread.of([run.mongod_us for run in path.inkstream]).text(),
                report.Spread.of([run.provider_share for run in path.inkstream]).text(".0%"),
            ]
        )
    columns = [
        "channel", "baseline posts/s", "delivered/s", "ratio", "baseline µs CPU", "worker µs CPU", "mongod µs CPU",
        "provider, of a core",
    ]  # fmt: skip
    return report.Table("A backlog through four workers", columns, rows)


def waited(waits: Sequence[tuple[str, Waits]]) -> report.Table:
    """Return the table of urgent messages."""
    rows = [
        [
            name,
            f"{each.p50:.2f} s",
            f"{each.p99:.2f} s",
            f"{each.most:.2f} s",
            f"{each.samples:,}",
            f"{each.missing:,}",
            f"{each.backlog_left:,}",
        ]
        for name, each in waits
    ]
    columns = ["from", "p50", "p99", "longest", "messages", "never came", "backlog left"]
    return report.Table("An urgent message behind a backlog of low priority", columns, rows)


async def run(place: Arena, arguments: argparse.Namespace) -> bool:
    """Measure, and tell of it; return whether urgent messages are as quick as they should be."""
    with Provider() as provider:
        bench = Bench(place, provider)
        await bench.prepare()
        paths = [ChannelPath("email"), ChannelPath("push")]
        for number in range(1, arguments.rounds + 1):
            for path in paths:
                path.baseline.append(await bench.baseline(arguments.backlog))
                path.inkstream.append(await bench.drain(path.channel, arguments.backlog))
                rates = f"baseline {path.baseline[-1].rate:,.0f}, Inkstream {path.inkstream[-1].rate:,.0f} messages/s"
                console.print(f"round {number}: {path.channel}: {rates}")
        waits = [
            (name, await bench.urgent(arguments.behind, arguments.urgent, by_kafka=by_kafka))
            for name, by_kafka in (("the queue", False), ("Kafka", True))
        ]
    tables = [drained(paths), waited(waits)]
    for table in tables:
        console.print(table.rich())
    if not arguments.quick:
        figures = {
            "title": "Notifications",
            "command": "make bench-notifications",
            **report.circumstances(await place.mongodb_version()),
            "workers": WORKERS,
            "at_once": AT_ONCE,
            "provider_seconds": DELAY_SECONDS,
            "backlog": arguments.backlog,
            "behind": arguments.behind,
            "channels": [asdict(path) for path in paths],
            "urgent": {name: asdict(each) for name, each in waits},
        }
        report.save("notifications", figures, tables)
    return all(each.p99 <= MOST_SECONDS for _, each in waits)


def main() -> None:
    """Run the benchmark."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n\n")[0])
    parser.add_argument("--backlog", type=int, help="messages to drain (default 6000)")
    parser.add_argument("--rounds", type=int, help="rounds of both (default 3)")
    parser.add_argument("--behind", type=int, help="messages of low priority before the urgent (default 50000)")
    parser.add_argument("--urgent", type=int, help="urgent messages, each way (default 300)")
    parser.add_argument("--quick", action="store_true", help="run a tenth of it, in one round; write no files")
    arguments = parser.parse_args()
    backlog, rounds, behind, urgent = (2_000, 1, 5_000, 50) if arguments.quick else (6_000, 3, 50_000, 300)
    arguments.backlog = arguments.backlog or backlog
    arguments.rounds = arguments.rounds or rounds
    arguments.behind = arguments.behind or behind
    arguments.urgent = arguments.urgent or urgent
    try:
        with arena(console.print) as place:
            is_quick = asyncio.run(run(place, arguments))
    except KeyboardInterrupt:
        sys.exit(130)
    if not is_quick:
        console.print(f"one in a hundred urgent messages takes more than {MOST_SECONDS:.0f} s", style="bold red")
        sys.exit(1)


if __name__ == "__main__":
    main()
