"""Keeps the views of the last hour, and the trending posts, in Redis for services that want them now.

Input: the windows that rose in PostgreSQL. Output: windows and rankings in Redis. After a crash: what Redis or a killed
worker loses is written again from PostgreSQL. Nothing waits for Redis: while it is away, counting goes on.
"""

import asyncio
import time
from collections.abc import Iterable
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from typing import Any

import structlog
from mode import Service

from enrich.view_windows import LENGTH, Window
from runtime.metrics import RECENT_VIEWS_UP
from sinks.postgres.view_windows import ViewWindows, WindowCount
from sinks.redis.recent_views import RecentViews, kept

log = structlog.get_logger(__name__)


class RankPosts(Service):
    """Writes recent views to Redis.

    Args:
        recent: The recent views in Redis.
        windows: The counts of windows in PostgreSQL, from which they are written again.
    """

    mundane_level = "debug"  # of the lines that say that a service starts and stops
    EVERY = timedelta(seconds=2)
    TIMEOUT = timedelta(seconds=30)
    LAST_TURN_TIMEOUT = timedelta(seconds=3)
    REBUILD_PAUSE = timedelta(seconds=5)
    """Minimum between two complete reads of PostgreSQL, if Redis loses its data repeatedly."""

    def __init__(self, recent: RecentViews, windows: ViewWindows, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self._recent = recent
        self._windows = windows
        self._noted: dict[Window, int] = {}
        self._has_rebuilt = False
        self._next_rebuild = 0.0  # by the monotonic clock
        self._turning = asyncio.Lock()  # the last turn waits for the one that may be under way
        self._is_well = True
        RECENT_VIEWS_UP.set(0)

    def note(self, counts: Iterable[WindowCount]) -> None:
        """Take windows that have risen, for the next turn; while turns fail, those of the last hour are kept."""
        self._keep((count.window, count.views) for count in counts)

    def _keep(self, views: Iterable[tuple[Window, int]]) -> None:
        """Note the recent ones among the windows, each with the most views that it came with."""
        starts = kept(datetime.now(UTC))
        for window, count in views:
            if window.start in starts and count > self._noted.get(window, 0):
                self._noted[window] = count

    @Service.task
    async def _run(self) -> None:
        while not self.should_stop:
            await self.turn()
            await self.sleep(self.EVERY.total_seconds())

    async def turn(self) -> None:
        """Write what was noted, the rankings, and all of it where Redis lacks some; what fails is left to the next."""
        async with self._turning:
            noted, self._noted = self._noted, {}
            try:
                async with asyncio.timeout(self.TIMEOUT.total_seconds()):
                    await self._recent.write(noted)
                    await self._recent.rank(datetime.now(UTC))  # before PostgreSQL is asked: it may be away
                    await self._rebuild_if_needed()
            except Exception as error:  # whatever is wrong with this view, it stops nothing that counts
                self._keep(noted.items())
                self._recent.note(error)
                self._report(type(error).__name__)
            else:
                self._recent.note(None)
                self._report(None)

    async def _rebuild_if_needed(self) -> None:
        """Write all recent views from PostgreSQL where Redis lacks some, and at the start.

        Then the worker before this one may have been killed with what it had noted.
        """
        if time.monotonic() < self._next_rebuild or (self._has_rebuilt and await self._recent.is_complete()):
            return
        self._next_rebuild = time.monotonic() + self.REBUILD_PAUSE.total_seconds()
        now = datetime.now(UTC)
        views: dict[Window, int] = {}
        for start in kept(now):  # one by one, so that a great many rows do not hold up the worker
            views |= await self._windows.between(start, start + LENGTH)
        await self._recent.write_all(views)
        self._has_rebuilt = True

    def _report(self, problem: str | None) -> None:
        """Log a change once, however long it lasts."""
        RECENT_VIEWS_UP.set(problem is None)
        if problem is not None and self._is_well:
            log.warning("recent views not written, trying again", problem=problem)
        elif problem is None and not self._is_well:
            log.info("recent views are written again")
        self._is_well = problem is None

    async def on_stop(self) -> None:
        """Write what was noted last, for a bounded time: what remains is written by the next worker."""
        with suppress(TimeoutError):
            async with asyncio.timeout(self.LAST_TURN_TIMEOUT.total_seconds()):
                await self.turn()
