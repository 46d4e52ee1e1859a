"""Chaos: notifications over all channels, while everything around them fails; then nothing may be lost or unexplained.

In comes nothing: the program brings up a platform of its own and providers on loopback, sends requests and likes by
Kafka, and meanwhile lets 30 % of what providers get meet trouble, kills a worker every second, flushes Redis, and has
MongoDB's primary step down. Then all is well again, and within a bounded time everything must be at its end. Out come a
table, and exit code 0 only where all of it holds: `judge` has what. `make chaos-notifications ARGS="--seed 8"`.

What delivers is killed every second; what reads Kafka less often, as a consumer group waits six seconds for a member
that died, and would never read.
"""

import argparse
import asyncio
import logging
import shutil
import signal
import sys
import tempfile
import time
from collections import Counter
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from random import Random
from typing import Any, NamedTuple

import orjson
from aiokafka import AIOKafkaProducer
from pymongo import MongoClient
from pymongo.errors import PyMongoError
from redis.asyncio import Redis
from redis.exceptions import RedisError
from rich.console import Console
from rich.table import Table

from dev.ports import Ports, is_free
from dev.stack import Platform
from ops.commands.command import quieten_clients
from tests.chaos.notifications import hurry
from tests.chaos.oracle_takes import Accounts, Outage, Verdict, grouped, judge
from tests.chaos.providers import Providers, Take
from tests.chaos.requests import DOMAIN_EVENTS, RECEIPTS, REQUESTS, Asked, Record
from tests.chaos.workers import Post, Workers
from tests.integration.pipeline import Pipeline

INTAKE = (REQUESTS, f"notify-{DOMAIN_EVENTS}", RECEIPTS)
_KILL_EVERY_SECONDS = 1.0
_KILL_INTAKE_EVERY_SECONDS = 15.0
_FLUSH_EVERY_SECONDS = 6.0
_STEP_DOWN_EVERY_SECONDS = 8.0
_STEPPED_DOWN_SECONDS = 1
_READ_EVERY_SECONDS = 2.0
_TELL_EVERY_SECONDS = 5.0
_ASKED_WITHIN = 0.7
"""The share of the chaos in which everything is asked for."""
_MOST_ENDED = 10
_REPORTED_AFTER_SECONDS = 1.0
console = Console(highlight=False, soft_wrap=True)


class Plan(NamedTuple):
    """How a run goes.

    Attributes:
        notifications: How many are asked for.
        seed: Decides what meets what.
        workers: How many deliver.
        seconds: How long the chaos lasts.
        settle: How many seconds after it everything must be at its end.
        share: The share of messages that meet trouble at their provider.
    """

    notifications: int
    seed: int
    workers: int
    seconds: float
    settle: float
    share: float


class Run:
    """One run.

    Args:
        plan: How it goes.
        platform: The servers; everything in them may be killed.
        providers: Who takes messages.
        directory: For logs.
    """

    def __init__(self, plan: Plan, platform: Platform, providers: Providers, directory: Path) -> None:
        self._plan = plan
        self._platform = platform
        self._providers = providers
        self._chance = Random(plan.seed)
        self._pipeline = Pipeline(platform, only=(REQUESTS, DOMAIN_EVENTS, RECEIPTS))
        self._asked = Asked(plan.notifications, plan.seed, providers.subscribe)
        self._workers = Workers(self._posts(directory), f"{hurry.__name__}:introduce", f"{hurry.__name__}:hurry")
        self._reports: asyncio.Queue[Record] = asyncio.Queue()
        self._reporting: set[asyncio.Task[None]] = set()
        self._unreported = 0
        self._outages: list[Outage] = []
        self._ending_mongo = asyncio.Lock()
        self.done: Counter[str] = Counter()
        self._all_asked = False
        self._began = time.monotonic()

    async def __call__(self) -> tuple[Verdict, dict[str, Any]]:
        """Go through it; return what was found, and what happened."""
        await self._pipeline.prepare()
        await asyncio.to_thread(self._asked.people, self._platform.postgres.owner_url)
        self._providers.workers = self._workers
        self._providers.told = self._hear
        self._began = time.monotonic()
        try:
            await self._workers.start()
            async with self._beside(self._tell_of_it), self._beside(self._report):
                await self._chaos()
                console.print(f"{self._clock()} all is well again; {self._plan.settle:.0f} s to settle")
                self._providers.share = 0.0
                settled = await self._settle()
            await self._workers.stop()
        finally:
            await self._workers.close()
        accounts = Accounts(self._asked, self._providers.takes, self._workers.deaths, self._outages)
        verdict = await judge(self._pipeline.database, accounts)
        if not settled:
            verdict.findings.insert(0, f"not everything is at its end after {self._plan.settle:.0f} s")
        verdict.findings += self._providers.refused
        for name, code in self._workers.ended:
            verdict.findings.append(f"a worker ended by itself: {name}, exit code {code}")
        for topic in (REQUESTS, DOMAIN_EVENTS, RECEIPTS):
            if letters := await self._pipeline.read(f"{topic}.dead-letter"):
                verdict.findings.append(f"{len(letters)} records of {topic} are dead letters")
        return verdict, self._figures(verdict)

    def _posts(self, directory: Path) -> list[Post]:
        """Return where workers are wanted: those that deliver each prefer another provider of e-mail."""
        shared = {
            **self._pipeline.environment,
            **self._providers.environment(),
            "INKSTREAM_LOG_FORMAT": "json",
            "INKSTREAM_NOTIFY_LIMIT": "1000",
            "INKSTREAM_NOTIFY_DAILY_LIMIT": "10000",
        }
        email = ["sendgrid", "mailgun", "smtp"]
        posts = []
        ports = _free_ports(self._plan.workers + 1)
        for number, port in enumerate(ports):
            turn = number % len(email)
            own = {"INKSTREAM_WEB_PORT": str(port)}
            own["INKSTREAM_EMAIL_PROVIDERS"] = ",".join(email[turn:] + email[:turn])
            own["INKSTREAM_AGENTS"] = "deliver" if number else ",".join(INTAKE)
            name = f"deliver-{number}" if number else "intake"
            posts.append(Post(name, {**shared, **own}, directory / f"{name}.log"))
        return posts

    @asynccontextmanager
    async def _beside(self, work: Callable[[], Any]) -> AsyncIterator[None]:
        task = asyncio.create_task(work())
        try:
            yield
        finally:
            task.cancel()
            with suppress(asyncio.CancelledError):
                await task

    async def _chaos(self) -> None:
        async with asyncio.TaskGroup() as tasks:
            for trouble in (
                self._ask,
                self._kill,
                self._kill_intake,
                self._flush,
                self._step_down,
                self._end_servers,
                self._read,
            ):
                tasks.create_task(trouble())

    def _goes_on(self) -> bool:
        if len(self._workers.ended) >= _MOST_ENDED:
            raise RuntimeError(f"workers end by themselves: {self._workers.ended}")
        return time.monotonic() - self._began < self._plan.seconds

    async def _every(self, seconds: float) -> AsyncIterator[None]:
        while self._goes_on():
            left = self._began + self._plan.seconds - time.monotonic()
            await asyncio.sleep(min(seconds, left))
            if left > seconds:
                yield

    async def _ask(self) -> None:
        """Send everything, spread over most of the chaos."""
        interval = self._plan.seconds * _ASKED_WITHIN / self._plan.notifications
        async with self._producer() as producer:
            for number, record in enumerate(self._asked.records()):
                await self._send(producer, record)
                ahead = self._began + number * interval - time.monotonic()
                if ahead > 0:
                    await asyncio.sleep(ahead)
            await producer.flush()
        self._all_asked = True

    async def _kill(self) -> None:
        """Every second, kill the worker that has been at work for longest."""
        async for _ in self._every(_KILL_EVERY_SECONDS):
            at_work = self._providers.at_work
            alive = [post.pid for post in self._workers.posts if post.pid in at_work]
            if alive:
                longest = min(alive, key=at_work.__getitem__)
                await asyncio.sleep(self._chance.random() * 0.3)
                self._workers.kill(longest, "at any moment")

    async def _kill_intake(self) -> None:
        async for _ in self._every(_KILL_INTAKE_EVERY_SECONDS):
            pid = self._workers.posts[0].pid
            if pid is not None:
                self._workers.kill(pid, "while it read Kafka")

    async def _flush(self) -> None:
        async with Redis.from_url(self._platform.redis.url) as redis:
            async for _ in self._every(_FLUSH_EVERY_SECONDS):
                with suppress(RedisError):
                    await redis.flushall()
                    self.done["Redis flushed"] += 1

    async def _step_down(self) -> None:
        async for _ in self._every(_STEP_DOWN_EVERY_SECONDS):
            await self._without_mongo(self._step_down_once)
            self.done["MongoDB's primary stepped down"] += 1

    async def _end_servers(self) -> None:
        """Once each: MongoDB dies, and Redis does."""
        await asyncio.sleep(self._plan.seconds * 0.45)
        await self._without_mongo(self._platform.mongo.kill)
        self.done["MongoDB killed"] += 1
        await asyncio.sleep(self._plan.seconds * 0.2)
        await asyncio.to_thread(self._platform.redis.kill)
        await asyncio.sleep(3)
        await asyncio.to_thread(self._platform.redis.start)
        self.done["Redis killed"] += 1

    async def _without_mongo(self, end: Callable[[], None]) -> None:
        """End what MongoDB does, and note for how long it is away."""
        async with self._ending_mongo:
            began = time.time()
            await asyncio.to_thread(end)
            await asyncio.to_thread(self._platform.mongo.start)
            await asyncio.to_thread(self._let_nothing_expire)
            self._outages.append(Outage(began, time.time()))

    def _step_down_once(self) -> None:
        command = {"replSetStepDown": _STEPPED_DOWN_SECONDS, "secondaryCatchUpPeriodSecs": 0, "force": True}
        with suppress(PyMongoError), self._mongo_client() as client:
            client.admin.command(command)

    def _let_nothing_expire(self) -> None:
        """Keep MongoDB from deleting what is past its time, also after it was started again: it is to be judged."""
        with self._mongo_client() as client:
            client.admin.command("setParameter", 1, ttlMonitorEnabled=False)

    async def _read(self) -> None:
        """Read a gathered notification now and then, as a person does: what comes after it begins another."""
        notifications = self._pipeline.collection("notifications")
        async for _ in self._every(_READ_EVERY_SECONDS):
            unread = {"gathered": {"$exists": True}, "channels.inApp.read": False}
            with suppress(PyMongoError):
                found = [one["_id"] async for one in notifications.find(unread, {"_id": 1}).sort("_id", 1)]
                if found:
                    chosen = {"_id": self._chance.choice(found)}
                    await notifications.update_one(chosen, {"$set": {"channels.inApp.read": True}})
                    self.done["gathered notifications read"] += 1

    def _hear(self, take: Take) -> None:
        record = self._asked.report(take)
        if record is not None:
            self._unreported += 1
            task = asyncio.create_task(self._report_later(record, self._chance.random() * _REPORTED_AFTER_SECONDS))
            self._reporting.add(task)
            task.add_done_callback(self._reporting.discard)

    async def _report_later(self, record: Record, seconds: float) -> None:
        await asyncio.sleep(seconds)
        self._reports.put_nowait(record)

    async def _report(self) -> None:
        """Send what providers report."""
        async with self._producer() as producer:
            while True:
                record = await self._reports.get()
                await producer.send_and_wait(self._pipeline.namespace + record.topic, record.value, key=record.key)
                self.done[f"records on {record.topic}"] += 1
                self._unreported -= 1

    @asynccontextmanager
    async def _producer(self) -> AsyncIterator[AIOKafkaProducer]:
        async with AIOKafkaProducer(
            bootstrap_servers=self._platform.kafka.brokers, acks="all", linger_ms=20
        ) as producer:
            yield producer

    async def _send(self, producer: AIOKafkaProducer, record: Record) -> None:
        await producer.send(self._pipeline.namespace + record.topic, record.value, key=record.key)
        self.done[f"records on {record.topic}"] += 1

    async def _settle(self) -> bool:
        """Wait until nothing is left to do; return whether that was in time."""
        deadline = time.monotonic() + self._plan.settle
        while time.monotonic() < deadline:
            if len(self._workers.ended) >= _MOST_ENDED:
                return False
            if await self._is_settled():
                return True
            await asyncio.sleep(0.5)
        return False

    async def _is_settled(self) -> bool:
        if not self._all_asked or self._unreported or any([await self._pipeline.lag(agent) for agent in INTAKE]):
            return False
        try:
            open_items = {"status": {"$in": ["pending", "processing"]}}
            return await self._pipeline.collection("notificationQueue").find_one(open_items) is None
        except PyMongoError:
            return False

    async def _tell_of_it(self) -> None:
        """Say every few seconds how it goes."""
        while True:
            await asyncio.sleep(_TELL_EVERY_SECONDS)
            states: dict[str, int] = {}
            with suppress(PyMongoError):
                grouping: list[dict[str, Any]] = [
                    {"$group": {"_id": "$status", "count": {"$sum": 1}}},
                    {"$sort": {"_id": 1}},
                ]
                async for state in await self._pipeline.collection("notificationQueue").aggregate(grouping):
                    states[state["_id"]] = state["count"]
            takes = self._providers.takes
            said = [
                f"{len(self._asked.requests) + sum(map(len, self._asked.likes.values())):,} asked for",
                "items: " + (", ".join(f"{count:,} {state}" for state, count in states.items()) or "?"),
                f"{sum(map(len, takes.values())):,} messages taken",
                f"{sum(len(some) - 1 for some in takes.values()):,} again",
                f"{len(self._workers.deaths)} workers killed",
                f"{len(self._outages)} times without MongoDB",
            ]
            console.print(f"{self._clock()} {'; '.join(said)}")

    def _clock(self) -> str:
        return f"{time.monotonic() - self._began:5.0f} s"

    def _mongo_client(self) -> MongoClient[dict[str, Any]]:
        return MongoClient(self._platform.mongo.url, serverSelectionTimeoutMS=2_000)

    def _figures(self, verdict: Verdict) -> dict[str, Any]:
        takes = self._providers.takes
        away = [outage.ended - outage.began for outage in self._outages]
        return {
            "plan": self._plan._asdict(),
            "seconds": round(time.monotonic() - self._began, 1),
            "asked": {
                "requests": len(self._asked.requests),
                "likes": sum(map(len, self._asked.likes.values())),
                **self.done,
            },
            "workers": {
                "started": self._workers.started,
                "killed": dict(Counter(death.how for death in self._workers.deaths.values())),
            },
            "mongodb": {"times away": len(away), "seconds away": round(sum(away), 1)},
            "trouble": dict(self._providers.met.most_common()),
            "taken": dict(Counter(take.provider for some in takes.values() for take in some)),
            "most for one key": max(map(len, takes.values()), default=0),
            **{name: getattr(verdict, name) for name in verdict.__dataclass_fields__},
        }


def show(verdict: Verdict, figures: dict[str, Any]) -> None:
    """Print what happened, and what was found."""
    table = Table(title=f"{figures['plan']['notifications']:,} notifications, seed {figures['plan']['seed']}")
    table.add_column("what")
    table.add_column("how often", justify="right")
    for part in ("asked", "trouble", "taken"):
        for what, count in figures[part].items():
            table.add_row(f"{part}: {what}", f"{count:,}")
        table.add_section()
    table.add_row("workers started", f"{figures['workers']['started']:,}")
    for how, count in figures["workers"]["killed"].items():
        table.add_row(f"workers killed: {how}", f"{count:,}")
    for what, count in figures["mongodb"].items():
        table.add_row(f"MongoDB: {what}", f"{count:,}")
    table.add_section()
    for what, counts in (("items", verdict.items), ("deliveries", verdict.deliveries)):
        for state, count in sorted(counts.items()):
            table.add_row(f"{what}: {state}", f"{count:,}")
        table.add_section()
    for cause, count in verdict.repeats.most_common():
        table.add_row(f"taken again: {cause}", f"{count:,}")
    table.add_row("taken, and counted as failed or skipped: its word was lost", f"{verdict.arrived_though_failed:,}")
    console.print(table)
    for finding, count in grouped(verdict.findings):
        console.print(f"{count:,} times, like this: {finding}", style="bold red", markup=False)


async def run(plan: Plan, platform: Platform, directory: Path) -> tuple[Verdict, dict[str, Any]]:
    """Go through a run on a platform that is up."""
    async with Providers(plan.seed, plan.share, directory) as providers:
        return await Run(plan, platform, providers, directory)()


def _free_ports(count: int) -> list[int]:
    found: list[int] = []
    while len(found) < count:
        found += [port for port in {Ports.free().worker} if port not in found and is_free(port)]
    return found


def main() -> None:
    """Run it."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n\n")[0])
    parser.add_argument("--notifications", type=int, help="how many (default 5000)")
    parser.add_argument("--seed", type=int, default=7, help="decides what meets what (default %(default)s)")
    parser.add_argument("--workers", type=int, default=3, help="how many deliver (default %(default)s)")
    parser.add_argument("--seconds", type=float, help="how long the chaos lasts (default 180)")
    parser.add_argument("--settle", type=float, help="within how many seconds it must settle (default 120)")
    parser.add_argument("--share", type=float, default=0.3, help="of messages in trouble (default %(default)s)")
    parser.add_argument("--quick", action="store_true", help="a minute: 600 notifications, 30 seconds")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write everything there")
    parser.add_argument("--keep", type=Path, metavar="DIRECTORY", help="copy the workers' logs there")
    arguments = parser.parse_args()
    count, seconds, settle = (600, 30.0, 60.0) if arguments.quick else (5_000, 180.0, 120.0)
    plan = Plan(
        notifications=arguments.notifications or count,
        seed=arguments.seed,
        workers=arguments.workers,
        seconds=arguments.seconds or seconds,
        settle=arguments.settle or settle,
        share=arguments.share,
    )
    quieten_clients()
    # Of connections that are closed on purpose, or by workers that die, the event loop says so each time.
    logging.getLogger("asyncio").setLevel(logging.CRITICAL + 1)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))
    with tempfile.TemporaryDirectory(prefix="inkstream-chaos-") as name:
        directory = Path(name)
        platform = Platform(directory / "platform", Ports.free())
        try:
            platform.up(console.print)
            verdict, figures = asyncio.run(run(plan, platform, directory))
        finally:
            platform.forget()
            if arguments.keep:
                arguments.keep.mkdir(parents=True, exist_ok=True)
                for log in directory.glob("*.log"):
                    shutil.copy(log, arguments.keep)
    show(verdict, figures)
    if arguments.json:
        arguments.json.write_bytes(orjson.dumps(figures, option=orjson.OPT_INDENT_2))
    if verdict.findings:
        console.print(f"{len(verdict.findings):,} things are not as they should be", style="bold red")
        sys.exit(1)
    console.print("nothing is lost, and whatever came twice is explained")


if __name__ == "__main__":
    main()
