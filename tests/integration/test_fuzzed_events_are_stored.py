"""Odd events on a real MongoDB: each is stored as it is, or refused by itself in words; nothing is ever raised.

The events are those of `tests/fuzz`, and go through the real collections with their validators and indexes.
"""

from collections import defaultdict
from collections.abc import Mapping
from typing import Any

import bson
import pytest
from bson.codec_options import CodecOptions
from hypothesis import HealthCheck, Phase, given, seed, settings

from enrich.documents import Write
from schemas.topics import EventType
from sinks.collections import COLLECTIONS, ERROR_LOGS, NOTIFICATIONS
from sinks.mongo.client import Mongo
from sinks.mongo.writer import MongoWriter
from tests.fuzz import events
from tests.fuzz.edge import EVENTS, Passed, edge, stored

OF_EACH_TYPE = 40
AT_ONCE = 500
FEWEST = 2_000

REFUSALS = {
    "holds what MongoDB can't: a null byte in a field name, or a type it does not know",
}
"""Why MongoDB may refuse what passed the edge; all of it is in those parts of an event that may hold anything."""

GROWN = {ERROR_LOGS.name, NOTIFICATIONS.name}
"""Where documents hold more than the first write says, as others join them."""

OPTIONS: CodecOptions[dict[str, Any]] = CodecOptions(tz_aware=True)


def records(event: EventType, number: int) -> list[events.Record]:
    """Return odd events of a type, the same ones every time; others with another number."""
    drawn: list[events.Record] = []

    @seed(number)
    @settings(
        max_examples=OF_EACH_TYPE,
        phases=[Phase.generate],
        database=None,
        deadline=None,
        suppress_health_check=list(HealthCheck),
    )
    @given(events.events(event))
    def draw(record: events.Record) -> None:
        drawn.append(record)

    draw()
    return drawn


@pytest.fixture(scope="module")
def writes() -> list[Write]:
    """What is to be written for odd events of all types, each with an id of its own."""
    taken: dict[str, Passed] = {}
    for number, (topic, event) in enumerate(EVENTS.values()):
        for record in records(event, number):
            outcome = edge(topic.name).take(record)
            if isinstance(outcome, Passed) and outcome.event.id in taken:
                its_own = f"{len(taken)}:{outcome.event.id}"[:256]
                outcome = edge(topic.name).described(outcome.event._replace(id=its_own))
            if isinstance(outcome, Passed):
                taken[outcome.event.id] = outcome
    return [write for outcome in taken.values() for write in (*outcome.writes, *outcome.notices)]


def as_kept(document: Mapping[str, Any]) -> str:
    """Return a document as BSON keeps it, in whatever order; as text, since a NaN is not equal to itself."""
    return repr(bson.decode(bson.encode(dict(sorted(document.items()))), OPTIONS))


async def test_odd_events_are_stored_as_they_are_or_refused_one_by_one(writes: list[Write], mongo: Mongo) -> None:
    # Many are from long ago, and would expire at any moment.
    await mongo.database.client.admin.command("setParameter", 1, ttlMonitorEnabled=False)
    assert len(writes) > FEWEST
    refused: dict[int, str] = {}
    for start in range(0, len(writes), AT_ONCE):
        outcome = await MongoWriter(mongo).write(writes[start : start + AT_ONCE])
        refused |= {start + index: refusal.message for index, refusal in outcome.refused}
    assert set(refused.values()) <= REFUSALS
    assert refused

    kept: defaultdict[tuple[str, str], list[dict[str, Any]]] = defaultdict(list)
    for index, write in enumerate(writes):
        if index not in refused:
            for collection, document in stored(write):
                kept[collection, document["_id"]].append(document)
    for name in COLLECTIONS:
        found = {document["_id"]: document async for document in mongo.database[name].find()}
        assert found.keys() == {id for collection, id in kept if collection == name}  # noqa: A001  # MongoDB's name
        if name not in GROWN:
            for id, document in found.items():  # noqa: A001  # likewise
                # Of an id that another event names as well, both are in it.
                [*others, alone] = kept[name, id]
                assert others or as_kept(document) == as_kept(alone)
