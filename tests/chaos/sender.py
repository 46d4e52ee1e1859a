"""Send events to Kafka as the platform's services do while everything around them fails: at a rate, and in storms.

Input: the topics, a rate and a seed.
Output: records, sent past the proxy; the event log gets exactly those that Kafka has, with their places. While Kafka is
unavailable nothing is given up: what was handed to the producer waits, and the rest is sent later.
"""

import asyncio
import contextlib
import time
from collections import defaultdict, deque
from collections.abc import AsyncIterator, Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from itertools import islice
from random import Random
from typing import Any, Literal, Protocol, Self

from aiokafka import AIOKafkaConsumer, AIOKafkaProducer, TopicPartition
from aiokafka.errors import KafkaError, KafkaTimeoutError

from delivery.producer import partition_of
from dev.posts import WrittenPosts
from dev.traffic import COMPRESSIONS, INVALID_EVERY, Compression, Sample, Traffic
from schemas.topics import Topic
from tests.chaos.event_log import Entry, EventLog

StormKind = Literal["poison", "duplicates", "late"]

POISON_EVERY = 2
"""In a storm of poison a record that can't be read comes after so many events of a topic, which makes a third of it."""
DUPLICATES_SHARE = 0.5
"""In a storm of duplicates so many records come a second time for each that is new."""
LATE_SHARE = 0.5
"""In a storm of late events so many of them come for each that is new."""
LATEST, LEAST_LATE = timedelta(days=5), timedelta(hours=2)
"""Late events happened between so long ago; the product counts what is less than 7 days old."""
MOST_UNACKNOWLEDGED = 5_000
"""While so many records wait for Kafka, no more are made."""

_TICK_SECONDS = 0.2
_CATCH_UP = 1.5
"""After an outage it goes this much faster than the rate, until what should have been sent is."""
_MOST_BEHIND_SECONDS = 60.0
_MOST_AT_ONCE = 1_000
_BATCH_RECORDS = 200
_MAX_BATCH_BYTES = 900_000
# An idempotent producer tries for ever, unless a partition has had no leader for so long: then it loses count.
_REQUEST_TIMEOUT_MILLISECONDS = 900_000
_REMEMBER_EVERY = 5
_MOST_REMEMBERED = 15_000
_LATE_BLOCK = 300
_WRITE_POSTS_SECONDS = 1.0
_AGAIN_SECONDS = 0.2
_STOP_WITHIN_SECONDS = 5.0


@dataclass(frozen=True, slots=True)
class Batch:
    """Records that go together.

    Attributes:
        topic: The topic's name in Kafka.
        partition: Where they belong.
        records: What they are, each with its timestamp in milliseconds since 1970.
    """

    topic: str
    partition: int
    records: list[tuple[Sample, int]] = field(default_factory=list)

    def entry(self, number: int, offset: int) -> Entry:
        """Return what the event log is to say of one of the records."""
        sample, timestamp = self.records[number]
        return Entry(
            self.topic, self.partition, offset, timestamp, sample.key, sample.value, sample.headers, sample.reason
        )


class Storm(Protocol):
    """What is sent beside the usual traffic for a time."""

    def beside(self, fresh: Sequence[Sample]) -> Iterable[Sample]:
        """Return what to send together with samples of the usual traffic."""

    def rest(self) -> Iterable[Sample]:
        """Return what must still be sent when the storm is over."""

    @property
    def detail(self) -> str:
        """What was sent, in a few words."""


class Poison:
    """Makes every third record of each topic one that can't be read, of all kinds by turns.

    The product ends a worker where more than half of a topic's latest records are refused; a third is far from that,
    also where batches are read twice.

    Args:
        traffic: The usual traffic, in which they are.
    """

    def __init__(self, traffic: Traffic) -> None:
        self._traffic = traffic
        self._records = self._unreadable = 0
        traffic.invalid_every = POISON_EVERY

    def beside(self, fresh: Sequence[Sample]) -> Iterable[Sample]:
        """Return nothing: the poison is among the samples."""
        self._traffic.invalid_every = POISON_EVERY  # another storm's end may have changed it
        self._records += len(fresh)
        self._unreadable += sum(sample.outcome == "dead-lettered" for sample in fresh)
        return ()

    def rest(self) -> Iterable[Sample]:
        """Return nothing; from now on few records can't be read."""
        self._traffic.invalid_every = INVALID_EVERY
        return ()

    @property
    def detail(self) -> str:
        """What was sent, in a few words."""
        return f"{self._unreadable:,} of {self._records:,} records can't be read"


class Duplicates:
    """Sends again, byte for byte, what Kafka acknowledged in the last minutes; only what has an id of its own.

    Args:
        acknowledged: Samples from which to choose; it changes meanwhile.
        chance: Chooses.
    """

    def __init__(self, acknowledged: Sequence[Sample], chance: Random) -> None:
        self._acknowledged = acknowledged
        self._chance = chance
        self._owed = 0.0
        self._sent = 0

    def beside(self, fresh: Sequence[Sample]) -> Iterable[Sample]:
        """Return half as many samples as are fresh."""
        if not self._acknowledged:
            return ()
        self._owed += len(fresh) * DUPLICATES_SHARE
        chosen = self._chance.choices(self._acknowledged, k=int(self._owed))
        self._owed -= len(chosen)
        self._sent += len(chosen)
        return [replace(sample, outcome="duplicate", owed=False) for sample in chosen]

    def rest(self) -> Iterable[Sample]:
        """Return nothing."""
        return ()

    @property
    def detail(self) -> str:
        """What was sent, in a few words."""
        return f"{self._sent:,} records of the last minutes a second time"


class Late:
    """Sends what happened hours and days ago, backwards: exits before their views, answers before what they answer.

    Args:
        topics: The declarations of all topics.
        now: When the storm begins.
        most: How many samples there are at most; they are spread over the time from `LATEST` to `LEAST_LATE` ago.
        seed: Decides what happened.
    """

    def __init__(self, topics: Iterable[Topic], *, now: datetime, most: int, seed: int) -> None:
        rate = most / (LATEST - LEAST_LATE).total_seconds()
        self._traffic = Traffic(topics, began=now - LATEST, rate=rate, seed=seed)
        self._samples = islice(self._traffic, most)
        self._block: list[Sample] = []
        self._owed = 0.0
        self._sent = 0

    def beside(self, fresh: Sequence[Sample]) -> Iterable[Sample]:
        """Return half as many samples as are fresh."""
        self._owed += len(fresh) * LATE_SHARE
        chosen = list(islice(self._backwards(), int(self._owed)))
        self._owed -= int(self._owed)
        self._sent += len(chosen)
        return chosen

    def rest(self) -> Iterable[Sample]:
        """Return the rest of what was begun, with the views whose exits were sent."""
        rest = [*reversed(list(self._traffic.owed())), *reversed(self._block)]
        self._block.clear()
        self._sent += len(rest)
        return rest

    @property
    def detail(self) -> str:
        """What was sent, in a few words."""
        return f"{self._sent:,} events of up to {LATEST.days} days ago, backwards"

    def _backwards(self) -> Iterator[Sample]:
        while True:
            if not self._block:
                self._block = list(islice(self._samples, _LATE_BLOCK))
            if not self._block:
                return
            yield self._block.pop()


class Sender:
    """Sends traffic. Use it as an asynchronous context manager.

    Args:
        brokers: Kafka itself, not the proxy.
        namespace: What stands before the name of every topic.
        topics: The declarations of all topics that services write to.
        ledger: Gets each record that Kafka has.
        rate: Records a second, without those of storms.
        seed: Decides what they are.
        began: When the run begins; all ids are made of it.
        owner_url: PostgreSQL, as the owner of the platform's tables; posts are written there.

    Attributes:
        rate: Records a second, without those of storms; may be changed meanwhile. Events happen as if it were not, so
            with a higher one they run ahead of the clock.
        sent: How many records Kafka is known to have.
    """

    def __init__(
        self,
        brokers: str,
        namespace: str,
        topics: Iterable[Topic],
        event_log: EventLog,
        *,
        rate: float,
        seed: int,
        began: datetime,
        owner_url: str,
    ) -> None:
        self.rate = rate
        self.sent = 0
        self._brokers = brokers
        self._namespace = namespace
        self._topics = tuple(topics)
        self._event_log = event_log
        self._chance = Random(seed)
        self._traffic = Traffic(self._topics, began=began, rate=rate, seed=seed)
        self._samples = iter(self._traffic)
        self._posts = WrittenPosts(owner_url)
        self._writing = asyncio.Lock()
        self._storms: list[Storm] = []
        self._left: list[Sample] = []
        self._acknowledged: deque[Sample] = deque(maxlen=_MOST_REMEMBERED)
        self._unacknowledged = 0
        self._uncertain: list[Batch] = []
        self._partitions: dict[str, int] = {}
        self._producers: dict[Compression, AIOKafkaProducer] = {}
        self._broken: list[AIOKafkaProducer] = []
        self._replacing = asyncio.Lock()
        self._turns = 0

    @property
    def untold(self) -> int:
        """How many records were neither acknowledged nor surely refused; none once `run` has returned."""
        return self._unacknowledged + sum(len(batch.records) for batch in self._uncertain)

    async def __aenter__(self) -> Self:
        """Connect."""
        for compression in COMPRESSIONS:
            self._producers[compression] = await self._connected(compression)
        for topic in self._topics:
            name = self._namespace + topic.name
            self._partitions[name] = len(await self._producers[None].partitions_for(name))
        return self

    async def __aexit__(self, *error: object) -> None:
        """Close the connections; what `run` did not wait for is not waited for here."""
        stopping = [producer.stop() for producer in (*self._producers.values(), *self._broken)]
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(_STOP_WITHIN_SECONDS):
                await asyncio.gather(*stopping, return_exceptions=True)

    async def run(self, until: asyncio.Event) -> None:
        """Send until told to stop, and what is owed then; return when Kafka has it all, and PostgreSQL every post."""
        async with asyncio.TaskGroup() as tasks:
            writing = tasks.create_task(self._go_on_writing_posts())
            async with asyncio.TaskGroup() as deliveries:
                await self._send_until(until, deliveries)
                rest = [sample for storm in self._storms for sample in storm.rest()]
                self._hand_over([*self._left, *rest, *self._traffic.owed()], deliveries)
                self._left.clear()
            if self._uncertain:
                await self._look_for_uncertain()
            await self.posts_written()
            writing.cancel()

    async def storm(self, kind: StormKind, seconds: float) -> str:
        """Send more of one kind beside what `run` sends, for so many seconds.

        Args:
            kind: `poison`: records that can't be read. `duplicates`: what was acknowledged, once more. `late`: what
                happened hours and days ago, backwards.
            seconds: For how long.

        Returns:
            What was sent, in a few words.
        """
        storm = self._storm(kind, seconds)
        self._storms.append(storm)
        try:
            await asyncio.sleep(seconds)
        finally:
            self._storms.remove(storm)
            self._left += storm.rest()
        return storm.detail

    async def posts_written(self) -> None:
        """Return when PostgreSQL has every post that events mention."""
        await self._write_posts()
        while self._posts.waiting:
            await asyncio.sleep(_AGAIN_SECONDS)
            await self._write_posts()

    # What is sent ---------------------------------------------------------------------------------------------

    async def _send_until(self, until: asyncio.Event, deliveries: asyncio.TaskGroup) -> None:
        behind, before = 0.0, time.monotonic()
        while not until.is_set():
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(until.wait(), _TICK_SECONDS)
            now = time.monotonic()
            new = (now - before) * self.rate
            behind = min(behind + new, _MOST_BEHIND_SECONDS * self.rate)
            before = now
            if self._unacknowledged < MOST_UNACKNOWLEDGED:
                count = int(min(behind, _CATCH_UP * new, _MOST_AT_ONCE))
                behind -= count
                self._hand_over(self._portion(count), deliveries)

    def _portion(self, count: int) -> list[Sample]:
        """Return so many samples of the usual traffic, and what storms send beside them."""
        fresh = list(islice(self._samples, count))
        portion = [*self._left, *fresh]
        self._left.clear()
        for storm in self._storms:
            portion += storm.beside(fresh)
        return portion

    def _storm(self, kind: StormKind, seconds: float) -> Storm:
        match kind:
            case "poison":
                return Poison(self._traffic)
            case "duplicates":
                return Duplicates(self._acknowledged, self._chance)
            case "late":
                most = max(1, int(LATE_SHARE * self.rate * seconds))
                return Late(self._topics, now=datetime.now(UTC), most=most, seed=self._chance.getrandbits(32))

    async def _go_on_writing_posts(self) -> None:
        while True:
            await self._write_posts()
            await asyncio.sleep(_WRITE_POSTS_SECONDS)

    async def _write_posts(self) -> None:
        async with self._writing:
            await self._posts.write()

    # How it is sent -------------------------------------------------------------------------------------------

    def _hand_over(self, samples: Iterable[Sample], deliveries: asyncio.TaskGroup) -> None:
        """Begin to deliver samples; each time all of them in another one of Kafka's codecs."""
        compression = COMPRESSIONS[self._turns % len(COMPRESSIONS)]
        self._turns += 1
        for batch in self._batches(samples):
            self._unacknowledged += len(batch.records)
            deliveries.create_task(self._deliver(batch, compression))

    def _batches(self, samples: Iterable[Sample]) -> Iterator[Batch]:
        """Yield batches with the samples, as large as they may be; posts that they tell of are noted."""
        open_batches: dict[tuple[str, int], Batch] = {}
        for sample in samples:
            if sample.post is not None:
                self._posts.add(sample.post)
            topic = self._namespace + sample.topic
            place = topic, partition_of(sample.key, self._partitions[topic])
            batch = open_batches.get(place)
            if batch is None:
                batch = open_batches[place] = Batch(*place)
            # Said by us: of a batch, aiokafka would give the timestamp of the first record for all.
            batch.records.append((sample, time.time_ns() // 1_000_000))
            if len(batch.records) == _BATCH_RECORDS:
                yield open_batches.pop(place)
        yield from open_batches.values()

    async def _deliver(self, batch: Batch, compression: Compression) -> None:
        """Send a batch until Kafka says where it is."""
        while True:
            producer = self._producers[compression]
            try:
                sending = await producer.send_batch(_built(batch, producer), batch.topic, partition=batch.partition)
            except KafkaTimeoutError:  # there was no room for it, so it was not sent
                continue
            except KafkaError:  # the producer is of no use any longer, and took nothing
                await self._replace(producer, compression)
                continue
            with contextlib.suppress(KafkaError):
                place = await sending
                if place.offset >= 0:
                    self._acknowledge(batch, place.offset)
                    return
            # Whether it is there is unknown, and a second copy may be written.
            self._uncertain.append(batch)
            await self._replace(producer, compression)

    def _acknowledge(self, batch: Batch, first: int) -> None:
        for number, (sample, _) in enumerate(batch.records):
            self._event_log.record(batch.entry(number, first + number))
            self.sent += 1
            if sample.id is not None and self.sent % _REMEMBER_EVERY == 0:
                self._acknowledged.append(sample)
        self._unacknowledged -= len(batch.records)

    async def _replace(self, broken: AIOKafkaProducer, compression: Compression) -> None:
        """Have a new producer in place of one that has lost count of what it sent."""
        async with self._replacing:
            if self._producers[compression] is broken:
                self._producers[compression] = await self._connected(compression)
                self._broken.append(broken)

    async def _connected(self, compression: Compression) -> AIOKafkaProducer:
        while True:
            producer = AIOKafkaProducer(
                bootstrap_servers=self._brokers,
                acks="all",
                enable_idempotence=True,
                compression_type=compression,
                max_batch_size=_MAX_BATCH_BYTES,
                request_timeout_ms=_REQUEST_TIMEOUT_MILLISECONDS,
            )
            try:
                await producer.start()
            except KafkaError:
                await producer.stop()
                await asyncio.sleep(_AGAIN_SECONDS)
            except BaseException:
                await producer.stop()
                raise
            else:
                return producer

    # What is known of it --------------------------------------------------------------------------------------

    async def _look_for_uncertain(self) -> None:
        """Read the partitions of batches of which it is unknown whether they are there; record what is."""
        by_place: defaultdict[TopicPartition, list[Batch]] = defaultdict(list)
        for batch in self._uncertain:
            by_place[TopicPartition(batch.topic, batch.partition)].append(batch)
        async with AIOKafkaConsumer(bootstrap_servers=self._brokers) as consumer:
            for place, batches in by_place.items():
                known = {
                    entry.offset for entry in self._event_log.entries(place.topic) if entry.partition == place.partition
                }
                wanted = [batch.entry(number, -1) for batch in batches for number in range(len(batch.records))]
                async for record in _records(consumer, place):
                    if record.offset not in known:
                        self._record_found(record, wanted)
        self._uncertain.clear()

    def _record_found(self, record: Any, wanted: list[Entry]) -> None:
        """Record what was found, if it is one of those that are looked for."""
        found = (record.timestamp, record.key, record.value, tuple(record.headers))
        for entry in wanted:
            if (entry.timestamp, entry.key, entry.value, entry.headers) == found:
                wanted.remove(entry)
                self._event_log.record(entry._replace(offset=record.offset))
                self.sent += 1
                return


def _built(batch: Batch, producer: AIOKafkaProducer) -> Any:
    """Return a batch as aiokafka wants it; ready batches cost a tenth of what `producer.send` does."""
    builder = producer.create_batch()
    for sample, timestamp in batch.records:
        took = builder.append(timestamp=timestamp, key=sample.key, value=sample.value, headers=list(sample.headers))
        assert took is not None, "a batch is larger than Kafka takes"
    return builder


async def _records(consumer: AIOKafkaConsumer, place: TopicPartition) -> AsyncIterator[Any]:
    """Yield all records of a partition."""
    consumer.assign([place])
    end = (await consumer.end_offsets([place]))[place]
    consumer.seek(place, (await consumer.beginning_offsets([place]))[place])
    while await consumer.position(place) < end:
        for record in (await consumer.getmany(timeout_ms=200)).get(place, ()):
            yield record
