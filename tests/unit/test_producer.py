"""One producer for all that the worker sends, in batches, each record in the partition where it belongs."""

import asyncio
from typing import Any

import pytest
from aiokafka.partitioner import DefaultPartitioner

from delivery import producer
from delivery.producer import RecordProducer, partition_of
from ops.health import Health


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
