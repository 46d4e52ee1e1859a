"""Apply receipts: applies what providers report of messages to logs, queue, notifications and suppressions.

Input: receipts from Kafka. Output: durable changes; invalid records become dead letters. Applying a receipt twice has
the same effect as once, and the offset is committed last.

After a crash: the batch is applied again.
"""

import asyncio
import time
from collections import defaultdict
from collections.abc import AsyncIterable, Iterable, Iterator, Mapping
from datetime import UTC, datetime
from functools import partial
from typing import Any, NamedTuple

import structlog

from delivery.batch import Record, RecordBatch
from delivery.dead_letters.letter import DeadLetter
from delivery.dead_letters.writer import DeadLetters
from delivery.retry import Retrier
from notifications import unsubscribing
from notifications.receipts.receipt import ARRIVED, GIVEN_UP, Receipt
from notifications.replies import OURS, of_bounce
from providers.registry import NAMES
from runtime.metrics import RECEIPTS, RECEIPTS_NOT_OURS, REPLIES, STORED_AFTER_SECONDS, WRITE_SECONDS
from schemas.cloudevents import Decoder
from schemas.envelope import InvalidEvent
from schemas.receipts import DeliveryReceived
from sinks.mongo.delivery_logs import DeliveryLogs
from sinks.mongo.errors import blames_content, refusal_of_error
from sinks.mongo.notification_queue import NotificationQueue
from sinks.mongo.notifications import Notifications
from sinks.postgres.suppressions import Suppressions

log = structlog.get_logger(__name__)

AT_ONCE = 20
"""How many messages have their receipts applied at the same time; each takes a connection."""

PROVIDERS = NAMES | {unsubscribing.PROVIDER}
"""The values of the metrics' label `provider`; all others become `other`, as a producer may have written anything."""


class _Received(NamedTuple):
    """A receipt and its record."""

    receipt: Receipt
    record: Record


class ApplyReceipts:
    """The agent of receipts: decode, apply, commit.

    Args:
        decoder: Reads the topic's records.
        delivery_logs: The messages' logs.
        queue: The queue of notifications.
        notifications: The notifications' documents.
        suppressions: The suppressed addresses.
        dead_letters: Takes invalid records.
        mongo: Retries while MongoDB is down.
        postgres: Retries while PostgreSQL is down.
    """

    def __init__(
        self,
        decoder: Decoder,
        delivery_logs: DeliveryLogs,
        queue: NotificationQueue,
        notifications: Notifications,
        suppressions: Suppressions,
        dead_letters: DeadLetters,
        mongo: Retrier,
        postgres: Retrier,
    ) -> None:
        self._decoder = decoder
        self._delivery_logs = delivery_logs
        self._queue = queue
        self._notifications = notifications
        self._suppressions = suppressions
        self._dead_letters = dead_letters
        self._mongo = mongo
        self._postgres = postgres

    async def __call__(self, batches: AsyncIterable[RecordBatch]) -> None:
        """Handle each batch; the commit comes last."""
        async for batch in batches:
            received, refused = self._decode(batch.records)
            with WRITE_SECONDS.labels(batch.topic).time():
                refused += await self._apply_all(received)
            await self._dead_letters.send(batch.topic, batch.records, refused)
            await batch.commit()
            now = time.time_ns() // 1_000_000
            STORED_AFTER_SECONDS.observe(batch.topic, [now - record.timestamp for _, record in received])

    def _decode(self, records: Iterable[Record]) -> tuple[list[_Received], list[DeadLetter]]:
        """Return the receipts, and dead letters of the invalid records."""
        received: list[_Received] = []
        invalid: list[DeadLetter] = []
        for record in records:
            try:
                event = self._decoder.decode(record)
            except InvalidEvent as error:
                invalid.append(DeadLetter(record, error.reason, error.message))
                continue
            assert isinstance(event.data, DeliveryReceived)
            # The event's time is within bounds; a provider's clock that is wrong by years would stay in the log.
            data = event.data.model_copy(update={"timestamp": event.time})
            received.append(_Received(Receipt(event.id, data), record))
        return received, invalid

    async def _apply_all(self, received: Iterable[_Received]) -> list[DeadLetter]:
        """Apply receipts, those of one message in order; return those whose content MongoDB refuses."""
        by_message: defaultdict[tuple[str, ...], list[_Received]] = defaultdict(list)
        for each in received:
            by_message[_message(each.receipt.data)].append(each)
        pending = iter(by_message.values())
        refused: list[DeadLetter] = []
        async with asyncio.TaskGroup() as tasks:
            for _ in range(min(AT_ONCE, len(by_message))):
                tasks.create_task(self._apply_in_order(pending, refused))
        return refused

    async def _apply_in_order(self, messages: Iterator[list[_Received]], refused: list[DeadLetter]) -> None:
        for received in messages:
            for receipt, record in received:
                try:
                    await self._apply(receipt)
                except Exception as error:
                    if not blames_content(error):
                        raise
                    refused.append(DeadLetter(record, *refusal_of_error(error)))

    async def _apply(self, receipt: Receipt) -> None:
        """Make all changes of one receipt, durably."""
        data = receipt.data
        provider = data.provider if data.provider in PROVIDERS else "other"
        message = await self._mongo.run(partial(self._delivery_logs.receive, receipt))
        RECEIPTS.labels(provider, data.kind).inc()
        if message is None:
            RECEIPTS_NOT_OURS.labels(provider).inc()
            return
        if data.kind == "bounced" and data.channel == "email":
            _report_bounce(data, provider)
        await self._update_notification(data, message)
        if reason := _reason_to_suppress(data):
            # The address that we sent to: a provider may name another one, to which that one forwards.
            address = message.get("to" if data.channel == "email" else "deviceToken")
            if not isinstance(address, str):
                log.error("a log of a message has no address to suppress", id=message["_id"])
                return
            await self._postgres.run(partial(self._suppressions.add, data.channel, address, reason))

    async def _update_notification(self, data: DeliveryReceived, log: Mapping[str, Any]) -> None:
        """Update the item of the queue and the notification that a message belongs to."""
        notification_id = log.get("notificationId")
        if notification_id is None:
            return
        key, now = log["_id"], datetime.now(UTC)
        if data.kind in GIVEN_UP:
            await self._mongo.run(partial(self._queue.confirm, notification_id, key, "bounced", now))
        elif data.kind in ARRIVED:
            await self._mongo.run(partial(self._queue.confirm, notification_id, key, "delivered", now))
            mark = partial(self._notifications.mark_arrived, notification_id, data.channel, key, log["sentAt"])
            await self._mongo.run(mark)


def _report_bounce(data: DeliveryReceived, provider: str) -> None:
    """Count a bounce by its category, and log it if we caused it: the attempt itself had succeeded."""
    category = "gone" if data.permanent else of_bounce(data.message, data.code, data.recipient) or "refused"
    REPLIES.labels(provider, category).inc()
    if category in OURS:
        problem = {"code": data.code, "problem": data.message}
        log.warning("a message was refused because of us", provider=provider, category=category, **problem)


def _message(data: DeliveryReceived) -> tuple[str, ...]:
    """Return what identifies the message of a receipt."""
    return (data.channel, data.key) if data.key else (data.channel, data.provider, data.provider_id)


def _reason_to_suppress(data: DeliveryReceived) -> str | None:
    """Return why nothing more may be sent to the recipient; `None` if it may."""
    match data.kind:
        case "bounced" if data.permanent:
            return "bounced"
        case "complained" | "unsubscribed":
            return data.kind
        case "token_gone":
            return "gone"
        case _:
            return None
