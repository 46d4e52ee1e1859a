"""Checks Kafka's brokers, and how many copies its topics keep.

Input: settings and names of topics. Output: findings.
"""

from collections.abc import Collection

from delivery.kafka import FEWEST_IN_SYNC, FEWEST_REPLICAS
from ops import kafka_topics
from ops.checks.finding import Finding, State, count, listed
from ops.checks.server import check_version
from ops.supported_versions import is_kafka_too_old
from runtime.settings import Settings
from runtime.web_address import in_url

_DURABILITY = "replicas"


async def check_brokers(settings: Settings) -> list[Finding]:
    """Return the brokers that answer, and a note if their version is not supported."""
    async with kafka_topics.administration(settings) as admin:
        brokers = (await admin.describe_cluster())["brokers"]
        requests = await kafka_topics.requests_taken(admin)
    addresses = ", ".join(f"{in_url(broker['host'])}:{broker['port']}" for broker in brokers)
    what = f"{count(len(brokers), 'broker')}: {addresses}"
    return [Finding("Kafka", State.WELL, what), *check_version("Kafka", is_kafka_too_old(requests))]


async def check_durability(settings: Settings, names: Collection[str]) -> list[Finding]:
    """Return the topics that would lose acknowledged events with one broker; nothing in development."""
    if settings.environment == "development":
        return []
    async with kafka_topics.administration(settings) as admin:
        found = await kafka_topics.durabilities(admin, names)
    few = [f"{topic.name} {topic.replication}" for topic in found if topic.replication < FEWEST_REPLICAS]
    # A lost offset repeats work but loses nothing: for the offsets topic, only the replicas matter.
    lax = [f"{topic.name} {topic.in_sync}" for topic in found if topic.in_sync < FEWEST_IN_SYNC and topic.name in names]
    is_problem = settings.environment == "production" and not settings.allow_fewer_replicas
    state = State.PROBLEM if is_problem else State.NOTE
    accepted = "accepted by INKSTREAM_ALLOW_FEWER_REPLICAS; else " if settings.allow_fewer_replicas else ""
    findings = []
    if few:
        what = f"{count(len(few), 'topic')} with fewer than {FEWEST_REPLICAS} replicas: {listed(few)}"
        advice = f"{accepted}change them with kafka-reassign-partitions; for new topics, set INKSTREAM_REPLICATION=3"
        findings.append(Finding(_DURABILITY, state, what, advice))
    if lax:
        what = f"{count(len(lax), 'topic')} with min.insync.replicas under {FEWEST_IN_SYNC}: {listed(lax)}"
        advice = f"{accepted}once they have three replicas, `inkstream bootstrap --allow-refusals` sets it to 2"
        findings.append(Finding(_DURABILITY, state, what, advice))
    return findings or [Finding(_DURABILITY, State.WELL, "every topic keeps at least three replicas, two in sync")]
