from datetime import UTC, datetime, timedelta
from typing import Any

from enrich.documents import Occurrence
from sinks.mongo.error_groups import group_updates

NOW = datetime(2026, 3, 1, 12, tzinfo=UTC)


def error(line_id: str, group: str, time: datetime = NOW) -> Occurrence:
    return Occurrence({"_id": line_id}, {"_id": group, "message": line_id, "lastOccurrence": time})


def changes(update: Any) -> dict[str, Any]:
    fields: dict[str, Any] = update._doc[1]["$set"]
    return fields


def test_there_is_one_update_for_each_group_in_the_order_of_their_ids() -> None:
    lines = [error(f"{number}", f"group {number % 3}") for number in range(100)]
    updates: list[Any] = list(group_updates(reversed(lines)).values())
    assert [update._filter["_id"] for update in updates] == ["group 0", "group 1", "group 2"]
    assert [changes(update)["occurrenceCount"]["$add"][1] for update in updates] == [34, 33, 33]


def test_occurrences_within_a_millisecond_are_ordered_by_id_as_the_store_would_order_them() -> None:
    lines = [error("a", "group", NOW + timedelta(microseconds=900)), error("b", "group", NOW)]
    [update] = group_updates(lines).values()
    assert changes(update)["message"]["$cond"][1] == {"$literal": "b"}
    assert changes(update)["lastOccurrence"] == {"$max": ["$lastOccurrence", NOW]}
