"""Notify stored: an after-write hook that announces stored notifications through Redis.

Input: the writes of a batch that are durable. Output: messages, unread counts and due times in Redis. All of it only
saves time: applications find notifications in MongoDB, and dispatchers look there every few seconds. So nothing here is
retried.

After a crash: some announcements are repeated.
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


class NotifyStored:
    """Announces notifications.

    Args:
        in_app: Reaches the users' applications.
        wake_ups: Wakes the dispatchers.
    """

    def __init__(self, in_app: InApp, wake_ups: WakeUps) -> None:
        self._in_app = in_app
        self._wake_ups = wake_ups

    async def __call__(self, writes: Sequence[Write], outcome: Outcome, _: Sequence[Record]) -> None:
        """Announce the notifications among the writes, and the due times of their items in the queue."""
        now = datetime.now(UTC)
        alone = list(_stored(writes, outcome, COLLECTION))
        grouped = [group.notification for group in outcome.gathered]
        due = [item.get("nextRetryAt", now) for item in _stored(writes, outcome, QUEUE) if item["status"] == "pending"]
        due += [max(group.due, now) for group in outcome.gathered if group.due]
        await asyncio.gather(self._in_app.announce([*alone, *grouped]), self._wake_ups.announce(due, now))


def _stored(writes: Sequence[Write], outcome: Outcome, collection: str) -> Iterator[dict[str, Any]]:
    """Yield the documents of a collection that were not refused."""
    refused = {index for index, _ in outcome.refused}
    for index, write in enumerate(writes):
        if isinstance(write, Document) and write.collection == collection and index not in refused:
            yield write.body
