"""Who can be reached where, from a view in a real PostgreSQL, kept in a real Redis."""

import asyncio
import json
import re
import uuid
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from datetime import timedelta
from pathlib import Path
from typing import Any

import psycopg
import pytest
from prometheus_client import REGISTRY
from psycopg import errors, sql
from structlog.testing import capture_logs

from dev.stack import Platform
from notifications.preferences import ALL_OFF, DEFAULTS, Preferences, QuietHours, UnreadablePart
from schemas.notifications import Device
from sinks.postgres.pool import Connection, Pool
from sinks.postgres.recipients import DEVICES, LOOK_AGAIN, Person, Recipients, problem_of_view, survey_preferences
from sinks.redis.connection import connect

ROOT = Path(__file__).parents[2]
NOWHERE = "redis://127.0.0.1:1/0"
KEPT = timedelta(seconds=60)
PHONE = {"platform": "android", "token": "phone-1"}
WANTS = {
    "channelsOff": ["push"],
    "typesOff": {"post_liked": ["email"]},
    "quietHours": {"start": "22:00", "end": "07:30", "timeZone": "Europe/Berlin"},
    "locale": "de",
}
ADA = Person(
    "ada@example.org",
    (Device(platform="android", token="phone-1"),),
    Preferences(
        channels_off=frozenset({"push"}),
        types_off={"post_liked": frozenset({"email"})},
        quiet_hours=QuietHours(start="22:00", end="07:30", time_zone="Europe/Berlin"),
        locale="de",
    ),
)


class CountingPool(Pool):
    """Counts how often PostgreSQL is asked."""

    def __init__(self, url: str) -> None:
        super().__init__(url)
        self.asked = 0
        self.is_asked = asyncio.Event()

    @asynccontextmanager
    async def transaction(self) -> AsyncIterator[Connection]:
        self.asked += 1
        self.is_asked.set()
        async with super().transaction() as using:
            yield using


class Clock:
    """A clock that the test moves."""

    now = 0.0

    def __call__(self) -> float:
        return self.now


class PlatformOfTest:
    """A schema of the test's own, with users of the platform in a table, and a view of them."""

    def __init__(self, owner_url: str) -> None:
        self.owner_url = owner_url
        self.schema = f"test_{uuid.uuid4().hex[:8]}"
        self.view = f"{self.schema}.notification_recipients"
        self.run(
            "CREATE SCHEMA {schema}",
            "GRANT USAGE ON SCHEMA {schema} TO inkstream",
            "CREATE TABLE {schema}.people (id text PRIMARY KEY, email text, devices jsonb, preferences jsonb)",
        )

    def run(self, *statements: str) -> None:
        with psycopg.connect(self.owner_url) as using:
            for statement in statements:
                using.execute(sql.SQL(statement).format(schema=sql.Identifier(self.schema)))

    def make_view(self, columns: str = "id AS user_id, email, devices, preferences") -> None:
        self.run(
            f"CREATE VIEW {{schema}}.notification_recipients AS SELECT {columns} FROM {{schema}}.people",
            "GRANT SELECT ON {schema}.notification_recipients TO inkstream",
        )

    def drop_view(self) -> None:
        self.run("DROP VIEW {schema}.notification_recipients")

    def put(self, user_id: str, email: str | None = None, devices: Any = None, preferences: Any = None) -> None:
        """Add a user, or change one."""
        with psycopg.connect(self.owner_url) as using:
            statement = (
                "INSERT INTO {schema}.people VALUES (%s, %s, %s, %s) ON CONFLICT (id) DO UPDATE "
                "SET email = excluded.email, devices = excluded.devices, preferences = excluded.preferences"
            )
            using.execute(
                sql.SQL(statement).format(schema=sql.Identifier(self.schema)),
                (user_id, email, json.dumps(devices), json.dumps(preferences)),
            )

    def forget(self) -> None:
        with psycopg.connect(self.owner_url) as using:
            using.execute(sql.SQL("DROP SCHEMA {} CASCADE").format(sql.Identifier(self.schema)))


@pytest.fixture
def people(platform: Platform) -> Iterator[PlatformOfTest]:
    """The platform's users, Ada among them; the view is the test's to make."""
    made = PlatformOfTest(platform.postgres.owner_url)
    made.put("ada", "ada@example.org", [PHONE], WANTS)
    yield made
    made.forget()


@pytest.fixture
async def pool(platform: Platform) -> AsyncIterator[CountingPool]:
    pool = CountingPool(platform.postgres.url)
    yield pool
    await pool.close()


@pytest.fixture
def prefix() -> str:
    return f"test-{uuid.uuid4().hex[:8]}:"


@pytest.fixture
def clock() -> Clock:
    return Clock()


Make = Callable[..., Recipients]


@pytest.fixture
async def make(
    platform: Platform, people: PlatformOfTest, pool: CountingPool, prefix: str, clock: Clock
) -> AsyncIterator[Make]:
    """Makes what is tested: each a worker of its own."""
    made: list[Recipients] = []

    def make(redis_url: str = platform.redis.url, view: str | None = people.view, pool: Pool = pool) -> Recipients:
        made.append(Recipients(pool, view, redis_url, prefix, KEPT, clock))
        return made[-1]

    yield make
    for recipients in made:
        await recipients.close()


async def forget_all(platform: Platform, prefix: str) -> None:
    redis = connect(platform.redis.url, 1)
    async for key in redis.scan_iter(f"{prefix}*"):
        await redis.delete(key)
    await redis.aclose()


async def test_a_user_is_found_with_all_that_the_view_has(people: PlatformOfTest, make: Make) -> None:
    people.make_view()
    recipients = make()
    assert await recipients.find("ada") == ADA
    assert await recipients.find("ada") == ADA


async def test_a_row_may_be_empty(people: PlatformOfTest, make: Make) -> None:
    people.make_view()
    people.put("nobody-yet")
    people.put("blank", " ", [], {})
    assert await make().find("nobody-yet") == Person(None, (), DEFAULTS)
    assert await make().find("blank") == Person(None, (), DEFAULTS)


async def test_what_was_found_is_kept_for_all_workers(people: PlatformOfTest, make: Make, pool: CountingPool) -> None:
    people.make_view()
    assert await make().find("ada") == ADA
    people.put("ada", "new@example.org")
    assert await make().find("ada") == ADA
    assert pool.asked == 1


async def test_what_is_kept_goes_by_itself(
    people: PlatformOfTest, make: Make, platform: Platform, pool: CountingPool, prefix: str
) -> None:
    people.make_view()
    recipients = make()
    assert await recipients.find("ada") == ADA
    assert await recipients.find("eve") is None
    assert await recipients.find("eve") is None
    assert pool.asked == 2
    redis = connect(platform.redis.url, 1)
    assert 59_000 < await redis.pttl(f"{prefix}recipient:ada") <= 60_000
    assert 9_000 < await redis.pttl(f"{prefix}recipient:eve") <= 10_000
    await redis.aclose()


async def test_what_redis_has_lost_is_looked_up_again(
    people: PlatformOfTest, make: Make, platform: Platform, prefix: str
) -> None:
    people.make_view()
    recipients = make()
    assert await recipients.find("ada") == ADA
    people.put("ada", "new@example.org", [PHONE], WANTS)
    await forget_all(platform, prefix)
    assert await recipients.find("ada") == ADA._replace(email="new@example.org")


async def test_without_redis_everything_is_looked_up(people: PlatformOfTest, make: Make, pool: CountingPool) -> None:
    people.make_view()
    recipients = make(redis_url=NOWHERE)
    assert [await recipients.find(user_id) for user_id in ("ada", "eve", "ada")] == [ADA, None, ADA]
    assert pool.asked == 3


@pytest.mark.parametrize("kept", ["", "not JSON", "[]", "{}", '{"is_user": true, "devices": 1}', "null"])
async def test_what_is_kept_and_can_not_be_read_is_looked_up(
    people: PlatformOfTest, make: Make, platform: Platform, prefix: str, kept: str
) -> None:
    people.make_view()
    redis = connect(platform.redis.url, 1)
    await redis.set(f"{prefix}recipient:ada", kept)
    await redis.aclose()
    assert await make().find("ada") == ADA


async def test_many_at_once_are_one_question(people: PlatformOfTest, make: Make, pool: CountingPool) -> None:
    people.make_view()
    for number in range(10):
        people.put(f"u{number}", f"u{number}@example.org")
    recipients = make()
    user_ids = [f"u{number}" for number in range(10)] * 20 + ["eve"]
    found = await asyncio.gather(*map(recipients.find, user_ids))
    assert [person.email if person else None for person in found] == [
        f"{user_id}@example.org" if user_id != "eve" else None for user_id in user_ids
    ]
    assert pool.asked == 1


async def test_who_goes_away_leaves_the_others_their_answer(
    people: PlatformOfTest, make: Make, pool: CountingPool
) -> None:
    people.make_view()
    recipients = make()
    first, second = (asyncio.create_task(recipients.find("ada")) for _ in range(2))
    await pool.is_asked.wait()
    first.cancel()
    assert await second == ADA
    assert first.cancelled()
    assert pool.asked == 1


def silent(part: str, shown: str, **known: Any) -> Preferences:
    return Preferences(unreadable=(UnreadablePart(part, shown),), **known)


@pytest.mark.parametrize(
    ("preferences", "read"),
    [
        ([], DEFAULTS),
        (None, DEFAULTS),
        ("email", silent("preferences", "email", channels_off=ALL_OFF)),
        ({"channelsOff": "email"}, Preferences(channels_off=frozenset({"email"}))),
        ({"channelsOff": ["email", 5, None]}, silent("channelsOff", "a number", channels_off=ALL_OFF)),
        ({"typesOff": ["post_liked"], "locale": "de"}, Preferences(types_off={"post_liked": ALL_OFF}, locale="de")),
        (
            {"typesOff": {"a": ["email", {}], "b": "push"}},
            silent("typesOff", "an object", types_off={"a": ALL_OFF, "b": frozenset({"push"})}),
        ),
        (
            {"quietHours": {"start": "22:00", "end": "07:00"}},
            silent("quietHours.timeZone", "nothing", quiet_hours=QuietHours(start="22:00", end="07:00")),
        ),
        ({"locale": 5}, silent("locale", "a number")),
        ({**WANTS, "ofALaterRelease": True}, ADA.preferences),
    ],
)
async def test_of_broken_preferences_all_is_read_that_can_be(
    people: PlatformOfTest, make: Make, preferences: Any, read: Preferences
) -> None:
    people.make_view()
    people.put("grace", "grace@example.org", [PHONE], preferences)
    recipients = make()
    grace, ada = await asyncio.gather(recipients.find("grace"), recipients.find("ada"))
    assert grace == ADA._replace(email="grace@example.org", preferences=read)
    assert ada == ADA
    assert await recipients.find("grace") == grace


@pytest.mark.parametrize(
    ("devices", "tokens"),
    [
        ({"platform": "ios"}, []),
        ("phone-1", []),
        ([PHONE, 5, {"platform": "fridge", "token": "x"}, {"platform": "ios"}, {**PHONE, "token": ""}], ["phone-1"]),
        ([PHONE, PHONE, {**PHONE, "token": "phone-2", "since": 2026}], ["phone-1", "phone-2"]),
        (
            [{**PHONE, "token": f"phone-{number}"} for number in range(100)],
            [f"phone-{number}" for number in range(DEVICES)],
        ),
        (
            [5, *({**PHONE, "token": f"phone-{number}"} for number in range(100))],
            [f"phone-{n}" for n in range(DEVICES)],
        ),
    ],
)
async def test_of_broken_devices_all_are_read_that_can_be(
    people: PlatformOfTest, make: Make, devices: Any, tokens: list[str]
) -> None:
    people.make_view()
    people.put("grace", "grace@example.org", devices, WANTS)
    found = await make().find("grace")
    assert found is not None
    assert [device.token for device in found.devices] == tokens
    assert found.preferences == ADA.preferences


async def test_columns_may_be_texts_that_hold_no_json_or_too_much_of_it(people: PlatformOfTest, make: Make) -> None:
    nested = "repeat('[', 100000)"
    people.make_view(f"id AS user_id, email, {nested} AS devices, {nested} AS preferences")
    ada = await make().find("ada")
    assert ada is not None
    assert (ada.email, ada.devices, ada.preferences.channels_off) == ("ada@example.org", (), ALL_OFF)


async def test_an_invalid_device_is_logged_once_without_its_content(people: PlatformOfTest, make: Make) -> None:
    people.make_view()
    people.put("grace", "grace@example.org", ["hush-hush"])
    people.put("alan", "alan@example.org", ["hush-hush"])
    recipients = make(redis_url=NOWHERE)
    with capture_logs() as logs:
        await recipients.find("grace")
        await recipients.find("alan")
    [told] = logs
    assert told["event"] == "a recipient was read in part"
    assert told["user"] == "grace"
    assert told["where"] == ["devices.0"]
    assert "hush" not in str(logs)


async def test_unreadable_preferences_are_logged_once_for_each_person_and_counted_each_time(
    people: PlatformOfTest, make: Make
) -> None:
    people.make_view()
    hours = {"start": "22:00", "end": "grace@example.org", "timeZone": "Mars/Olympus"}
    people.put("grace", "grace@example.org", None, {"quietHours": hours})
    recipients = make(redis_url=NOWHERE)
    before = unreadable("quietHours.timeZone")
    with capture_logs() as logs:
        await recipients.find("grace")
        await recipients.find("grace")
        people.put("alan", "alan@example.org", None, {"channelsOff": 7})
        await recipients.find("alan")
    assert unreadable("quietHours.timeZone") == before + 2
    assert [(told["user"], told["unreadable"]) for told in logs] == [
        ("grace", ["quietHours.end: a text of 17 characters", "quietHours.timeZone: Mars/Olympus"]),
        ("alan", ["channelsOff: a number"]),
    ]


async def test_how_many_people_have_preferences_that_can_not_be_read_can_be_asked(
    people: PlatformOfTest, platform: Platform
) -> None:
    people.make_view()
    people.put("grace", "grace@example.org", None, {"quietHours": {"start": "1", "end": "2", "timeZone": "Mars"}})
    people.put("alan", None, None, {"channelsOff": ["sms", "Email"]})
    survey = await survey_preferences(platform.postgres.url, people.view)
    assert survey is not None
    assert (survey.people, survey.unreadable) == (3, 2)
    assert {*survey.examples} == {("quietHours.timeZone", "Mars"), ("channelsOff", "sms")}


def unreadable(part: str) -> float:
    return REGISTRY.get_sample_value("inkstream_preferences_unreadable_total", {"part": part}) or 0


@pytest.mark.parametrize(
    "email", [" ada@example.org", "Ada <ada@example.org>", "ada@EXAMPLE.org.", "\u00a0ada@example.org"]
)
async def test_an_address_is_read_in_one_form_however_the_platform_writes_it(
    people: PlatformOfTest, make: Make, email: str
) -> None:
    people.make_view()
    people.put("grace", email)
    grace = await make().find("grace")
    assert grace is not None
    assert grace.email == "ada@example.org"


@pytest.mark.parametrize("user_id", ["nul\0", "half \ud800", "", "x" * 10_000])
async def test_an_id_that_nobody_can_have_is_nobodys(people: PlatformOfTest, make: Make, user_id: str) -> None:
    people.make_view()
    recipients = make()
    nobody, ada = await asyncio.gather(recipients.find(user_id), recipients.find("ada"))
    assert nobody is None
    assert ada == ADA


async def test_without_a_view_nobody_is_asked(make: Make, pool: CountingPool) -> None:
    assert await make(view=None).find("ada") is None
    assert pool.asked == 0


async def test_a_missing_view_is_logged_once_and_found_when_it_appears(
    people: PlatformOfTest, make: Make, pool: CountingPool, clock: Clock
) -> None:
    recipients = make()
    with capture_logs() as logs:
        assert await recipients.find("ada") is None
        people.make_view()
        assert await recipients.find("ada") is None
        assert pool.asked == 1
        people.drop_view()
        clock.now += LOOK_AGAIN.total_seconds()
        assert await recipients.find("ada") is None
        assert pool.asked == 2
        people.make_view()
        clock.now += LOOK_AGAIN.total_seconds()
        assert await recipients.find("ada") == ADA
    [told] = logs
    assert told["event"] == "no view of recipients, so no addresses"
    assert told["view"] == people.view


async def test_a_view_that_has_gone_is_a_fault_and_not_a_user_without_address(
    people: PlatformOfTest, make: Make
) -> None:
    people.make_view()
    recipients = make(redis_url=NOWHERE)
    assert await recipients.find("ada") == ADA
    people.drop_view()
    with pytest.raises(errors.UndefinedTable):
        await recipients.find("ada")
    people.make_view()
    assert await recipients.find("ada") == ADA


async def test_without_the_right_to_read_the_view_it_is_a_fault(people: PlatformOfTest, make: Make) -> None:
    people.make_view()
    people.run("REVOKE SELECT ON {schema}.notification_recipients FROM inkstream")
    with pytest.raises(errors.InsufficientPrivilege):
        await make().find("ada")


async def test_while_postgresql_is_down_those_are_found_that_are_kept(people: PlatformOfTest, make: Make) -> None:
    people.make_view()
    assert await make().find("ada") == ADA
    elsewhere = Pool("postgresql://127.0.0.1:1/x?connect_timeout=1")
    recipients = make(pool=elsewhere)
    found = await asyncio.gather(*map(recipients.find, ("ada", "eve")), return_exceptions=True)
    await elsewhere.close()
    assert found[0] == ADA
    assert isinstance(found[1], psycopg.OperationalError)


async def test_a_slow_view_is_not_waited_for(people: PlatformOfTest, make: Make) -> None:
    people.make_view("id AS user_id, current_setting('statement_timeout') AS email, devices, preferences")
    found = await make().find("ada")
    assert found is not None
    assert found.email == "5s"


async def test_ids_may_be_uuids(people: PlatformOfTest, make: Make) -> None:
    user_id = str(uuid.uuid4())
    people.put(user_id, "grace@example.org")
    people.run("DELETE FROM {schema}.people WHERE id = 'ada'")
    people.make_view("id::uuid AS user_id, email, devices, preferences")
    found = await make().find(user_id)
    assert found is not None
    assert found.email == "grace@example.org"
    assert await make().find("no uuid") is None


async def test_the_view_of_the_page_is_one(people: PlatformOfTest, make: Make) -> None:
    [example] = re.findall(r"```sql\n(.*?)```", (ROOT / "docs/recipients.md").read_text(), re.DOTALL)
    with psycopg.connect(people.owner_url) as using:
        using.execute(sql.SQL("SET search_path TO {}, public").format(sql.Identifier(people.schema)))
        using.execute('CREATE TABLE devices ("userId" text, platform text, token text, "usedAt" timestamptz)')
        using.execute('CREATE TABLE user_settings ("userId" text, notifications jsonb)')
        ids = {name: f"{people.schema}-{name}" for name in ("ada", "shy", "closed")}
        for name, user_id in ids.items():
            using.execute(
                'INSERT INTO users (id, email, "passwordHash", status, "emailVerified") VALUES (%s, %s, %s, %s, %s)',
                (user_id, f"{user_id}@example.org", "", "BANNED" if name == "closed" else "ACTIVE", name == "ada"),
            )
        using.execute(
            """INSERT INTO profiles (id, "userId", username, "displayName", locale) VALUES (%s, %s, %s, 'Ada', 'de')""",
            (ids["ada"], ids["ada"], ids["ada"]),
        )
        for token, days in (("old", 9), ("new", 1)):
            using.execute(
                "INSERT INTO devices VALUES (%s, 'ios', %s, now() - make_interval(days => %s))",
                (ids["ada"], token, days),
            )
        using.execute("INSERT INTO user_settings VALUES (%s, %s)", (ids["ada"], '{"channelsOff": ["email"]}'))
        using.execute(example.encode())
    recipients = make()
    ada, shy, closed = [await recipients.find(user_id) for user_id in ids.values()]
    with psycopg.connect(people.owner_url) as using:
        using.execute("DELETE FROM users WHERE id = ANY (%s)", (list(ids.values()),))
    assert ada == Person(
        f"{ids['ada']}@example.org",
        (Device(platform="ios", token="new"), Device(platform="ios", token="old")),
        Preferences(channels_off=frozenset({"email"}), locale="de"),
    )
    assert shy == Person(None, (), DEFAULTS)
    assert closed is None


async def test_problems_of_the_view_are_reported(people: PlatformOfTest, platform: Platform) -> None:
    url = platform.postgres.url
    assert await problem_of_view(url, people.view) == f"there is no view {people.view}"
    people.make_view()
    assert await problem_of_view(url, people.view) is None
    people.run("REVOKE SELECT ON {schema}.notification_recipients FROM inkstream")
    assert await problem_of_view(url, people.view) == f"no right to read {people.view}"
    people.drop_view()
    people.make_view("id, email, devices, preferences")
    told = await problem_of_view(url, people.view)
    assert told == f'{people.view} is not as it should be: column "user_id" does not exist'


def test_who_somebody_is_does_not_come_into_a_log() -> None:
    assert repr(ADA) == str(ADA) == "Person(1 devices)"
