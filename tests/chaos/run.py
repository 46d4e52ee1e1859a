"""Run sample traffic of all topics while faults happen, from the first event to the checks.

Input: a plan. Output: its `History`, with every promise and whether it held. Workers, proxy and sender end with the
run, however it ends; the servers are the caller's.
"""

import asyncio
import time
from collections.abc import Collection, Mapping, Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import psycopg
from aiokafka import TopicPartition
from rich.console import Console

from dev.blog import Blog
from dev.posts import add_blog
from tests.chaos import oracle, report
from tests.chaos.bookkeeping import Bookkeeping
from tests.chaos.event_log import EventLog
from tests.chaos.faults import FAULTS, Fault, draw, injected
from tests.chaos.harness import Harness
from tests.chaos.history import Check, Cycle, History, Injection, Moment, Recovery
from tests.chaos.model import Describer
from tests.chaos.progress import Progress
from tests.chaos.proxied import ProxiedPlatform
from tests.chaos.proxy import Proxy
from tests.chaos.scene import Scene
from tests.chaos.sender import Sender
from tests.chaos.workers import Slot, Workers
from tests.integration.pipeline import PARTITIONS, Pipeline

_KILL = "worker-killed"
_KILLED_WITHIN_SECONDS = 2.5
_RECOVERS_WITHIN_SECONDS = 60.0
_UNRECOVERED = 0.2
"""The share of cycles after which the next one begins before work has resumed."""

_WATCHED = ("page-views", "post-view-counts")
"""The topics whose partitions are watched, to see that work resumes: the first step, and the last."""

_LOOK_SECONDS = 0.1
_PAUSE_SECONDS = 1.0
_WITHOUT_QUIET_HOURS = """
UPDATE notification_preferences SET preferences = preferences - 'quietHours'
"""  # messages that wait for the end of quiet hours would not be finished when the run is

_POST_THAT_WAITS = """
SELECT FROM inkstream.counted_posts JOIN posts ON posts.id = post_id WHERE views <> applied LIMIT 1
"""  # refused until a moment ago, it is tried again after 10 s and more


@dataclass(frozen=True, slots=True)
class Plan:
    """How a run goes.

    Attributes:
        command: What to type to repeat it.
        seed: Decides everything that is left to chance.
        alone: How often each fault is injected alone, to measure how long it takes until work resumes.
        cycles: How many rounds of one or two faults follow; in each of them a worker is killed.
        faults: The names of those that may happen.
        events: Least events to send.
        rate: Events a second.
        workers: How many workers there are.
        calm: For how many seconds there are no faults at the end, to see whether memory grows.
        settle: Within how many seconds after that all work must be finished.
        defect: The defect that is switched on in each worker, to see whether the judge finds it; usually `None`.
    """

    command: str
    seed: int
    alone: int
    cycles: int
    faults: Collection[str]
    events: int
    rate: float
    workers: int
    calm: float
    settle: float
    defect: str | None


class Run(Harness):
    """A run of sample traffic over all topics.

    Args:
        plan: How it goes.
        platform: The servers, which are up.
        proxy: The proxy between servers and workers.
        directory: For logs, orders and the event log.
        console: Where to print progress.
    """

    def __init__(self, plan: Plan, platform: ProxiedPlatform, proxy: Proxy, directory: Path, console: Console) -> None:
        settings = {
            "faults": "all" if len(plan.faults) == len(FAULTS) else ", ".join(plan.faults),
            "workers": str(plan.workers),
            "events a second": f"{plan.rate:,.0f}",
            "defect": plan.defect or "none",
        }
        super().__init__(plan.command, plan.seed, settings, Pipeline(platform), platform, proxy, directory, console)
        self._plan = plan
        self._faults = [FAULTS[name] for name in plan.faults]
        self._calm_since = 0.0
        self._added = 0
        self._unrecovered: list[str] = []
        self._workers = Workers([self._worker_slot(f"worker-{number}") for number in range(1, plan.workers + 1)])
        self._event_log = EventLog(directory / "events.sqlite")
        self._bookkeeping = Bookkeeping()

    async def __call__(self) -> History:
        """Go through it."""
        async with AsyncExitStack() as stack:
            stack.callback(self._event_log.close)
            await self._prepare()
            stack.push_async_callback(self._workers.close)
            await self._workers.start()
            sender = await stack.enter_async_context(self._sender())
            progress = await stack.enter_async_context(
                Progress(self._platform.kafka.brokers, self._watched(), self._clock)
            )
            agents = tuple(self._pipeline.topics.inbound)
            await stack.enter_async_context(self._beside(self._measure(lambda: sender.sent, progress, agents)))
            enough = asyncio.Event()
            sending = asyncio.create_task(sender.run(enough))
            stack.callback(sending.cancel)
            async with self._phase("chaos"):
                await self._chaos(sender, progress)
            async with self._phase("calm"):
                self._calm_since = self._clock()
                await asyncio.sleep(self._plan.calm)
            async with self._phase("settling"):
                enough.set()
                await sending
                settled = await self._settled(self._is_settled, self._plan.settle)
            await self._workers.stop()
            async with self._phase("judging"):
                await self._judge(sender, settled=settled)
        return self._history

    # What there is --------------------------------------------------------------------------------------------

    async def _prepare(self) -> None:
        """Create topics, collections, tables, people and posts."""
        await self._pipeline.prepare()
        await asyncio.to_thread(add_blog, self._platform.owner_url, Blog())
        with psycopg.connect(self._platform.owner_url) as connection:
            connection.execute(_WITHOUT_QUIET_HOURS)

    def _worker_slot(self, name: str) -> Slot:
        calls: list[tuple[str, str]] = [("tests.chaos.inside:listen", str(self._directory))]
        if self._plan.defect is not None:
            calls.append(("tests.chaos.defects:apply", self._plan.defect))
        return self._slot(name, {}, calls)

    def _sender(self) -> Sender:
        return Sender(
            self._platform.kafka.brokers,
            self._pipeline.namespace,
            self._pipeline.topics.inbound.values(),
            self._event_log,
            rate=self._plan.rate,
            seed=self._plan.seed,
            began=datetime.now(UTC),
            owner_url=self._platform.owner_url,
        )

    def _watched(self) -> Mapping[str, Collection[TopicPartition]]:
        return {
            self._group(topic): [
                TopicPartition(self._pipeline.namespace + topic, partition) for partition in range(PARTITIONS)
            ]
            for topic in _WATCHED
        }

    # What happens ---------------------------------------------------------------------------------------------

    async def _chaos(self, sender: Sender, progress: Progress) -> None:
        """Inject each fault alone, then go through the cycles, and on until enough is sent."""
        scene = Scene(
            workers=self._workers,
            platform=self._platform,
            proxy=self._proxy,
            sender=sender,
            pipeline=self._pipeline,
            chance=self._chance,
            clock=self._clock,
            add_worker=self._add_worker,
            directory=self._directory,
            bookkeeping=self._bookkeeping,
        )
        await self._recover(progress, self._clock(), _WATCHED)
        alone = [fault for _ in range(self._plan.alone) for fault in self._faults]
        for fault in alone:
            await self._cycle([fault], scene, sender, progress, of=len(alone) + self._plan.cycles)
        done = 0
        while done < self._plan.cycles or sender.sent < self._plan.events:
            done += 1
            faults = draw(self._chance, self._plan.faults)
            await self._cycle(faults, scene, sender, progress, of=len(alone) + self._plan.cycles, with_kill=True)

    async def _cycle(
        self,
        faults: Sequence[Fault],
        scene: Scene,
        sender: Sender,
        progress: Progress,
        *,
        of: int,
        with_kill: bool = False,
    ) -> None:
        """Inject faults, wait until work resumes, and record it all."""
        deaths = len(self._workers.deaths)
        injections = [injected(scene, fault) for fault in faults]
        if with_kill and not any(fault.kills for fault in faults):
            injections.append(self._kill_meanwhile(scene))
        done = await asyncio.gather(*injections)
        healed = max(injection.healed for injection in done)
        recoveries = []
        if not with_kill or self._chance.random() >= _UNRECOVERED:
            waited = await self._recover(progress, healed, {fault.recovers_at for fault in faults if fault.recovers_at})
            if not with_kill:
                recoveries = [Recovery(faults[0].name, *wait) for wait in waited]
        cycle = Cycle(
            number=len(self._history.cycles) + 1,
            injections=tuple(done),
            kills=len(self._workers.deaths) - deaths,
            recoveries=tuple(recoveries),
            sent=sender.sent,
            lag=_lag(self._history.moments),
        )
        self._history.cycles.append(cycle)
        self._console.print(report.line(cycle, of), markup=False)
        self._check_workers()
        await asyncio.sleep(self._chance.uniform(0, _PAUSE_SECONDS))

    async def _kill_meanwhile(self, scene: Scene) -> Injection:
        await asyncio.sleep(self._chance.uniform(0, _KILLED_WITHIN_SECONDS))
        return await injected(scene, FAULTS[_KILL])

    async def _recover(self, progress: Progress, healed: float, topics: Collection[str]) -> list[tuple[float, float]]:
        """Wait until events of each partition are stored again; return how long that took, for each topic in time."""
        deadline = time.monotonic() + _RECOVERS_WITHIN_SECONDS
        waits = []
        for topic in topics:
            while (wait := progress.resumed(self._group(topic), healed)) is None:
                if time.monotonic() > deadline:
                    self._unrecovered.append(
                        f"{topic}: not all partitions resumed {_RECOVERS_WITHIN_SECONDS:.0f} s after {healed:.0f} s"
                    )
                    break
                await asyncio.sleep(_LOOK_SECONDS)
            else:
                waits.append(wait)
        return waits

    def _add_worker(self) -> Slot:
        """Start one more worker."""
        self._added += 1
        slot = self._worker_slot(f"extra-{self._added}")
        self._workers.add(slot)
        return slot

    # How it ends ----------------------------------------------------------------------------------------------

    async def _is_settled(self) -> bool:
        notified = Describer(self._pipeline.settings, self._pipeline.topics).notified
        if not await self._queue_is_done([*self._pipeline.topics.all, *(f"notify-{topic}" for topic in notified)]):
            return False
        async with await psycopg.AsyncConnection.connect(self._platform.owner_url) as connection:
            return await (await connection.execute(self._pipeline.with_schema(_POST_THAT_WAITS))).fetchone() is None

    async def _judge(self, sender: Sender, *, settled: bool) -> None:
        """Compare everything with the event log."""
        history, plan = self._history, self._plan
        checks = [
            *self._common_checks(settled=settled),
            Check(
                "events sent",
                plan.events,
                sender.sent,
                [] if sender.sent >= plan.events else [f"only {sender.sent:,} were sent"],
            ),
            Check(
                "of each record without an acknowledgement it is known whether Kafka has it",
                0,
                sender.untold,
                [f"of {sender.untold:,} records it is not known whether Kafka has them"] if sender.untold else [],
            ),
            Check("work resumes after each fault", 0, len(self._unrecovered), self._unrecovered),
            self._memory_check(self._calm_since),
            Check(
                "each post whose update the platform refuses is reported while it does",
                self._bookkeeping.refusals,
                self._bookkeeping.refusals - len(self._bookkeeping.unreported),
                self._bookkeeping.unreported,
            ),
        ]
        changed = self._bookkeeping.changed
        checks += await oracle.judge(oracle.World(self._event_log, self._pipeline, self._platform, changed))
        history.checks = checks
        history.kills = self._kills()
        history.topics = {
            topic.removeprefix(self._pipeline.namespace): count for topic, count in self._event_log.counts().items()
        }


def _lag(moments: Sequence[Moment]) -> int:
    known = [moment.sent - moment.committed for moment in moments if moment.committed is not None]
    return max(0, known[-1]) if known else 0
