"""One run: a platform under fire, from the first event to the verdict.

In comes a plan; out goes its `History`, with every promise and whether it held. Workers, proxy and sender end with the
run, however it ends; the servers are the caller's.
"""

import asyncio
import contextlib
import statistics
import time
from collections import Counter
from collections.abc import AsyncIterator, Collection, Coroutine, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from random import Random

import psutil
import psycopg
from aiokafka import TopicPartition
from pymongo.errors import PyMongoError
from rich.console import Console

from dev.blog import Blog
from dev.ports import Ports
from dev.posts import add_blog
from tests.chaos import logs, oracle, report
from tests.chaos.bookkeeping import Bookkeeping
from tests.chaos.event_log import EventLog
from tests.chaos.faults import FAULTS, Fault, draw, injected
from tests.chaos.history import Check, Cycle, History, Injection, Moment, Recovery
from tests.chaos.model import Describer
from tests.chaos.progress import Progress
from tests.chaos.proxied import ProxiedPlatform
from tests.chaos.proxy import Proxy
from tests.chaos.scene import Scene
from tests.chaos.sender import Sender
from tests.chaos.workers import Post, Workers
from tests.integration.pipeline import PARTITIONS, Pipeline

_KILL = "worker-killed"
_KILLED_WITHIN_SECONDS = 2.5
_RECOVERS_WITHIN_SECONDS = 60.0
_UNRECOVERED = 0.2
"""The share of cycles after which the next one begins before work goes on."""

_WATCHED = ("page-views", "post-view-counts")
"""The topics whose partitions are watched, to see that work goes on: the first step, and the last."""

_LOOK_SECONDS = 0.1
_MEASURE_SECONDS = 1.0
_MOST_ENDED = 10
_LAST_MOMENTS = 3
_MEMORY_GROWTH = 0.2
_PAUSE_SECONDS = 1.0
_WITHOUT_QUIET_HOURS = """
UPDATE notification_preferences SET preferences = preferences - 'quietHours'
"""  # what waits for the end of somebody's night would not be at its end when the run is

_POST_THAT_WAITS = """
SELECT FROM inkstream.counted_posts JOIN posts ON posts.id = post_id WHERE views <> applied LIMIT 1
"""  # refused until a moment ago, it is tried again after 10 s and more


@dataclass(frozen=True, slots=True)
class Plan:
    """How a run goes.

    Attributes:
        command: What to type to have it go so again.
        seed: Decides everything that chance decides.
        alone: How often each fault happens by itself, to see how long it takes until work goes on.
        cycles: How many rounds of faults, one or two at a time, come then; in each of them a worker is killed.
        faults: The names of those that may happen.
        events: Least events to send.
        rate: Events a second.
        workers: How many workers there are.
        calm: For how many seconds all is well at the end, to see whether memory stays as it is.
        settle: Within how many seconds after that everything must be at its end.
        defect: What is switched on in each worker, to see whether the judge notices; `None` in earnest.
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


class Run:
    """One run.

    Args:
        plan: How it goes.
        platform: The servers, which are up.
        proxy: What stands between them and the workers.
        directory: For logs, orders and the event log.
        console: Where to tell of it.
    """

    def __init__(self, plan: Plan, platform: ProxiedPlatform, proxy: Proxy, directory: Path, console: Console) -> None:
        self._plan = plan
        self._platform = platform
        self._proxy = proxy
        self._directory = directory
        self._console = console
        self._chance = Random(plan.seed)
        self._faults = [FAULTS[name] for name in plan.faults]
        self._pipeline = Pipeline(platform)
        self._began = time.monotonic()
        self._calm_since = 0.0
        self._hired = 0
        self._unrecovered: list[str] = []
        self._workers = Workers([self._post(f"worker-{number}") for number in range(1, plan.workers + 1)])
        self._event_log = EventLog(directory / "events.sqlite")
        self._bookkeeping = Bookkeeping()
        self._history = History(
            command=plan.command,
            seed=plan.seed,
            began=datetime.now(UTC).isoformat(timespec="seconds"),
            machine=f"{psutil.cpu_count()} cores, {psutil.virtual_memory().total / 2**30:.0f} GiB",
            settings={
                "faults": "all" if len(plan.faults) == len(FAULTS) else ", ".join(plan.faults),
                "workers": str(plan.workers),
                "events a second": f"{plan.rate:,.0f}",
                "defect": plan.defect or "none",
            },
        )

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
            await stack.enter_async_context(self._beside(self._measure(sender, progress)))
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
                settled = await self._settle()
            await self._workers.stop()
            async with self._phase("judging"):
                await self._judge(sender, settled=settled)
        return self._history

    # What there is --------------------------------------------------------------------------------------------

    async def _prepare(self) -> None:
        """Make topics, collections, tables, people and posts."""
        await self._pipeline.prepare()
        await asyncio.to_thread(add_blog, self._platform.owner_url, Blog())
        with psycopg.connect(self._platform.owner_url) as connection:
            connection.execute(_WITHOUT_QUIET_HOURS)

    def _post(self, name: str) -> Post:
        environment = {
            **self._platform.through_doors(self._pipeline.environment),
            "INKSTREAM_LOG_FORMAT": "json",
            "INKSTREAM_WEB_PORT": str(Ports.free().worker),
        }
        calls: list[tuple[str, str]] = [("tests.chaos.inside:listen", str(self._directory))]
        if self._plan.defect is not None:
            calls.append(("tests.chaos.defects:apply", self._plan.defect))
        return Post(name, environment, self._directory / f"{name}.log", calls)

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

    def _group(self, agent: str) -> str:
        return f"{self._pipeline.namespace}inkstream.{agent}"

    def _clock(self) -> float:
        return time.monotonic() - self._began

    @asynccontextmanager
    async def _phase(self, name: str) -> AsyncIterator[None]:
        self._console.print(f"{self._clock():7.1f} s  {name}", style="bold")
        began = self._clock()
        yield
        self._history.seconds[name] = self._clock() - began

    @asynccontextmanager
    async def _beside(self, work: Coroutine[None, None, None]) -> AsyncIterator[None]:
        task = asyncio.create_task(work)
        try:
            yield
        finally:
            task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await task

    # What happens ---------------------------------------------------------------------------------------------

    async def _chaos(self, sender: Sender, progress: Progress) -> None:
        """Let each fault happen by itself, then go through the cycles, and on until enough is sent."""
        scene = Scene(
            workers=self._workers,
            platform=self._platform,
            proxy=self._proxy,
            sender=sender,
            pipeline=self._pipeline,
            chance=self._chance,
            clock=self._clock,
            hire=self._hire,
            directory=self._directory,
            bookkeeping=self._bookkeeping,
        )
        await self._recover(progress, self._clock(), _WATCHED)
        alone = [fault for _ in range(self._plan.alone) for fault in self._faults]
        for fault in alone:
            await self._cycle([fault], scene, progress, of=len(alone) + self._plan.cycles)
        done = 0
        while done < self._plan.cycles or sender.sent < self._plan.events:
            done += 1
            faults = draw(self._chance, self._plan.faults)
            await self._cycle(faults, scene, progress, of=len(alone) + self._plan.cycles, with_kill=True)

    async def _cycle(
        self, faults: Sequence[Fault], scene: Scene, progress: Progress, *, of: int, with_kill: bool = False
    ) -> None:
        """Let faults happen, see that work goes on, and take note of it all."""
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
            sent=scene.sender.sent,
            lag=_lag(self._history.moments),
        )
        self._history.cycles.append(cycle)
        self._console.print(report.line(cycle, of), markup=False)
        if len(self._workers.ended) >= _MOST_ENDED:
            raise RuntimeError(f"workers end by themselves: {self._workers.ended}; their logs are in {self._directory}")
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
                        f"{topic}: not all partitions at work {_RECOVERS_WITHIN_SECONDS:.0f} s after {healed:.0f} s"
                    )
                    break
                await asyncio.sleep(_LOOK_SECONDS)
            else:
                waits.append(wait)
        return waits

    def _hire(self) -> Post:
        """Have one more worker."""
        self._hired += 1
        post = self._post(f"extra-{self._hired}")
        self._workers.hire(post)
        return post

    async def _measure(self, sender: Sender, progress: Progress) -> None:
        """Take note of how far everything is, every second."""
        groups = [self._group(topic) for topic in self._pipeline.topics.inbound]
        while True:
            began = self._clock()
            committed = await progress.committed(groups)
            memory = {post.name: _memory(post.pid) for post in self._workers.posts if post.pid is not None}
            self._history.moments.append(Moment(began, sender.sent, committed, memory))
            await asyncio.sleep(max(0.0, began + _MEASURE_SECONDS - self._clock()))

    # How it ends ----------------------------------------------------------------------------------------------

    async def _settle(self) -> bool:
        """Wait until nothing is left to do; return whether that was in time."""
        notified = Describer(self._pipeline.settings, self._pipeline.topics).notified
        agents = [*self._pipeline.topics.all, *(f"notify-{topic}" for topic in notified)]
        deadline = time.monotonic() + self._plan.settle
        while time.monotonic() < deadline:
            if await self._is_settled(agents):
                return True
            await asyncio.sleep(1)
        return False

    async def _is_settled(self, agents: Sequence[str]) -> bool:
        open_items = {"status": {"$in": ["pending", "processing"]}}
        if any([await self._pipeline.lag(agent) for agent in agents]):
            return False
        try:
            if await self._pipeline.collection("notificationQueue").find_one(open_items) is not None:
                return False
        except PyMongoError:
            return False
        async with await psycopg.AsyncConnection.connect(self._platform.owner_url) as connection:
            return await (await connection.execute(self._pipeline.with_schema(_POST_THAT_WAITS))).fetchone() is None

    async def _judge(self, sender: Sender, *, settled: bool) -> None:
        """Hold everything against the event log."""
        history, plan = self._history, self._plan
        checks = [
            Check("everything is at its end in time", 1, int(settled), [] if settled else ["work is left to do"]),
            Check(
                "events sent",
                plan.events,
                sender.sent,
                [] if sender.sent >= plan.events else [f"only {sender.sent:,} were sent"],
            ),
            Check(
                "what Kafka did not confirm is known to be there or not",
                0,
                sender.untold,
                [f"of {sender.untold:,} records nothing is known"] if sender.untold else [],
            ),
            Check("after each fault work goes on", 0, len(self._unrecovered), self._unrecovered),
            Check(
                "no worker ends by itself",
                0,
                len(self._workers.ended),
                [f"{name} ended with exit code {code}" for name, code in self._workers.ended],
            ),
            self._memory_check(),
            Check(
                "each post whose update the platform refuses is reported while it does",
                self._bookkeeping.refusals,
                self._bookkeeping.refusals - len(self._bookkeeping.unreported),
                self._bookkeeping.unreported,
            ),
            logs.check(sorted(self._directory.glob("*.log"))),
        ]
        changed = self._bookkeeping.changed
        checks += await oracle.judge(oracle.World(self._event_log, self._pipeline, self._platform, changed))
        history.checks = checks
        history.kills = dict(Counter(death.how for death in self._workers.deaths.values()))
        history.topics = {
            topic.removeprefix(self._pipeline.namespace): count for topic, count in self._event_log.counts().items()
        }

    def _memory_check(self) -> Check:
        """Hold each worker's memory at the end against the middle of the calm at the end."""
        moments = [moment.memory for moment in self._history.moments if moment.at >= self._calm_since]
        middle, end = moments[len(moments) // 3 : -len(moments) // 3], moments[-_LAST_MOMENTS:]
        problems = []
        for name in moments[-1]:
            plateau = statistics.median(memory[name] for memory in middle if name in memory)
            last = statistics.median(memory[name] for memory in end if name in memory)
            if last > plateau * (1 + _MEMORY_GROWTH):
                problems.append(f"{name} has {last / 2**20:.0f} MiB, and had {plateau / 2**20:.0f} MiB")
        promise = f"each worker's memory at the end within {_MEMORY_GROWTH:.0%} of its plateau"
        return Check(promise, len(moments[-1]), len(moments[-1]) - len(problems), problems)


def _lag(moments: Sequence[Moment]) -> int:
    known = [moment.sent - moment.committed for moment in moments if moment.committed is not None]
    return max(0, known[-1]) if known else 0


def _memory(pid: int) -> int:
    try:
        memory: int = psutil.Process(pid).memory_info().rss
    except psutil.NoSuchProcess:
        return 0
    return memory
