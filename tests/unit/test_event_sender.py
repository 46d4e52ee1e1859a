"""The events that Inkstream itself sends: CloudEvents in binary mode, each with its id, key and partition."""

from collections.abc import Sequence
from datetime import UTC, datetime
from typing import cast

from delivery.event_sender import EventSender, OutgoingEvent
from delivery.producer import OutgoingRecord, RecordProducer, partition_of

NOON = datetime(2026, 1, 31, 12, tzinfo=UTC)


class Producer:
    """Stands in for the producer: keeps what was sent."""

    def __init__(self) -> None:
        self.records: list[OutgoingRecord] = []

    async def partition_count(self, topic: str) -> int:
        return 6

    async def send(self, topic: str, records: Sequence[OutgoingRecord]) -> None:
        self.records += records


async def sent(*events: OutgoingEvent) -> list[OutgoingRecord]:
    producer = Producer()
    await EventSender("topic", "post.counted", cast(RecordProducer, producer)).send(events)
    return producer.records


async def test_an_event_has_the_attributes_of_a_cloudevent() -> None:
    (record,) = await sent(OutgoingEvent("id-1", "post/1", {"views": 3}, time=NOON, partitioned_by="post"))
    assert dict(record.headers) == {
        "ce_specversion": b"1.0",
        "ce_type": b"post.counted",
        "content-type": b"application/json",
        "ce_id": b"id-1",
        "ce_source": b"/inkstream",
        "ce_time": b"2026-01-31T12:00:00Z",
    }
    assert record[:3] == (partition_of(b"post", 6), b"post/1", b'{"views":3}')


async def test_an_event_without_an_id_gets_the_same_one_for_the_same_payload() -> None:
    records = await sent(*(OutgoingEvent(None, "post", {"views": views}) for views in (3, 3, 4)))
    first, again, other = (dict(record.headers)["ce_id"] for record in records)
    assert first == again != other
    assert [record.partition for record in records] == [partition_of(b"post", 6)] * 3
