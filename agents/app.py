"""Builds the worker: its agents, the stores that they use, and its pages. Read this first.

Input: the topics of `topics.yaml`. Output: documents in MongoDB, view counts in PostgreSQL and Redis, and messages to
people. Each agent has its own consumer group, and each does the same: read a batch, write it idempotently, commit the
offset last. Which agents there are is in `agents/topology.py`.

    inbound topics ──store──▶ MongoDB
      │                 └───▶ view-windows ──count_views──▶ post-view-counts ──apply_counts──▶ PostgreSQL
      │                                                                            rank_posts └───▶ Redis
      └──notify──▶ notificationQueue in MongoDB ──deliver──▶ e-mail, push
                                  ▲                               │
                                  └──apply── delivery-receipts ◀┘ the providers' webhooks

The `notify-…` agents are `Store` too, for topics with events that `notifications.yaml` has a rule for. Deliver reads no
topic: it works on the queue in MongoDB, and writes down each message before and after it sends it.
"""

from functools import partial
from importlib.metadata import version
from random import SystemRandom

import structlog

from agents import configuration
from agents.notifications.apply_receipts import ApplyReceipts
from agents.notifications.attempt import Attempts
from agents.notifications.deliver import DeliverNotification
from agents.notifications.dispatch import Dispatcher
from agents.notifications.eligibility import Eligibility, Limits
from agents.notifications.notify_stored import NotifyStored
from agents.notifications.routing import Router
from agents.notifications.watch_queue import WatchQueue
from agents.store import AfterWrite, Store
from agents.topology import DELIVER, DELIVERY_RECEIPTS, POST_VIEW_COUNTS, VIEW_WINDOWS, hooks_of, load
from agents.view_counts.apply_counts import ApplyCounts
from agents.view_counts.count_views import CountViews
from agents.view_counts.maintain_counts import MaintainCounts
from agents.view_counts.rank_posts import RankPosts
from agents.view_counts.reconciliation import Reconciliation
from agents.view_counts.touch_windows import TouchWindows
from agents.view_counts.watch_drift import WatchDrift
from agents.watch_servers import Ping, Probe
from delivery import kafka
from delivery.dead_letters.writer import DeadLetters
from delivery.pipeline import Pipeline
from delivery.producer import RecordProducer
from delivery.retry import Retrier
from enrich.enricher import Enricher
from enrich.geo import GeoDatabase
from enrich.notifications import Notifier
from notifications.links import Site
from notifications.message_builder import MessageBuilder
from notifications.rendering import Renderer
from notifications.unsubscribing import UnsubscribeLinks
from providers.registry import Providers
from runtime.health import Health
from runtime.logs import logging_config
from schemas.cloudevents import Decoder
from schemas.identity import ReplaySigner
from sinks import collections
from sinks.stores import Stores
from web import health_pages, unsubscribe_page, webhooks
from web.receipt_publisher import ReceiptPublisher
from web.server import WebServer

log = structlog.get_logger(__name__)
settings = configuration.check()
topology = load(settings)
view_windows = topology.topics.derived[VIEW_WINDOWS]
post_view_counts = topology.topics.derived[POST_VIEW_COUNTS]
delivery_receipts = topology.topics.inbound[DELIVERY_RECEIPTS]

health = Health()
app = Pipeline(settings, health, WebServer)
app.conf.logging_config = logging_config(settings)
stores = Stores(settings, health)
app.close_last(stores)
producer = RecordProducer(kafka.client_options(settings), health)
pings: dict[str, Ping] = {"kafka": partial(kafka.ping, settings), "mongodb": stores.mongo.ping}

ip_hash_key = settings.ip_hash_key.get_secret_value().encode()
decoder = partial(Decoder, ahead_limit=settings.ahead_limit, signer=ReplaySigner(ip_hash_key))
# One for each agent, as each has its own limit on the share of dead letters.
dead_letters = partial(
    DeadLetters,
    producer,
    release=version("inkstream"),
    share=settings.dead_letter_limit,
    sample=settings.dead_letter_sample,
)


def runs(agent: str) -> bool:
    """Whether this worker runs the agent."""
    return agent in topology.running


# Store
geo_path = settings.geo_database_path()
geo = GeoDatabase.open(geo_path) if geo_path and geo_path.exists() else None
enricher = Enricher(ip_hash_key=ip_hash_key, geo=geo, site=Site(settings.site_url, settings.link_hosts))
touch_windows = TouchWindows(settings.namespace + view_windows.name, producer)
notify_stored = NotifyStored(stores.in_app, stores.wake_ups)
after_write: dict[str, list[AfterWrite]] = {
    collections.PAGE_VIEWS.name: [touch_windows],
    collections.NOTIFICATIONS.name: [notify_stored],
}
for topic in topology.stored.values():
    if runs(topic.name):
        name = settings.namespace + topic.name
        hooks = hooks_of(topic, after_write)
        store = Store(
            name, decoder(topic), enricher.documents, stores.writer, dead_letters(), health, after_write=hooks
        )
        app.consume(name, store)

# Count views
if runs(view_windows.name):
    count_views = CountViews(
        settings.namespace + post_view_counts.name,
        touch_windows,
        decoder(view_windows),
        stores.stored_views,
        stores.mongo,
        producer,
        dead_letters(),
        health,
        every=settings.count_every,
        horizon=settings.count_horizon,
        rate=settings.recount_rate,
    )
    app.consume(settings.namespace + view_windows.name, count_views, gathers=200)

if runs(post_view_counts.name):
    rank_posts = RankPosts(stores.recent_views, stores.view_counts.windows)
    apply_counts = ApplyCounts(decoder(post_view_counts), stores.view_counts, dead_letters(), health, rank_posts.note)
    app.consume(settings.namespace + post_view_counts.name, apply_counts)
    app.run(MaintainCounts(stores.view_counts, settings.count_horizon, health))
    app.run(rank_posts)
    app.run(WatchDrift(Reconciliation(stores.stored_views, stores.view_counts, settings), settings.drift_every))
    pings["postgresql"] = stores.view_counts.ping

# Notify, deliver, apply receipts
in_mongo, in_postgres = Retrier(stores.mongo, health), Retrier(stores.suppressions, health)
notifier = Notifier(topology.rules)
for agent, topic in topology.notified.items():
    if runs(agent):
        notify = Store(
            settings.namespace + agent,
            decoder(topic),
            notifier.documents,
            stores.writer,
            dead_letters(),
            health,
            after_write=[notify_stored],
            judges=False,
        )
        app.consume(settings.namespace + topic.name, notify, name=agent)

if runs(DELIVER):
    providers = Providers.of(settings)
    app.close_last(providers)
    unsubscribe_key = settings.unsubscribe_key.get_secret_value()
    links = UnsubscribeLinks(settings.unsubscribe_url, unsubscribe_key) if settings.unsubscribe_url else None
    renderer = Renderer(settings.site_name, settings.site_url, settings.link_hosts)
    message_builder = MessageBuilder(renderer, links, settings.email_sender)
    limits = Limits(of_type=settings.notify_limit, of_all=settings.notify_daily_limit)
    now, chance = stores.clock.now, SystemRandom()
    deliver = DeliverNotification(
        stores.queue,
        stores.notifications,
        stores.recipients,
        Eligibility(stores.suppressions, stores.rate_limits, limits, now, in_postgres),
        Router(providers, stores.rate_limits, now, chance),
        Attempts(message_builder, stores.delivery_logs, stores.suppressions, now, chance, in_mongo, in_postgres),
        now,
        in_mongo,
        in_postgres,
    )
    app.run(
        Dispatcher(
            stores.queue,
            stores.clock,
            stores.wake_ups,
            deliver,
            in_mongo,
            at_once=settings.deliver_at_once,
            stop_timeout=settings.stop_timeout,
        )
    )
    app.run(WatchQueue(stores.queue))
    pings["postgresql"] = stores.view_counts.ping

if runs(delivery_receipts.name):
    apply_receipts = ApplyReceipts(
        decoder(delivery_receipts),
        stores.delivery_logs,
        stores.queue,
        stores.notifications,
        stores.suppressions,
        dead_letters(),
        in_mongo,
        in_postgres,
    )
    app.consume(settings.namespace + delivery_receipts.name, apply_receipts)
    pings["postgresql"] = stores.view_counts.ping

# Pages, and what every worker runs
publish_receipts = ReceiptPublisher(settings.namespace + delivery_receipts.name, producer)
webhooks.serve(app, settings, publish_receipts)
unsubscribe_page.serve(app, settings, publish_receipts)
health_pages.serve(app, health)
app.run(producer)
app.run(Probe(pings, health))


@app.task  # type: ignore[untyped-decorator]
async def warn_of_missing_geo_database() -> None:
    """Say once, at the start, that page views will have no `geo`."""
    if geo is None:
        log.warning("no geo database, so no geo in page views", path=str(geo_path) if geo_path else None)
