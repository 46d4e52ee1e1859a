"""The way of a record from Kafka to its writes, without any server.

Input: a record. Output: its writes, or the `InvalidEvent` that makes it a dead letter. Any other exception is a defect:
it would end the worker each time that the record is read.
"""

from collections.abc import Iterator, Sequence
from datetime import timedelta
from functools import cache
from pathlib import Path
from typing import Any, Final, NamedTuple

from agents.decode import decode
from enrich.documents import Document, GroupedNotification, Occurrence, PartialUpdate, Write
from enrich.enricher import Enricher
from enrich.notifications import Notifier, notification, queue_item
from notifications import rules
from notifications.grouping import merge
from schemas.cloudevents import Decoder
from schemas.envelope import Envelope, InvalidEvent
from schemas.event import Event
from schemas.topics import Topic, load
from sinks import collections
from tests.fuzz.events import Record

_PROJECT = Path(__file__).parents[2]
TOPICS: Final = load(_PROJECT / "topics.yaml", collections.NAMES)
EVENTS: Final = {name: (topic, event) for topic in TOPICS.all.values() for name, event in topic.events.items()}
_INBOUND = {name: event for topic in TOPICS.inbound.values() for name, event in topic.events.items()}

REASONS: Final = frozenset({"not-json", "schema", "unknown-type"})
"""What a dead letter of the edge may give as its reason."""


class Passed(NamedTuple):
    """What became of a record that is an event.

    Attributes:
        event: What was read.
        writes: What is to be written for it.
        notices: What is to be written for the people who are told of it.
    """

    event: Envelope[Event]
    writes: Sequence[Write]
    notices: Sequence[Write]


class Edge:
    """The edge of one topic.

    Args:
        topic: Its declaration.
    """

    def __init__(self, topic: Topic) -> None:
        self._topic = topic
        self._decoder = Decoder(topic, timedelta(hours=24))
        self._enricher = Enricher(ip_hash_key=b"fuzzing", geo=None)
        self._notifier = notifier()

    def take(self, record: Record) -> Passed | InvalidEvent:
        """Return what becomes of a record."""
        events, invalid = decode(self._decoder, [record])
        if invalid:
            [letter] = invalid
            return InvalidEvent(letter.reason, letter.message)
        [event] = events
        return self.described(event)

    def described(self, event: Envelope[Event]) -> Passed | InvalidEvent:
        """Return what becomes of an event of this topic."""
        try:
            writes = self._enricher.documents(event) if self._topic.collections else []
            notices = [*self._notifier.documents(event)] if event.type.name in self._notifier.events else []
        except InvalidEvent as error:
            return error
        return Passed(event, writes, notices)


@cache
def edge(topic: str) -> Edge:
    """Return the edge of the topic with this name."""
    return Edge(TOPICS.all[topic])


@cache
def notifier(window: timedelta | None = None) -> Notifier:
    """Return what notifies by the rules that there are, with another window for those that gather."""
    return Notifier(rules.load(_PROJECT / "notifications.yaml", _INBOUND, window=window))


def stored(write: Write) -> Iterator[tuple[str, dict[str, Any]]]:
    """Yield the documents, each after its collection, that are there when nothing but this was written."""
    match write:
        case Document():
            yield write.collection, write.body
        case PartialUpdate():
            beginning = {"_id": write.id, "timestamp": write.timestamp, "incomplete": True}
            yield write.collection, beginning | write.highest | write.added
        case Occurrence():
            yield collections.SYSTEM_LOGS.name, write.line
            yield collections.ERROR_LOGS.name, write.group
        case GroupedNotification(name, notice):
            gathered = merge(None, notice)
            assert notice.gather is not None
            yield name, notification(notice, gathered.words, gathered.id) | {"gathered": gathered.document()}
            queue = collections.NOTIFICATION_QUEUE.name
            yield queue, queue_item(notice, gathered.id, notice.created_at + notice.gather.wait)
