"""A Redis that refuses commands: limits still hold, it is reported, and the documented permissions suffice."""

import re
from collections.abc import Awaitable, Callable, Iterator
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import uuid4

import pytest
import redis
from prometheus_client import REGISTRY
from structlog.testing import capture_logs

from dev.stack import Platform
from enrich.view_windows import Window, start_of
from notifications.rate import Rate
from ops.checks.finding import State
from ops.checks.redis import check_redis_commands
from runtime.health import Health
from runtime.settings import ROOT
from sinks.mongo.client import Mongo
from sinks.postgres.pool import Pool
from sinks.postgres.recipients import Recipients
from sinks.redis.in_app import InApp
from sinks.redis.rate_limits import RateLimits
from sinks.redis.recent_views import RecentViews
from sinks.redis.refusals import RedisRefusals
from sinks.redis.wakeups import WakeUps
from sinks.servers import REDIS_COMMANDS, check_redis, redis_acl

DAY = timedelta(days=1)
DOCUMENTED = re.search(
    r"^ACL SETUSER inkstream on >PASSWORD (.+)$", (ROOT / "docs" / "recent-views.md").read_text(), re.MULTILINE
)


class Role:
    """A role on the test's Redis.

    Attributes:
        name: Its name.
        prefix: Begins its keys.
        url: How it connects.
    """

    def __init__(self, platform: Platform) -> None:
        self.name = f"role-{uuid4().hex[:8]}"
        self.prefix = f"{self.name}.inkstream:"
        self.url = platform.redis.url.replace("redis://", f"redis://{self.name}:secret@")
        self.server = redis.Redis.from_url(platform.redis.url, decode_responses=True)

    def may(self, permissions: str) -> None:
        """Give it these permissions and no others."""
        self.run("ACL", "SETUSER", self.name, "reset", "on", ">secret", *permissions.split())

    def run(self, *command: str) -> None:
        """Run a command as the server's administrator."""
        self.server.execute_command(*command)  # type: ignore[no-untyped-call]

    def denials(self) -> list[object]:
        """Return what it was refused."""
        return [entry["object"] for entry in self.server.acl_log() if entry["username"] == self.name]


@pytest.fixture
def role(platform: Platform) -> Iterator[Role]:
    it = Role(platform)
    it.may(redis_acl(it.prefix))
    yield it
    it.run("ACL", "DELUSER", it.name)
    it.server.config_set("maxmemory", 0)
    it.server.config_set("min-replicas-to-write", 0)
    it.server.close()


def refused(feature: str, kind: str) -> float:
    labels = {"feature": feature, "problem": kind}
    return REGISTRY.get_sample_value("inkstream_redis_refused_total", labels) or 0.0


def notification(user: str) -> dict[str, Any]:
    channels = {"inApp": {"enabled": True, "read": False}}
    return {"_id": "n", "userId": user, "type": "t", "title": "Title", "message": "m", "channels": channels}


async def use_everything(role: Role, mongo: Mongo, refusals: RedisRefusals) -> None:
    """Do all that workers do with Redis."""
    now = datetime.now(UTC)
    views = RecentViews(role.url, role.prefix, refusals)
    await views.write({Window("post", start_of(now)): 3})
    await views.write_all({Window("post", start_of(now)): 4})
    assert await views.is_complete()
    await views.rank(now)
    await views.close()
    role.server.script_flush()  # so that they are loaded
    limits = RateLimits(role.url, role.prefix, refusals=refusals)
    assert await limits.take("provider", Rate(1.0, 2)) == timedelta(0)
    assert await limits.admit("user", 1, DAY, "a")
    await limits.close()
    wake_ups = WakeUps(role.url, role.prefix, refusals)
    await wake_ups.announce([now, now + timedelta(milliseconds=200)], now)
    await wake_ups.wait()
    await wake_ups.close()
    pool = Pool("postgresql://nobody@127.0.0.1:9/none")
    recipients = Recipients(pool, "view", role.url, role.prefix, timedelta(seconds=10), refusals=refusals)
    row = {"user_id": "ada", "email": "ada@example.org", "devices": None, "preferences": None}
    await recipients._keep({"ada": recipients._known(row)})
    found = await recipients.find("ada")
    assert found is not None
    assert found.email == "ada@example.org"
    await recipients.close()
    in_app = InApp(mongo.database, role.url, role.prefix, refusals)
    await in_app.announce([notification("ada")])
    assert role.server.get(f"{role.prefix}unread:ada") == "0"
    await in_app.close()


async def test_the_documented_permissions_suffice_for_everything(role: Role, mongo: Mongo) -> None:
    assert DOCUMENTED
    assert DOCUMENTED[1] == redis_acl("inkstream:")
    role.may(DOCUMENTED[1].replace("inkstream:", role.prefix))
    health = Health()
    with capture_logs() as logs:
        await use_everything(role, mongo, RedisRefusals(health))
    assert role.denials() == []
    assert logs == []
    assert health.features == {}
    assert [finding.state for finding in await check_redis_commands(role.url, role.prefix)] == [State.WELL]
    assert role.denials() == []


@pytest.mark.parametrize("command", REDIS_COMMANDS)
async def test_doctor_names_a_missing_permission_and_the_command_that_grants_it(role: Role, command: str) -> None:
    role.may(f"{redis_acl(role.prefix)} -{command.lower().replace(' ', '|')}")
    [finding] = await check_redis_commands(role.url, role.prefix)
    assert finding.state is State.PROBLEM
    assert f"no permission to run {command}: " in finding.what
    assert finding.advice.endswith(f"ACL SETUSER {role.name} {redis_acl(role.prefix)}")
    assert "secret" not in finding.what + finding.advice


async def test_the_formerly_documented_permissions_are_reported_as_insufficient(role: Role) -> None:
    role.may(
        f"~{role.prefix}* +zadd +zunionstore +zremrangebyrank +expire +expireat +set +get +info +multi +exec "
        "+client|setname"
    )
    check = await check_redis(role.url, role.prefix)
    assert {"EVALSHA", "SCRIPT LOAD", "PUBLISH", "SUBSCRIBE", "MGET", "ZRANGE", "ZREMRANGEBYSCORE"} <= {*check.denied}


async def test_the_check_leaves_no_keys(role: Role) -> None:
    await check_redis(role.url, role.prefix)
    for key in role.server.scan_iter(f"{role.prefix}*"):
        assert role.server.pttl(key) > 0


@pytest.mark.parametrize("denied", ["-evalsha", "-script|load", "-zadd", "-time", "-zscore", "-client|setname"])
async def test_a_denied_limit_is_enforced_by_the_worker_itself_and_logged_once(role: Role, denied: str) -> None:
    role.may(f"{redis_acl(role.prefix)} {denied}")
    role.server.script_flush()
    health, before = Health(), refused("limits", "NOPERM")
    limits = RateLimits(role.url, role.prefix, refusals=RedisRefusals(health))
    with capture_logs() as logs:
        admitted = [await limits.admit("ada", 2, DAY, member) for member in "abcabc"]
    assert admitted == [True, True, False, True, True, False]
    await limits.close()
    assert refused("limits", "NOPERM") == before + 6
    [told] = logs
    assert (told["event"], told["feature"], told["problem"]) == ("redis refuses a command", "limits", "NOPERM")
    assert "docs/recent-views.md" in told["advice"]
    assert health.features["limits"]["problem"] is not None
    assert "NOPERM" in health.features["limits"]["problem"]


async def no_room(role: Role) -> None:
    role.server.config_set("maxmemory-policy", "noeviction")
    role.server.config_set("maxmemory", 1)


async def too_few_replicas(role: Role) -> None:
    role.server.config_set("min-replicas-to-write", 1)


async def anothers_key(role: Role) -> None:
    for name in ("limit:ada", "queue:due"):
        role.server.set(f"{role.prefix}{name}", "mine")


@pytest.mark.parametrize(
    ("spoil", "kind"), [(no_room, "OOM"), (too_few_replicas, "NOREPLICAS"), (anothers_key, "WRONGTYPE")]
)
async def test_other_refusals_of_redis_are_reported_and_limits_hold(
    role: Role, spoil: Callable[[Role], Awaitable[None]], kind: str
) -> None:
    await spoil(role)
    limits = RateLimits(role.url, role.prefix)
    with capture_logs() as logs:
        waits = [await limits.take("ada", Rate(0.1, burst=1)) for _ in range(2)]
    assert waits[0] == timedelta(0) < waits[1]
    assert [entry["problem"] for entry in logs] == [kind]
    await limits.close()
    wake_ups = WakeUps(role.url, role.prefix)
    now = datetime.now(UTC)
    with capture_logs() as logs:
        await wake_ups.announce([now + timedelta(seconds=1)], now)
    assert [(entry["feature"], entry["problem"]) for entry in logs] == [("wake-ups", kind)]
    await wake_ups.close()
    if kind != "WRONGTYPE":
        findings = await check_redis_commands(role.url, role.prefix)
        assert [finding.state for finding in findings] == [State.PROBLEM]
        assert kind in findings[0].what


async def test_a_feature_that_redis_serves_again_is_no_longer_degraded(
    role: Role, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sinks.redis.refusals.CLEARED_AFTER_SECONDS", 0.0)
    health = Health()
    limits = RateLimits(role.url, role.prefix, refusals=RedisRefusals(health))
    role.may("~* &* +@all -evalsha")
    await limits.admit("ada", 1, DAY, "a")
    assert health.features
    role.may(redis_acl(role.prefix))
    await limits.admit("ada", 1, DAY, "a")
    assert health.features == {}
    await limits.close()
