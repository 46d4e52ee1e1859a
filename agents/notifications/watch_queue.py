"""Watch queue: measures the queue of notifications now and then, for whoever is woken when it grows.

Nothing comes in; out go two gauges. A measurement that fails is made up for by the next.
"""

from datetime import UTC, datetime, timedelta
from typing import Any

from mode import Service

from runtime.metrics import QUEUE_OLDEST_SECONDS, QUEUE_READY
from sinks.stores import Stores

EVERY = timedelta(seconds=10)


class WatchQueue(Service):
    """Measures the queue.

    Args:
        stores: Among them the queue.
    """

    mundane_level = "debug"  # of the lines that say that a service starts and stops

    def __init__(self, stores: Stores, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self._queue = stores.queue
        self._mongo = stores.mongo

    @Service.timer(EVERY.total_seconds())
    async def _measure(self) -> None:
        try:
            backlog = await self._queue.measure()
        except Exception as error:
            if not self._mongo.is_transient(error):
                raise
            return  # the health page says that MongoDB is away
        QUEUE_READY.set(backlog.items)
        waited = datetime.now(UTC) - backlog.oldest if backlog.oldest else timedelta(0)
        QUEUE_OLDEST_SECONDS.set(max(0.0, waited.total_seconds()))
