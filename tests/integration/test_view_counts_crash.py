"""Workers and PostgreSQL die in the middle of counting, again and again: every post's count is that of the sender.

`pytest --full tests/integration/test_view_counts_crash.py` does it with 200,000 views over 1,000 posts.
"""

import asyncio
import math
import random
import time
from collections import Counter
from collections.abc import Sequence
from contextlib import AbstractContextManager, ExitStack
from datetime import UTC, datetime, timedelta
from typing import NamedTuple

from sinks.postgres.pool import query
from tests.integration.pipeline import Message, Pipeline, Worker, until
from tests.integration.test_view_counts import BOT, BROWSER, TOPICS, view

BASELINE = 17
# Some windows are to be so large that they rest between two counts, though few views are sent.
FEW_ARE_MANY = "from agents.view_counts import pending_windows; pending_windows.LARGE = 50"
RECOUNT_RATE = 5_000


class Size(NamedTuple):
    """How much is sent, and in how many rounds three workers are killed meanwhile."""

    views: int
    posts: int
    rounds: int
    batch_records: int
    views_per_second: int


SHORT = Size(views=12_000, posts=200, rounds=6, batch_records=50, views_per_second=1_000)
FULL = Size(views=200_000, posts=1_000, rounds=8, batch_records=200, views_per_second=4_000)
TINY = Size(views=3_000, posts=50, rounds=1, batch_records=50, views_per_second=1_500)


class Sender:
    """Sends page views as a platform would, in portions, and knows what becomes of them."""

    def __init__(self, pipeline: Pipeline, size: Size, seed: int) -> None:
        self._pipeline = pipeline
        self._per_second = size.views_per_second
        self.expected, messages = _traffic(size, seed)
        portion = math.ceil(len(messages) / (size.rounds + 1))
        self.portions = [messages[first : first + portion] for first in range(0, len(messages), portion)]
        self.pausing = asyncio.Lock()
        """Nothing is sent while somebody else has it."""

    async def send(self, messages: Sequence[Message]) -> None:
        """Send messages, at the rate."""
        at_once = max(1, self._per_second // 5)
        for first in range(0, len(messages), at_once):
            began = time.monotonic()
            async with self.pausing:
                await self._pipeline.send("page-views", messages[first : first + at_once])
            await asyncio.sleep(max(0.0, began + at_once / self._per_second - time.monotonic()))


def _traffic(size: Size, seed: int) -> tuple[dict[str, int], list[Message]]:
    """Return the views that each post should have in the end, and what to send, in random order."""
    chance = random.Random(seed)
    posts = [f"post-{number}" for number in range(size.posts)]
    popularity = [1 / rank for rank in range(1, size.posts + 1)]
    now = datetime.now(UTC)
    expected = Counter(dict.fromkeys(posts, BASELINE))
    messages = []
    for number, post_id in enumerate(chance.choices(posts, popularity, k=size.views)):
        is_bot, is_late = chance.random() < 0.1, chance.random() < 0.05
        age = timedelta(seconds=chance.uniform(0, 3_600 if is_late else 600))
        messages.append(view(number, post_id, now - age, BOT if is_bot else BROWSER))
        expected[post_id] += not is_bot
    messages += chance.sample(messages, size.views // 20)
    chance.shuffle(messages)
    return dict(expected), messages


class Disaster:
    """Lets workers count while it kills them; remembers how far behind they were at each kill."""

    def __init__(self, pipeline: Pipeline, size: Size, seed: int, prelude: str = FEW_ARE_MANY) -> None:
        self.pipeline = pipeline
        self.sender = Sender(pipeline, size, seed)
        self.lag_at_kills: list[dict[str, int]] = []
        self.restarts = 0
        self._size = size
        self._chance = random.Random(seed + 1)
        self._prelude = prelude

    async def strike(self) -> None:
        """Send all portions but the last, while workers die and PostgreSQL restarts."""
        for number, portion in enumerate(self.sender.portions[:-1]):
            # Each agent in its turn: after a kill it takes Kafka seconds to give another worker its partitions.
            topic = TOPICS[number % len(TOPICS)]
            before = await self.pipeline.committed(topic)
            sending = asyncio.create_task(self.sender.send(portion))
            with ExitStack() as workers:
                three = [workers.enter_context(self._worker()) for _ in range(3)]
                await self._committed(topic, before + self._chance.randint(1, len(portion) // 20))
                restarting = asyncio.create_task(self._restart_postgres(number))
                for worker in three[:2]:
                    await asyncio.sleep(self._chance.uniform(0, 0.3))
                    await self._kill(worker)
                await restarting  # the third lives through it
                await asyncio.sleep(self._chance.uniform(0, 0.3))
                await self._kill(three[2])
            await sending

    async def finish(self) -> None:
        """Send the last portion; let one worker do all that is left."""
        with self._worker() as worker:
            await self.sender.send(self.sender.portions[-1])
            await self._settled()
            assert worker.terminate() == 0

    async def finish_with_another(self) -> None:
        """The same, while a second worker joins, is taken for dead, wakes up, and leaves."""
        portion = self.sender.portions[-1]
        middle = len(portion) // 2
        with self._worker() as one, self._worker() as other:
            await one.until_ready()
            await other.until_ready()
            sending = asyncio.create_task(self.sender.send(portion[:middle]))
            await self._stored(middle // 4)
            other.freeze()
            await sending
            await self._settled()  # also what the other had: its partitions went to the first
            joined = assignments(other)

            async def has_joined_again() -> bool:
                return all(assignments(other)[topic] > joined[topic] for topic in TOPICS)

            other.thaw()
            await until(has_joined_again, "Kafka gives the worker partitions again")
            sending = asyncio.create_task(self.sender.send(portion[middle:]))
            await self._stored(middle // 4)
            assert await asyncio.to_thread(other.terminate) == 0
            await sending
            await self._settled()
            assert one.terminate() == 0

    async def _settled(self) -> None:
        await self.pipeline.settled(*TOPICS, seconds=600)

    def _worker(self) -> AbstractContextManager[Worker]:
        return self.pipeline.worker(
            self._prelude,
            batch_records=self._size.batch_records,
            count_every=0.1,
            recount_rate=RECOUNT_RATE,
        )

    async def _stored(self, more: int) -> None:
        """Return when so many more views are stored."""
        collection = self.pipeline.collection("pageViews")
        wanted = await collection.estimated_document_count() + more

        async def progressed() -> bool:
            return await collection.estimated_document_count() >= wanted

        await until(progressed, f"{wanted} views are stored")

    async def _committed(self, topic: str, wanted: int) -> None:
        """Return when the topic's agent has committed so many records."""

        async def progressed() -> bool:
            return await self.pipeline.committed(topic) >= wanted

        await until(progressed, f"{wanted} records of {topic} are committed")

    async def _kill(self, worker: Worker) -> None:
        assert worker.process.poll() is None, f"the worker ended by itself:\n{worker.log.read_text()[-4000:]}"
        async with self.sender.pausing:
            worker.kill()
            self.lag_at_kills.append({topic: await self.pipeline.lag(topic) for topic in TOPICS})

    async def _restart_postgres(self, round_number: int) -> None:
        """In every other round, restart PostgreSQL: in turn as its administrator would, and as after a crash."""
        postgres = self.pipeline.platform.postgres
        if round_number % 2:
            await asyncio.to_thread(postgres.stop if round_number % 4 == 1 else postgres.kill)
            await asyncio.to_thread(postgres.start)
            self.restarts += 1


async def test_every_count_is_the_senders_whatever_was_killed(counting: Pipeline, full: bool) -> None:
    size = FULL if full else SHORT
    began = time.monotonic()
    disaster = Disaster(counting, size, seed=4)
    counting.add_posts(disaster.sender.expected, view_count=BASELINE)
    await disaster.strike()
    await disaster.finish_with_another()

    print(f"{size.views} views over {size.posts} posts in {time.monotonic() - began:.0f} s,", end=" ")
    print(f"{disaster.restarts} restarts of PostgreSQL; lag at {len(disaster.lag_at_kills)} kills:")
    print(*disaster.lag_at_kills, sep="\n")
    assert disaster.restarts >= 2
    assert len(disaster.lag_at_kills) >= 10
    hits = [lag for lag in disaster.lag_at_kills if sum(lag.values()) > 0]
    assert len(hits) > len(disaster.lag_at_kills) / 3, "kills that hit work under way"
    assert [await counting.lag(topic) for topic in TOPICS] == [0, 0, 0], "nothing is left to be done"
    assert counting.view_counts() == disaster.sender.expected
    assert unbalanced(counting) == []


async def test_with_a_plain_plus_the_counts_would_be_wrong(counting: Pipeline) -> None:
    disaster = Disaster(counting, TINY, seed=5, prelude=with_query("raise_windows", plain_plus()))
    counting.add_posts(disaster.sender.expected, view_count=BASELINE)
    await disaster.strike()
    await disaster.finish()
    counts = counting.view_counts()
    too_high = [post_id for post_id, views in disaster.sender.expected.items() if counts[post_id] > views]
    assert too_high, "the crash test would not notice"
    assert unbalanced(counting) == [], "wrong for no other reason"


def plain_plus() -> str:
    """Return the query that raises windows, with the rule replaced by `+=`."""
    statement = query("raise_windows")
    for rule, plus in {
        "given.views - coalesce(known.views, 0) AS difference": "given.views AS difference",
        " AND given.views > coalesce(known.views, 0)": "",
        "SET views = excluded.views,": "SET views = known.views + excluded.views,",
    }.items():
        assert rule in statement
        statement = statement.replace(rule, plus)
    return statement


def with_query(name: str, statement: str) -> str:
    """Return the prelude of a worker that has another query of this name."""
    return (
        "from sinks.postgres import pool\n"
        f"queries = {{**pool._queries(), {name!r}: {statement!r}}}\n"
        "pool._queries = lambda: queries"
    )


def assignments(worker: Worker) -> dict[str, int]:
    """Return how often Kafka has given partitions of each topic to the worker."""
    lines = [line for line in worker.log.read_text().splitlines() if "partitions assigned" in line]
    return {topic: sum(topic in line for line in lines) for topic in TOPICS}


def unbalanced(pipeline: Pipeline) -> list[tuple[object, ...]]:
    """Return the posts for which our tables contradict themselves, or the platform's count."""
    return pipeline.rows(
        """
        SELECT counted.*, window_views, posts."viewCount"
        FROM inkstream.counted_posts AS counted
        CROSS JOIN LATERAL (
            SELECT coalesce(sum(views), 0) AS window_views
            FROM inkstream.view_windows WHERE view_windows.post_id = counted.post_id
        ) AS of_windows
        LEFT JOIN posts ON posts.id = counted.post_id
        WHERE counted.views <> folded + window_views
            OR counted.applied <> CASE WHEN posts.id IS NULL THEN 0 ELSE counted.views END
            OR posts."viewCount" <> coalesce(counted.baseline, 0) + counted.applied
        """
    )
