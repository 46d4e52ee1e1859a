"""Recipients: addresses, devices and preferences of users, from a view of the platform in PostgreSQL.

Input: ids of users. Output: addresses, devices and preferences, cached in Redis. PostgreSQL is the source of truth:
without Redis every request goes there. A device that can't be read is ignored alone; preferences that can't be read
have their safest reading. docs/recipients.md describes the view.
"""

import time
from collections.abc import Callable, Mapping
from datetime import timedelta
from typing import NamedTuple, TypeVar

import structlog
from psycopg import ProgrammingError, errors, sql
from pydantic import BaseModel, ValidationError, field_validator
from pydantic_core import from_json
from redis.exceptions import RedisError

from notifications.preferences import DEFAULTS, Preferences, UnreadablePart, read
from runtime.metrics import PREFERENCES_UNREADABLE
from schemas.email_address import normalised
from schemas.notifications import Device
from sinks.batch_loader import BatchLoader
from sinks.postgres.pool import Pool, connection, fetch
from sinks.redis.connection import connect
from sinks.redis.refusals import RedisRefusals

log = structlog.get_logger(__name__)

DEVICES = 20
"""How many devices of a user are used, from the start of the list; a request may name no more either."""

UNKNOWN_KEPT = timedelta(seconds=10)
"""How long it is cached at most that a user does not exist, as a new user may be notified at once."""

LOOK_AGAIN = timedelta(seconds=30)
"""How often to look for a missing view."""

LOOKED_AT = 10_000
"""How many people's preferences the check for unreadable ones reads."""

_MOST_REPORTED = 1_000
_TIMEOUT_SECONDS = 1.0
_FEATURE = "recipients"
_LONGEST_ADDRESS = 1024


class Person(NamedTuple):
    """A person's addresses and preferences.

    Attributes:
        email: The address; `None` if there is none.
        devices: The devices for push messages.
        preferences: The preferences.
    """

    email: str | None
    devices: tuple[Device, ...]
    preferences: Preferences

    def __repr__(self) -> str:
        """Return a text without personal data, as it may be logged."""
        return f"Person({len(self.devices)} devices)"


class Recipients:
    """The people that the platform knows.

    Args:
        pool: Connections to the platform's database; not closed with this.
        view: The view's name, with its schema if needed; `None` if there is none.
        redis_url: Where Redis is.
        prefix: Begins the name of every key.
        kept: How long Redis caches the view's rows.
        clock: Monotonic seconds.
        refusals: Reports commands that Redis refuses.

    Raises:
        RedisUrlError: Not a Redis URL.
    """

    def __init__(
        self,
        pool: Pool,
        view: str | None,
        redis_url: str,
        prefix: str,
        kept: timedelta,
        clock: Callable[[], float] = time.monotonic,
        refusals: RedisRefusals | None = None,
    ) -> None:
        self._pool = pool
        self._view = view
        self._redis = connect(redis_url, _TIMEOUT_SECONDS)
        self._prefix = f"{prefix}recipient:"
        self._kept = kept
        self._clock = clock
        self._refusals = refusals or RedisRefusals()
        self._absent_until: float | None = None
        self._has_answered = False
        self._has_complained = False
        self._reported: set[tuple[str | None, tuple[UnreadablePart, ...]]] = set()
        self._from_redis = BatchLoader(self._read_kept)
        self._from_view = BatchLoader(self._ask_view)

    async def find(self, user_id: str) -> Person | None:
        """Return the person of an id; `None` if the id is unknown, or there is no view.

        A view that existed and disappeared is an error: otherwise people who are not found would not be notified.

        Raises:
            psycopg.Error: PostgreSQL fails; `sinks.postgres.pool.is_transient` says whether a retry may succeed.
        """
        if self._view is None or not _is_text(user_id):
            return None
        kept = await self._from_redis(user_id)
        found = kept if kept is not None else await self._from_view(user_id)
        return found.person() if found else None

    async def close(self) -> None:
        """Close the connections to Redis, and cancel look-ups in progress."""
        await self._from_redis.close()
        await self._from_view.close()
        await self._redis.aclose()

    async def _read_kept(self, user_ids: list[str]) -> dict[str, "_Known"]:
        try:
            values = await self._redis.mget([self._prefix + user_id for user_id in user_ids])
        except RedisError as error:
            self._refusals.note(_FEATURE, error)
            return {}
        found = ((user_id, _kept(value)) for user_id, value in zip(user_ids, values, strict=True) if value)
        return {user_id: known for user_id, known in found if known}

    async def _keep(self, known: Mapping[str, "_Known"]) -> None:
        try:
            async with self._redis.pipeline(transaction=False) as commands:
                for user_id, one in known.items():
                    for_long = self._kept if one.is_user else min(self._kept, UNKNOWN_KEPT)
                    commands.set(self._prefix + user_id, one.model_dump_json(by_alias=True), px=for_long)
                await commands.execute()
        except RedisError as error:
            self._refusals.note(_FEATURE, error)
        else:
            self._refusals.succeeded(_FEATURE)

    async def _ask_view(self, user_ids: list[str]) -> dict[str, "_Known"]:
        if self._absent_until is not None and self._clock() < self._absent_until:
            return {}
        try:
            async with self._pool.transaction() as using:
                await fetch(using, "limit_statement_time")
                rows = await fetch(using, "find_recipients", {"view": _identifier(self._view)}, user_ids=user_ids)
        except errors.UndefinedTable:
            if self._has_answered:
                raise
            if self._absent_until is None:
                log.warning("no view of recipients, so no addresses", view=self._view)
            self._absent_until = self._clock() + LOOK_AGAIN.total_seconds()
            return {}
        self._absent_until, self._has_answered = None, True
        known = {user_id: _Known(is_user=False) for user_id in user_ids} | {
            row["user_id"]: self._known(row) for row in rows
        }
        await self._keep(known)
        return known

    def _known(self, row: Mapping[str, str | None]) -> "_Known":
        given = {
            "is_user": True,
            "email": normalised((row["email"] or "")[:_LONGEST_ADDRESS]) or None,
            "devices": _parsed(row["devices"]) or (),
            "preferences": self._preferences(row),
        }
        try:
            return _Known.model_validate(given)
        except ValidationError as error:
            if not self._has_complained:
                self._has_complained = True
                where = [".".join(map(str, detail["loc"])) for detail in error.errors(include_input=False)]
                log.warning("a recipient was read in part", user=row["user_id"], where=where)
            return _Known.model_validate(given | {"devices": _devices(given["devices"])})

    def _preferences(self, row: Mapping[str, str | None]) -> Preferences:
        """Read preferences; log unreadable parts once for each person and value, up to `_MOST_REPORTED` times."""
        preferences = read(_parsed(row["preferences"]))
        for part in {unreadable.part for unreadable in preferences.unreadable}:
            PREFERENCES_UNREADABLE.labels(part).inc()
        reported = (row["user_id"], preferences.unreadable)
        if preferences.unreadable and reported not in self._reported and len(self._reported) < _MOST_REPORTED:
            self._reported.add(reported)
            log.warning(
                "preferences are unreadable, so this person is sent less",
                user=row["user_id"],
                unreadable=[f"{part}: {shown}" for part, shown in preferences.unreadable],
            )
        return preferences


async def problem_of_view(url: str, view: str) -> str | None:
    """Return why the view can't be read; `None` if it can.

    Raises:
        psycopg.Error: PostgreSQL fails.
    """
    async with connection(url) as using:
        try:
            await fetch(using, "find_recipients", {"view": _identifier(view)}, user_ids=[])
        except errors.UndefinedTable:
            return f"there is no view {view}"
        except errors.InsufficientPrivilege:
            return f"no right to read {view}"
        except ProgrammingError as error:
            return f"{view} is not as it should be: {error.diag.message_primary}"
    return None


class Survey(NamedTuple):
    """How many preferences can't be read.

    Attributes:
        people: How many people were checked.
        unreadable: How many of them have an unreadable part.
        examples: One value of each part, without personal data.
    """

    people: int
    unreadable: int
    examples: tuple[UnreadablePart, ...]


async def survey_preferences(url: str, view: str) -> Survey | None:
    """Read the preferences of up to `LOOKED_AT` people in the view; `None` if the view is too slow.

    Raises:
        psycopg.Error: PostgreSQL fails.
    """
    try:
        async with connection(url) as using:
            await fetch(using, "limit_statement_time")
            rows = await fetch(using, "sample_preferences", {"view": _identifier(view)}, most=LOOKED_AT)
    except errors.QueryCanceled:
        return None
    found = [preferences for row in rows if (preferences := read(_parsed(row["preferences"]))).unreadable]
    examples = {each.part: each for preferences in found for each in preferences.unreadable}
    return Survey(len(rows), len(found), tuple(examples.values()))


class _Known(BaseModel):
    """What is known of an id: the user in the view, or that there is none."""

    is_user: bool
    email: str | None = None
    devices: tuple[Device, ...] = ()
    preferences: Preferences = DEFAULTS

    @field_validator("devices")
    @classmethod
    def _each_once(cls, devices: tuple[Device, ...]) -> tuple[Device, ...]:
        return tuple({device.token: device for device in devices}.values())[:DEVICES]

    def person(self) -> Person | None:
        return Person(self.email, self.devices, self.preferences) if self.is_user else None


def _identifier(view: str | None) -> sql.Identifier:
    assert view is not None
    return sql.Identifier(*view.split("."))


def _is_text(user_id: str) -> bool:
    """Whether PostgreSQL and Redis can store the text: it has no NUL and no halves of surrogate pairs."""
    try:
        user_id.encode()
    except UnicodeEncodeError:
        return False
    return "\0" not in user_id


def _kept(value: str | bytes) -> _Known | None:
    """Read a value of Redis; an unknown format of another release counts as missing."""
    try:
        return _Known.model_validate_json(value)
    except ValidationError:
        return None


def _parsed(text: str | None) -> object:
    """Return the content of the JSON; a text that is not JSON is returned unchanged."""
    try:
        return None if text is None else from_json(text)
    except ValueError:
        return text


def _devices(listed: object) -> tuple[Device, ...]:
    """Return the devices that can be read."""
    found = [_read(Device, one) for one in listed] if isinstance(listed, list) else []
    return tuple(device for device in found if device is not None)


Model = TypeVar("Model", bound=BaseModel)


def _read(model: type[Model], value: object) -> Model | None:
    try:
        return model.model_validate(value)
    except ValidationError:
        return None
