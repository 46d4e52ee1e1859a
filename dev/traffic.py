"""Make sample traffic for every topic: valid events, events sent twice, and invalid records, all mixed.

Input: the declarations of topics, a seed and a rate. Output: samples in the order to send them, each with what must
become of it. The same seed, run and rate give the same samples, byte for byte.
"""

import heapq
from collections import Counter, deque
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from itertools import count
from random import Random
from typing import Literal

from dev.blog import Blog
from dev.encoding import Encoded, Headers, binary, plain, structured
from dev.invalid_events import INVALID_EVENTS
from dev.posts import PostRow, row_of
from dev.scenarios import Fact, Ids, Scenarios, Trace
from schemas.topics import EventType, Topic

Compression = Literal["gzip", "snappy", "lz4", "zstd"] | None
COMPRESSIONS: tuple[Compression, ...] = (None, "gzip", "snappy", "lz4", "zstd")
"""All that Kafka knows."""

Outcome = Literal["stored", "duplicate", "dead-lettered"]

DUPLICATES = 0.03
"""The share of events that are sent again; half of them at once, half seconds later."""
INVALID_EVERY = 100
"""After how many events of a topic a record usually comes that can't be read; the first comes sooner."""

_FIRST_INVALID = 20
_UNTOLD = 0.01
_STORIES_HEARD = 2_000
_CLOCK_AHEAD = 0.003
_WITHOUT_ID = 0.15
_LATEST_DUPLICATE_SECONDS = 8.0
# What no other event refers to may come without an id.
_MAY_LACK_ID = ("analytics.tracked", "log.written", "performance.sampled")


@dataclass(frozen=True, slots=True)
class Sample:
    """A record to send, and what must become of it.

    Attributes:
        due: When to send it, in seconds after the first.
        topic: The topic's name as declared.
        key: The record's key.
        value: The record's value.
        headers: The record's headers.
        compression: The codec of the producer that sends it.
        outcome: What must become of it.
        id: The event's id; `None` where it is `topic:partition:offset`, which only Kafka can tell.
        traces: What it leaves in MongoDB, or an earlier sample with its id did; nothing where it is dead-lettered.
        reason: The reason in its dead letter; `None` where it has none.
        owed: Whether an earlier sample only makes sense with this one.
        post: The row that the platform's service writes before it sends this, where it writes a post.
    """

    due: float
    topic: str
    key: bytes
    value: bytes | None
    headers: Headers
    compression: Compression
    outcome: Outcome
    id: str | None
    traces: tuple[Trace, ...]
    reason: str | None = None
    owed: bool = False
    post: PostRow | None = None


class Traffic:
    """The samples of one run, without an end.

    Scenarios begin as fast as the rate allows; what happens later in one is sent when its moment has come.

    Args:
        topics: The declarations of all topics; those that no scenario tells of get the examples of their classes.
        began: When the run begins; all ids of the run are made of it, so no two runs share any.
        rate: Samples per second.
        seed: Decides everything else.

    Attributes:
        invalid_every: After how many events of a topic an invalid record comes; may be changed meanwhile.
    """

    def __init__(self, topics: Iterable[Topic], *, began: datetime, rate: float, seed: int = 1) -> None:
        self.invalid_every = INVALID_EVERY
        self._topic_of: dict[str, Topic] = {event: topic for topic in topics for event in topic.events}
        self._began = began
        self._rate = rate
        self._random = Random(seed)  # noqa: S311 - nothing secret is made of it
        self._ids = Ids(int(began.timestamp() * 1000), self._random)
        blog = Blog()
        self._scenarios = Scenarios(blog, self._random, self._ids)
        self._untold = deque(sorted(set(self._topic_of) - told(blog)))
        self._invalid_events = deque(INVALID_EVENTS)
        self._events_of = Counter[str]()
        self._sequence = count()
        self._coming: list[tuple[float, int, Fact | Sample]] = []

    @property
    def ids(self) -> str:
        """What the ids of this run begin with, and those of no other."""
        return self._ids.prefix

    def __iter__(self) -> Iterator[Sample]:
        """Yield samples in the order of their moments, at a steady rate."""
        for number in count():
            # In whole microseconds, as times are, so that a scenario that begins now is due now.
            due = int(number * 1_000_000 / self._rate) / 1_000_000
            while not self._coming or self._coming[0][0] > due:
                self._begin(due)
            yield self._next(due)

    def owed(self) -> Iterator[Sample]:
        """Yield what must still be sent after the end, for the sake of what was sent: a view whose exit came first."""
        due = self._coming[0][0] if self._coming else 0.0
        for _, _, coming in sorted(self._coming, key=lambda entry: entry[:2]):
            if coming.owed:
                yield replace(coming, due=due) if isinstance(coming, Sample) else self._sample(coming, due)
        self._coming.clear()

    def _begin(self, due: float) -> None:
        """Begin a scenario, or now and then show an event that scenarios do not tell of."""
        moment = self._began + timedelta(seconds=due)
        facts = self._scenarios.next(moment)
        if self._untold and self._random.random() < _UNTOLD:
            facts = [self._example(self._untold[0], moment)]
            self._untold.rotate(-1)
        for fact in facts:
            if fact.type in self._topic_of:
                self._push((fact.time - self._began).total_seconds() + fact.delay, fact)

    def _example(self, name: str, moment: datetime) -> Fact:
        event = self._topic_of[name].events[name]
        data = {field: value for field, value in event.examples[0].items() if field != "timestamp"}
        return Fact(name, moment, self._ids.new(), data)

    def _push(self, due: float, coming: Fact | Sample) -> None:
        heapq.heappush(self._coming, (due, next(self._sequence), coming))

    def _next(self, due: float) -> Sample:
        _, _, coming = heapq.heappop(self._coming)
        if isinstance(coming, Sample):
            return replace(coming, due=due)
        sample = self._sample(coming, due)
        if sample.id is not None and self._random.random() < DUPLICATES:
            later = self._random.choice((0.0, self._random.uniform(1, _LATEST_DUPLICATE_SECONDS)))
            self._push(due + later, replace(sample, outcome="duplicate", compression=self._compression(), owed=False))
        self._events_of[sample.topic] += 1
        if self._events_of[sample.topic] % self.invalid_every == _FIRST_INVALID % self.invalid_every:
            self._push(due, self._spoilt(coming))
        return sample

    def _sample(self, fact: Fact, due: float) -> Sample:
        topic = self._topic_of[fact.type]
        event = topic.events[fact.type]
        post = row_of(fact)
        # A clock that is wrong by weeks. An exit's own time must be right, it is held to account; and what is sent late
        # would get the time of that, after what came of it.
        if fact.type != "page.exited" and not fact.delay and self._random.random() < _CLOCK_AHEAD:
            fact = fact._replace(time=fact.time + timedelta(days=40))
        with_id = fact.type not in _MAY_LACK_ID or self._random.random() >= _WITHOUT_ID
        value, headers = self._encoded(fact, topic, with_id=with_id)
        return Sample(
            due=due,
            topic=topic.name,
            key=_key(fact.data, event),
            value=value,
            headers=headers,
            compression=self._compression(),
            outcome="stored",
            id=fact.id if with_id else None,
            traces=_traces(fact, event),
            owed=fact.owed,
            post=post,
        )

    def _encoded(self, fact: Fact, topic: Topic, *, with_id: bool) -> Encoded:
        chance = self._random.random()
        if not with_id or chance < 0.2:
            return plain(fact, with_type=topic.only_event is None, with_id=with_id)
        return structured(fact) if chance < 0.4 else binary(fact)

    def _spoilt(self, fact: Fact) -> Sample:
        """Send a fact's like once more, wrong in the way that has waited longest for an event that it suits."""
        topic = self._topic_of[fact.type]
        like = fact._replace(id=self._ids.new())
        for number, spoil in enumerate(self._invalid_events):
            invalid = spoil(like, topic)
            if invalid is not None:
                del self._invalid_events[number]
                self._invalid_events.append(spoil)
                return Sample(
                    due=0.0,
                    topic=topic.name,
                    key=_key(fact.data, topic.events[fact.type]),
                    value=invalid.value,
                    headers=invalid.headers,
                    compression=self._compression(),
                    outcome="dead-lettered",
                    id=None,
                    traces=(),
                    reason=invalid.reason,
                )
        raise AssertionError("some kinds of invalid events suit every event")

    def _compression(self) -> Compression:
        return self._random.choice(COMPRESSIONS)


def told(blog: Blog) -> set[str]:
    """Return the types of events that scenarios tell of, found by listening to some."""
    random = Random(0)  # noqa: S311 - nothing secret is made of it
    scenarios = Scenarios(blog, random, Ids(0, random))
    return {fact.type for _ in range(_STORIES_HEARD) for fact in scenarios.next(datetime.fromtimestamp(0, UTC))}


def _key(data: Mapping[str, object], event: EventType) -> bytes:
    return str(data[event.key]).encode()


def _traces(fact: Fact, event: EventType) -> tuple[Trace, ...]:
    if fact.traces is not None:
        return fact.traces
    return tuple(Trace(collection) for collection in event.collections)
