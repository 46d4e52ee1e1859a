"""Which windows are to be counted, and when: all touched ones at the next turn, but a large one not at every turn.

In come windows as they are touched and as they were counted; out go those that are due. Nothing here is kept: after a
crash the records that touched the windows are read again.
"""

import asyncio
from dataclasses import dataclass, field
from datetime import datetime

from enrich.view_windows import Window


@dataclass
class Recount:
    """A count that is wanted.

    Attributes:
        oldest_view_at: When Kafka got the oldest view that it is wanted for.
        done: Set when the count is durable.
    """

    oldest_view_at: datetime
    done: "asyncio.Future[None]" = field(default_factory=lambda: asyncio.get_running_loop().create_future())


class Recounts:
    """The windows that wait to be counted, and those that rest.

    To count a window reads all its views, so counting a window with a million views at every turn would keep MongoDB
    busy with nothing else. After it was counted, a window rests for as long as its views would take at the rate.

    Args:
        rate: Views a second that counting one window may read on average.
    """

    def __init__(self, rate: int) -> None:
        self._rate = rate
        self._waiting: dict[Window, Recount] = {}
        self._rest_until: dict[Window, float] = {}

    def want(self, window: Window, oldest_view_at: datetime) -> "asyncio.Future[None]":
        """Have the window counted from now on; return what is done when that count is durable."""
        recount = self._waiting.get(window)
        if recount is None:
            recount = self._waiting[window] = Recount(oldest_view_at)
        else:
            recount.oldest_view_at = min(recount.oldest_view_at, oldest_view_at)
        return recount.done

    def take_due(self, now: float) -> dict[Window, Recount]:
        """Return the windows to count now, on a monotonic clock in seconds; they no longer wait."""
        self._rest_until = {window: until for window, until in self._rest_until.items() if until > now}
        due = {window: recount for window, recount in self._waiting.items() if window not in self._rest_until}
        for window in due:
            del self._waiting[window]
        return due

    def counted(self, window: Window, views: int, now: float) -> None:
        """Let a window rest that was counted."""
        self._rest_until[window] = now + views / self._rate
