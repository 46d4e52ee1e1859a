"""The topology: what flows from where, through what, to where. Read this first.

In come the topics of `topics.yaml`; out go documents in MongoDB. Each topic has an agent with a consumer group of its
own, and every agent does the same: a batch of records in, an idempotent write out, the offset committed last.
"""

from functools import partial
from importlib.metadata import version

import structlog

from agents.store import Store
from delivery import kafka
from delivery.dead_letters import DeadLetters
from delivery.pipeline import Pipeline
from enrich.enricher import Enricher
from enrich.geo import GeoDatabase
from ops import pages
from ops.health import Health
from ops.logs import logging_config
from ops.probe import Probe
from ops.settings import Settings
from schemas.cloudevents import Decoder
from schemas.topics import TopicsError, load
from sinks import collections
from sinks.mongo import Mongo

log = structlog.get_logger(__name__)
settings = Settings()
topics = load(settings.topics_file, collections.NAMES, partitions=settings.partitions, replication=settings.replication)
if unknown := set(settings.agents) - set(topics):
    raise TopicsError(f"INKSTREAM_AGENTS: no topic {', '.join(sorted(unknown))}; expected some of {', '.join(topics)}")

health = Health()
app = Pipeline("inkstream", settings, health)
app.conf.logging_config = logging_config(settings)

mongo = Mongo.connect(settings.mongo_url.get_secret_value())
geo_path = settings.geo_database_path()
geo = GeoDatabase.open(geo_path) if geo_path and geo_path.exists() else None
enricher = Enricher(ip_hash_key=settings.ip_hash_key.get_secret_value().encode(), geo=geo)
dead_letters = DeadLetters(
    client_options=kafka.client_options(settings),
    release=version("inkstream"),
    share=settings.dead_letter_limit,
    sample=settings.dead_letter_sample,
    health=health,
)
app.run(dead_letters)

for topic in topics.values():
    if not settings.agents or topic.name in settings.agents:
        name = settings.namespace + topic.name
        decoder = Decoder(topic, settings.ahead_limit)
        app.consume(name, Store(name, decoder, enricher, mongo, dead_letters, health))

app.run(Probe({"kafka": partial(kafka.ping, settings), "mongodb": mongo.ping}, health))
pages.serve(app, health)


@app.task  # type: ignore[untyped-decorator]
async def warn_of_missing_geo_database() -> None:
    """Say once, at the start, that page views will have no `geo`."""
    if geo is None:
        log.warning("no geo database, so no geo in page views", path=str(geo_path))
