"""The topology: what flows from where, through what, to where. Read this first.

In come the topics of `topics.yaml`; out go documents in MongoDB, and view counts in PostgreSQL and Redis. Each topic
has an agent with a consumer group of its own, and every agent does the same: a batch of records in, an idempotent write
out, the offset committed last.

    inbound topics ──store──▶ MongoDB
                        └───▶ view-windows ──count_views──▶ post-view-counts ──apply_counts──▶ PostgreSQL
                                                                                   rank_posts └───▶ Redis
"""

from functools import partial
from importlib.metadata import version

import structlog

from agents.apply_counts import ApplyCounts
from agents.count_views import CountViews
from agents.rank_posts import RankPosts
from agents.settle_counts import SettleCounts
from agents.store import Store
from agents.touch_windows import TouchWindows
from agents.watch_drift import WatchDrift
from delivery import kafka
from delivery.dead_letters import DeadLetters
from delivery.pipeline import Pipeline
from delivery.producer import RecordProducer
from enrich.enricher import Enricher
from enrich.geo import GeoDatabase
from ops import pages
from ops.health import Health
from ops.logs import logging_config
from ops.probe import Ping, Probe
from ops.settings import Settings
from ops.verification import Verification
from schemas.cloudevents import Decoder
from schemas.topics import TopicsError, load
from sinks import collections, postgres
from sinks.mongo import Mongo
from sinks.redis import RecentViews
from sinks.stored_views import StoredViews
from sinks.view_counts import PlatformTable, ViewCounts

log = structlog.get_logger(__name__)
settings = Settings()
topics = load(settings.topics_file, collections.NAMES, partitions=settings.partitions, replication=settings.replication)
if unknown := set(settings.agents) - set(topics.all):
    raise TopicsError(
        f"INKSTREAM_AGENTS: no topic {', '.join(sorted(unknown))}; expected some of {', '.join(topics.all)}"
    )
view_windows, post_view_counts = topics.derived["view-windows"], topics.derived["post-view-counts"]

health = Health()
app = Pipeline("inkstream", settings, health)
app.conf.logging_config = logging_config(settings)

producer = RecordProducer(kafka.client_options(settings), health)
dead_letters = DeadLetters(
    producer, release=version("inkstream"), share=settings.dead_letter_limit, sample=settings.dead_letter_sample
)
mongo = Mongo.connect(settings.mongo_url.get_secret_value())
stored_views = StoredViews(mongo.database, settings.count_since)
posts_table = PlatformTable.of(settings)
view_counts = ViewCounts(postgres.Pool(settings.postgres_url.get_secret_value()), posts_table)
geo_path = settings.geo_database_path()
geo = GeoDatabase.open(geo_path) if geo_path and geo_path.exists() else None
enricher = Enricher(ip_hash_key=settings.ip_hash_key.get_secret_value().encode(), geo=geo)


pings: dict[str, Ping] = {"kafka": partial(kafka.ping, settings), "mongodb": mongo.ping}


def runs(topic: str) -> bool:
    """Whether this worker runs the topic's agent."""
    return not settings.agents or topic in settings.agents


touch_windows = TouchWindows(settings.namespace + view_windows.name, producer)
for topic in topics.inbound.values():
    if runs(topic.name):
        name = settings.namespace + topic.name
        announce = touch_windows if collections.PAGE_VIEWS.name in topic.collections else None
        decoder = Decoder(topic, settings.ahead_limit)
        app.consume(name, Store(name, decoder, enricher, mongo, dead_letters, health, announce))

if runs(view_windows.name):
    count_views = CountViews(
        settings.namespace + post_view_counts.name,
        touch_windows,
        Decoder(view_windows, settings.ahead_limit),
        stored_views,
        mongo,
        producer,
        dead_letters,
        health,
        every=settings.count_every,
        horizon=settings.count_horizon,
        rate=settings.recount_rate,
    )
    app.consume(settings.namespace + view_windows.name, count_views, gathers=200)

if runs(post_view_counts.name):
    recent_views = RecentViews(settings.redis_url.get_secret_value(), f"{settings.namespace}inkstream:")
    rank_posts = RankPosts(recent_views, view_counts)
    apply_counts = ApplyCounts(
        Decoder(post_view_counts, settings.ahead_limit), view_counts, dead_letters, health, rank_posts.note
    )
    app.consume(settings.namespace + post_view_counts.name, apply_counts)
    app.run(SettleCounts(view_counts, settings.count_horizon))  # closes PostgreSQL, so it is stopped last
    app.run(rank_posts)
    app.run(WatchDrift(Verification(stored_views, view_counts, settings), settings.drift_every))
    pings["postgresql"] = view_counts.ping

app.run(producer)
app.run(Probe(pings, health))
pages.serve(app, health)


@app.task  # type: ignore[untyped-decorator]
async def warn_of_missing_geo_database() -> None:
    """Say once, at the start, that page views will have no `geo`."""
    if geo is None:
        log.warning("no geo database, so no geo in page views", path=str(geo_path))
