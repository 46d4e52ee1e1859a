"""The faults: what fails in a run, each by its name.

Input: the scene of a run. Output: what was done, in a few words.
A fault repairs what it breaks before it returns, even if it is interrupted: servers answer, connections go through, no
worker has an order left.
"""

import asyncio
import re
import signal
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Collection, Mapping
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from random import Random
from typing import Any, Literal

import psutil
from pymongo import MongoClient
from pymongo.errors import PyMongoError
from redis.asyncio import Redis as RedisClient

from dev.servers.mongo import Mongo
from dev.servers.server import Server
from tests.chaos import inside, points, posts
from tests.chaos.history import Injection
from tests.chaos.scene import Scene
from tests.chaos.workers import Slot, send_signal

_TWO_TOGETHER = 0.3
"""The share of cycles that have two faults at once."""

_A_WORKER_WITHIN_SECONDS = 10.0
_DIES_WITHIN_SECONDS = 4.0
_DIES_FAR_OFF_WITHIN_SECONDS = 10.0
"""So long it may take to a point on the way of a stop or a rebalance."""
_STOPS_WITHIN_SECONDS = 30.0
_SERVER_ENDS_WITHIN_SECONDS = 10.0
_LOOK_SECONDS = 0.05
_PASSINGS = (1, 1, 2, 3)
_SESSION_SECONDS = 6.0
"""So long Kafka waits for a sign of a worker."""
_STORM_ROUNDS = 6
_JOINS_WITHIN_SECONDS = 1.5
_ONLY_FOR_A_MOMENT = "only here for a moment"
_EXTRAS = 2
"""How many workers more than usual there are in a storm of rebalances."""
_AT_ONCE: Mapping[str, Any] = {"retryWrites": False, "timeoutMS": 300}
_ANY_WRITE = 4096
"""A limit on the size of files that MongoDB's journal is always beyond."""


@dataclass(frozen=True, slots=True)
class Fault:
    """One kind of fault.

    Attributes:
        name: As `FAULTS=` has it.
        description: What it does, in a few words.
        inject: Lets it happen and heals it; returns what exactly was done.
        touches: What it is done to; two faults that touch the same never go together.
        recovers_at: The agent that shows when work goes on after it; `None` where no agent stops for it.
        kills: Whether it ends workers by SIGKILL.
        weight: How often it is drawn, compared with others.
    """

    name: str
    description: str
    inject: Callable[[Scene], Awaitable[str]]
    touches: frozenset[str]
    recovers_at: Literal["page-views", "post-view-counts"] | None
    kills: bool = False
    weight: float = 1.0


async def injected(scene: Scene, fault: Fault) -> Injection:
    """Inject a fault, repair it, and return what happened and when."""
    # A chance of its own, so that what one fault draws does not depend on how fast another one is.
    own = replace(scene, chance=Random(scene.chance.getrandbits(64)))
    began = scene.clock()
    detail = await fault.inject(own)
    return Injection(fault.name, detail, began, scene.clock())


def draw(chance: Random, names: Collection[str]) -> list[Fault]:
    """Return the fault for a cycle, or two that may go together.

    Args:
        chance: Decides.
        names: Of the faults to draw from.

    Raises:
        KeyError: There is no such fault.
    """
    if unknown := set(names) - FAULTS.keys():
        raise KeyError(f"no fault {', '.join(sorted(unknown))}; there are {', '.join(FAULTS)}")
    known = [fault for name, fault in FAULTS.items() if name in names]
    drawn = [_one_of(chance, known)]
    beside = [fault for fault in known if not fault.touches & drawn[0].touches]
    if chance.random() < _TWO_TOGETHER and beside:
        drawn.append(_one_of(chance, beside))
    return drawn


def _one_of(chance: Random, faults: list[Fault]) -> Fault:
    return chance.choices(faults, [fault.weight for fault in faults])[0]


# Workers ------------------------------------------------------------------------------------------------------


async def _kill_worker(scene: Scene) -> str:
    slot = await _anybody(scene)
    await asyncio.sleep(scene.chance.uniform(0, 0.5))
    if slot is None or slot.pid is None or not scene.workers.kill(slot.pid, "at any moment"):
        return "no worker was there to be killed"
    return f"{slot.name}, at any moment"


async def _kill_worker_at_a_point(scene: Scene) -> str:
    point = scene.chance.choice(points.NAMES)
    passing = scene.chance.choice(_PASSINGS)
    slot = await _some_worker(scene, _listens(scene))
    if slot is None or (pid := slot.pid) is None:
        return "no worker was there to be killed"
    what = f"{slot.name}, at {point}, passing {passing}"
    try:
        if not await inside.order(scene.workers, pid, scene.directory, die_at=point, passing=passing):
            return f"{what}: it accepted no order, and was killed"
        if point in points.ON_STOP:
            scene.workers.stopped[pid] = "to die on the way"
            send_signal(pid, signal.SIGTERM)
        if point in points.ON_REBALANCE:
            await _have_partitions_move(scene, slot)
        is_far = point in points.ON_STOP or point in points.ON_REBALANCE
        if await _ended(scene, pid, _DIES_FAR_OFF_WITHIN_SECONDS if is_far else _DIES_WITHIN_SECONDS):
            return what
        return f"{what}: it did not reach the point, and was killed"
    finally:
        if inside.lives(scene.workers, pid):
            scene.workers.expect_death(pid, "at any moment")
            send_signal(pid, signal.SIGKILL)


async def _have_partitions_move(scene: Scene, receiver: Slot) -> None:
    """Tell another worker to stop: its partitions go to those who stay, and some of them to the one that comes next."""
    other = await _some_worker(scene, lambda slot: slot is not receiver and _can_stop(slot))
    if other is not None and other.pid is not None:
        scene.workers.terminate(other.pid, "to have its partitions move")


async def _stop_worker(scene: Scene) -> str:
    slot = await _some_worker(scene, _can_stop)
    if slot is None or (pid := slot.pid) is None or not scene.workers.terminate(pid, "to be started again"):
        return "no worker was there to be stopped"
    began = time.monotonic()
    if await _ended(scene, pid, _STOPS_WITHIN_SECONDS):
        return f"{slot.name}, which took {time.monotonic() - began:.1f} s"
    send_signal(pid, signal.SIGKILL)  # not recorded, so it counts as a worker that ended by itself
    return f"{slot.name}, which did not stop within {_STOPS_WITHIN_SECONDS:.0f} s"


async def _freeze_worker(scene: Scene) -> str:
    seconds = _SESSION_SECONDS + scene.chance.uniform(2, 3)
    slot = await _some_worker(scene)
    if slot is None or (pid := slot.pid) is None:
        return "no worker was there to be frozen"
    send_signal(pid, signal.SIGSTOP)
    try:
        await _ended(scene, pid, seconds)
    finally:
        if inside.lives(scene.workers, pid):
            send_signal(pid, signal.SIGCONT)
    return f"{slot.name}, for {seconds:.1f} s"


async def _kill_all_workers(scene: Scene) -> str:
    await _anybody(scene)
    killed = [
        slot.name for slot in scene.workers.slots if slot.pid and scene.workers.kill(slot.pid, "together with all")
    ]
    return ", ".join(killed) or "no worker was there to be killed"


async def _turn_clock(scene: Scene) -> str:
    seconds = scene.chance.choice((-1, 1)) * round(scene.chance.uniform(60, 3600))
    hold = scene.chance.uniform(3, 5)
    slot = await _some_worker(scene, _listens(scene))
    if slot is None or (pid := slot.pid) is None:
        return "no worker was there for a wrong clock"
    try:
        obeyed = await inside.order(scene.workers, pid, scene.directory, clock=seconds)
        await _ended(scene, pid, hold)
    finally:
        scene.workers.kill(pid, "after its clock had jumped")
    return f"{slot.name}, by {seconds:+,} s for {hold:.1f} s" + ("" if obeyed else ", an order that it did not get")


async def _rebalance_again_and_again(scene: Scene) -> str:
    extras = _Extras(scene)
    try:
        for _ in range(_STORM_ROUNDS):
            extras.add()
            await asyncio.sleep(scene.chance.uniform(0.7, 1.3))
            ready = extras.ready()
            if len(ready) >= _EXTRAS:
                scene.workers.remove(ready[0], _ONLY_FOR_A_MOMENT)
    finally:
        await extras.stop()
    return f"{_STORM_ROUNDS} workers came and went"


class _Extras:
    """Workers more than usual, for as long as a fault takes.

    Args:
        scene: Where to start them.
    """

    def __init__(self, scene: Scene) -> None:
        self._scene = scene
        self._slots: list[Slot] = []
        self._could_stop: dict[int | None, float] = {}

    def add(self) -> None:
        """Have one more."""
        self._slots.append(self._scene.add_worker())

    def ready(self) -> list[Slot]:
        """Return those that have had time to join their groups, and are not told to stop."""
        now = time.monotonic()
        for slot in self._slots:
            if _can_stop(slot):
                self._could_stop.setdefault(slot.pid, now)
        joined_before = now - _JOINS_WITHIN_SECONDS
        return [slot for slot in self._slots if slot.is_wanted and self._could_stop.get(slot.pid, now) < joined_before]

    async def stop(self) -> None:
        """Have none of them any longer."""
        deadline = time.monotonic() + _STOPS_WITHIN_SECONDS
        while left := [slot for slot in self._slots if slot.is_wanted or slot.pid is not None]:
            is_late = time.monotonic() > deadline
            for slot in self.ready():
                self._scene.workers.remove(slot, _ONLY_FOR_A_MOMENT)
            for slot in left if is_late else ():
                slot.is_wanted = False
                if slot.pid is not None:
                    send_signal(slot.pid, signal.SIGKILL)  # not recorded, so it counts as a worker that ended by itself
            await asyncio.sleep(_LOOK_SECONDS)


async def _anybody(scene: Scene) -> Slot | None:
    """Return a worker, whatever it is doing."""
    return await _some_worker(scene, must_work=False)


async def _some_worker(
    scene: Scene, suits: Callable[[Slot], bool] = lambda slot: True, *, must_work: bool = True
) -> Slot | None:
    """Return a worker that suits; wait for one, and for a while for one that is at work."""
    deadline = time.monotonic() + _A_WORKER_WITHIN_SECONDS
    while True:
        is_late = time.monotonic() > deadline
        suited = [slot for slot in scene.workers.slots if slot.is_wanted and _is_there(scene, slot) and suits(slot)]
        at_work = [slot for slot in suited if slot.pid and inside.is_at_work(slot.pid, scene.directory)]
        if choice := at_work if must_work and not is_late else suited:
            return scene.chance.choice(choice)
        if is_late:
            return None
        await asyncio.sleep(_LOOK_SECONDS)


def _is_there(scene: Scene, slot: Slot) -> bool:
    return slot.pid is not None and scene.workers.has(slot.pid)


def _listens(scene: Scene) -> Callable[[Slot], bool]:
    return lambda slot: slot.pid is not None and inside.listens(scene.workers, slot.pid, scene.directory)


def _can_stop(slot: Slot) -> bool:
    """Whether a worker has come so far that it stops when it is told to; before, the signal just ends it."""
    try:
        status = Path(f"/proc/{slot.pid}/status").read_text()
    except OSError:
        return False
    caught = re.search(r"^SigCgt:\s*(\w+)$", status, re.MULTILINE)
    return caught is not None and bool(int(caught[1], 16) >> (signal.SIGTERM - 1) & 1)


async def _ended(scene: Scene, pid: int, seconds: float) -> bool:
    """Return whether a worker has ended, as soon as it has."""
    deadline = time.monotonic() + seconds
    while inside.lives(scene.workers, pid):
        if time.monotonic() > deadline:
            return False
        await asyncio.sleep(_LOOK_SECONDS)
    return True


# Servers ------------------------------------------------------------------------------------------------------


async def _kill_kafka(scene: Scene) -> str:
    return await _without(scene.platform.kafka, scene.platform.kafka.kill, scene.chance.uniform(0, 1))


async def _pause_kafka(scene: Scene) -> str:
    return await _while_paused(scene.platform.kafka, scene.chance.uniform(3, 6))


async def _step_mongo_down(scene: Scene) -> str:
    command = {"replSetStepDown": 1, "secondaryCatchUpPeriodSecs": 0, "force": True}

    def step_down() -> None:
        client: MongoClient[dict[str, object]]
        with suppress(PyMongoError), MongoClient(scene.platform.mongo.url) as client:
            client.admin.command(command)

    return await _without(scene.platform.mongo, step_down, 0.0)


async def _kill_mongo(scene: Scene) -> str:
    return await _without(scene.platform.mongo, scene.platform.mongo.kill, scene.chance.uniform(0, 3))


async def _pause_mongo(scene: Scene) -> str:
    return await _while_paused(scene.platform.mongo, scene.chance.uniform(3, 6))


async def _fill_mongos_disk(scene: Scene) -> str:
    """Let no file of MongoDB's grow: as at a disk that is full, it ends itself at its next write, amid its clients'.

    On a full file system mongod 6 ends by a fatal assertion of its storage engine, and a waiting client
    sees the connection close. It never says that there is no space. The limit is on the process, and goes with it.
    """
    mongo = scene.platform.mongo

    def fill() -> None:
        pid = mongo.pid
        if pid is None:
            return
        process = psutil.Process(pid)
        _, most = process.rlimit(psutil.RLIMIT_FSIZE)
        process.rlimit(psutil.RLIMIT_FSIZE, (_ANY_WRITE, most))
        deadline = time.monotonic() + _SERVER_ENDS_WITHIN_SECONDS
        client: MongoClient[dict[str, object]]
        with suppress(PyMongoError), MongoClient(mongo.url, journal=True, **_AT_ONCE) as client:
            client["chaos"]["any"].insert_one({"_id": time.time_ns()})  # in a collection that no one else writes to
        while mongo.is_running and time.monotonic() < deadline:
            time.sleep(_LOOK_SECONDS)
        if mongo.is_running:
            mongo.kill()

    return await _without(mongo, fill, scene.chance.uniform(1, 3))


async def _restart_postgres(scene: Scene) -> str:
    postgres = scene.platform.postgres

    def end() -> None:
        pid = postgres.pid
        if pid is None:
            return
        send_signal(pid, signal.SIGQUIT)  # PostgreSQL's immediate shutdown: it recovers at the next start
        deadline = time.monotonic() + _SERVER_ENDS_WITHIN_SECONDS
        while postgres.is_running:
            if time.monotonic() > deadline:
                postgres.kill()
            time.sleep(_LOOK_SECONDS)

    return await _without(postgres, end, scene.chance.uniform(0, 3))


async def _pause_postgres(scene: Scene) -> str:
    return await _while_paused(scene.platform.postgres, scene.chance.uniform(3, 6))


async def _flush_redis(scene: Scene) -> str:
    async with RedisClient.from_url(scene.platform.redis.url) as redis:
        await redis.flushall()
    return "everything in it"


async def _kill_redis(scene: Scene) -> str:
    return await _without(scene.platform.redis, scene.platform.redis.kill, scene.chance.uniform(1, 4))


async def _without(server: Server, end: Callable[[], None], hold: float) -> str:
    """End a server, hold that, and start it again; return when it answers."""
    began = time.monotonic()
    try:
        await asyncio.to_thread(end)
        await asyncio.sleep(hold)
    finally:
        await _start(server)
    return f"away for {time.monotonic() - began:.1f} s"


async def _while_paused(server: Server, hold: float) -> str:
    try:
        await asyncio.to_thread(server.pause)
        await asyncio.sleep(hold)
    finally:
        await asyncio.to_thread(server.resume)
        await _start(server)
    return f"for {hold:.1f} s"


async def _start(server: Server) -> None:
    """Start a server, or find that it runs; return when it is ready."""
    await asyncio.to_thread(server.start)
    if isinstance(server, Mongo):
        await asyncio.to_thread(_let_nothing_expire, server)


def _let_nothing_expire(mongo: Mongo) -> None:
    """Keep a MongoDB that was started again from deleting what is past its time: it is to be judged."""
    client: MongoClient[dict[str, object]]
    with MongoClient(mongo.url) as client:
        client.admin.command("setParameter", 1, ttlMonitorEnabled=False)


# Connections --------------------------------------------------------------------------------------------------


async def _cut(server: str, scene: Scene) -> str:
    hold = scene.chance.uniform(2, 6)
    async with _healed(scene, server):
        await scene.proxy.cut(server)
        await asyncio.sleep(hold)
    return f"refused for {hold:.1f} s"


async def _reset(server: str, scene: Scene) -> str:
    pauses = [scene.chance.uniform(0.2, 1.5) for _ in range(scene.chance.randint(1, 5))]
    async with _healed(scene, server):
        for pause in pauses:
            await scene.proxy.reset(server)
            await asyncio.sleep(pause)
    return f"{len(pauses)} times"


async def _delay(server: str, scene: Scene) -> str:
    hold, seconds = scene.chance.uniform(3, 6), scene.chance.uniform(0.05, 0.8)
    async with _healed(scene, server):
        await scene.proxy.delay(server, seconds, seconds / 2)
        await asyncio.sleep(hold)
    return f"by {seconds:.2f} s each way for {hold:.1f} s"


async def _black_hole(server: str, scene: Scene) -> str:
    hold = scene.chance.uniform(2, 6)
    async with _healed(scene, server):
        await scene.proxy.black_hole(server)
        await asyncio.sleep(hold)
    return f"silent for {hold:.1f} s"


@asynccontextmanager
async def _healed(scene: Scene, server: str) -> AsyncIterator[None]:
    try:
        yield
    finally:
        await scene.proxy.heal(server)


# What is sent -------------------------------------------------------------------------------------------------


async def _storm(kind: Literal["poison", "duplicates", "late"], scene: Scene) -> str:
    seconds = scene.chance.uniform(3, 6)
    assert scene.sender is not None, "only a run of sample traffic has storms"
    return f"{await scene.sender.storm(kind, seconds)} in {seconds:.1f} s"


# All of them --------------------------------------------------------------------------------------------------


def _on_workers() -> list[Fault]:
    touches = frozenset({"workers"})
    return [
        Fault("worker-killed", "SIGKILL at any moment", _kill_worker, touches, "page-views", kills=True),
        Fault(
            "worker-killed-at-a-point",
            "a worker kills itself at a marked point, such as between a write and its commit",
            _kill_worker_at_a_point,
            touches,
            "page-views",
            kills=True,
            weight=6.0,
        ),
        Fault("worker-stopped", "SIGTERM: graceful shutdown with exit code 0", _stop_worker, touches, "page-views"),
        Fault(
            "worker-frozen",
            "SIGSTOP until the group takes the worker for dead, then SIGCONT: it goes on as if nothing had happened",
            _freeze_worker,
            touches,
            "page-views",
            weight=2.0,
        ),
        Fault("all-workers-killed", "SIGKILL to all at once", _kill_all_workers, touches, "page-views", kills=True),
        Fault(
            "clock-jumped",
            "a worker's clock is wrong by up to an hour; then the worker is killed",
            _turn_clock,
            touches,
            "page-views",
            kills=True,
        ),
        Fault(
            "rebalance-storm",
            "every second another worker comes or goes",
            _rebalance_again_and_again,
            touches,
            "page-views",
        ),
    ]


def _on_servers() -> list[Fault]:
    kafka, mongo, postgres, redis = (frozenset({name}) for name in ("kafka", "mongo", "postgres", "redis"))
    return [
        Fault("kafka-killed", "SIGKILL, and started again", _kill_kafka, kafka, "page-views"),
        Fault("kafka-paused", "SIGSTOP for some seconds", _pause_kafka, kafka, "page-views"),
        Fault("mongo-stepped-down", "the primary steps down", _step_mongo_down, mongo, "page-views", weight=2.0),
        Fault("mongo-killed", "SIGKILL, and started again", _kill_mongo, mongo, "page-views"),
        Fault("mongo-paused", "SIGSTOP for some seconds", _pause_mongo, mongo, "page-views"),
        Fault(
            "mongo-disk-full",
            "the disk is full: MongoDB ends at its next write, and is restarted when there is space",
            _fill_mongos_disk,
            mongo,
            "page-views",
        ),
        Fault(
            "postgres-restarted",
            "an immediate shutdown, and a start that recovers",
            _restart_postgres,
            postgres,
            "post-view-counts",
            weight=2.0,
        ),
        Fault("postgres-paused", "SIGSTOP for some seconds", _pause_postgres, postgres, "post-view-counts"),
        Fault("redis-flushed", "all keys are gone", _flush_redis, redis, None),
        Fault("redis-killed", "SIGKILL, and started again", _kill_redis, redis, None),
    ]


def _on_connections() -> list[Fault]:
    recovers_at: Mapping[str, Literal["page-views", "post-view-counts"] | None] = {
        "kafka": "page-views",
        "mongo": "page-views",
        "postgres": "post-view-counts",
        "redis": None,
    }
    kinds: Mapping[str, tuple[str, Callable[[str, Scene], Awaitable[str]]]] = {
        "cut": ("reset, and refused for some seconds", _cut),
        "reset": ("reset, now and again", _reset),
        "delayed": ("slow to answer for some seconds", _delay),
        "black-holed": ("silent for some seconds", _black_hole),
    }
    return [
        Fault(
            f"connections-{kind}-{server}",
            f"connections to {server} are {description}",
            partial(inject, server),
            frozenset({server}),
            agent,
            weight=0.4,
        )
        for kind, (description, inject) in kinds.items()
        for server, agent in recovers_at.items()
    ]


def _on_what_is_sent() -> list[Fault]:
    sender = frozenset({"sender"})
    return [
        Fault("poison-storm", "many invalid records", partial(_storm, "poison"), sender, None),
        Fault("duplicates-storm", "many events again", partial(_storm, "duplicates"), sender, None),
        Fault("late-storm", "many events late, and out of order", partial(_storm, "late"), sender, None),
    ]


def _on_posts() -> list[Fault]:
    """Return what the platform does to its own table; the server is touched, so none of them goes with its faults."""
    kinds: Mapping[str, tuple[str, Callable[[Scene], Awaitable[str]]]] = {
        "posts-migrated": ("the platform adds columns and an index, and changes the type of the count", posts.migrate),
        "posts-locked": ("the platform locks its table of posts for some seconds", posts.lock),
        "posts-vacuumed": ("VACUUM FULL of the platform's posts", posts.vacuum),
        "posts-restored": ("posts are deleted and restored, with their count or another", posts.restore),
        "post-refused-by-trigger": ("a trigger raises for one post", posts.raise_in_trigger),
        "post-kept-by-trigger": ("a trigger returns NULL for one post", posts.keep_in_trigger),
        "posts-behind-policy": (
            "row-level security keeps one post, or all, from being updated",
            posts.hide_behind_policy,
        ),
        "post-refused-by-check": ("a check constraint refuses one post", posts.refuse_by_check),
        "post-count-full": ("a post's count is the highest of its type", posts.fill_count),
    }
    touches = frozenset({"postgres"})
    return [
        Fault(name, description, inject, touches, "post-view-counts", weight=0.4)
        for name, (description, inject) in kinds.items()
    ]


FAULTS: Mapping[str, Fault] = {
    fault.name: fault
    for fault in [*_on_workers(), *_on_servers(), *_on_connections(), *_on_what_is_sent(), *_on_posts()]
}
"""All faults, by name."""
