"""Who hears of a batch that is stored."""

from collections.abc import Iterable, Mapping
from datetime import UTC, datetime, timedelta
from typing import Any, cast

from agents.notifications.notify_stored import NotifyStored
from enrich.documents import Document, Write
from sinks.mongo.errors import Refusal
from sinks.mongo.notification_groups import GroupResult
from sinks.mongo.outcome import Outcome
from sinks.redis.in_app import InApp
from sinks.redis.wakeups import WakeUps


class Heard:
    """Takes what would go to Redis."""

    def __init__(self) -> None:
        self.notifications: list[list[str]] = []
        self.due: list[list[timedelta]] = []

    async def announce(self, told: Iterable[Any], now: datetime | None = None) -> None:
        if now is None:
            self.notifications.append([notification["_id"] for notification in told])
        else:
            self.due.append([moment - now for moment in told])


async def hear(writes: list[Write], outcome: Outcome) -> Heard:
    heard = Heard()
    await NotifyStored(cast(InApp, heard), cast(WakeUps, heard))(writes, outcome, [])
    return heard


def told(name: str, **item: object) -> list[Write]:
    return [
        Document("notifications", {"_id": name}),
        Document("notificationQueue", {"_id": name, "status": "pending", **item}),
    ]


def group(name: str, due: datetime | None) -> GroupResult:
    document: Mapping[str, Any] = {"_id": name}
    return GroupResult(document, 1, due)


async def test_what_is_sent_at_once_is_due_now() -> None:
    heard = await hear([*told("a"), *told("b")], Outcome({}, {}, []))
    assert heard.notifications == [["a", "b"]]
    assert heard.due == [[timedelta(0), timedelta(0)]], "one call for each batch"


async def test_notifications_for_the_application_alone_wake_no_dispatcher() -> None:
    heard = await hear(told("a", status="completed"), Outcome({}, {}, []))
    assert (heard.notifications, heard.due) == ([["a"]], [[]])


async def test_refused_notifications_are_not_announced() -> None:
    writes = [Document("analyticsEvents", {"_id": "event"}), *told("a"), *told("b")]
    refusal = Refusal("refused-by-store", "is refused")
    heard = await hear(writes, Outcome({}, {}, [(1, refusal), (2, refusal)]))
    assert (heard.notifications, heard.due) == ([["b"]], [[timedelta(0)]])


async def test_a_new_group_is_due_when_its_minute_is_over_and_an_old_one_never_in_the_past() -> None:
    now = datetime.now(UTC)
    gathered = (
        group("new", now + timedelta(minutes=1)),
        group("late", now - timedelta(hours=1)),
        group("joined", None),
    )
    heard = await hear([], Outcome({}, {}, [], gathered))
    assert heard.notifications == [["new", "late", "joined"]]
    [[new, late]] = heard.due
    assert timedelta(seconds=55) < new <= timedelta(minutes=1)
    assert late == timedelta(0)
