"""Looks up a notification for its timeline, and opens the stores for the commands.

Input: settings and ids. Output: timelines and open stores. If a required server is down, an error names it; if an
optional one is, the timeline says what is missing.
"""

import asyncio
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import replace
from datetime import datetime, timedelta

from agents.server_problems import SERVER_ERRORS, ServerError, problem_of
from notifications import rules
from notifications.rules import Rules
from ops.notifications.timeline import Circumstances, Timeline, addresses, build_timeline
from runtime.settings import Settings
from schemas.topics import load
from sinks import collections
from sinks.mongo.client import Mongo
from sinks.mongo.notification_admin import NotificationAdmin, StoredNotification
from sinks.postgres import pool
from sinks.postgres.recipients import Person, Recipients
from sinks.postgres.suppressions import Suppressions
from sinks.servers import ANSWER_TIMEOUT, STORE_ERRORS

_MONGO_TIMEOUT = timedelta(minutes=1)
"""For long queries; whether MongoDB is up is checked with a shorter one."""


def declared_rules(settings: Settings) -> Rules:
    """Return the configured rules of notifications.

    Raises:
        DeclarationError: `topics.yaml` or `notifications.yaml` is wrong, or missing.
    """
    topics = load(settings.topics_file, collections.NAMES)
    events = {name: event for topic in topics.inbound.values() for name, event in topic.events.items()}
    return rules.load(settings.notifications_file, events, window=settings.gather_window)


@asynccontextmanager
async def notification_admin(settings: Settings) -> AsyncIterator[NotificationAdmin]:
    """Open MongoDB, and close it at the end.

    Raises:
        ServerError: It does not respond.
    """
    url = settings.mongo_url.get_secret_value()
    asked = Mongo.connect(url, settings.namespace, timeout=ANSWER_TIMEOUT)
    try:
        await asked.ping()
    except SERVER_ERRORS as error:
        raise ServerError(str(await asyncio.to_thread(problem_of, error, settings, "MongoDB"))) from error
    finally:
        await asked.close()
    mongo = Mongo.connect(url, settings.namespace, timeout=_MONGO_TIMEOUT)
    try:
        yield NotificationAdmin(mongo.database)
    finally:
        await mongo.close()


@asynccontextmanager
async def suppressions(settings: Settings) -> AsyncIterator[Suppressions]:
    """Open PostgreSQL, and close it at the end.

    Raises:
        ServerError: It does not respond, or refuses the login.
    """
    url = settings.postgres_url.get_secret_value()
    connections = pool.Pool(url, settings.namespace)
    try:
        await pool.describe(url, settings.namespace)  # fails at once, where a pool would retry first
        yield Suppressions(connections)
    except STORE_ERRORS as error:
        raise ServerError(str(await asyncio.to_thread(problem_of, error, settings))) from error
    finally:
        await connections.close()


async def timeline_of(settings: Settings, name: str, now: datetime, *, full: bool) -> Timeline | None:
    """Return the timeline of a notification; `None` if it is unknown.

    Args:
        settings: The addresses of the stores.
        name: The id of the notification, of a log, or of a message at its provider.
        now: The current time.
        full: Whether to show personal data.

    Raises:
        ServerError: MongoDB does not respond.
        SearchTooLongError: The search for a provider's id took too long.
    """
    events = {name: rule.event.name for name, rule in declared_rules(settings).by_type.items()}
    async with notification_admin(settings) as admin:
        stored = await admin.find(name)
    if stored is None:
        return None
    return build_timeline(stored, replace(await _circumstances(settings, stored), events=events), now, full=full)


async def _circumstances(settings: Settings, stored: StoredNotification) -> Circumstances:
    """Look up the person and the suppressed addresses in PostgreSQL; if it is down, note what is missing."""
    url = settings.postgres_url.get_secret_value()
    connections = pool.Pool(url, settings.namespace)
    person: Person | None = None
    suppressed: Mapping[tuple[str, str], str] = {}
    missing = "the person's address and preferences today, and which addresses are suppressed"
    try:
        await pool.describe(url, settings.namespace)
        person = await _person(settings, connections, stored.user_id)
        missing = "which addresses are suppressed"
        suppressed = await _suppressed(Suppressions(connections), stored, person)
        missing = ""
    except STORE_ERRORS as error:
        missing += f": {await asyncio.to_thread(problem_of, error, settings)}"
    finally:
        await connections.close()
    return Circumstances(
        suppressed=suppressed,
        email=person.email if person else None,
        preferences=person.preferences if person else None,
        missing=(missing,) if missing else (),
    )


async def _person(settings: Settings, pool: pool.Pool, user_id: str | None) -> Person | None:
    if user_id is None:
        return None
    recipients = Recipients(
        pool,
        settings.recipients_view,
        settings.redis_url.get_secret_value(),
        f"{settings.namespace}inkstream:",
        settings.recipients_kept,
    )
    try:
        return await recipients.find(user_id)
    finally:
        await recipients.close()


async def _suppressed(
    suppressions: Suppressions, stored: StoredNotification, person: Person | None
) -> dict[tuple[str, str], str]:
    asked = list(addresses(stored))
    if person is not None:
        asked += [("push", device.token) for device in person.devices]
        asked += [("email", person.email)] if person.email else []
    found: dict[tuple[str, str], str] = {}
    for channel in ("email", "push"):
        of_channel = [address for its_channel, address in asked if its_channel == channel]
        reasons = await suppressions.reasons(channel, of_channel)
        found |= {(channel, address): reason for address, reason in reasons.items()}
    return found
