"""Make events for the benchmarks, and fill a topic with them.

The same count and seed give the same events; only times, and the ids that are made of them, follow the clock, so that
no document is due for deletion. `fill` returns once the broker has everything, or raises.
"""

import random
import uuid
from collections.abc import Iterable, Iterator, Sequence
from datetime import UTC, datetime, timedelta
from itertools import accumulate, chain, islice
from typing import Any, NamedTuple

import orjson
from aiokafka import AIOKafkaConsumer, AIOKafkaProducer, TopicPartition

from dev.traffic import Sample, Traffic
from ops import kafka_topics
from runtime.settings import ROOT, Settings
from schemas.topics import Topic, load
from sinks.collections import NAMES

PAGE_VIEWS = "page-views"
_NEEDED_FOR_PAGE_VIEWS = (PAGE_VIEWS, "view-windows")


class Record(NamedTuple):
    """What a producer sends.

    Attributes:
        key: Decides the partition.
        value: The event, as JSON.
        headers: CloudEvents' attributes, where they are not in the value.
    """

    key: bytes
    value: bytes
    headers: Sequence[tuple[str, bytes]] = ()


def page_views(count: int, seed: int = 7) -> Iterator[Record]:
    """Yield so many page views of about 520 bytes, with a long tail of posts and readers; `eventId` is the identity."""
    for view in _views(count, seed):
        yield record_of(view)


def record_of(view: dict[str, Any]) -> Record:
    """Return the record of a page view: keyed by post, without the fields that it has not."""
    value = orjson.dumps({name: value for name, value in view.items() if value is not None})
    return Record(view["postId"].encode(), value)


def sampled_page_views(count: int, sample_every: int, seed: int) -> Iterator[dict[str, Any]]:
    """Yield page views of which one in so many can be told from outside: by its session, `sample_session(number)`."""
    for number, view in enumerate(_views(count, seed)):
        if number % sample_every == 0:
            view["sessionId"] = sample_session(number // sample_every)
        yield view


def sample_session(number: int) -> str:
    """Return the session of a sample."""
    return f"sample-{number}"


def _views(count: int, seed: int) -> Iterator[dict[str, Any]]:
    chance = random.Random(seed)
    weights, agents = zip(*orjson.loads((ROOT / "dev/data/user-agents.json").read_bytes()), strict=True)
    up_to = list(accumulate(weights))
    posts = [str(uuid.UUID(int=chance.getrandbits(128), version=4)) for _ in range(1_000)]
    addresses = [".".join(str(chance.randint(1, 223)) for _ in range(4)) for _ in range(20_000)]
    referrers = [
        "https://www.google.com/", "https://t.co/x1", "https://www.reddit.com/r/python", "https://chatgpt.com/", None,
        *(f"https://blog{number}.example/links" for number in range(200)),
    ]  # fmt: skip
    start = datetime.now(UTC) - timedelta(minutes=5)
    for number in range(count):
        post = posts[min(int(chance.paretovariate(0.6)) - 1, len(posts) - 1)]
        yield {
            "eventId": str(uuid.UUID(int=chance.getrandbits(128), version=4)),
            "type": "page.viewed",
            "postId": post,
            "postSlug": f"a-post-about-{post[:8]}",
            "sessionId": f"session-{chance.randrange(100_000)}",
            "ipAddress": chance.choice(addresses),
            "userAgent": chance.choices(agents, cum_weights=up_to)[0],
            "url": f"https://blog.example/posts/{post[:8]}",
            "referrer": chance.choice(referrers),
            "timestamp": (start + timedelta(milliseconds=number)).isoformat(),
        }


class Scenarios:
    """Good events of the other topics: the scenarios of the sample traffic, told again and again.

    Args:
        topics: The declarations of all inbound topics.
        seed: Decides what is told.
        told: How many records are told before it begins anew; one in fifty is of the topic with the fewest.
    """

    def __init__(self, topics: Iterable[Topic], seed: int = 3, told: int = 40_000) -> None:
        run = Traffic(topics, began=datetime.now(UTC) - timedelta(minutes=5), rate=200, seed=seed)
        self._samples: dict[str, list[Sample]] = {}
        for sample in chain(islice(run, told), run.owed()):
            if sample.outcome == "stored":
                self._samples.setdefault(sample.topic, []).append(sample)
        # All ids begin with it.
        self._beginning = run.ids.encode()

    def records(self, topic: str, count: int) -> Iterator[Record]:
        """Yield so many events of a topic: as if the same had happened to others, under ids of their own.

        What refers to an event refers to its copy's id in the copy.
        """
        samples = self._samples[topic]
        for number in range(count):
            copy, at = divmod(number, len(samples))
            sample, beginning = samples[at], b"%08x-%04x-7" % (copy >> 16, copy & 0xFFFF)
            headers = [(name, value.replace(self._beginning, beginning)) for name, value in sample.headers]
            key, value = (part.replace(self._beginning, beginning) for part in (sample.key, sample.value or b""))
            yield Record(key, value, headers)


async def create(brokers: str, namespace: str, partitions: int, names: Iterable[str] = _NEEDED_FOR_PAGE_VIEWS) -> None:
    """Create declared topics, each with its dead letters, with a namespace before their names."""
    settings = _settings(brokers, namespace)
    declared = load(ROOT / "topics.yaml", NAMES, partitions=partitions).all
    wanted = kafka_topics.declared([declared[name] for name in names], namespace)
    await kafka_topics.converge(settings, wanted, check=False)


async def delete(brokers: str, namespace: str) -> None:
    """Delete every topic of a namespace."""
    async with kafka_topics.administration(_settings(brokers, namespace)) as admin:
        names = [name for name in await admin.list_topics() if name.startswith(namespace)]
        await admin.delete_topics(names)


async def fill(brokers: str, topic: str, records: Iterable[Record]) -> int:
    """Send records, compressed with lz4; return how many the topic holds then.

    Raises:
        RuntimeError: The broker has not got all of them.
    """
    sent = 0
    async with AIOKafkaProducer(
        bootstrap_servers=brokers, acks="all", compression_type="lz4", linger_ms=50, max_batch_size=262_144
    ) as producer:
        for record in records:
            await producer.send(topic, record.value, key=record.key, headers=list(record.headers))
            sent += 1
        await producer.flush()
    held = sum((await ends(brokers, topic)).values())
    if held < sent:
        raise RuntimeError(f"{topic} holds {held:,} of {sent:,} records")
    return held


async def ends(brokers: str, topic: str) -> dict[TopicPartition, int]:
    """Return how many records were ever sent to each partition."""
    async with AIOKafkaConsumer(topic, bootstrap_servers=brokers) as consumer:
        found: dict[TopicPartition, int] = await consumer.end_offsets(consumer.assignment())
        return found


async def rewind(brokers: str, topic: str) -> None:
    """Set Inkstream's consumer group, which goes by the topic's name, back to the topic's beginning."""
    namespace = namespace_of(topic)
    group = f"{namespace}inkstream.{topic.removeprefix(namespace)}"
    partitions = list(await ends(brokers, topic))
    async with AIOKafkaConsumer(bootstrap_servers=brokers, group_id=group, enable_auto_commit=False) as consumer:
        consumer.assign(partitions)
        await consumer.commit(dict.fromkeys(partitions, 0))


def namespace_of(topic: str) -> str:
    """Return the namespace before a topic's name, with its dot; empty if there is no namespace."""
    return topic[: topic.rfind(".") + 1]


def _settings(brokers: str, namespace: str) -> Settings:
    return Settings.model_validate({"kafka_brokers": brokers, "namespace": namespace})
