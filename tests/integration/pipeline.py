"""An Inkstream of a test's own on the shared servers: topics, database, workers, and what a test asks of them."""

import asyncio
import os
import re
import signal
import tempfile
import time
import urllib.error
import urllib.request
import uuid
from collections.abc import AsyncIterator, Awaitable, Callable, Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from typing import Any, LiteralString, NamedTuple

import orjson
import psycopg
from aiokafka import AIOKafkaConsumer, AIOKafkaProducer, ConsumerRecord, TopicPartition
from aiokafka.admin import AIOKafkaAdminClient
from aiokafka.errors import GroupCoordinatorNotAvailableError
from psycopg import sql
from pymongo import AsyncMongoClient
from pymongo.asynchronous.collection import AsyncCollection

from dev.stack import Platform
from ops import bootstrap
from ops.kafka_topics import declared
from runtime.settings import ROOT, Settings
from schemas.topics import Topic, Topics, load
from sinks.collections import NAMES
from sinks.mongo.client import Mongo
from sinks.mongo.database import NamespacedDatabase
from sinks.postgres import migrations
from sinks.postgres.pool import Pool, schema_of
from tests import header_names
from tests.forked import ForkedWorker

PARTITIONS = 3
DEADLINE_SECONDS = 90.0


class Message(NamedTuple):
    """A record to send."""

    value: bytes | None
    headers: Sequence[tuple[str, bytes]] = ()
    key: bytes | None = None


def plain(**body: object) -> Message:
    """Return an event as a plain JSON body."""
    return Message(orjson.dumps(body))


async def until(condition: Callable[[], Awaitable[bool]], what: str, seconds: float = DEADLINE_SECONDS) -> None:
    """Return as soon as the condition holds; fail when it does not in time."""
    deadline = time.monotonic() + seconds
    while not await condition():
        assert time.monotonic() < deadline, f"not within {seconds} s: {what}"
        await asyncio.sleep(0.05)


class Worker:
    """A worker process."""

    def __init__(self, process: ForkedWorker, port: int, log: Path) -> None:
        self.process = process
        self.port = port
        self.log = log

    def page(self, path: str) -> tuple[int, bytes]:
        """Return status and body of one of the worker's pages; status 0 where it does not answer."""
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{self.port}{path}", timeout=5) as response:
                return response.status, response.read()
        except urllib.error.HTTPError as error:
            return error.code, error.read()
        except OSError:
            return 0, b""

    async def ready(self) -> bool:
        """Whether the worker says that it is ready."""
        assert self.process.poll() is None, f"the worker ended:\n{self.log.read_text()[-4000:]}"
        status, _ = await asyncio.to_thread(self.page, "/readyz")
        return status == 200

    async def until_ready(self) -> None:
        """Return when the worker reads."""
        await until(self.ready, "the worker is ready")

    def kill(self) -> None:
        """SIGKILL: no chance to finish anything."""
        self.process.kill()
        self.process.wait()

    def freeze(self) -> None:
        """SIGSTOP: it does nothing, and knows nothing of it."""
        self.process.send_signal(signal.SIGSTOP)

    def thaw(self) -> None:
        """SIGCONT: it goes on where it was, as if no time had passed."""
        self.process.send_signal(signal.SIGCONT)

    def terminate(self) -> int:
        """SIGTERM; return the exit code."""
        self.process.send_signal(signal.SIGTERM)
        return self.process.wait(30)

    def metrics(self) -> dict[str, float]:
        """Return the samples of `/metrics`, by name with labels."""
        samples = {}
        for line in self.page("/metrics")[1].decode().splitlines():
            if not line.startswith("#"):
                name, _, value = line.rpartition(" ")
                samples[name] = float(value)
        return samples


class Pipeline:
    """A namespace and a database in MongoDB that no other test uses.

    Args:
        platform: The servers.
        only: The topics that there are, where not all of them are needed.
        namespace: The namespace, where a test needs a certain one.
        beside: Another one whose databases it shares.
    """

    def __init__(
        self, platform: Platform, only: Collection[str] = (), *, namespace: str = "", beside: "Pipeline | None" = None
    ) -> None:
        self.platform = platform
        name = uuid.uuid4().hex[:12]
        self.namespace = namespace or f"test-{name}."
        self.environment = platform.environment() | {
            "INKSTREAM_NAMESPACE": self.namespace,
            "INKSTREAM_MONGO_URL": platform.mongo.url.replace("/blog-platform", f"/test-{name}"),
            "INKSTREAM_PARTITIONS": str(PARTITIONS),
            "INKSTREAM_AGENTS": ",".join(only),
        }
        self._tables: str | None = None
        self.tables_url = ""
        if beside is not None:
            self.tables_url = beside.tables_url
            for url in ("INKSTREAM_MONGO_URL", "INKSTREAM_POSTGRES_URL"):
                self.environment[url] = beside.environment[url]
        self._client: AsyncMongoClient[dict[str, Any]] = AsyncMongoClient(
            self.environment["INKSTREAM_MONGO_URL"], tz_aware=True
        )
        self.database = NamespacedDatabase(self._client, self.namespace)
        inbound, derived = load(ROOT / "topics.yaml", NAMES, partitions=PARTITIONS)
        self.topics = Topics(_those(inbound, only), _those(derived, only))

    @property
    def settings(self) -> Settings:
        """The settings of this pipeline's workers."""
        values = {
            name.removeprefix("INKSTREAM_").lower(): value
            for name, value in self.environment.items()
            if name.startswith("INKSTREAM_")
        }
        return Settings.model_validate(values)

    async def prepare(self) -> None:
        """Create topics and collections."""
        # Examples have fixed dates, and would be deleted while a test looks at them.
        await self._client.admin.command("setParameter", 1, ttlMonitorEnabled=False)
        mongo = Mongo.connect(self.environment["INKSTREAM_MONGO_URL"], self.namespace)
        await bootstrap.converge(self.settings, self.topics.all.values(), mongo, check=False)
        await mongo.close()

    def own_tables(self) -> None:
        """Use a PostgreSQL database of its own, with the platform's tables, from now on; `prepare` adds ours."""
        assert self._tables is None
        self._tables = self.namespace.rstrip(".")
        owner_url = self.platform.postgres.owner_url
        with psycopg.connect(owner_url, autocommit=True) as connection:
            connection.execute(sql.SQL("CREATE DATABASE {}").format(sql.Identifier(self._tables)))
        self.tables_url = owner_url.replace("/blog_platform", f"/{self._tables}")
        platform = (
            (ROOT / "dev" / "platform.sql").read_text().replace("DATABASE blog_platform", f'DATABASE "{self._tables}"')
        )
        with psycopg.connect(self.tables_url) as connection:
            connection.execute(platform.encode())
        self.environment["INKSTREAM_POSTGRES_URL"] = self.environment["INKSTREAM_POSTGRES_URL"].replace(
            "/blog_platform", f"/{self._tables}"
        )

    def rows(self, statement: LiteralString, *parameters: object) -> list[tuple[Any, ...]]:
        """Run a statement on the pipeline's own PostgreSQL database, as its owner; return the rows.

        `inkstream.` in it stands for the pipeline's schema.
        """
        with psycopg.connect(self.tables_url) as connection:
            cursor = connection.execute(self.with_schema(statement), parameters)
            return cursor.fetchall() if cursor.description else []

    def with_schema(self, statement: str) -> bytes:
        """Return a statement on the schema `inkstream` as one on the pipeline's."""
        return re.sub(r"\binkstream\.", f"{schema_of(self.namespace)}.", statement).encode()

    def pool(self) -> Pool:
        """Return connections to PostgreSQL as the pipeline's workers have them."""
        return Pool(self.environment["INKSTREAM_POSTGRES_URL"], self.namespace)

    async def migrate(self) -> None:
        """Create our tables alone."""
        url = self.environment["INKSTREAM_POSTGRES_URL"]
        await migrations.migrate(url, migrations.read(bootstrap.MIGRATIONS), self.namespace, check=False)

    def add_posts(self, post_ids: Iterable[str], view_count: int = 0) -> None:
        """Add posts to the platform's table."""
        with psycopg.connect(self.tables_url) as connection:
            connection.execute(
                "INSERT INTO users (id, email, \"passwordHash\") VALUES ('author', 'author@example.org', '') "
                "ON CONFLICT DO NOTHING"
            )
            connection.cursor().executemany(
                'INSERT INTO posts (id, slug, title, "authorId", "viewCount") VALUES (%s, %s, %s, %s, %s)',
                [(post_id, post_id, post_id, "author", view_count) for post_id in post_ids],
            )

    def view_counts(self) -> dict[str, int]:
        """Return the platform's count of each post's views."""
        return dict(self.rows('SELECT id, "viewCount" FROM posts'))

    async def forget(self) -> None:
        """Drop the databases and the topics: Kafka gets slower with each partition that it has."""
        admin = AIOKafkaAdminClient(bootstrap_servers=self.platform.kafka.brokers)
        await admin.start()
        await admin.delete_topics([topic.name for topic in declared(self.topics.all.values(), self.namespace)])
        await admin.close()
        if self._tables is not None:
            forget = sql.SQL("DROP DATABASE {} WITH (FORCE)").format(sql.Identifier(self._tables))
        else:
            forget = sql.SQL("DROP SCHEMA IF EXISTS {} CASCADE").format(sql.Identifier(schema_of(self.namespace)))
        with psycopg.connect(self.platform.postgres.owner_url, autocommit=True) as connection:
            connection.execute(forget)
        # A transaction of a killed worker would keep its locks for a minute.
        await self._client.admin.command("killAllSessions", [])
        await self._client.drop_database(self.database.name)
        await self._client.close()

    def collection(self, name: str) -> AsyncCollection[dict[str, Any]]:
        """Return a collection of the pipeline's."""
        return self.database[name]

    async def documents(self, collection: str) -> dict[str, dict[str, Any]]:
        """Return all documents by `_id`."""
        return {document["_id"]: document async for document in self.collection(collection).find()}

    @contextmanager
    def worker(self, prelude: str = "", **settings: Any) -> Iterator[Worker]:
        """Start a worker; it is gone at the end, whatever happens.

        Args:
            prelude: Python that the worker runs first, to be another than the one that we ship.
            settings: Named without `INKSTREAM_`.
        """
        own = {f"INKSTREAM_{name.upper()}": str(value) for name, value in settings.items()}
        port = settings.get("web_port")
        with self.worker_in(ROOT, {**os.environ, **self.environment, **own}, prelude, port=port) as worker:
            yield worker

    @contextmanager
    def worker_in(
        self, directory: Path, environment: Mapping[str, str], prelude: str = "", *, port: int | None = None
    ) -> Iterator[Worker]:
        """Start a worker in a directory, with this environment; without a port, its pages get a free one."""
        port = port or self.platform.ports.free().worker
        with tempfile.NamedTemporaryFile(prefix="inkstream-worker-", suffix=".log") as log:
            process = ForkedWorker(
                {**environment, "INKSTREAM_WEB_PORT": str(port)}, Path(log.name), directory=directory, prelude=prelude
            )
            try:
                yield Worker(process, port, Path(log.name))
            except BaseException:
                print(Path(log.name).read_text()[-8_000:])
                raise
            finally:
                process.kill()
                process.wait()

    async def send(
        self, topic: str, messages: Iterable[Message], *, partition: int | None = None, **options: Any
    ) -> list[tuple[int, int]]:
        """Send records, to one partition where it is given; return the place of each. Options are the producer's."""
        producer = AIOKafkaProducer(
            bootstrap_servers=self.platform.kafka.brokers,
            acks="all",
            **{"linger_ms": 5, "max_request_size": 2**27, **options},
        )
        await producer.start()
        try:
            futures = []
            for value, headers, key in messages:
                if value is None and key is None:  # which aiokafka sends only in a ready batch
                    batch = producer.create_batch()
                    batch.append(timestamp=None, key=None, value=None, headers=list(headers))
                    futures.append(await producer.send_batch(batch, self.namespace + topic, partition=0))
                else:
                    futures.append(
                        await producer.send(
                            self.namespace + topic, value=value, headers=list(headers), key=key, partition=partition
                        )
                    )
            return [(sent.partition, sent.offset) for sent in await asyncio.gather(*futures)]
        finally:
            await producer.stop()

    async def send_with_header_names(self, topic: str, values: Sequence[tuple[bytes, bool]]) -> None:
        """Send records to partition 0, those with `True` with a header whose name is no UTF-8."""
        async with AIOKafkaProducer(bootstrap_servers=self.platform.kafka.brokers, acks="all") as producer:
            batch = producer.create_batch()
            batch._builder = header_names.builder(values)  # of which aiokafka's own would refuse some
            batch._relative_offset = len(values)
            await (await producer.send_batch(batch, self.namespace + topic, partition=0))

    async def read(self, topic: str) -> list[ConsumerRecord[bytes | None, bytes | None]]:
        """Return all records of a topic."""
        name = self.namespace + topic
        async with self._consumer() as consumer:
            partitions = [TopicPartition(name, number) for number in range(PARTITIONS)]
            consumer.assign(partitions)
            ends = await consumer.end_offsets(partitions)
            for partition, beginning in (await consumer.beginning_offsets(partitions)).items():
                consumer.seek(partition, beginning)
            records: list[ConsumerRecord[bytes | None, bytes | None]] = []
            while any([await consumer.position(partition) < end for partition, end in ends.items()]):
                for fetched in (await consumer.getmany(timeout_ms=200)).values():
                    records += fetched
            return records

    async def lag(self, agent: str) -> int:
        """Return how many records of its topic the agent has not committed."""
        topic = self.namespace + agent.removeprefix("notify-")
        partitions = [TopicPartition(topic, number) for number in range(PARTITIONS)]
        # What is committed comes first: an agent that puts a record off sends it again before it commits it.
        committed = await self.committed(agent)
        async with self._consumer() as consumer:
            ends = await consumer.end_offsets(partitions)
        lag: int = sum(ends.values()) - committed
        return lag

    async def committed(self, agent: str) -> int:
        """Return how many records the agent has committed."""
        admin = AIOKafkaAdminClient(bootstrap_servers=self.platform.kafka.brokers)
        await admin.start()
        try:
            offsets = await admin.list_consumer_group_offsets(f"{self.namespace}inkstream.{agent}")
        except GroupCoordinatorNotAvailableError:  # Kafka makes its own topic of offsets when the first group comes
            return 0
        finally:
            await admin.close()
        committed: int = sum(position.offset for position in offsets.values())
        return committed

    async def settled(self, *agents: str, seconds: float = DEADLINE_SECONDS) -> None:
        """Return when everything sent to the agents' topics is committed; the one that stores has its topic's name."""
        for agent in agents:

            async def done(agent: str = agent) -> bool:
                return await self.lag(agent) == 0

            await until(done, f"all is committed by {agent}", seconds)

    @asynccontextmanager
    async def _consumer(self) -> AsyncIterator[AIOKafkaConsumer]:
        consumer = AIOKafkaConsumer(bootstrap_servers=self.platform.kafka.brokers, auto_offset_reset="earliest")
        await consumer.start()
        try:
            yield consumer
        finally:
            await consumer.stop()


def _those(topics: Mapping[str, Topic], only: Collection[str]) -> dict[str, Topic]:
    return {name: topic for name, topic in topics.items() if not only or name in only}


def headers_of(record: ConsumerRecord[bytes | None, bytes | None]) -> dict[str, str]:
    """Return the headers that a dead letter has from Inkstream, as text."""
    return {name: value.decode() for name, value in record.headers if name.startswith("dl_")}
