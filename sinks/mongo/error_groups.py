"""The group of an error: how often it occurred, from when to when, and its latest occurrence.

Input: log lines and their groups. Output: one update per group, which counts exactly the given lines, so these must be
new. The final group is the same in any order and however the lines are divided.
"""

from collections.abc import Iterable
from datetime import datetime
from itertools import groupby
from operator import attrgetter
from typing import Any, NamedTuple

from pymongo import UpdateOne

from enrich.documents import Occurrence

_COUNTED = frozenset({"_id", "firstOccurrence", "lastOccurrence", "occurrenceCount", "timestamp"})
_RESOLUTION = frozenset({"resolved", "resolvedAt", "resolvedBy", "resolution", "reopenedAt", "reopenCount"})
_MAY_BE_ABSENT = ("requestId", "userId", "endpoint", "method", "context")
"""Fields of the latest occurrence that it need not have: then those of an earlier one go."""


class _Sighting(NamedTuple):
    """An occurrence, and what orders it among those of its group."""

    group_id: str
    time: datetime
    event_id: str
    group: dict[str, Any]


COUNTERS = ("occurrenceCount", "reopenCount")
"""Fields that updates add to: where somebody has put anything but a number, the update fails."""


def group_updates(occurrences: Iterable[Occurrence]) -> dict[str, UpdateOne]:
    """Return the updates that count these occurrences, by their groups' ids, and in the order of these.

    None of them may have been counted before. The order keeps two writers from waiting for each other crosswise.
    """
    sightings = sorted(map(_sighting, occurrences), key=attrgetter("group_id", "time", "event_id"))
    return {
        group_id: _group_update(group_id, list(of_group))
        for group_id, of_group in groupby(sightings, key=attrgetter("group_id"))
    }


def _sighting(occurrence: Occurrence) -> _Sighting:
    time: datetime = occurrence.group["lastOccurrence"]
    # As BSON keeps it. Finer differences must not decide here, where the lines happen to be in the same batch.
    milliseconds = time.replace(microsecond=time.microsecond // 1000 * 1000)
    return _Sighting(occurrence.group["_id"], milliseconds, occurrence.line["_id"], occurrence.group)


def _group_update(group_id: str, sightings: list[_Sighting]) -> UpdateOne:
    """Return the update for occurrences of one group, given from the earliest to the latest."""
    latest = sightings[-1]
    times = list(dict.fromkeys(sighting.time for sighting in sightings))
    judge = {
        # An array is compared item by item: a later time, or the same time and a higher id.
        "isLater": {"$gt": [[latest.time, {"$literal": latest.event_id}], ["$lastOccurrence", "$lastEventId"]]},
        # The earliest of these that came after the group was resolved; null where none did, or it was not resolved.
        "recurrence": {
            "$cond": [
                {"$eq": ["$resolved", True]},
                {"$min": {"$filter": {"input": times, "cond": {"$gt": ["$$this", "$resolvedAt"]}}}},
                None,
            ]
        },
    }
    sample = {name: value for name, value in latest.group.items() if name not in _COUNTED | _RESOLUTION}
    sample["lastEventId"] = latest.event_id
    absent = [name for name in _MAY_BE_ABSENT if name not in sample]
    reopens = {"$ne": ["$judged.recurrence", None]}
    changes: dict[str, Any] = {
        **{name: {"$cond": ["$judged.isLater", {"$literal": value}, f"${name}"]} for name, value in sample.items()},
        **{name: {"$cond": ["$judged.isLater", "$$REMOVE", f"${name}"]} for name in absent},
        "resolved": {"$cond": [reopens, False, {"$ifNull": ["$resolved", False]}]},
        **{name: {"$cond": [reopens, "$$REMOVE", f"${name}"]} for name in ("resolvedAt", "resolvedBy", "resolution")},
        "reopenedAt": {"$ifNull": ["$judged.recurrence", "$reopenedAt"]},
        "reopenCount": {"$cond": [reopens, {"$add": [{"$ifNull": ["$reopenCount", 0]}, 1]}, "$reopenCount"]},
        "firstOccurrence": {"$min": ["$firstOccurrence", times[0]]},
        "lastOccurrence": {"$max": ["$lastOccurrence", latest.time]},
        "occurrenceCount": {"$add": [{"$ifNull": ["$occurrenceCount", 0]}, len(sightings)]},
        "timestamp": {"$max": ["$timestamp", latest.time]},
    }
    return UpdateOne(
        {"_id": group_id}, [{"$set": {"judged": judge}}, {"$set": changes}, {"$unset": "judged"}], upsert=True
    )
