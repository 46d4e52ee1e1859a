"""Which windows are to be counted, and when: all touched ones at the next turn, but a large one not at every due.

In come windows as they are touched and as they were counted; out go those that are due. Nothing here is kept: after a
crash the records that touched the windows are read again.
"""

import asyncio
from dataclasses import dataclass, field
from datetime import datetime
from typing import NamedTuple

from enrich.view_windows import Window

LARGE = 20_000
"""Views that take longer to count, at a microsecond each, than all the windows of a turn that have few."""
_REMEMBERED_SECONDS = 600.0


@dataclass
class PendingCount:
    """A count that is wanted.

    Attributes:
        oldest_view_at: When Kafka got the oldest view that it is wanted for.
        done: Set when the count is durable, or when it was put off durably.
    """

    oldest_view_at: datetime
    done: "asyncio.Future[None]" = field(default_factory=lambda: asyncio.get_running_loop().create_future())


class DueWindows(NamedTuple):
    """What becomes of the windows that were touched since the turn before.

    Attributes:
        small: To be counted together.
        large: To be counted each by itself, so that no other window waits for it.
        deferred: To be put off.
    """

    small: dict[Window, PendingCount]
    large: dict[Window, PendingCount]
    deferred: dict[Window, PendingCount]


class PendingWindows:
    """The windows that wait to be counted, and those that rest.

    To count a window reads all its views, so counting a window with a million views at every turn would keep MongoDB
    busy with nothing else. After it was counted, a large window rests for as long as its views take at the rate.

    Args:
        rate: Views a second that counting one window may read on average.
    """

    def __init__(self, rate: int) -> None:
        self._rate = rate
        self._waiting: dict[Window, PendingCount] = {}
        self._deferred_until: dict[Window, float] = {}  # of large windows

    def request(self, window: Window, oldest_view_at: datetime) -> "asyncio.Future[None]":
        """Have the window counted from now on; return what is done when that is durable."""
        pending = self._waiting.get(window)
        if pending is None:
            pending = self._waiting[window] = PendingCount(oldest_view_at)
        else:
            pending.oldest_view_at = min(pending.oldest_view_at, oldest_view_at)
        return pending.done

    def next_due(self, now: float) -> DueWindows:
        """Return what is to be done now, on a monotonic clock in seconds; none of it waits any longer."""
        self._deferred_until = {
            window: until for window, until in self._deferred_until.items() if until + _REMEMBERED_SECONDS > now
        }
        due = DueWindows({}, {}, {})
        for window, pending in self._waiting.items():
            until = self._deferred_until.get(window)
            if until is None:
                due.small[window] = pending
            elif until <= now:
                due.large[window] = pending
                self._deferred_until[window] = float("inf")  # until it was counted
            else:
                due.deferred[window] = pending
        self._waiting = {}
        return due

    def counted(self, window: Window, views: int, now: float) -> None:
        """Let a large window rest that was counted."""
        if views >= LARGE:
            self._deferred_until[window] = now + views / self._rate
        else:
            self._deferred_until.pop(window, None)
