"""Report receipts: brings what providers post to the worker's pages into Kafka.

In come receipts; out go records, durable when it returns. It waits for a few seconds only, as a provider does: one that
gets no answer posts all of it again, and receipts that come twice do no harm.
"""

import asyncio
from collections.abc import Iterable
from datetime import timedelta

from aiokafka.errors import KafkaError
from pydantic_core import to_json

from delivery.producer import OutgoingRecord, RecordProducer, partition_of
from notifications.receipts.receipt import Receipt

TIMEOUT = timedelta(seconds=5)
"""Less than providers wait; Amazon SNS does so for 15 seconds."""


class NotReported(Exception):  # noqa: N818  # what happened, not a fault
    """Kafka did not take the receipts, or not in time; some of them may be there."""


class ReportReceipts:
    """Sends `delivery.reported`.

    Args:
        topic: The topic's name in Kafka.
        producer: Takes the records.
    """

    def __init__(self, topic: str, producer: RecordProducer) -> None:
        self._topic = topic
        self._producer = producer

    async def __call__(self, receipts: Iterable[Receipt]) -> None:
        """Make receipts durable in Kafka.

        Raises:
            NotReported: Kafka is not up to it.
        """
        try:
            async with asyncio.timeout(TIMEOUT.total_seconds()):
                partitions = await self._producer.partition_count(self._topic)
                await self._producer.send(self._topic, [_record(receipt, partitions) for receipt in receipts])
        except (TimeoutError, KafkaError) as error:
            raise NotReported(type(error).__name__) from error


def _record(receipt: Receipt, partitions: int) -> OutgoingRecord:
    """Return a receipt as a CloudEvent in binary mode, keyed by what the provider calls the message."""
    key = receipt.data.provider_id.encode()
    attributes = {
        "ce_specversion": "1.0",
        "ce_type": "delivery.reported",
        "ce_id": receipt.id,
        "ce_source": f"/inkstream/{receipt.data.provider}",
        "content-type": "application/json",
    }
    headers = [(name, value.encode()) for name, value in attributes.items()]
    return OutgoingRecord(partition_of(key, partitions), key, to_json(receipt.payload()), headers)
