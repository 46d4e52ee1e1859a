"""Measure what an alternative loses or duplicates: an invalid record, a duplicate, a crash, an outage of MongoDB.

Input: an alternative.
Output: for each trial the lost and the duplicated events, counted by their ids in MongoDB once nothing changes any
more. An alternative that ended or stands still with events missing is started once more, as a supervisor or an operator
would; what is missing then is lost for good.
"""

import asyncio
import re
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, replace
from typing import NamedTuple

from aiokafka import AIOKafkaConsumer
from pymongo.errors import PyMongoError

from bench import traffic
from bench.arena import FIRST_WITHIN_SECONDS, Arena, Database, until_stored
from bench.programs import Program, RunningProgram, running
from bench.traffic import Record

PARTITIONS = 4
EVENTS = 60_000
FEW_EVENTS = 10_000
AWAY_SECONDS = 45.0
QUIET_SECONDS = 15.0
"""Nothing has moved for so long: it stands still, or is done."""
QUIET_AFTER_A_CRASH_SECONDS = 75.0
"""The Java client's group waits 45 s for a member that died."""
MOST_SECONDS = 240.0
NO_EVENT = b'{"eventId": "no-event", "type": "page.viewed", "postId": '
_WHOLE, _SPOILT, _REPEATED = "behaviour.", "behaviour-spoilt.", "behaviour-repeated."
_COMPLAINT = re.compile(r"\b(?:ERROR|CRITICAL|FATAL|error|critical)\b|Traceback|Exception")
_DEAD_LETTERS = re.compile(r"dead.?letter|dlq", re.IGNORECASE)
_POLL_SECONDS = 0.25


@dataclass(frozen=True, slots=True)
class Trial:
    """What became of the events.

    Attributes:
        lost: Valid events of which there is no document, at the end.
        ended: Whether the process had ended by itself then.
        twice: Documents above one for each event.
        restarted: Whether it had to be started again for what is there: it had ended, or stood still.
        kept: Whether the record that is no event stands in a topic of dead letters.
        reported: Whether its output complains of anything.
    """

    lost: int
    ended: bool
    twice: int
    restarted: bool
    kept: bool
    reported: bool

    @property
    def verdict(self) -> str:
        """The trial in a few words."""
        parts = []
        if self.lost:
            parts.append(f"{self.lost:,} not stored" + ("" if self.reported else " in silence"))
        if self.ended:
            parts.append("ended")
        if self.twice:
            parts.append(f"{self.twice:,} twice")
        if self.restarted:
            parts.append("needed a restart")
        return ", ".join(parts) or "nothing lost, nothing twice"


@dataclass(frozen=True, slots=True)
class Behaviour:
    """An alternative's trials.

    Attributes:
        invalid: One record in the middle is cut off, so it is no JSON.
        duplicate: One event is sent again, half a topic later.
        killed: The alternative gets SIGKILL half-way, and is started again.
        outage: MongoDB gets SIGKILL half-way, and is started again after 45 s.
    """

    invalid: Trial
    duplicate: Trial
    killed: Trial
    outage: Trial


async def prepare(brokers: str) -> None:
    """Fill the topics of the trials."""
    views = list(traffic.page_views(EVENTS, seed=11))
    few = views[:FEW_EVENTS]
    middle = FEW_EVENTS // 2
    contents: dict[str, list[Record]] = {
        _WHOLE: views,
        _SPOILT: [*few[:middle], Record(few[middle].key, NO_EVENT), *few[middle:]],
        _REPEATED: [*few, few[middle]],
    }
    for namespace, records in contents.items():
        await traffic.create(brokers, namespace, PARTITIONS)
        await traffic.fill(brokers, namespace + traffic.PAGE_VIEWS, records)


async def _nothing(_arena: Arena, _program: RunningProgram, _database: Database) -> None:
    """Leave it alone: the trouble is in the topic."""


async def _kill(_arena: Arena, running_program: RunningProgram, database: Database) -> None:
    await until_stored(database, EVENTS // 2, running_program)
    running_program.kill()
    running_program.start()


async def _take_mongod_away(arena: Arena, running_program: RunningProgram, database: Database) -> None:
    await until_stored(database, EVENTS // 4, running_program)
    await asyncio.to_thread(arena.platform.mongo.kill)
    await asyncio.sleep(AWAY_SECONDS)
    await asyncio.to_thread(arena.platform.mongo.start)


class _Plan(NamedTuple):
    """A trial to come: what is read, what happens, and how long a standstill is believed to be one."""

    namespace: str
    events: int
    trouble: Callable[[Arena, RunningProgram, Database], Awaitable[None]]
    quiet_seconds: float


_PLANS = {
    "invalid": _Plan(_SPOILT, FEW_EVENTS, _nothing, QUIET_SECONDS),
    "duplicate": _Plan(_REPEATED, FEW_EVENTS, _nothing, QUIET_SECONDS),
    "killed": _Plan(_WHOLE, EVENTS, _kill, QUIET_AFTER_A_CRASH_SECONDS),
    "outage": _Plan(_WHOLE, EVENTS, _take_mongod_away, QUIET_AFTER_A_CRASH_SECONDS),
}


async def observe(arena: Arena, program: Program, *, validated: bool, report: Callable[[str], None]) -> Behaviour:
    """Put an alternative to all trials.

    Args:
        arena: Where; `prepare` has filled the topics.
        program: The alternative.
        validated: Whether MongoDB checks the documents.
        report: Is called with a line on each trial.

    Raises:
        ProgramError: It ended before the trouble began, or has not stored enough in time.
    """
    trials = {}
    for name, plan in _PLANS.items():
        trials[name] = trial = await _trial(arena, program, plan, validated=validated)
        report(f"  {name}: {trial.verdict}" + (", kept" if trial.kept else ""))
    return Behaviour(**trials)


async def _trial(arena: Arena, program: Program, plan: _Plan, *, validated: bool) -> Trial:
    letters = await _dead_letters(arena.brokers)
    async with (
        arena.database(plan.namespace, validated=validated) as (database, url),
        running(program, await arena.task(plan.namespace + traffic.PAGE_VIEWS, url)) as running_program,
    ):
        await plan.trouble(arena, running_program, database)
        trial = await _outcome(running_program, database, plan.events, plan.quiet_seconds)
    return replace(trial, kept=await _dead_letters(arena.brokers) > letters)


async def _outcome(running_program: RunningProgram, database: Database, events: int, quiet: float) -> Trial:
    """Wait until nothing moves any more, with one restart where that is not enough, and count."""
    distinct, documents = await _until_quiet(running_program, database, events, quiet)
    restarted = distinct < events
    if restarted:
        running_program.kill()
        running_program.start()
        after, documents = await _until_quiet(running_program, database, events, QUIET_AFTER_A_CRASH_SECONDS)
        restarted, distinct = after > distinct, after
    complained = _COMPLAINT.search(running_program.output) is not None
    return Trial(
        lost=events - distinct,
        ended=running_program.has_ended,
        twice=documents - distinct,
        restarted=restarted,
        kept=False,
        reported=complained,
    )


async def _until_quiet(
    running_program: RunningProgram, database: Database, events: int, quiet: float
) -> tuple[int, int]:
    """Return how many events are stored, in how many documents, once all are or no more come."""
    began = moved = time.monotonic()
    before = -1
    while True:
        try:
            documents = await database["pageViews"].count_documents({})
            if documents != before:
                before, moved = documents, time.monotonic()
            now = time.monotonic()
            patience = quiet if documents else FIRST_WITHIN_SECONDS
            stands = now - moved > patience or running_program.has_ended or now - began > MOST_SECONDS
            if documents >= events or stands:
                distinct = await _distinct(database)
                if stands or (distinct >= events and now - moved > 2):
                    return distinct, documents
        except PyMongoError:
            moved = time.monotonic()  # it is not the alternative that stands still
        await asyncio.sleep(_POLL_SECONDS)


async def _distinct(database: Database) -> int:
    """Return how many different events there are, by their own id wherever an alternative keeps it."""
    identity = {"$ifNull": ["$eventId", "$_id"]}
    counted = await database["pageViews"].aggregate(
        [{"$group": {"_id": identity}}, {"$count": "events"}], allowDiskUse=True
    )
    found = await counted.to_list()
    return int(found[0]["events"]) if found else 0


async def _dead_letters(brokers: str) -> int:
    """Return how often the record that is no event stands in topics of dead letters, whoever put it there."""
    async with AIOKafkaConsumer(bootstrap_servers=brokers) as consumer:
        names = [name for name in await consumer.topics() if _DEAD_LETTERS.search(name)]
    found = 0
    for name in names:
        left = sum((await traffic.ends(brokers, name)).values())
        async with AIOKafkaConsumer(name, bootstrap_servers=brokers, auto_offset_reset="earliest") as consumer:
            while left > 0:
                for records in (await consumer.getmany(timeout_ms=1_000)).values():
                    left -= len(records)
                    found += sum(NO_EVENT in (record.value or b"") for record in records)
    return found
