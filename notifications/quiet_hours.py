"""Quiet hours: the part of the day in which a person's devices stay silent.

In come the hours as the clock on the person's wall shows them, and the present moment; out goes the moment from which a
message may be sent. Who passes quiet hours, as urgent messages do, is not decided here.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, time, timedelta
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

_LONGEST_NAME = 64
"""The longest name in the database has 30 characters. ZoneInfo goes into a longer one part by part, in recursion."""


class UnknownZoneError(ValueError):
    """There is no time zone of this name in the IANA database (https://www.iana.org/time-zones)."""


def zone_named(name: str) -> ZoneInfo:
    """Return the time zone of a name such as `Europe/Berlin`.

    Raises:
        UnknownZoneError: Where there is none.
    """
    if len(name) > _LONGEST_NAME:
        raise UnknownZoneError(f"there is no time zone named {name[:_LONGEST_NAME]!r}…")
    try:
        return ZoneInfo(name)
    # Beside what it promises, ZoneInfo raises ValueError for paths and OSError for names of directories, by release.
    except (ZoneInfoNotFoundError, ValueError, OSError) as error:
        raise UnknownZoneError(f"there is no time zone named {name!r}") from error


@dataclass(frozen=True, slots=True)
class QuietHours:
    """The quiet part of each day, from `start` up to but without `end`, over midnight where `end` is the earlier.

    It goes by the clock on the wall: where that is put forward past `end`, quiet ends at that moment, and where it is
    put back into the quiet part, it is quiet again.

    Attributes:
        start: When quiet begins, without a zone.
        end: When it ends, without a zone.
        zone: Where the clock hangs.

    Raises:
        ValueError: Where `start` and `end` are the same, which could mean always or never, or have a zone of their own.
    """

    start: time
    end: time
    zone: ZoneInfo

    def __post_init__(self) -> None:
        """Refuse hours that mean nothing."""
        if self.start.tzinfo or self.end.tzinfo:
            raise ValueError("quiet hours have one zone, and their times none")
        if self.start == self.end:
            raise ValueError("quiet hours that end when they start could mean always or never")

    def allowed_at(self, now: datetime) -> datetime:
        """Return `now`, or where that is quiet, the first moment after it that is not; in UTC.

        Raises:
            ValueError: Where `now` has no zone.
        """
        if now.tzinfo is None:
            raise ValueError("now is a moment, and needs a zone")
        # Python reckons by the clock on the wall between two times of the same zone, so all is reckoned in UTC.
        now = now.astimezone(UTC)
        if not self._is_quiet(now):
            return now
        return min(moment for moment in self._turns(now) if moment > now and not self._is_quiet(moment))

    def _is_quiet(self, moment: datetime) -> bool:
        clock = moment.astimezone(self.zone).time()
        if self.start < self.end:
            return self.start <= clock < self.end
        return clock >= self.start or clock < self.end

    def _turns(self, now: datetime) -> Iterator[datetime]:
        """Yield the moments at which quiet may end: when the clock shows `end`, and when it is changed."""
        today = now.astimezone(self.zone).date()
        # Beyond tomorrow, as the clock may leap over tomorrow's end and all the time until quiet begins again.
        for days in range(3):
            wall = datetime.combine(today + timedelta(days=days), self.end, self.zone)
            # A clock that is put back shows a time twice, and `fold` says which of them is meant. For a time that it
            # leaps over, both are moments beside the leap (PEP 495, https://peps.python.org/pep-0495/).
            yield from (wall.replace(fold=fold).astimezone(UTC) for fold in (0, 1))
        yield self._change(now, now + timedelta(days=2))

    def _change(self, low: datetime, high: datetime) -> datetime:
        """Return the moment between two others at which the clock is changed, by halving; the later where it is not."""
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
