"""Receive: takes in what providers report of messages: to the log, the queue, the notification, the suppressions.

In come receipts; out go the changes that they make, and dead letters for what is none. Each change is the same when it
is made again, and the offset is committed once all of them are durable: after a crash anywhere all is done again.
"""

import asyncio
import time
from collections import defaultdict
from collections.abc import AsyncIterable, Awaitable, Callable, Iterable, Iterator, Mapping
from datetime import UTC, datetime
from functools import partial
from typing import Any, NamedTuple, TypeVar

import structlog

from delivery.batch import Record, RecordBatch
from delivery.dead_letters.letter import DeadLetter
from delivery.dead_letters.writer import DeadLetters
from delivery.retry import until_done
from notifications.receipts.receipt import ARRIVED, GIVEN_UP, Receipt
from notifications.replies import OURS, of_bounce
from runtime.health import Health
from runtime.metrics import RECEIPTS, RECEIPTS_NOT_OURS, REPLIES, STORED_AFTER_SECONDS, WRITE_SECONDS
from schemas.cloudevents import Decoder
from schemas.envelope import InvalidEvent
from schemas.receipts import DeliveryReceived
from sinks.mongo.errors import blames_content, refusal_of_error
from sinks.stores import Stores

log = structlog.get_logger(__name__)
T = TypeVar("T")

AT_ONCE = 20
"""Messages whose receipts are taken in at the same time: each takes a connection."""

PROVIDERS = frozenset({"sendgrid", "aws-ses", "mailgun", "smtp", "fcm", "apns", "web-push", "inkstream"})
"""Those that metrics name; a producer may have written anything."""


class _Reported(NamedTuple):
    """A receipt, and the record that it came in."""

    receipt: Receipt
    record: Record


class Receive:
    """The agent of receipts: decode, take in, commit.

    Args:
        decoder: Reads the topic's records.
        stores: What receipts change.
        dead_letters: Takes records that are no receipts.
        health: Where to report that a store is down.
    """

    def __init__(self, decoder: Decoder, stores: Stores, dead_letters: DeadLetters, health: Health) -> None:
        self._decoder = decoder
        self._stores = stores
        self._dead_letters = dead_letters
        self._health = health

    async def __call__(self, batches: AsyncIterable[RecordBatch]) -> None:
        """Handle batches for as long as they come; the commit is the last thing done with each."""
        async for batch in batches:
            reported, refused = self._decode(batch.records)
            with WRITE_SECONDS.labels(batch.topic).time():
                refused += await self._take_in(reported)
            await self._dead_letters.send(batch.topic, batch.records, refused)
            await batch.commit()
            now = time.time_ns() // 1_000_000
            STORED_AFTER_SECONDS.observe(batch.topic, [now - record.timestamp for _, record in reported])

    def _decode(self, records: Iterable[Record]) -> tuple[list[_Reported], list[DeadLetter]]:
        """Return the receipts, and the records that are none."""
        reported: list[_Reported] = []
        invalid: list[DeadLetter] = []
        for record in records:
            try:
                event = self._decoder.decode(record)
            except InvalidEvent as error:
                invalid.append(DeadLetter(record, error.reason, error.message))
                continue
            assert isinstance(event.data, DeliveryReceived)
            # A provider's clock that is wrong by years would be in the log for good.
            data = event.data.model_copy(update={"timestamp": event.time})
            reported.append(_Reported(Receipt(event.id, data), record))
        return reported, invalid

    async def _take_in(self, reported: Iterable[_Reported]) -> list[DeadLetter]:
        """Take in receipts, those of one message in order; return those that MongoDB refuses for what they hold."""
        of_message: defaultdict[tuple[str, ...], list[_Reported]] = defaultdict(list)
        for each in reported:
            of_message[_message(each.receipt.data)].append(each)
        pending = iter(of_message.values())
        refused: list[DeadLetter] = []
        async with asyncio.TaskGroup() as tasks:
            for _ in range(min(AT_ONCE, len(of_message))):
                tasks.create_task(self._take_in_those_of(pending, refused))
        return refused

    async def _take_in_those_of(self, messages: Iterator[list[_Reported]], refused: list[DeadLetter]) -> None:
        for reported in messages:
            for receipt, record in reported:
                try:
                    await self._receive(receipt)
                except Exception as error:
                    if not blames_content(error):
                        raise
                    refused.append(DeadLetter(record, *refusal_of_error(error)))

    async def _receive(self, receipt: Receipt) -> None:
        """Make all changes of one receipt, durably."""
        stores, report = self._stores, receipt.data
        provider = report.provider if report.provider in PROVIDERS else "other"
        message = await self._in_mongo(partial(stores.delivery_logs.receive, receipt))
        RECEIPTS.labels(provider, report.kind).inc()
        if message is None:
            RECEIPTS_NOT_OURS.labels(provider).inc()
            return
        if report.kind == "bounced" and report.channel == "email":
            _tell_operations(report, provider)
        await self._tell_queue(report, message)
        if reason := _reason_to_suppress(report):
            # The address that we sent to: a provider may name another, to which that one forwards.
            address = message.get("to" if report.channel == "email" else "deviceToken")
            if not isinstance(address, str):
                log.error("a log of a message has no address to suppress", id=message["_id"])
                return
            add = partial(stores.suppressions.add, report.channel, address, reason)
            await until_done(add, stores.suppressions, self._health)

    async def _tell_queue(self, report: DeliveryReceived, log: Mapping[str, Any]) -> None:
        """Bring a receipt to the notification that the message is of, and to its item in the queue."""
        stores, notification_id = self._stores, log.get("notificationId")
        if notification_id is None:
            return
        key, now = log["_id"], datetime.now(UTC)
        if report.kind in GIVEN_UP:
            await self._in_mongo(partial(stores.queue.confirm, notification_id, key, "bounced", now))
        elif report.kind in ARRIVED:
            await self._in_mongo(partial(stores.queue.confirm, notification_id, key, "delivered", now))
            mark = partial(stores.notifications.mark_arrived, notification_id, report.channel, key, log["sentAt"])
            await self._in_mongo(mark)

    async def _in_mongo(self, operation: Callable[[], Awaitable[T]]) -> T:
        return await until_done(operation, self._stores.mongo, self._health)


def _tell_operations(report: DeliveryReceived, provider: str) -> None:
    """Count what a bounce means, and say so where the reason is ours: its message was taken, so no attempt told."""
    category = "gone" if report.permanent else of_bounce(report.message, report.code, report.recipient) or "refused"
    REPLIES.labels(provider, category).inc()
    if category in OURS:
        problem = {"code": report.code, "problem": report.message}
        log.warning("a message was refused because of us", provider=provider, category=category, **problem)


def _message(report: DeliveryReceived) -> tuple[str, ...]:
    """Name the message that a receipt is of."""
    return (report.channel, report.key) if report.key else (report.channel, report.provider, report.provider_id)


def _reason_to_suppress(report: DeliveryReceived) -> str | None:
    """Return why nothing more may be sent to the recipient; `None` where it may."""
    match report.kind:
        case "bounced" if report.permanent:
            return "bounced"
        case "complained" | "unsubscribed":
            return report.kind
        case "token_gone":
            return "gone"
        case _:
            return None
