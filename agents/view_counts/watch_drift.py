"""Measures the drift of the view counts at intervals, on a small sample.

Output: a gauge, 0 while all is well. Changes nothing: `inkstream verify counts` finds and fixes what differs.
"""

from datetime import timedelta
from typing import Any

import structlog
from mode import Service

from agents.view_counts.reconciliation import Reconciliation
from runtime.metrics import VIEW_COUNT_DRIFT
from sinks.servers import STORE_ERRORS

log = structlog.get_logger(__name__)

_WINDOWS = 20


class WatchDrift(Service):
    """Measures the drift of the view counts.

    Args:
        reconciliation: Compares.
        every: How often.
    """

    mundane_level = "debug"  # of the lines that say that a service starts and stops

    def __init__(self, reconciliation: Reconciliation, every: timedelta, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self._reconciliation = reconciliation
        self._every = every

    @Service.task
    async def _watch(self) -> None:
        # First a pause: what was in flight when the last worker ended is counted soon after the start.
        await self.sleep(self._every.total_seconds())
        while not self.should_stop:
            await self.measure()
            await self.sleep(self._every.total_seconds())

    async def measure(self) -> None:
        """Compare a sample and set the gauge; if a server fails, the gauge keeps its value."""
        try:
            found = await self._reconciliation.sample(_WINDOWS)
        except STORE_ERRORS as error:
            log.warning("drift of view counts not measured, trying later", problem=type(error).__name__)
        else:
            VIEW_COUNT_DRIFT.set(found.drift)
            if not found.is_well:
                log.warning("view counts differ from what is stored", views=found.drift)
