"""Decides when windows are counted: all marked ones at the next turn, but a large one not at every turn.

Input: windows as they are marked and counted. Output: those that are due. After a crash: nothing is kept, and the
records that mark the windows are read again.
"""

import asyncio
from dataclasses import dataclass, field
from datetime import datetime
from typing import NamedTuple

from enrich.view_windows import Window

LARGE = 20_000
"""Counting so many views, at a microsecond each, takes longer than counting all small windows of a turn."""
_REMEMBERED_SECONDS = 600.0


@dataclass
class PendingCount:
    """A count that was requested.

    Attributes:
        oldest_view_at: When Kafka got the oldest view that it was requested for.
        done: Set when the count is durable, or durably deferred.
    """

    oldest_view_at: datetime
    done: "asyncio.Future[None]" = field(default_factory=lambda: asyncio.get_running_loop().create_future())


class DueWindows(NamedTuple):
    """The windows that were requested since the previous turn.

    Attributes:
        small: Count them together.
        large: Count each by itself, so that no other window waits for it.
        deferred: Count them later.
    """

    small: dict[Window, PendingCount]
    large: dict[Window, PendingCount]
    deferred: dict[Window, PendingCount]


class PendingWindows:
    """The windows that wait to be counted, and the large ones that are deferred.

    Counting a window reads all its views, so counting a window with a million views at every turn would keep MongoDB
    busy with nothing else. After a count, a large window is deferred for as long as its views take at the rate.

    Args:
        rate: Views a second that counting one window may read on average.
    """

    def __init__(self, rate: int) -> None:
        self._rate = rate
        self._waiting: dict[Window, PendingCount] = {}
        self._deferred_until: dict[Window, float] = {}  # of large windows

    def request(self, window: Window, oldest_view_at: datetime) -> "asyncio.Future[None]":
        """Request a count of the window as of now or later; return a future that ends when that is durable."""
        pending = self._waiting.get(window)
        if pending is None:
            pending = self._waiting[window] = PendingCount(oldest_view_at)
        else:
            pending.oldest_view_at = min(pending.oldest_view_at, oldest_view_at)
        return pending.done

    def next_due(self, now: float) -> DueWindows:
        """Return and remove all requested windows; `now` is seconds of a monotonic clock."""
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
        """Record a count; a large window is deferred from now on."""
        if views >= LARGE:
            self._deferred_until[window] = now + views / self._rate
        else:
            self._deferred_until.pop(window, None)
