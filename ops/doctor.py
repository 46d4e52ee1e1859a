"""Looks at everything that Inkstream needs and says what is wrong, and what to do about it.

In come settings and declarations; out come findings. Nothing is changed, and no server is asked for long: what does not
answer is itself a finding.
"""

import asyncio
import os
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from difflib import get_close_matches
from enum import StrEnum
from functools import partial
from pathlib import Path
from typing import NamedTuple
from urllib.parse import urlsplit

from aiokafka import AIOKafkaConsumer, TopicPartition
from aiokafka.admin import AIOKafkaAdminClient
from aiokafka.errors import KafkaError
from dotenv import dotenv_values
from tenacity import AsyncRetrying, retry_if_exception, stop_after_delay, wait_fixed

from agents.server_problems import SERVER_ERRORS, first_line, problem_of
from delivery.kafka import FEWEST_IN_SYNC, FEWEST_REPLICAS, client_options
from ops import kafka_topics
from ops.bootstrap import MIGRATIONS, MOVE_IT, UNMOVED
from ops.dead_letters import Contents, DeadLetterReader, Status
from ops.supported_versions import OLDEST, is_kafka_too_old, is_too_old
from runtime.settings import DEVELOPMENT_IP_HASH_KEY, NEEDED_ELSEWHERE, Settings
from runtime.web_address import in_url
from schemas.identity import ReplaySigner
from schemas.topics import Topic
from sinks.changes import Change
from sinks.mongo import schema_sync
from sinks.mongo.client import Mongo
from sinks.postgres import installation, migrations, pool
from sinks.postgres.platform_posts import NOT_UPDATED, PlatformTable, SetAside, set_aside, takes_ids_of
from sinks.postgres.pool import PostgresUrlError, PostsTable
from sinks.postgres.post_locks import LOCKED, Blocker, blockers, named
from sinks.postgres.recipients import problem_of_view, survey_preferences
from sinks.redis.refusals import ADVICE
from sinks.servers import ANSWER_TIMEOUT, MongoUrlError, RedisUrlError, check_redis, describe_mongo, describe_redis

ANSWER_WITHIN_SECONDS = 20.0
DEAD_LETTERS_READ_WITHIN_SECONDS = 10.0
RECENT = timedelta(days=1)
"""Dead letters younger than this are a problem; older ones were seen, and stay until Kafka deletes them."""
MUCH_LAG = 10_000
"""Records that a topic's agent may be behind: some seconds of work."""

_VIEW_COUNTS = "view counts"
_MOST_VIEWS: Mapping[str, int] = {"integer": 2**31 - 1, "smallint": 2**15 - 1}
_REFUSALS: Mapping[str, str] = {
    "22003": "the count is at the end of its type: ALTER TABLE {table} ALTER COLUMN {column} TYPE bigint "
    "(in Prisma: BigInt)",
    "23514": "a check constraint of {table} refuses the new count; change the constraint or the row",
    "42501": "a policy or a trigger refuses the update; see the policies of {table} with \\d {table} in psql",
    LOCKED: "another transaction holds the row, or what a trigger of {table} writes; end it where it is stuck",
    "P0001": "a trigger of {table} raises an exception; let it pass updates of {column} alone",
    NOT_UPDATED: "row-level security, a trigger that returns NULL or a rule leaves the row as it is; "
    "see the policies, triggers and rules of {table} with \\d {table} in psql",
}
_REFUSED_OTHERWISE = "update {column} of that row of {table} by hand to see PostgreSQL's message"
_RECIPIENTS = "recipients"
_DURABILITY = "replicas"
_LINES_OF_DRIFT = 3
_COLUMNS_SHOWN = 3
_NAMES_LISTED = 5
_GROUP_ANSWERS_WITHIN_SECONDS = 10
_PREFIX = "INKSTREAM_"
_OF_THE_DEVELOPMENT_STACK = "INKSTREAM_STACK"


class State(StrEnum):
    """How serious a finding is; with a problem, not all is well."""

    WELL = "well"
    NOTE = "note"
    PROBLEM = "problem"


class Finding(NamedTuple):
    """One thing that was looked at.

    Attributes:
        subject: What it is about.
        state: How serious it is.
        what: What was found.
        advice: What to do; empty where nothing is to be done.
    """

    subject: str
    state: State
    what: str
    advice: str = ""


async def examine(
    settings: Settings, topics: Mapping[str, Topic], agents: Mapping[str, Topic], application: str
) -> list[Finding]:
    """Look at everything, and return what was found.

    Args:
        settings: The settings in force.
        topics: The declared topics.
        agents: Which topic each agent reads.
        application: Faust's name for the application, which begins the name of each consumer group.
    """
    mongo = Mongo.connect(settings.mongo_url.get_secret_value(), settings.namespace, timeout=ANSWER_TIMEOUT)
    postgres_url = settings.postgres_url.get_secret_value()
    wanted = kafka_topics.declared(topics.values(), settings.namespace)
    tables = migrations.read(MIGRATIONS)
    is_unmoved = await _is_unmoved(mongo, postgres_url)
    drift_of_collections, drift_of_tables = [
        [] if is_unmoved else [partial(_drift, subject, look)]
        for subject, look in (
            ("collections", partial(schema_sync.sync_schema, mongo.database, check=True)),
            ("tables", partial(migrations.migrate, postgres_url, tables, settings.namespace, check=True)),
        )
    ]
    posts = PlatformTable.of(settings)
    kafka = _Server("Kafka", "INKSTREAM_KAFKA_BROKERS", settings)
    mongodb = _Server("MongoDB", "INKSTREAM_MONGO_URL", settings)
    postgresql = _Server("PostgreSQL", "INKSTREAM_POSTGRES_URL", settings)
    redis = _Server("Redis", "INKSTREAM_REDIS_URL", settings)
    examined = await asyncio.gather(
        kafka.ask(
            partial(_kafka, settings),
            partial(_drift, "topics", partial(kafka_topics.converge, settings, wanted, check=True)),
            partial(_durability, settings, [topic.name for topic in wanted]),
            partial(_traffic, settings, topics, agents, application),
        ),
        mongodb.ask(
            partial(_mongodb, mongo),
            *drift_of_collections,
        ),
        postgresql.ask(
            partial(_postgresql, postgres_url, settings.namespace),
            *drift_of_tables,
            partial(_posts, postgres_url, settings.namespace, posts),
            partial(_recipients, postgres_url, settings.namespace, settings.recipients_view),
        ),
        redis.ask(partial(_redis, settings.redis_url.get_secret_value(), f"{settings.namespace}inkstream:")),
    )
    await mongo.close()
    unmoved = [Finding("namespace", State.PROBLEM, UNMOVED.format(settings.namespace), MOVE_IT)] if is_unmoved else []
    return [*_settings_findings(settings), *unmoved, *(finding for findings in examined for finding in findings)]


async def _is_unmoved(mongo: Mongo, postgres_url: str) -> bool:
    """Whether data of an earlier release has to be moved; a server that does not answer says so where it is asked."""
    try:
        async with asyncio.timeout(ANSWER_WITHIN_SECONDS):
            return bool(await installation.move(mongo.database, postgres_url, check=True))
    except SERVER_ERRORS:
        return False


class _Server(NamedTuple):
    """A server that is asked, and the setting that says where it is."""

    name: str
    setting: str
    settings: Settings

    async def ask(self, *questions: Callable[[], Awaitable[Iterable[Finding]]]) -> list[Finding]:
        """Ask one question after the other, until the server does not answer."""
        findings: list[Finding] = []
        try:
            for question in questions:
                async with asyncio.timeout(ANSWER_WITHIN_SECONDS):
                    findings += await question()
        except (MongoUrlError, PostgresUrlError, RedisUrlError) as error:
            findings.append(Finding(self.name, State.PROBLEM, first_line(error), f"correct {self.setting}"))
        except SERVER_ERRORS as error:
            problem = await asyncio.to_thread(problem_of, error, self.settings, self.name)
            findings.append(Finding(self.name, State.PROBLEM, problem.what, problem.advice))
        return findings


def _settings_findings(settings: Settings) -> Iterator[Finding]:
    known = {_PREFIX + name.upper() for name in Settings.model_fields}
    for name in sorted({name.upper() for name in (*os.environ, *dotenv_values(Path(".env")))}):
        if name.startswith(_PREFIX) and not name.startswith(_OF_THE_DEVELOPMENT_STACK) and name not in known:
            nearest = get_close_matches(name, known, n=1)
            advice = f"did you mean {nearest[0]}?" if nearest else "`inkstream settings` lists all there are"
            yield Finding("settings", State.PROBLEM, f"{name} is no setting, and has no effect", advice)
    if settings.ip_hash_key.get_secret_value() == DEVELOPMENT_IP_HASH_KEY:
        advice = "before real visitors come, set one: `openssl rand -hex 32`"
        yield Finding("settings", State.NOTE, "INKSTREAM_IP_HASH_KEY is the public development key", advice)
    if settings.environment == "development":
        return
    for name, reason in NEEDED_ELSEWHERE.items():
        if getattr(settings, name) == Settings.model_fields[name].default:
            what = f"{_PREFIX}{name.upper()} is set to what it is in development: {reason}"
            yield Finding("settings", State.PROBLEM if name == "postgres_url" else State.NOTE, what, "set your own")
    if settings.email_providers and settings.unsubscribe_url is None:
        what = "INKSTREAM_UNSUBSCRIBE_URL is not set: no e-mail can be unsubscribed from with one click"
        yield Finding("settings", State.NOTE, what, "publish a worker's page /unsubscribe, and set its address")
    if not settings.email_providers:
        what = "INKSTREAM_EMAIL_PROVIDERS is empty: no e-mail is sent"
        yield Finding("settings", State.NOTE, what, "name a provider, or ignore this where none should be")


async def _kafka(settings: Settings) -> list[Finding]:
    async with kafka_topics.administration(settings) as admin:
        brokers = (await admin.describe_cluster())["brokers"]
        requests = await kafka_topics.requests_taken(admin)
    addresses = ", ".join(f"{in_url(broker['host'])}:{broker['port']}" for broker in brokers)
    what = f"{_count(len(brokers), 'broker')}: {addresses}"
    return [Finding("Kafka", State.WELL, what), *_too_old("Kafka", is_kafka_too_old(requests))]


def _too_old(server: str, is_too_old: bool) -> Iterator[Finding]:
    if is_too_old:
        what = f"older than {OLDEST[server]}, the oldest version that is supported"
        yield Finding(server, State.NOTE, what, "upgrade it; README.md lists the versions that are tested")


async def _durability(settings: Settings, names: Collection[str]) -> list[Finding]:
    """Return which topics would lose acknowledged events with one broker; in development it does not matter."""
    if settings.environment == "development":
        return []
    async with kafka_topics.administration(settings) as admin:
        found = await kafka_topics.durabilities(admin, names)
    few = [f"{topic.name} {topic.replication}" for topic in found if topic.replication < FEWEST_REPLICAS]
    # A lost offset repeats work and loses nothing, so of the topic of offsets only the replicas matter.
    lax = [f"{topic.name} {topic.in_sync}" for topic in found if topic.in_sync < FEWEST_IN_SYNC and topic.name in names]
    is_problem = settings.environment == "production" and not settings.allow_fewer_replicas
    state = State.PROBLEM if is_problem else State.NOTE
    accepted = "accepted by INKSTREAM_ALLOW_FEWER_REPLICAS; else " if settings.allow_fewer_replicas else ""
    findings = []
    if few:
        what = f"{_count(len(few), 'topic')} with fewer than {FEWEST_REPLICAS} replicas: {_listed(few)}"
        advice = f"{accepted}move them with kafka-reassign-partitions; for new topics, set INKSTREAM_REPLICATION=3"
        findings.append(Finding(_DURABILITY, state, what, advice))
    if lax:
        what = f"{_count(len(lax), 'topic')} with min.insync.replicas under {FEWEST_IN_SYNC}: {_listed(lax)}"
        advice = f"{accepted}once they have three replicas, `inkstream bootstrap --allow-refusals` sets it to 2"
        findings.append(Finding(_DURABILITY, state, what, advice))
    return findings or [Finding(_DURABILITY, State.WELL, "every topic keeps at least three replicas, two in sync")]


async def _mongodb(mongo: Mongo) -> list[Finding]:
    server = await describe_mongo(mongo)
    if server.replica_set is None:
        advice = "start mongod with --replSet; without one there are no transactions, and error groups need them"
        return [Finding("MongoDB", State.PROBLEM, f"{server.version}, a server without replica set", advice)]
    what = f"{server.version}, replica set {server.replica_set} of {server.members}"
    if server.primary is None:
        advice = "look at rs.status(): a majority of the members has to be up"
        return [Finding("MongoDB", State.PROBLEM, f"{what}, without a primary: nothing can be written", advice)]
    findings = [Finding("MongoDB", State.WELL, f"{what}, primary {server.primary}")]
    return [*findings, *_too_old("MongoDB", is_too_old("MongoDB", server.version))]


async def _postgresql(url: str, namespace: str) -> list[Finding]:
    server = await pool.describe(url, namespace)
    what = f"{server.version}, database {server.database}, role {server.role}"
    findings = [Finding("PostgreSQL", State.WELL, what)]
    if server.is_standby:
        advice = "connect to the primary: target_session_attrs=read-write"
        findings = [Finding("PostgreSQL", State.PROBLEM, f"{what}, a standby: it can't be written", advice)]
    findings += _too_old("PostgreSQL", is_too_old("PostgreSQL", server.version))
    return findings


async def _posts(url: str, namespace: str, posts: PlatformTable) -> list[Finding]:
    """Return whether views can be counted in the platform's table, and what waits for it."""
    async with pool.connection(url, namespace) as using, pool.connection(url, namespace) as waiting:
        table = await pool.describe_posts(using, *posts)
        findings = [*_obstacles(table, posts), *_excess_rights(table)]
        if table.is_prepared and takes_ids_of(table):
            names = posts.names(table.id_type)
            if holders := await blockers(waiting, using, names):
                return [*findings, _locked(table, holders)]
            await pool.fetch(using, "limit_lock_wait", milliseconds=1_000)
            (row,) = await pool.fetch(using, "highest_view_count", names)
            findings += _room(table, row["highest"])
            if table.may_read_counts:
                (row,) = await pool.fetch(using, "count_missing_posts", names)
                findings += _missing_posts(table, row["missing"])
                for refused in await set_aside(using, names):
                    is_locked = refused.code == LOCKED
                    holders = await blockers(waiting, using, names, refused.example) if is_locked else []
                    findings.append(_refused(table, refused, holders))
    return findings or [Finding(_VIEW_COUNTS, State.WELL, f"in {table.table}, column {table.view_count_column}")]


def _obstacles(table: PostsTable, named: PlatformTable) -> Iterator[Finding]:
    """Yield what keeps views from being counted; what PostgreSQL's owner can mend has the statement for it."""
    if table.schema is None:
        advice = "is this the platform's database? INKSTREAM_POSTS_TABLE names its table of posts, as `schema.table`"
        yield Finding(_VIEW_COUNTS, State.PROBLEM, f"there is no table {table.table}, so nothing is counted", advice)
        return
    columns = (
        (named.id_column, table.id_column, "INKSTREAM_POSTS_ID_COLUMN"),
        (named.view_count_column, table.view_count_column, "INKSTREAM_VIEW_COUNT_COLUMN"),
    )
    missing = [column for column in columns if column[0] not in table.columns]
    for name, quoted, setting in missing:
        nearest = get_close_matches(name.lower(), [column.lower() for column in table.columns], n=1)
        meant = [column for column in table.columns if column.lower() in nearest]
        advice = f"{setting} names it" + (f"; did you mean {meant[0]}?" if meant else "")
        yield Finding(_VIEW_COUNTS, State.PROBLEM, f"{table.table} has no column {quoted}", advice)
    if table.id_type is not None and not takes_ids_of(table):
        what = f"{table.table}.{table.id_column} is of type {table.id_type}, by which no post can be found"
        advice = "let INKSTREAM_POSTS_ID_COLUMN name a column of type text, varchar, uuid, integer or bigint"
        yield Finding(_VIEW_COUNTS, State.PROBLEM, what, advice)
    if not table.may_use_schema:
        advice = f"as its owner: GRANT USAGE ON SCHEMA {table.schema} TO {table.role}"
        yield Finding(_VIEW_COUNTS, State.PROBLEM, f"no right to use schema {table.schema}", advice)
    if not missing and not (table.may_read and table.may_count):
        lacking = " or ".join(
            [
                *([] if table.may_read else [f"read {table.id_column} and {table.view_count_column}"]),
                *([] if table.may_count else [f"write {table.view_count_column}"]),
            ]
        )
        what = f"no right to {lacking} of {table.table}"
        advice = (
            f"as its owner: GRANT SELECT ({table.id_column}, {table.view_count_column}), "
            f"UPDATE ({table.view_count_column}) ON {table.table} TO {table.role}"
        )
        yield Finding(_VIEW_COUNTS, State.PROBLEM, what, advice)
    if table.row_security:
        for command in ("SELECT", "UPDATE"):
            if command not in table.policies and "ALL" not in table.policies:
                what = f"row-level security is on for {table.table}, and no policy lets {table.role} {command}"
                advice = f"as its owner: CREATE POLICY inkstream_{command.lower()} ON {table.table} FOR {command} " + (
                    f"TO {table.role} USING (true)"
                )
                yield Finding(_VIEW_COUNTS, State.PROBLEM, what, advice)


def _room(table: PostsTable, highest: int | None) -> Iterator[Finding]:
    """Yield a note where a count is near the end of its type."""
    most = _MOST_VIEWS.get(table.view_count_type or "")
    if most is not None and highest is not None and highest > most // 2:
        what = f"{table.table}.{table.view_count_column} is of type {table.view_count_type} and reaches {highest:,}"
        advice = f"it ends at {most:,}: make it a bigint (in Prisma: BigInt) before then"
        yield Finding(_VIEW_COUNTS, State.NOTE, what, advice)


def _locked(table: PostsTable, holders: Sequence[Blocker]) -> Finding:
    """Return who holds the lock that all counts wait for."""
    what = f"the update of {table.view_count_column} waits for a lock on {table.table}, held by {named(holders)}"
    advice = (
        "views are counted when the lock is gone, and none is lost; pg_stat_activity tells what the holder does, and "
        "pg_terminate_backend ends one that is stuck"
    )
    return Finding(_VIEW_COUNTS, State.PROBLEM, what, advice)


def _refused(table: PostsTable, refused: SetAside, holders: Sequence[Blocker]) -> Finding:
    """Return what can be done for posts whose count can't be changed."""
    what = (
        f"PostgreSQL refuses to update {table.view_count_column} of {_count(refused.posts, 'post')} with "
        f"{refused.code}, since {refused.since:%Y-%m-%dT%H:%M:%SZ}; one is {refused.example}"
        + (f", held by {named(holders)}" if holders else "")
    )
    advice = _REFUSALS.get(refused.code, _REFUSED_OTHERWISE).format(table=table.table, column=table.view_count_column)
    return Finding(_VIEW_COUNTS, State.PROBLEM, what, f"{advice}; they are tried again by themselves")


def _excess_rights(table: PostsTable) -> Iterator[Finding]:
    """Yield a note where we may write more of the platform's posts than their views."""
    if not (table.has_view_count and table.also_writable):
        return
    shown = ", ".join(table.also_writable[:_COLUMNS_SHOWN])
    more = len(table.also_writable) - _COLUMNS_SHOWN
    what = f"role {table.role} may also write {shown}{f' and {more} more' if more > 0 else ''} of {table.table}"
    if table.is_owner:
        advice = f"come as a role that does not own {table.table}: {table.view_count_column} is all that is written"
    else:
        # Taking a right on the table away takes those on its columns too.
        advice = (
            f"as its owner: REVOKE UPDATE ON {table.table} FROM {table.role}; "
            f"GRANT UPDATE ({table.view_count_column}) ON {table.table} TO {table.role}"
        )
    yield Finding(_VIEW_COUNTS, State.NOTE, what, advice)


async def _recipients(url: str, namespace: str, view: str | None) -> list[Finding]:
    """Return whether addresses of users can be read from the platform's view."""
    if view is None:
        what = "INKSTREAM_RECIPIENTS_VIEW is empty: only requests that name an address or a device are sent there"
        return [Finding(_RECIPIENTS, State.NOTE, what)]
    problem = await problem_of_view(url, view)
    if problem is None:
        return [Finding(_RECIPIENTS, State.WELL, f"in {view}"), *await _preferences(url, view)]
    advice = "docs/recipients.md says what it is; without one, only requests that name an address are sent there"
    if problem.startswith("no right"):
        advice = f"as its owner: GRANT SELECT ON {view} TO {(await pool.describe(url, namespace)).role}"
    return [Finding(_RECIPIENTS, State.NOTE if problem.startswith("there is no") else State.PROBLEM, problem, advice)]


async def _preferences(url: str, view: str) -> list[Finding]:
    """Return what of people's preferences can't be read; nothing where all can be."""
    survey = await survey_preferences(url, view)
    if survey is None:
        advice = "docs/recipients.md says how fast it should be"
        return [Finding(_RECIPIENTS, State.NOTE, f"{view} is too slow to look at people's preferences", advice)]
    people, unreadable, examples = survey
    if not unreadable:
        return []
    shown = "; ".join(f"{part}: {value}" for part, value in examples[:_LINES_OF_DRIFT])
    what = f"preferences of {unreadable:,} of {people:,} people can't be read, so these are sent less: {shown}"
    advice = "correct them where the platform stores them; docs/recipients.md says what can be read"
    return [Finding(_RECIPIENTS, State.NOTE, what, advice)]


def _missing_posts(table: PostsTable, missing: int) -> Iterator[Finding]:
    if missing:
        what = f"{_count(missing, 'post')} with views not in {table.table}; the views wait"
        advice = f"they are counted when a post appears; is {table.id_column} what events call postId?"
        yield Finding(_VIEW_COUNTS, State.NOTE, what, advice)


async def _redis(url: str, prefix: str) -> list[Finding]:
    """Return whether Redis takes each command that a worker uses; it is asked for its version only where we may ask."""
    check = await check_redis(url, prefix)
    findings = [
        Finding("Redis", State.PROBLEM, f"refuses {', '.join(commands)}: {kind}", ADVICE[kind])
        for kind, commands in check.problems.items()
    ]
    if check.denied:
        what = f"no permission to run {', '.join(check.denied)}: limits hold for each worker alone, and more is missing"
        advice = f"as its administrator: ACL SETUSER {urlsplit(url).username or 'default'} {check.acl}"
        findings.append(Finding("Redis", State.PROBLEM, what, advice))
    if findings:
        return findings
    version = await describe_redis(url)
    well = Finding("Redis", State.WELL, f"{version}, takes every command that we use")
    return [well, *_too_old("Redis", is_too_old("Redis", version))]


async def _drift(subject: str, look: Callable[[], Awaitable[list[Change]]]) -> list[Finding]:
    """Return what differs from the declarations, and what nobody declared."""
    changes = await look()
    different = [change.line for change in changes if change.action not in ("report", "blocked")]
    unexpected = [change.line for change in changes if change.action == "report"]
    findings = [Finding(subject, State.PROBLEM, line) for line in _blocked(changes)]
    if different:
        advice = "`inkstream bootstrap` makes it so; `inkstream bootstrap --check` lists all"
        findings.append(Finding(subject, State.PROBLEM, _shortened(different), advice))
    if unexpected:
        advice = "remove it where nobody needs it; an index costs every write"
        findings.append(Finding(subject, State.NOTE, _shortened(unexpected), advice))
    return findings or [Finding(subject, State.WELL, "as declared")]


def _blocked(changes: Iterable[Change]) -> Iterator[str]:
    """Yield what only a person can change, a line for all things with the same detail."""
    alike: dict[str, list[Change]] = {}
    for change in changes:
        if change.action == "blocked":
            alike.setdefault(change.detail, []).append(change)
    for first, *others in alike.values():
        yield replace(first, what=_listed([first.what, *(other.what for other in others)])).line


async def _traffic(
    settings: Settings, topics: Mapping[str, Topic], agents: Mapping[str, Topic], application: str
) -> list[Finding]:
    """Return, for each topic, how far its agents are, and the dead letters that wait."""
    findings = []
    deadline = asyncio.get_running_loop().time() + DEAD_LETTERS_READ_WITHIN_SECONDS
    async with _clients(settings) as (admin, consumer):
        partitions = await kafka_topics.partition_counts(admin)
        signer = ReplaySigner(settings.ip_hash_key.get_secret_value().encode())
        reading = DeadLetterReader(consumer, partitions, signer)
        for topic in topics.values():
            name = settings.namespace + topic.name
            if name in partitions:
                findings += [
                    await _progress(admin, consumer, name, partitions[name], f"{application}.{agent}")
                    for agent, read in agents.items()
                    if read is topic
                ]
            if settings.namespace + topic.dead_letter in partitions:
                seconds = max(0.0, deadline - asyncio.get_running_loop().time())
                contents = await reading.contents(settings.namespace + topic.dead_letter, seconds=seconds)
                findings += _dead_letters(topic, contents, datetime.now(UTC))
    return findings


@asynccontextmanager
async def _clients(settings: Settings) -> AsyncIterator[tuple[AIOKafkaAdminClient, AIOKafkaConsumer]]:
    consumer = AIOKafkaConsumer(**client_options(settings), enable_auto_commit=False)
    async with kafka_topics.administration(settings) as admin:
        try:
            await consumer.start()
            yield admin, consumer
        finally:
            await consumer.stop()


async def _progress(
    admin: AIOKafkaAdminClient, consumer: AIOKafkaConsumer, topic: str, partitions: int, group: str
) -> Finding:
    """Return how far the topic's consumer group is behind, and whether anybody is in it."""
    numbers = [TopicPartition(topic, number) for number in range(partitions)]
    first, end = await consumer.beginning_offsets(numbers), await consumer.end_offsets(numbers)
    members, committed = await _group(admin, group)
    lag = sum(end[number] - max(committed.get(number, -1), first[number]) for number in numbers)
    behind = f"{_count(lag, 'record')} behind, {_count(members, 'reader')} in group {group}"
    if not members:
        return Finding(topic, State.PROBLEM, behind, "no worker reads it: start `inkstream worker`")
    if lag > MUCH_LAG:
        advice = "/readyz of the workers says whether a store is down; else start more workers"
        return Finding(topic, State.PROBLEM, behind, advice)
    return Finding(topic, State.WELL, behind)


async def _group(admin: AIOKafkaAdminClient, group: str) -> tuple[int, dict[TopicPartition, int]]:
    """Return how many members a consumer group has, and the offsets that it committed."""
    # The coordinator of a group is looked for when the group is first asked for, and is not there at once.
    async for attempt in AsyncRetrying(
        retry=retry_if_exception(lambda error: isinstance(error, KafkaError) and bool(error.retriable)),
        stop=stop_after_delay(_GROUP_ANSWERS_WITHIN_SECONDS),
        wait=wait_fixed(0.2),
        reraise=True,
    ):
        with attempt:
            (response,) = await admin.describe_consumer_groups([group])
            offsets = await admin.list_consumer_group_offsets(group)
    (described,) = response.to_object()["groups"]
    return len(described["members"]), {partition: position.offset for partition, position in offsets.items()}


def _dead_letters(topic: Topic, contents: Contents, now: datetime) -> Iterator[Finding]:
    """Yield a finding about the dead letters that are open, or a note where all that wait are acknowledged."""
    waiting = contents.those(Status.OPEN)
    acknowledged = len(contents.those(Status.ACKNOWLEDGED))
    at_least = "" if contents.is_complete else "at least "
    if not waiting:
        if acknowledged:
            what = f"no open dead letters; {at_least}{acknowledged:,} acknowledged"
            yield Finding(topic.dead_letter, State.NOTE, what, f"`inkstream replay {topic.name}` sends them back")
        return
    reasons = ", ".join(
        f"{reason} {count:,}" for reason, count in Counter(letter.reason for letter in waiting).most_common()
    )
    others = f"; {acknowledged:,} more acknowledged" if acknowledged else ""
    what = f"{at_least}{_count(len(waiting), 'dead letter')}: {reasons}{others}; the latest: {waiting[-1].message}"
    is_recent = waiting[-1].time > now - RECENT
    advice = (
        f"`inkstream dead-letters list --topic {topic.name}` shows them; after fixing the cause "
        f"`inkstream replay {topic.name}`, or `inkstream dead-letters acknowledge` or `discard` with a reason"
    )
    yield Finding(topic.dead_letter, State.PROBLEM if is_recent else State.NOTE, what, advice)


def _shortened(lines: Sequence[str]) -> str:
    more = len(lines) - _LINES_OF_DRIFT
    return "\n".join([*lines[:_LINES_OF_DRIFT], *([f"and {more} more"] if more > 0 else [])])


def _listed(names: Sequence[str]) -> str:
    more = len(names) - _NAMES_LISTED
    return ", ".join(names[:_NAMES_LISTED]) + (f" and {more} more" if more > 0 else "")


def _count(number: int, noun: str) -> str:
    return f"{number:,} {noun}" if number == 1 else f"{number:,} {noun}s"
