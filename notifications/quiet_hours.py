"""Quiet hours: the part of the day in which a person's devices stay silent.

Input: the hours as the platform stores them, and the current time. Output: the moment from which a message may be
sent. Hours that can't be read have the safest reading: docs/recipients.md says which. Which messages ignore quiet
hours, as urgent ones do, is not decided here.
"""

import re
import unicodedata
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, time, timedelta, timezone, tzinfo
from functools import cache
from typing import NamedTuple
from zoneinfo import ZoneInfo, available_timezones

EVENING, MORNING = timedelta(hours=22), timedelta(hours=8)
"""The night of people whose hours can't be read, in their own time zone."""

WEST, EAST = timedelta(hours=5), timedelta(hours=8)
"""The assumed range of an unreadable time zone around UTC: from New York to Singapore."""

_DAY = timedelta(days=1)
_AWAKE = timedelta(hours=1)
_MIDNIGHT = datetime(1970, 1, 1)  # noqa: DTZ001  # a clock's, of no zone
# 9, 09:00, 09:00:00.000, 9.30, 9h30, 0930, 9:30 PM; and a time alone as Prisma gives it, 1970-01-01T09:30:00.000Z.
_TIME = re.compile(
    r"(?:1970-01-01t)?(\d{1,2})(?:[:.h](\d{2})(?::(\d{2})(?:\.\d{1,9})?)?|(\d{2})|h)?z?(?: ?([ap])\.?m\.?)?"
)
_OFFSET = re.compile(r"(?:utc|gmt)?([+-])(\d{1,2})(?::?([0-5]\d))?")
_FURTHEST_OFFSET = timedelta(hours=14)
# The database's names for the server's own zone, and for none.
_NOBODYS = {"localtime", "posixrules", "factory"}
_LAST_MINUTE = timedelta(hours=23, minutes=59)
_LONGEST = 100


class UnknownZoneError(ValueError):
    """There is no time zone of this name in the IANA database (https://www.iana.org/time-zones)."""


def zone_named(name: str) -> tzinfo:
    """Return the time zone of a name such as `Europe/Berlin`, ignoring case, or of an offset such as `UTC+2`.

    Raises:
        UnknownZoneError: There is none.
    """
    wanted = _plain(name).replace(" ", "_")
    if known := _zones().get("utc" if wanted == "z" else wanted):
        return ZoneInfo(known)
    offset = _OFFSET.fullmatch(wanted)
    if offset is None:
        raise UnknownZoneError(f"there is no time zone named {name!r}")
    distance = timedelta(hours=int(offset[2]), minutes=int(offset[3] or 0))
    if distance > _FURTHEST_OFFSET:
        raise UnknownZoneError(f"there is no time zone named {name!r}")
    return timezone(-distance if offset[1] == "-" else distance)


def time_of_day(text: str) -> timedelta:
    """Return the time since midnight of a text: `22:00`, `9:00`, `9 PM`; a whole day for `24:00`.

    Raises:
        ValueError: It is not a time.
    """
    found = _TIME.fullmatch(_plain(text))
    if found is None:
        raise ValueError("should be a time like 22:00")
    hour, minute, second = int(found[1]), int(found[2] or found[4] or 0), int(found[3] or 0)
    if found[5] and not (hour > 12 and found[5] == "p"):
        if not 1 <= hour <= 12:
            raise ValueError("should be a time like 10:00 PM")
        hour = hour % 12 + (12 if found[5] == "p" else 0)
    at = timedelta(hours=hour, minutes=minute, seconds=second)
    if minute > 59 or second > 59 or at > _DAY:
        raise ValueError("should be a time like 22:00")
    return at


class Understood(NamedTuple):
    """Quiet hours as they are applied.

    Attributes:
        hours: The stored hours, or their safest reading.
        unreadable: The parts that could not be read: `start`, `end`, `timeZone`.
    """

    hours: "QuietHours"
    unreadable: tuple[str, ...]


def understand(start: str | None, end: str | None, zone: str | None) -> Understood:
    """Read quiet hours; an unreadable part has the reading with the longest silence, but never the whole day.

    A time that can't be read stands for the evening or the morning, unless the other would then lie outside of the
    night. Start and end that are the same could mean always or never, and so can't be read. A zone that can't be read
    is any from `WEST` to `EAST` of UTC at once, or fewer where that left less than an hour of the day.

    Args:
        start: The stored start; `None` if there is none.
        end: The stored end; likewise.
        zone: The stored time zone; likewise.
    """
    begins, ends = _read(start), _read(end)
    if ends is not None and ends >= _LAST_MINUTE:
        ends = _DAY  # as the end of a day, 23:59 is meant to be midnight
    is_whole_day = (begins, ends) == (timedelta(0), _DAY)
    if begins is not None and ends is not None and begins % _DAY == ends % _DAY and not is_whole_day:
        begins = ends = None
    unreadable = [name for name, at in (("start", begins), ("end", ends)) if at is None]
    begins, ends = _night(begins, ends)
    try:
        where = zone_named(zone or "")
    except UnknownZoneError:
        unreadable.append("timeZone")
        begins, ends, where = *_anywhere(begins, ends), UTC
    return Understood(QuietHours(_clock(begins), _clock(ends), where), tuple(unreadable))


@dataclass(frozen=True, slots=True)
class QuietHours:
    """The quiet part of each day, from `start` to before `end`, over midnight if `end` is earlier.

    Where both are the same, all of each day is quiet.

    It goes by the clock on the wall: where that is put forward past `end`, quiet ends at that moment, and where it is
    put back into the quiet part, it is quiet again.

    Attributes:
        start: When quiet begins, without a zone.
        end: When it ends, without a zone.
        zone: The time zone.

    Raises:
        ValueError: `start` or `end` has its own zone.
    """

    start: time
    end: time
    zone: tzinfo

    def __post_init__(self) -> None:
        """Check the fields."""
        if self.start.tzinfo or self.end.tzinfo:
            raise ValueError("quiet hours have one zone, and their times none")

    def allowed_at(self, now: datetime) -> datetime:
        """Return `now`, or if that is quiet, the first later time that is not; in UTC.

        Where all of the day is quiet, that is the next `end`: the moment to look again whether it still is.

        Raises:
            ValueError: `now` has no zone.
        """
        if now.tzinfo is None:
            raise ValueError("now is a moment, and needs a zone")
        # Python reckons by the clock on the wall between two times of the same zone, so all is reckoned in UTC.
        now = now.astimezone(UTC)
        if not self._is_quiet(now):
            return now
        later = [moment for moment in self._turns(now) if moment > now]
        return min(moment for moment in later if self.start == self.end or not self._is_quiet(moment))

    def _is_quiet(self, moment: datetime) -> bool:
        clock = moment.astimezone(self.zone).time()
        if self.start < self.end:
            return self.start <= clock < self.end
        return clock >= self.start or clock < self.end

    def _turns(self, now: datetime) -> Iterator[datetime]:
        """Yield the times at which quiet hours may end: when the clock shows `end`, and when it is changed."""
        today = now.astimezone(self.zone).date()
        # Beyond tomorrow, as the clock may leap over tomorrow's end and all the time until quiet begins again.
        for days in range(3):
            wall = datetime.combine(today + timedelta(days=days), self.end, self.zone)
            # A clock that is put back shows a time twice, and `fold` says which of them is meant. For a time that it
            # leaps over, both are moments beside the leap (PEP 495, https://peps.python.org/pep-0495/).
            yield from (wall.replace(fold=fold).astimezone(UTC) for fold in (0, 1))
        yield self._change(now, now + timedelta(days=2))

    def _change(self, low: datetime, high: datetime) -> datetime:
        """Return the time between two others of a clock change, by bisection; if it is not, the later one."""
        offset = low.astimezone(self.zone).utcoffset()
        if high.astimezone(self.zone).utcoffset() == offset:
            return high
        while high - low > timedelta.resolution:
            middle = low + (high - low) / 2
            if middle.astimezone(self.zone).utcoffset() == offset:
                low = middle
            else:
                high = middle
        return high


def _plain(text: str) -> str:
    """Return a normalised text: stripped, in one case, with ASCII digits."""
    return unicodedata.normalize("NFKC", text[:_LONGEST]).replace("\u2212", "-").strip().casefold()


@cache
def _zones() -> Mapping[str, str]:
    """Return the names of all zones by their case-folded names."""
    return {name.casefold(): name for name in sorted(available_timezones()) if name.casefold() not in _NOBODYS}


def _read(text: str | None) -> timedelta | None:
    try:
        return time_of_day(text or "")
    except ValueError:
        return None


def _night(begins: timedelta | None, ends: timedelta | None) -> tuple[timedelta, timedelta]:
    """Replace unknown times by the night, extended to the known time."""
    if begins is not None and ends is not None:
        return begins, ends
    if begins is not None and MORNING < begins < EVENING:
        return begins, MORNING
    if ends is not None and MORNING < ends < EVENING:
        return EVENING, ends
    return EVENING, MORNING


def _anywhere(begins: timedelta, ends: timedelta) -> tuple[timedelta, timedelta]:
    """Return the quiet time in UTC of a person anywhere between `WEST` and `EAST`."""
    if begins % _DAY == ends % _DAY:
        return begins, ends
    room = max(timedelta(0), _DAY - _AWAKE - (ends - begins) % _DAY)
    share = min(1.0, room / (WEST + EAST))
    return begins - EAST * share, ends + WEST * share


def _clock(at: timedelta) -> time:
    return (_MIDNIGHT + at % _DAY).time().replace(microsecond=0)
