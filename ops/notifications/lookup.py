"""Opens the stores for whoever asks what became of notifications, and looks up what belongs to one.

In come settings and ids; out go stories, and the stores themselves. A server without which there is no answer is named
in an error; of one that only adds to it, the story says what it lacks.
"""

import asyncio
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import replace
from datetime import datetime, timedelta

from agents.server_problems import SERVER_ERRORS, ServerError, problem_of
from notifications import rules
from notifications.rules import Rules
from ops.notifications.timeline import Circumstances, Story, addresses, story
from runtime.settings import Settings
from schemas.topics import load
from sinks import collections
from sinks.mongo.client import Mongo
from sinks.mongo.notification_admin import Case, NotificationCases
from sinks.postgres import pool
from sinks.postgres.recipients import Person, Recipients
from sinks.postgres.suppressions import Suppressions
from sinks.servers import ANSWER_TIMEOUT, STORE_ERRORS

_MONGO_TIMEOUT = timedelta(minutes=1)
"""For all that failed, or the log of any push message; whether MongoDB is there is known sooner."""


def declared_rules(settings: Settings) -> Rules:
    """Return the rules of notifications, as the settings have them.

    Raises:
        DeclarationError: `topics.yaml` or `notifications.yaml` is wrong, or missing.
    """
    topics = load(settings.topics_file, collections.NAMES)
    events = {name: event for topic in topics.inbound.values() for name, event in topic.events.items()}
    return rules.load(settings.notifications_file, events, window=settings.gather_window)


@asynccontextmanager
async def notification_cases(settings: Settings) -> AsyncIterator[NotificationCases]:
    """Open MongoDB, and close it at the end.

    Raises:
        ServerError: It does not answer.
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
        yield NotificationCases(mongo.database)
    finally:
        await mongo.close()


@asynccontextmanager
async def suppressions(settings: Settings) -> AsyncIterator[Suppressions]:
    """Open PostgreSQL, and close it at the end.

    Raises:
        ServerError: It does not answer, or lets us not in.
    """
    url = settings.postgres_url.get_secret_value()
    connections = pool.Pool(url, settings.namespace)
    try:
        await pool.describe(url, settings.namespace)  # at once says what a pool would only say after some attempts
        yield Suppressions(connections)
    except STORE_ERRORS as error:
        raise ServerError(str(await asyncio.to_thread(problem_of, error, settings))) from error
    finally:
        await connections.close()


async def story_of(settings: Settings, name: str, now: datetime, *, full: bool) -> Story | None:
    """Return the story of a notification; `None` where nothing is known of it.

    Args:
        settings: Where the stores are.
        name: The notification's id, a log's, or what a provider calls a message.
        now: The present moment.
        full: Whether to show what is personal.

    Raises:
        ServerError: MongoDB does not answer.
        SearchTooLongError: No provider's id of a push message could be found in good time.
    """
    events = {name: rule.event.name for name, rule in declared_rules(settings).by_type.items()}
    async with notification_cases(settings) as cases:
        case = await cases.find(name)
    if case is None:
        return None
    return story(case, replace(await _circumstances(settings, case), events=events), now, full=full)


async def _circumstances(settings: Settings, case: Case) -> Circumstances:
    """Look up what PostgreSQL knows of the person and the addresses; without it, say what is missing."""
    url = settings.postgres_url.get_secret_value()
    connections = pool.Pool(url, settings.namespace)
    person: Person | None = None
    suppressed: Mapping[tuple[str, str], str] = {}
    missing = "the person's address and preferences today, and which addresses are suppressed"
    try:
        await pool.describe(url, settings.namespace)
        person = await _person(settings, connections, case.user_id)
        missing = "which addresses are suppressed"
        suppressed = await _suppressed(Suppressions(connections), case, person)
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


async def _suppressed(suppressions: Suppressions, case: Case, person: Person | None) -> dict[tuple[str, str], str]:
    asked = list(addresses(case))
    if person is not None:
        asked += [("push", device.token) for device in person.devices]
        asked += [("email", person.email)] if person.email else []
    found: dict[tuple[str, str], str] = {}
    for channel in ("email", "push"):
        of_channel = [address for its_channel, address in asked if its_channel == channel]
        reasons = await suppressions.reasons(channel, of_channel)
        found |= {(channel, address): reason for address, reason in reasons.items()}
    return found
