"""The topology: what flows from where, through what, to where. Read this first.

In come the topics of `topics.yaml`; out go documents in MongoDB, view counts in PostgreSQL and Redis, and messages to
people. Each agent has a consumer group of its own, and all do the same: a batch of records in, an idempotent write out,
the offset committed last.

    inbound topics ──store──▶ MongoDB
      │                 └───▶ view-windows ──count_views──▶ post-view-counts ──apply_counts──▶ PostgreSQL
      │                                                                            rank_posts └───▶ Redis
      └──notify──▶ notificationQueue in MongoDB ──deliver──▶ e-mail, push
                                  ▲                               │
                                  └──receive── delivery-receipts ◀┘ the providers' webhooks

Notify is store once more, over topics with events that `notifications.yaml` has a rule for. Deliver reads no topic: the
queue in MongoDB is the truth there, and each message is written down before and after it is sent.
"""

from functools import partial
from importlib.metadata import version
from random import SystemRandom

import structlog

from agents import configuration
from agents.notifications.apply_receipts import Receive
from agents.notifications.dispatch import Deliver
from agents.notifications.notify_stored import Tell
from agents.notifications.send import Limits, Send
from agents.notifications.watch_queue import WatchQueue
from agents.store import Announce, Store
from agents.view_counts.apply_counts import ApplyCounts
from agents.view_counts.count_views import CountViews
from agents.view_counts.maintain_counts import SettleCounts
from agents.view_counts.rank_posts import RankPosts
from agents.view_counts.reconciliation import Verification
from agents.view_counts.touch_windows import TouchWindows
from agents.view_counts.watch_drift import WatchDrift
from agents.watch_servers import Ping, Probe
from delivery import kafka
from delivery.dead_letters.writer import DeadLetters
from delivery.pipeline import Pipeline
from delivery.producer import RecordProducer
from enrich.enricher import Enricher
from enrich.geo import GeoDatabase
from enrich.notifications import Notifier
from notifications import rules
from notifications.composing import Composer
from notifications.links import Site
from notifications.unsubscribing import UnsubscribeLinks
from notifications.wording import Wording
from providers.registry import Providers
from runtime.health import Health
from runtime.logs import logging_config
from schemas.cloudevents import Decoder
from schemas.declarations import DeclarationError
from schemas.identity import ReplaySigner
from schemas.topics import load
from sinks import collections
from sinks.stores import Stores
from web import health_pages, unsubscribe_page, webhooks
from web.receipt_publisher import ReportReceipts
from web.server import WebServer

log = structlog.get_logger(__name__)
settings = configuration.check()
topics = load(settings.topics_file, collections.NAMES, partitions=settings.partitions, replication=settings.replication)
view_windows, post_view_counts = topics.derived["view-windows"], topics.derived["post-view-counts"]
delivery_receipts = topics.inbound["delivery-receipts"]
events = {name: event for topic in topics.inbound.values() for name, event in topic.events.items()}
notifier = Notifier(rules.load(settings.notifications_file, events, window=settings.gather_window))
notified = {f"notify-{topic.name}": topic for topic in topics.inbound.values() if notifier.events & topic.events.keys()}
agents = [*topics.all, *notified, "deliver"]
if unknown := set(settings.agents) - set(agents):
    raise DeclarationError(
        f"INKSTREAM_AGENTS: no agent {', '.join(sorted(unknown))}; expected some of {', '.join(agents)}"
    )


def runs(agent: str) -> bool:
    """Whether this worker runs the agent; the one that stores a topic has the topic's name."""
    return not settings.agents or agent in settings.agents


health = Health()
app = Pipeline("inkstream", settings, health, WebServer)
app.conf.logging_config = logging_config(settings)
stores = Stores(settings, health)
app.close_last(stores)
pings: dict[str, Ping] = {"kafka": partial(kafka.ping, settings), "mongodb": stores.mongo.ping}

producer = RecordProducer(kafka.client_options(settings), health)
# One for each agent, as the limit on their share is each agent's own.
dead_letters = partial(
    DeadLetters,
    producer,
    release=version("inkstream"),
    share=settings.dead_letter_limit,
    sample=settings.dead_letter_sample,
)
ip_hash_key = settings.ip_hash_key.get_secret_value().encode()
decoder = partial(Decoder, ahead_limit=settings.ahead_limit, signer=ReplaySigner(ip_hash_key))
geo_path = settings.geo_database_path()
geo = GeoDatabase.open(geo_path) if geo_path and geo_path.exists() else None
enricher = Enricher(ip_hash_key=ip_hash_key, geo=geo, site=Site(settings.site_url, settings.link_hosts))

# Store
touch_windows = TouchWindows(settings.namespace + view_windows.name, producer)
tell = Tell(stores.in_app, stores.wake_ups)
announces: dict[str, Announce] = {collections.PAGE_VIEWS.name: touch_windows, collections.NOTIFICATIONS.name: tell}
for topic in topics.inbound.values():
    if runs(topic.name) and topic.collections:
        name = settings.namespace + topic.name
        announce = next((announces[collection] for collection in topic.collections if collection in announces), None)
        store = Store(name, decoder(topic), enricher.documents, stores.writer, dead_letters(), health, announce)
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
    app.run(SettleCounts(stores.view_counts, settings.count_horizon, health))
    app.run(rank_posts)
    app.run(WatchDrift(Verification(stores.stored_views, stores.view_counts, settings), settings.drift_every))
    pings["postgresql"] = stores.view_counts.ping

# Notify, deliver, receive
for agent, topic in notified.items():
    if runs(agent):
        name = settings.namespace + agent
        notify = Store(
            name, decoder(topic), notifier.documents, stores.writer, dead_letters(), health, tell, judges=False
        )
        app.consume(settings.namespace + topic.name, notify, name=agent)

if runs("deliver"):
    providers = Providers.of(settings)
    app.close_last(providers)
    unsubscribe_key = settings.unsubscribe_key.get_secret_value()
    links = UnsubscribeLinks(settings.unsubscribe_url, unsubscribe_key) if settings.unsubscribe_url else None
    wording = Wording(settings.site_name, settings.site_url, settings.link_hosts)
    composer = Composer(wording, links, settings.email_sender)
    limits = Limits(of_type=settings.notify_limit, of_all=settings.notify_daily_limit)
    send = Send(stores, providers, composer, limits, health, SystemRandom())
    app.run(Deliver(stores, send, health, at_once=settings.deliver_at_once, stop_timeout=settings.stop_timeout))
    app.run(WatchQueue(stores))
    pings["postgresql"] = stores.view_counts.ping

if runs(delivery_receipts.name):
    receive = Receive(decoder(delivery_receipts), stores, dead_letters(), health)
    app.consume(settings.namespace + delivery_receipts.name, receive)
    pings["postgresql"] = stores.view_counts.ping

report_receipts = ReportReceipts(settings.namespace + delivery_receipts.name, producer)
webhooks.serve(app, settings, report_receipts)
unsubscribe_page.serve(app, settings, report_receipts)
health_pages.serve(app, health)
app.run(producer)
app.run(Probe(pings, health))


@app.task  # type: ignore[untyped-decorator]
async def warn_of_missing_geo_database() -> None:
    """Say once, at the start, that page views will have no `geo`."""
    if geo is None:
        log.warning("no geo database, so no geo in page views", path=str(geo_path) if geo_path else None)
