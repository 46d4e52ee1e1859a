"""Settle counts: what has to be done now and then with the view counts in PostgreSQL, whether events come or not.

Gives posts that have appeared since their views were counted these views, tries posts again whose count PostgreSQL
refused to change, and folds old windows into totals. Each turn does what there is to do, so one that fails is made up
for by the next.
"""

from datetime import UTC, datetime, timedelta
from typing import Any

import structlog
from mode import Service

from ops.metrics import POSTS_MISSING, POSTS_SET_ASIDE
from sinks.view_counts import ViewCounts

log = structlog.get_logger(__name__)

EVERY = timedelta(seconds=10)
MARGIN = timedelta(days=1)
"""How much longer than it is counted a window is kept: for so long its last count may be on its way to PostgreSQL."""


class SettleCounts(Service):
    """Looks after the view counts.

    Args:
        counts: The view counts.
        horizon: A window is counted for so long after its end.
    """

    mundane_level = "debug"  # of the lines that say that a service starts and stops

    def __init__(self, counts: ViewCounts, horizon: timedelta, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self._counts = counts
        self._horizon = horizon

    @Service.timer(EVERY.total_seconds())
    async def _settle(self) -> None:
        try:
            waiting = await self._counts.settle()
            POSTS_MISSING.set(waiting.missing)
            POSTS_SET_ASIDE.set(sum(refused.posts for refused in waiting.set_aside))
            await self._counts.fold(datetime.now(UTC) - self._horizon - MARGIN)
        except Exception as error:
            if not self._counts.is_transient(error):
                raise
            log.warning("view counts not settled, trying again", problem=type(error).__name__)
