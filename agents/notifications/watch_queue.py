"""Watch queue: measures the backlog of the queue of notifications every 10 seconds, for alerts.

Output: two gauges. A measurement that fails is replaced by the next one.
"""

from datetime import UTC, datetime, timedelta
from typing import Any

from mode import Service

from runtime.metrics import QUEUE_OLDEST_SECONDS, QUEUE_READY
from sinks.mongo.errors import is_transient
from sinks.mongo.notification_queue import NotificationQueue

EVERY = timedelta(seconds=10)


class WatchQueue(Service):
    """Measures the queue.

    Args:
        queue: The queue of notifications.
    """

    mundane_level = "debug"  # of the lines that say that a service starts and stops

    def __init__(self, queue: NotificationQueue, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self._queue = queue

    @Service.timer(EVERY.total_seconds())
    async def _measure(self) -> None:
        try:
            backlog = await self._queue.measure()
        except Exception as error:
            if not is_transient(error):
                raise
            return  # the health page shows that MongoDB is down
        QUEUE_READY.set(backlog.items)
        waited = datetime.now(UTC) - backlog.oldest if backlog.oldest else timedelta(0)
        QUEUE_OLDEST_SECONDS.set(max(0.0, waited.total_seconds()))
