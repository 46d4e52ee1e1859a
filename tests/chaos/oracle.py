"""Decide from the event log alone what must be in every database after a run, and whether it is.

Input: the event log, and the platform, in which nothing changes any more.
Output: checks, each a promise with what breaks it. `tests.chaos.model` computes what must be; nothing that a worker
says of itself is believed.
"""

import asyncio
from collections import defaultdict
from collections.abc import AsyncIterator, Iterable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime

from dev.stack import Platform
from enrich.view_windows import Window
from sinks.collections import (
    COLLECTIONS,
    EMAIL_LOGS,
    ERROR_LOGS,
    NOTIFICATION_QUEUE,
    NOTIFICATIONS,
    PAGE_VIEWS,
    PUSH_NOTIFICATION_LOGS,
    SYSTEM_LOGS,
)
from tests.chaos.event_log import Entry, EventLog
from tests.chaos.history import Check
from tests.chaos.model import REFUSED_BY_STORE, Describer, Model, bodies
from tests.chaos.oracle_counts import tables_checks, topic_check
from tests.chaos.oracle_documents import Origin, Reading, errors_check, origin
from tests.chaos.oracle_findings import Findings
from tests.chaos.oracle_kafka import Kafka, Record, event_log_check, lag_check, letters_check
from tests.chaos.oracle_notifications import LOGS, NotificationJudge, deliveries_of
from tests.chaos.requests import RECEIPTS
from tests.integration.pipeline import Pipeline

_COUNTS = "post-view-counts"
_AT_ONCE = 500
"""After so many records others get their turn."""


@dataclass(frozen=True, slots=True)
class World:
    """All there is after a run.

    Attributes:
        ledger: Every record that Kafka acknowledged.
        pipeline: Where workers read and wrote.
        platform: The servers.
        changed: By how much the platform itself changed the counts of its posts.
    """

    event_log: EventLog
    pipeline: Pipeline
    platform: Platform
    changed: Mapping[str, int] = field(default_factory=dict)


async def judge(world: World) -> list[Check]:
    """Return every promise and whether it held."""
    return await _Judgement(world)()


class _Judgement:
    """One judgement.

    Args:
        world: What is judged.
    """

    def __init__(self, world: World) -> None:
        self._world = world
        self._now = datetime.now(UTC)
        self._settings = world.pipeline.settings
        self._topics = world.pipeline.topics
        self._database = world.pipeline.database
        self._describer = Describer(self._settings, self._topics)
        self._model = Model(self._describer, self._settings.count_since)
        self._deliveries = deliveries_of(self._settings, world.platform, self._topics.inbound)
        self._counts: list[Record] = []
        self._views: Mapping[Window, int] = {}

    async def __call__(self) -> list[Check]:
        """Judge."""
        async for entry in self._entries():
            described = self._model.take(entry)
            if entry.topic == self._settings.namespace + RECEIPTS and entry.reason is None:
                self._deliveries.note_receipt(entry)
            if described.tells and entry.reason not in REFUSED_BY_STORE:
                self._deliveries.expect(entry)
        return [*await self._kafka_checks(), *await self._mongo_checks(), *await self._counts_checks()]

    async def _entries(self) -> AsyncIterator[Entry]:
        for number, entry in enumerate(self._world.event_log.entries()):
            if number % _AT_ONCE == 0:
                await asyncio.sleep(0)
            yield entry

    # Kafka ------------------------------------------------------------------------------------------------------

    async def _kafka_checks(self) -> list[Check]:
        """Judge what Kafka has, but for view counts."""
        namespace, topics = self._settings.namespace, self._topics
        agents = {name: name for name in topics.all} | {f"notify-{name}": name for name in self._describer.notified}
        dead_letters = {name: namespace + topic.dead_letter for name, topic in topics.all.items()}
        ours = [namespace + name for name, topic in topics.inbound.items() if topic.collections]
        readable = Findings("each record is valid, or invalid, as the event log says", self._model.records)
        for disagreement in self._model.disagreements:
            readable.add("are read otherwise", disagreement)
        async with Kafka(self._world.platform.kafka.brokers) as kafka:
            records = await kafka.records([*dead_letters.values(), namespace + _COUNTS])
            self._counts = records.get(namespace + _COUNTS, [])
            return [
                await event_log_check(kafka, self._world.event_log.counts(), ours),
                readable.check(self._model.records - len(self._model.disagreements)),
                await lag_check(kafka, namespace, agents),
                *(
                    letters_check(name, self._model.dead_letters[namespace + name], records.get(its_letters, ()))
                    for name, its_letters in dead_letters.items()
                ),
            ]

    # MongoDB ----------------------------------------------------------------------------------------------------

    async def _mongo_checks(self) -> list[Check]:
        """Judge what MongoDB has; where several documents would be right, what is counted follows the one there."""
        judge = NotificationJudge(self._now)
        inspectors = {
            NOTIFICATION_QUEUE.name: judge.inspect_item,
            NOTIFICATIONS.name: judge.inspect_notification,
        }
        others = (ERROR_LOGS.name, EMAIL_LOGS.name, PUSH_NOTIFICATION_LOGS.name)
        # The queue before the notifications: these say what became of its items.
        names = sorted(COLLECTIONS.keys() - others, key=lambda name: (name == NOTIFICATIONS.name, name))
        readings = {name: Reading(name, self._model, inspectors.get(name)) for name in names}
        for reading in readings.values():
            await reading.read(self._database)
        origins = await self._origins(readings.values())
        self._views = self._model.views(readings[PAGE_VIEWS.name].stored)
        errors = self._model.errors(readings[SYSTEM_LOGS.name].stored)
        notifications = len(self._model.ids(NOTIFICATIONS.name))
        return [
            *(reading.check(origins[reading.collection]) for reading in readings.values()),
            await errors_check(self._database, errors),
            *[await judge.logs_check(self._database, channel) for channel in LOGS],
            await self._deliveries.check(self._database, notifications),
            await self._collections_check(),
        ]

    async def _counts_checks(self) -> list[Check]:
        """Judge the counts of what MongoDB has, in PostgreSQL and in Kafka."""
        world = self._world
        tables = await tables_checks(world.platform.owner_url, self._settings, self._views, world.changed)
        return [*tables, topic_check(self._counts, self._views)]

    async def _collections_check(self) -> Check:
        """Return whether there are the declared collections, and no others."""
        findings = Findings("the declared collections, and no others", len(COLLECTIONS))
        names = set(await self._database.list_collection_names())
        declared = {self._database.name_of(name) for name in COLLECTIONS}
        for name in sorted(names - declared):
            findings.add("are not declared", f"the collection {name} is not declared")
        for name in sorted(declared - names):
            findings.add("are missing", f"the collection {name} is missing")
        return findings.check(len(names & declared))

    async def _origins(self, readings: Iterable[Reading]) -> Mapping[str, Mapping[str, list[Origin]]]:
        """Compute anew what is missing or not as it should be, by collection and id."""
        wanted = {reading.collection: reading for reading in readings if reading.missing or reading.suspects}
        origins: defaultdict[str, defaultdict[str, list[Origin]]] = defaultdict(lambda: defaultdict(list))
        if not wanted:
            return origins
        async for entry in self._entries():
            described = self._describer(entry)
            for collection, body in bodies(described):
                reading = wanted.get(collection)
                if reading is None:
                    continue
                is_suspect = body["_id"] in reading.suspects
                if is_suspect or body["_id"] in reading.missing:
                    made = origin(collection, entry.place, body, self._now, is_suspect=is_suspect)
                    origins[collection][body["_id"]].append(made)
        return origins
