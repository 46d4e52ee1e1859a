"""Publishes to Kafka what providers report to the worker's pages.

Input: receipts. Output: events, durable when the call returns. It waits for a few seconds only, as a provider does: one
that gets no response sends all of it again, and receipts that come twice change nothing.
"""

import asyncio
from collections.abc import Iterable
from datetime import timedelta

from aiokafka.errors import KafkaError

from delivery.event_sender import EventSender, OutgoingEvent
from delivery.producer import RecordProducer
from notifications.receipts.receipt import Receipt

TIMEOUT = timedelta(seconds=5)
"""Less than providers wait; Amazon SNS waits for 15 seconds."""


class NotPublished(Exception):  # noqa: N818  # what happened, not a fault
    """Kafka did not accept the receipts, or not in time; some of them may be stored."""


class ReceiptPublisher:
    """Sends `delivery.reported`.

    Args:
        topic: The topic's name in Kafka.
        producer: Takes the records.
    """

    def __init__(self, topic: str, producer: RecordProducer) -> None:
        self._sender = EventSender(topic, "delivery.reported", producer)

    async def __call__(self, receipts: Iterable[Receipt]) -> None:
        """Make receipts durable in Kafka.

        Raises:
            NotPublished: Kafka fails, or takes too long.
        """
        try:
            async with asyncio.timeout(TIMEOUT.total_seconds()):
                await self._sender.send(map(_event, receipts))
        except (TimeoutError, KafkaError) as error:
            raise NotPublished(type(error).__name__) from error


def _event(receipt: Receipt) -> OutgoingEvent:
    """Return a receipt as an event, keyed by the provider's id for the message."""
    return OutgoingEvent(
        receipt.id, receipt.data.provider_id, receipt.payload(), source=f"/inkstream/{receipt.data.provider}"
    )
