"""Tell: makes notifications known to their users' applications and to the deliverers, once they are stored.

In come the writes of a batch that are durable; out go messages, counts and due times in Redis. All of it makes quick
what happens anyway: applications find notifications in MongoDB, and deliverers look there every few seconds. So nothing
here is tried again, and after a crash some of it comes twice.
"""

import asyncio
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime
from typing import Any

from delivery.batch import Record
from enrich.documents import Document, Write
from enrich.notifications import COLLECTION, QUEUE
from sinks.mongo.outcome import Outcome
from sinks.redis.in_app import InApp
from sinks.redis.wakeups import WakeUps


class Tell:
    """Announces notifications.

    Args:
        in_app: The users' applications.
        wake_ups: Those who deliver.
    """

    def __init__(self, in_app: InApp, wake_ups: WakeUps) -> None:
        self._in_app = in_app
        self._wake_ups = wake_ups

    async def __call__(self, writes: Sequence[Write], outcome: Outcome, _: Sequence[Record]) -> None:
        """Tell of the notifications among the writes, and of when their items in the queue are due."""
        now = datetime.now(UTC)
        alone = list(_stored(writes, outcome, COLLECTION))
        gathered = [group.notification for group in outcome.gathered]
        due = [item.get("nextRetryAt", now) for item in _stored(writes, outcome, QUEUE) if item["status"] == "pending"]
        due += [max(group.due, now) for group in outcome.gathered if group.due]
        await asyncio.gather(self._in_app.announce([*alone, *gathered]), self._wake_ups.announce(due, now))


def _stored(writes: Sequence[Write], outcome: Outcome, collection: str) -> Iterator[dict[str, Any]]:
    """Yield the documents of a collection that were not refused."""
    refused = {index for index, _ in outcome.refused}
    for index, write in enumerate(writes):
        if isinstance(write, Document) and write.collection == collection and index not in refused:
            yield write.body
