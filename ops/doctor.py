"""Checks an installation: settings, servers, topics, collections, tables, consumers and dead letters.

Input: settings and declarations. Output: findings. Changes nothing. The time of each check is limited: a server that
does not answer is a finding.
"""

import asyncio
from functools import partial

from agents.server_problems import SERVER_ERRORS
from agents.topology import Topology
from ops import kafka_topics
from ops.bootstrap import MIGRATIONS, MOVE_IT, UNMOVED
from ops.checks.consumers import check_consumers
from ops.checks.drift import check_drift
from ops.checks.finding import Finding, State
from ops.checks.kafka import check_brokers, check_durability
from ops.checks.mongodb import check_mongodb
from ops.checks.postgresql import check_postgresql
from ops.checks.recipients import check_recipients
from ops.checks.redis import check_redis_commands
from ops.checks.server import ANSWER_WITHIN_SECONDS, Server
from ops.checks.settings import check_settings
from ops.checks.view_counts import check_posts
from runtime.settings import Settings
from sinks.mongo import schema_sync
from sinks.mongo.client import Mongo
from sinks.postgres import installation, migrations
from sinks.postgres.platform_posts import PlatformTable
from sinks.servers import ANSWER_TIMEOUT


async def examine(settings: Settings, topology: Topology) -> list[Finding]:
    """Run all checks and return the findings.

    Args:
        settings: The effective settings.
        topology: The topics, and the agents that read them.
    """
    mongo = Mongo.connect(settings.mongo_url.get_secret_value(), settings.namespace, timeout=ANSWER_TIMEOUT)
    postgres_url = settings.postgres_url.get_secret_value()
    wanted = kafka_topics.declared(topology.topics.all.values(), settings.namespace)
    tables = migrations.read(MIGRATIONS)
    is_unmoved = await _is_unmoved(mongo, postgres_url)
    drift_of_collections, drift_of_tables = [
        [] if is_unmoved else [partial(check_drift, subject, look)]
        for subject, look in (
            ("collections", partial(schema_sync.sync_schema, mongo.database, check=True)),
            ("tables", partial(migrations.migrate, postgres_url, tables, settings.namespace, check=True)),
        )
    ]
    posts = PlatformTable.of(settings)
    kafka = Server("Kafka", "INKSTREAM_KAFKA_BROKERS", settings)
    mongodb = Server("MongoDB", "INKSTREAM_MONGO_URL", settings)
    postgresql = Server("PostgreSQL", "INKSTREAM_POSTGRES_URL", settings)
    redis = Server("Redis", "INKSTREAM_REDIS_URL", settings)
    examined = await asyncio.gather(
        kafka.run(
            partial(check_brokers, settings),
            partial(check_drift, "topics", partial(kafka_topics.converge, settings, wanted, check=True)),
            partial(check_durability, settings, [topic.name for topic in wanted]),
            partial(check_consumers, settings, topology),
        ),
        mongodb.run(
            partial(check_mongodb, mongo),
            *drift_of_collections,
        ),
        postgresql.run(
            partial(check_postgresql, postgres_url, settings.namespace),
            *drift_of_tables,
            partial(check_posts, postgres_url, settings.namespace, posts),
            partial(check_recipients, postgres_url, settings.namespace, settings.recipients_view),
        ),
        redis.run(
            partial(check_redis_commands, settings.redis_url.get_secret_value(), f"{settings.namespace}inkstream:")
        ),
    )
    await mongo.close()
    unmoved = [Finding("namespace", State.PROBLEM, UNMOVED.format(settings.namespace), MOVE_IT)] if is_unmoved else []
    return [*check_settings(settings), *unmoved, *(finding for findings in examined for finding in findings)]


async def _is_unmoved(mongo: Mongo, postgres_url: str) -> bool:
    """Whether an earlier release's data has to be moved; `False` if a server does not answer: its own check says so."""
    try:
        async with asyncio.timeout(ANSWER_WITHIN_SECONDS):
            return bool(await installation.move(mongo.database, postgres_url, check=True))
    except SERVER_ERRORS:
        return False
