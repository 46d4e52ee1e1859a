"""Sends the events that Inkstream itself makes, as CloudEvents in binary mode.

Input: events with their payloads. Output: records in one topic, durable when `send` returns. After a crash: events may
be sent again.

Format: https://github.com/cloudevents/spec/blob/v1.0.2/cloudevents/bindings/kafka-protocol-binding.md
"""

from collections.abc import Iterable, Mapping
from datetime import datetime
from hashlib import blake2b
from typing import Any, NamedTuple

from pydantic_core import to_json

from delivery.producer import OutgoingRecord, RecordProducer, partition_of


class OutgoingEvent(NamedTuple):
    """An event to send.

    Attributes:
        id: The event's id; the same event has the same id. `None` makes one of the payload.
        key: The record's key.
        payload: The fields of the event, as JSON names them.
        source: Which part of Inkstream makes it.
        time: When it happened; `None` leaves that to Kafka's timestamp.
        partitioned_by: What decides on the partition, where that is not the key.
    """

    id: str | None
    key: str
    payload: Mapping[str, Any]
    source: str = "/inkstream"
    time: datetime | None = None
    partitioned_by: str | None = None


class EventSender:
    """Sends events of one type.

    Args:
        topic: The topic's name in Kafka.
        event_type: The type of the events.
        producer: Takes the records.
    """

    def __init__(self, topic: str, event_type: str, producer: RecordProducer) -> None:
        self._topic = topic
        self._producer = producer
        self._headers = (
            ("ce_specversion", b"1.0"),
            ("ce_type", event_type.encode()),
            ("content-type", b"application/json"),
        )

    async def send(self, events: Iterable[OutgoingEvent]) -> None:
        """Make the events durable, however long that takes."""
        partitions = await self._producer.partition_count(self._topic)
        await self._producer.send(self._topic, [self._record(event, partitions) for event in events])

    def _record(self, event: OutgoingEvent, partitions: int) -> OutgoingRecord:
        event_id, key_text, payload, source, time, partitioned_by = event
        key, value = key_text.encode(), to_json(payload)
        by = key if partitioned_by is None else partitioned_by.encode()
        # Digesting costs a fifth of a UUID, and marks of windows are many.
        known = blake2b(value, digest_size=16).hexdigest() if event_id is None else event_id
        headers = [*self._headers, ("ce_id", known.encode()), ("ce_source", source.encode())]
        if time is not None:
            headers.append(("ce_time", iso(time).encode()))
        return OutgoingRecord(partition_of(by, partitions), key, value, headers)


def iso(moment: datetime) -> str:
    """Return a moment in UTC as text, with `Z`."""
    return moment.isoformat().replace("+00:00", "Z")
