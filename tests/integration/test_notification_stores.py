"""What stands around the queue, on real servers: suppressions, rate limits, wake-ups, unread counts."""

import asyncio
import hashlib
import json
import time
import uuid
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from redis.asyncio import Redis

from dev.stack import Platform
from notifications.rate import Rate
from ops.bootstrap import MIGRATIONS
from sinks.mongo.client import Mongo
from sinks.postgres.migrations import migrate, read
from sinks.postgres.pool import Pool, connection
from sinks.postgres.suppressions import Suppressions
from sinks.redis.connection import connect
from sinks.redis.in_app import InApp
from sinks.redis.rate_limits import RateLimits
from sinks.redis.wakeups import WakeUps

NOON = datetime(2026, 11, 23, 12, tzinfo=UTC)
DAY = timedelta(days=1)
NOWHERE = "redis://127.0.0.1:1/0"


@pytest.fixture
def prefix() -> str:
    return f"test-{uuid.uuid4().hex[:8]}:"


@pytest.fixture
async def suppressions(platform: Platform) -> AsyncIterator[Suppressions]:
    await migrate(platform.postgres.url, read(MIGRATIONS), check=False)
    pool = Pool(platform.postgres.url)
    yield Suppressions(pool)
    await pool.close()


async def test_a_suppressed_address_is_found_however_it_is_written(suppressions: Suppressions) -> None:
    address = f"Ada.{uuid.uuid4().hex}@Example.org"
    assert await suppressions.add("email", address, "bounced")
    assert not await suppressions.add("email", address.upper(), "complained")
    found = await suppressions.reasons("email", [address.lower(), "grace@example.org"])
    assert found == {address.lower(): "bounced"}
    assert await suppressions.reasons("push", [address]) == {}
    [latest] = await suppressions.latest(1)
    assert (latest.channel, latest.address, latest.reason) == ("email", address.lower(), "bounced")
    assert await suppressions.remove("email", address)
    assert not await suppressions.remove("email", address)
    assert await suppressions.reasons("email", [address]) == {}


@pytest.mark.parametrize(
    ("stored", "written"),
    [
        ("ada-{}@b\u00fccher.example", "Ada-{}@xn--bcher-kva.example"),
        ("ada-{}@bu\u0308cher.example", "ada-{}@B\u00dcCHER.example"),
        ("ada-{}@xn--bcher-kva.example", "mailto:ada-{}@b\u00fccher.example"),
        ("zoe\u0308-{}@example.org", "zo\u00eb-{}@example.org"),
        ("ada-{}@example.org", "\u00a0Ada <ada-{}@EXAMPLE.org.>\u200b"),
    ],
)
async def test_what_an_earlier_release_suppressed_stays_suppressed(
    platform: Platform, suppressions: Suppressions, stored: str, written: str
) -> None:
    token = uuid.uuid4().hex
    stored, written = stored.format(token), written.format(token)
    async with connection(platform.postgres.url) as using:
        # As earlier releases did it.
        identity = stored.strip().lower()
        digest = hashlib.sha256(identity.encode()).hexdigest()
        await using.execute(
            "INSERT INTO inkstream.suppressions (channel, digest, address, reason) VALUES ('email', %s, %s, 'bounced')",
            (digest, identity),
        )
    assert await suppressions.reason("email", written) == "bounced"
    assert not await suppressions.add("email", written, "complained")
    assert await suppressions.reason("email", written) == "bounced"
    assert await suppressions.remove("email", written)
    assert await suppressions.reason("email", written) is None
    assert await suppressions.reason("email", stored) is None


async def test_a_browser_can_be_suppressed_though_its_subscription_is_long(suppressions: Suppressions) -> None:
    token = json.dumps({"endpoint": "https://push.example/" + "x" * 3_900, "case": "Kept"})
    assert await suppressions.add("push", token, "gone")
    assert await suppressions.reasons("push", [token, token.lower()]) == {token: "gone"}


async def test_a_bucket_gives_its_burst_and_then_says_how_long_to_wait(platform: Platform, prefix: str) -> None:
    limits = RateLimits(platform.redis.url, prefix)
    waits = [await limits.take("provider", Rate(per_second=0.5, burst=3)) for _ in range(4)]
    assert waits[:3] == [timedelta(0)] * 3
    assert timedelta(seconds=1) < waits[3] <= timedelta(seconds=2)
    assert await limits.take("another", Rate(per_second=0.5, burst=3)) == timedelta(0)
    await limits.close()


async def test_two_workers_share_a_bucket(platform: Platform, prefix: str) -> None:
    workers = [RateLimits(platform.redis.url, prefix) for _ in range(2)]
    waits = await asyncio.gather(*(worker.take("it", Rate(0.1, burst=5)) for worker in workers for _ in range(5)))
    assert sum(wait == timedelta(0) for wait in waits) == 5
    for worker in workers:
        await worker.close()


async def test_without_redis_a_worker_keeps_to_the_rate_by_itself() -> None:
    now = 0.0
    limits = RateLimits(NOWHERE, "", clock=lambda: now)
    assert [await limits.take("it", Rate(1.0, burst=1)) for _ in range(2)] == [timedelta(0), timedelta(seconds=1)]
    now = 1.0
    assert await limits.take("it", Rate(1.0, burst=1)) == timedelta(0)
    assert await limits.admit("ada", 1, DAY, "a")
    await limits.close()


async def test_a_user_is_notified_up_to_the_limit_and_a_repeated_check_has_the_same_result(
    platform: Platform, prefix: str
) -> None:
    limits = RateLimits(platform.redis.url, prefix)

    async def ask(member: str) -> bool:
        return await limits.admit("ada", 2, DAY, member)

    assert [await ask(member) for member in "abcabc"] == [True, True, False, True, True, False]
    assert await limits.admit("grace", 2, DAY, "c")
    await limits.close()


async def test_an_announcement_wakes_who_waits(platform: Platform, prefix: str) -> None:
    waiting, announcing = WakeUps(platform.redis.url, prefix), WakeUps(platform.redis.url, prefix)
    now = datetime.now(UTC)
    began = time.monotonic()
    await announcing.announce([now + timedelta(milliseconds=500)], now)
    await waiting.wait()
    if time.monotonic() - began < 0.5:
        await waiting.wait()  # the first time it may return at once, as it was told that it listens
    assert 0.4 < time.monotonic() - began < 3
    wakes = asyncio.create_task(waiting.wait())
    while not wakes.done():
        await announcing.announce([now], now)
        await asyncio.wait([wakes], timeout=0.05)
    await waiting.close()
    await announcing.close()


async def test_without_redis_waiting_ends_all_the_same() -> None:
    wake_ups = WakeUps(NOWHERE, "")
    await wake_ups.announce([NOON], NOON)
    began = time.monotonic()
    await wake_ups.wait()
    assert 0.5 < time.monotonic() - began < 5
    await wake_ups.close()


def notification(name: str, user: str, *, read: bool = False) -> dict[str, Any]:
    return {
        "_id": name,
        "userId": user,
        "type": "comment_reply",
        "title": "Ada answered",
        "message": "Thank you",
        "channels": {
            "inApp": {"enabled": True, "read": read},
            "email": {"enabled": False, "sent": False},
            "push": {"enabled": False, "sent": False},
        },
        "priority": "medium",
        "createdAt": NOON,
        "expiresAt": datetime.now(UTC) + DAY,
    }


async def test_a_users_application_gets_a_new_notification_and_the_unread_count(
    platform: Platform, mongo: Mongo, prefix: str
) -> None:
    new = [notification("n-1", "ada"), notification("n-2", "ada", read=True), notification("n-3", "ada")]
    await mongo.database["notifications"].insert_many(new)
    in_app = InApp(mongo.database, platform.redis.url, prefix)
    redis: Redis = connect(platform.redis.url, 5)
    async with redis.pubsub() as application:
        await application.subscribe(f"{prefix}notifications:ada")
        await application.get_message(timeout=5)
        await in_app.announce([new[2]])
        message = await application.get_message(ignore_subscribe_messages=True, timeout=5)
    assert message is not None
    heard = json.loads(message["data"])
    assert (heard["id"], heard["title"], heard["unreadCount"]) == ("n-3", "Ada answered", 2)
    assert await redis.get(f"{prefix}unread:ada") == "2"
    assert 0 < await redis.ttl(f"{prefix}unread:ada") <= 300
    assert await in_app.unread(["ada", "grace"]) == {"ada": 2, "grace": 0}
    await redis.aclose()
    await in_app.close()


async def test_without_redis_nothing_is_announced_and_nothing_fails(mongo: Mongo) -> None:
    in_app = InApp(mongo.database, NOWHERE, "")
    await in_app.announce([notification("n-1", "ada")])
    await in_app.close()
