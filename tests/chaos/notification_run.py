"""Run notifications over all channels while providers, workers and servers fail.

Input: a plan; the program requests notifications and sends likes by Kafka. A share of the messages meets a fault at its
provider, a worker is killed every second, Redis is flushed, MongoDB's primary steps down, and each of the two servers
is killed once. Then all is well again, and within a bounded time everything must have ended.
Output: a `History`; `tests.chaos.oracle_notifications` judges it.

Workers that deliver are killed every second. The worker that reads Kafka is killed less often: a consumer group waits
six seconds for a member that died, so it would never read.
"""

import asyncio
import time
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from pathlib import Path
from typing import Any, NamedTuple

from aiokafka import AIOKafkaProducer
from pymongo.errors import PyMongoError
from rich.console import Console

from tests.chaos import fast_settings
from tests.chaos.bookkeeping import Bookkeeping
from tests.chaos.faults import FAULTS, injected
from tests.chaos.harness import Harness
from tests.chaos.history import Check, Cycle, History, Injection
from tests.chaos.logs import ordinary
from tests.chaos.oracle_notifications import Evidence, Outage, judge_notifications
from tests.chaos.progress import Progress
from tests.chaos.providers import Providers, Take
from tests.chaos.proxied import ProxiedPlatform
from tests.chaos.proxy import Proxy
from tests.chaos.requests import DOMAIN_EVENTS, RECEIPTS, REQUESTS, Record, Requests
from tests.chaos.scene import Scene
from tests.chaos.workers import Slot, Workers
from tests.integration.pipeline import Pipeline

_TOPICS = (REQUESTS, DOMAIN_EVENTS, RECEIPTS)
_INTAKE = (REQUESTS, f"notify-{DOMAIN_EVENTS}", RECEIPTS)
_EMAIL_PROVIDERS = ("sendgrid", "mailgun", "smtp")
_KILL_EVERY_SECONDS = 1.0
_KILL_INTAKE_EVERY_SECONDS = 15.0
_FLUSH_EVERY_SECONDS = 6.0
_STEP_DOWN_EVERY_SECONDS = 8.0
_READ_EVERY_SECONDS = 2.0
_PRINT_EVERY_SECONDS = 5.0
_REQUESTED_WITHIN = 0.7
"""The share of the time with faults in which everything is requested."""
_MONGO_KILLED_AT = 0.45
_REDIS_KILLED_AT = 0.65
"""Shares of the time with faults."""
_REPORTED_WITHIN_SECONDS = 1.0
_LOOK_SECONDS = 0.1
_ACCEPTED_AMONG_FAULTS = 0.5
"""Faults go on until providers have accepted so many messages for each requested notification,"""
_LONGEST_FACTOR = 3.0
"""but no longer than this many times the planned seconds."""
_EXPECTED = (
    ordinary("agents.notifications.attempt", "a provider refuses us", "some messages meet a provider that does"),
)


class NotificationPlan(NamedTuple):
    """How a run goes.

    Attributes:
        command: What to type to repeat it.
        notifications: How many are requested.
        seed: Decides which message meets which fault.
        workers: How many deliver.
        seconds: How long faults happen at least.
        settle: Within how many seconds after them everything must have ended.
        share: The share of messages that meet a fault at their provider.
    """

    command: str
    notifications: int
    seed: int
    workers: int
    seconds: float
    settle: float
    share: float


class NotificationRun(Harness):
    """A run of notifications.

    Args:
        plan: How it goes.
        platform: The servers, which are up.
        proxy: The proxy between servers and workers.
        directory: For logs and key files.
        console: Where to print progress.
    """

    def __init__(
        self, plan: NotificationPlan, platform: ProxiedPlatform, proxy: Proxy, directory: Path, console: Console
    ) -> None:
        settings = {
            "notifications": f"{plan.notifications:,}",
            "workers that deliver": str(plan.workers),
            "seconds with faults": f"{plan.seconds:g}",
            "messages with faults": f"{plan.share:.0%}",
        }
        pipeline = Pipeline(platform, only=_TOPICS)
        super().__init__(plan.command, plan.seed, settings, pipeline, platform, proxy, directory, console)
        self._plan = plan
        self._providers = Providers(plan.seed, plan.share, directory)
        self._requests = Requests(plan.notifications, plan.seed, self._providers.subscribe)
        self._reports: asyncio.Queue[Record] = asyncio.Queue()
        self._reporting: set[asyncio.Task[None]] = set()
        self._unreported = 0
        self._mongo = asyncio.Lock()
        self._redis = asyncio.Lock()
        self._sent: Counter[str] = Counter()
        self._read = 0
        self._all_requested = False

    async def __call__(self) -> History:
        """Go through the run."""
        async with AsyncExitStack() as stack:
            await stack.enter_async_context(self._providers)
            await self._pipeline.prepare()
            await asyncio.to_thread(self._requests.add_people, self._platform.postgres.owner_url)
            self._workers = self._providers.workers = Workers(
                self._slots(), f"{fast_settings.__name__}:identify", f"{fast_settings.__name__}:apply"
            )
            self._providers.on_take = self._report_sometimes
            stack.push_async_callback(self._workers.close)
            await self._workers.start()
            self._began, began_at = time.monotonic(), time.time()
            progress = await stack.enter_async_context(Progress(self._platform.kafka.brokers, {}, self._clock))
            for work in (
                self._measure(lambda: self._sent.total(), progress, _INTAKE),
                self._print_progress(),
                self._send_reports(),
            ):
                await stack.enter_async_context(self._beside(work))
            async with self._phase("chaos"):
                await self._chaos()
            async with self._phase("settling"):
                self._providers.share = 0.0
                settled = await self._settled(self._is_settled, self._plan.settle)
            await self._workers.stop()
            async with self._phase("judging"):
                await self._judge(began_at, settled=settled)
        return self._history

    def _slots(self) -> list[Slot]:
        """Return a slot for the worker that reads Kafka, and slots that deliver, each with another first provider."""
        shared = {
            **self._providers.environment(),
            "INKSTREAM_NOTIFY_LIMIT": "1000",
            "INKSTREAM_NOTIFY_DAILY_LIMIT": "10000",
        }
        slots = []
        for number in range(self._plan.workers + 1):
            turn = number % len(_EMAIL_PROVIDERS)
            own = {
                "INKSTREAM_EMAIL_PROVIDERS": ",".join(_EMAIL_PROVIDERS[turn:] + _EMAIL_PROVIDERS[:turn]),
                "INKSTREAM_AGENTS": "deliver" if number else ",".join(_INTAKE),
            }
            slots.append(self._slot(f"deliver-{number}" if number else "intake", {**shared, **own}))
        return slots

    # What happens ---------------------------------------------------------------------------------------------

    async def _chaos(self) -> None:
        async with asyncio.TaskGroup() as tasks:
            for work in (
                self._request,
                self._kill_delivering_workers,
                self._kill_intake,
                self._flush_redis,
                self._step_mongo_down,
                self._kill_servers,
                self._read_notifications,
            ):
                tasks.create_task(work())

    async def _every(self, seconds: float) -> AsyncIterator[None]:
        """Yield at an interval while faults happen."""
        due = self._clock() + seconds
        while self._faults_go_on():
            self._check_workers()
            if self._clock() < due:
                await asyncio.sleep(_LOOK_SECONDS)
                continue
            yield
            due = self._clock() + seconds

    def _faults_go_on(self) -> bool:
        """Return whether it is not yet time to stop: on a slow machine, until half of the messages met the faults."""
        is_half_done = len(self._providers.takes) >= self._plan.notifications * _ACCEPTED_AMONG_FAULTS
        seconds = self._plan.seconds if is_half_done else self._plan.seconds * _LONGEST_FACTOR
        return self._clock() < seconds

    async def _inject(self, name: str) -> None:
        """Inject one of the harness's faults, and note it."""
        injection = await injected(self._scene(), FAULTS[name])
        self._history.cycles.append(Cycle(len(self._history.cycles) + 1, (injection,), 0, (), self._sent.total(), 0))

    def _scene(self) -> Scene:
        def add_worker() -> Slot:
            raise NotImplementedError("no fault of this run adds workers")

        return Scene(
            workers=self._workers,
            platform=self._platform,
            proxy=self._proxy,
            sender=None,
            pipeline=self._pipeline,
            chance=self._chance,
            clock=self._clock,
            add_worker=add_worker,
            directory=self._directory,
            bookkeeping=Bookkeeping(),
        )

    async def _request(self) -> None:
        """Send everything, spread over most of the time with faults."""
        interval = self._plan.seconds * _REQUESTED_WITHIN / self._plan.notifications
        async with self._producer() as producer:
            for number, record in enumerate(self._requests.records()):
                await producer.send(self._pipeline.namespace + record.topic, record.value, key=record.key)
                self._sent[record.topic] += 1
                ahead = number * interval - self._clock()
                if ahead > 0:
                    await asyncio.sleep(ahead)
            await producer.flush()
        self._all_requested = True

    async def _kill_delivering_workers(self) -> None:
        """Every second, kill the worker that has delivered for longest."""
        async for _ in self._every(_KILL_EVERY_SECONDS):
            at_work = self._providers.at_work
            alive = [slot.pid for slot in self._workers.slots if slot.pid in at_work]
            if alive:
                longest = min(alive, key=at_work.__getitem__)
                await asyncio.sleep(self._chance.random() * 0.3)
                self._workers.kill(longest, "at any moment")

    async def _kill_intake(self) -> None:
        async for _ in self._every(_KILL_INTAKE_EVERY_SECONDS):
            pid = self._workers.slots[0].pid
            if pid is not None:
                self._workers.kill(pid, "while it read Kafka")

    async def _flush_redis(self) -> None:
        async for _ in self._every(_FLUSH_EVERY_SECONDS):
            async with self._redis:
                await self._inject("redis-flushed")

    async def _step_mongo_down(self) -> None:
        async for _ in self._every(_STEP_DOWN_EVERY_SECONDS):
            async with self._mongo:
                await self._inject("mongo-stepped-down")

    async def _kill_servers(self) -> None:
        """Kill MongoDB and Redis, once each."""
        await asyncio.sleep(self._plan.seconds * _MONGO_KILLED_AT)
        async with self._mongo:
            await self._inject("mongo-killed")
        await asyncio.sleep(max(0.0, self._plan.seconds * _REDIS_KILLED_AT - self._clock()))
        async with self._redis:
            await self._inject("redis-killed")

    async def _read_notifications(self) -> None:
        """Read a grouped notification now and then, as a person does: later likes begin another."""
        notifications = self._pipeline.collection("notifications")
        async for _ in self._every(_READ_EVERY_SECONDS):
            unread = {"gathered": {"$exists": True}, "channels.inApp.read": False}
            with suppress(PyMongoError):
                found = [one["_id"] async for one in notifications.find(unread, {"_id": 1}).sort("_id", 1)]
                if found:
                    chosen = {"_id": self._chance.choice(found)}
                    await notifications.update_one(chosen, {"$set": {"channels.inApp.read": True}})
                    self._read += 1

    def _report_sometimes(self, take: Take) -> None:
        record = self._requests.report(take)
        if record is not None:
            self._unreported += 1
            task = asyncio.create_task(self._report_later(record, self._chance.random() * _REPORTED_WITHIN_SECONDS))
            self._reporting.add(task)
            task.add_done_callback(self._reporting.discard)

    async def _report_later(self, record: Record, seconds: float) -> None:
        await asyncio.sleep(seconds)
        self._reports.put_nowait(record)

    async def _send_reports(self) -> None:
        """Send what providers report."""
        async with self._producer() as producer:
            while True:
                record = await self._reports.get()
                await producer.send_and_wait(self._pipeline.namespace + record.topic, record.value, key=record.key)
                self._sent[record.topic] += 1
                self._unreported -= 1

    @asynccontextmanager
    async def _producer(self) -> AsyncIterator[AIOKafkaProducer]:
        async with AIOKafkaProducer(
            bootstrap_servers=self._platform.kafka.brokers, acks="all", linger_ms=20
        ) as producer:
            yield producer

    async def _print_progress(self) -> None:
        while True:
            await asyncio.sleep(_PRINT_EVERY_SECONDS)
            states: Counter[str] = Counter()
            with suppress(PyMongoError):
                grouping: list[dict[str, Any]] = [{"$sortByCount": "$status"}]
                async for state in await self._pipeline.collection("notificationQueue").aggregate(grouping):
                    states[state["_id"]] = state["count"]
            takes = self._providers.takes
            parts = [
                f"{len(self._requests.requests) + sum(map(len, self._requests.likes.values())):,} requested",
                "items: " + (", ".join(f"{count:,} {state}" for state, count in states.items()) or "?"),
                f"{sum(map(len, takes.values())):,} messages accepted",
                f"{sum(len(some) - 1 for some in takes.values()):,} again",
                f"{len(self._workers.deaths)} workers killed",
                f"{len(self._history.cycles)} faults",
            ]
            self._console.print(f"{self._clock():7.1f} s  {'; '.join(parts)}", markup=False)

    # How it ends ----------------------------------------------------------------------------------------------

    async def _is_settled(self) -> bool:
        return self._all_requested and not self._unreported and await self._queue_is_done(_INTAKE)

    async def _judge(self, began_at: float, *, settled: bool) -> None:
        history, requests, takes = self._history, self._requests, self._providers.takes
        outages = [
            Outage(began_at + one.began, began_at + one.healed)
            for one in _injections(history)
            if one.fault.startswith("mongo-")
        ]
        evidence = Evidence(requests, takes, self._workers.deaths, outages)
        verdict = await judge_notifications(self._pipeline.database, evidence)
        letters = {topic: len(await self._pipeline.read(f"{topic}.dead-letter")) for topic in _TOPICS}
        history.checks = [
            *self._common_checks(settled=settled, expected=_EXPECTED),
            Check(
                "providers refuse only what they were told to refuse",
                0,
                len(self._providers.refused),
                list(self._providers.refused),
            ),
            Check(
                "no record becomes a dead letter",
                0,
                sum(letters.values()),
                [f"{count} records of {topic} are dead letters" for topic, count in letters.items() if count],
            ),
            *verdict.checks,
        ]
        history.kills = self._kills()
        history.topics = dict(self._sent)
        history.counts = {
            "requested": {
                "notifications": len(requests.requests),
                "likes": sum(map(len, requests.likes.values())),
                "grouped notifications read": self._read,
            },
            "workers": {"started": self._workers.started},
            "faults at providers": dict(self._providers.met),
            "messages accepted": dict(Counter(take.provider for some in takes.values() for take in some)),
            **verdict.counts,
            "most for one message": {"accepted": max(map(len, takes.values()), default=0)},
        }


def _injections(history: History) -> list[Injection]:
    return [injection for cycle in history.cycles for injection in cycle.injections]
