"""One producer for all that the worker sends, in batches, each record in the partition where it belongs."""

import asyncio
from typing import Any

import pytest
from aiokafka.errors import ProducerClosed
from aiokafka.partitioner import DefaultPartitioner

from delivery import producer
from delivery.producer import OutgoingRecord, RecordProducer, partition_of
from runtime.health import Health


async def test_records_that_come_at_once_share_a_producer(monkeypatch: pytest.MonkeyPatch) -> None:
    started = []

    class SlowProducer:
        def __init__(self, **options: Any) -> None:
            self.options = options

        async def start(self) -> None:
            started.append(self)
            await asyncio.sleep(0)

    monkeypatch.setattr(producer, "AIOKafkaProducer", SlowProducer)
    sender = RecordProducer({}, Health())
    producers = await asyncio.gather(*(sender._connected() for _ in range(10)))
    assert started == producers[:1]
    assert set(producers) == set(started)


@pytest.mark.parametrize("partitions", [1, 6, 24])
def test_a_key_goes_to_the_partition_that_kafkas_clients_choose(partitions: int) -> None:
    for number in range(100):
        key = f"post-{number}".encode()
        assert partition_of(key, partitions) == DefaultPartitioner()(key, list(range(partitions)), [])


async def test_what_was_abandoned_is_not_sent_any_more_once_the_worker_stops(monkeypatch: pytest.MonkeyPatch) -> None:
    class ClosedProducer:
        def __init__(self, **_: Any) -> None:
            raise ProducerClosed

    monkeypatch.setattr(producer, "AIOKafkaProducer", ClosedProducer)
    sender = RecordProducer({}, Health())
    await sender.start()
    await sender.stop()
    sending = asyncio.create_task(sender.send("topic", [OutgoingRecord(0, None, b"{}")]))
    done, _ = await asyncio.wait([sending], timeout=0.05)
    assert not done
    sending.cancel()
