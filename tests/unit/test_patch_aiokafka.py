"""What aiokafka's consumers read of an answer, where names of headers are no UTF-8."""

import asyncio
from collections.abc import Sequence
from typing import Any

import aiokafka.consumer.fetcher as fetcher
import pytest
from aiokafka import TopicPartition
from aiokafka.errors import CorruptRecordException
from aiokafka.record.default_records import DefaultRecordBase
from aiokafka.record.memory_records import MemoryRecords

from runtime.patches import aiokafka as patch
from tests import header_names

UNPATCHED_RECORDS, UNPATCHED_PARTITION = MemoryRecords, patch._ReadablePartitionRecords.__mro__[1]
UNCOMPRESSED, GZIP = DefaultRecordBase.CODEC_NONE, DefaultRecordBase.CODEC_GZIP


def answer(batches: Sequence[Sequence[bool]], compression: int = UNCOMPRESSED) -> bytes:
    """Return what Kafka sends of a partition: batches of records, some with such a name."""
    content = b""
    offset = 0
    for batch in batches:
        built = header_names.builder([(b"%d" % (offset + n), bad) for n, bad in enumerate(batch)], compression).build()
        content += offset.to_bytes(8, "big") + bytes(built[8:])
        offset += len(batch)
    return content


def records(content: bytes, first: int = 0) -> Any:
    patch.apply()
    kept = fetcher.MemoryRecords(content)
    assert kept.has_next()
    assert kept.size_in_bytes() == len(content)
    return fetcher.PartitionRecords(
        TopicPartition("topic", 0), kept, [], first, None, None, True, fetcher.READ_COMMITTED
    )


@pytest.mark.parametrize("compression", [UNCOMPRESSED, GZIP])
@pytest.mark.parametrize(
    "batches",
    [
        [[False]],
        [[True]],
        [[False, True, False]],
        [[False, False], [True, True], [False]],
        [[True], [False] * 100, [False, True]],
    ],
)
@pytest.mark.parametrize("first", [0, 1])
def test_every_record_is_read_once(batches: list[list[bool]], first: int, compression: int) -> None:
    has_unreadable = [bad for batch in batches for bad in batch]
    read = records(answer(batches, compression), first)
    assert [(record.offset, record.value, record.headers) for record in read] == [
        (offset, b"%d" % offset, (("first", b"1"), (header_names.NAME_READ if bad else "name", b"2")))
        for offset, bad in enumerate(has_unreadable)
        if offset >= first
    ]
    assert read.next_fetch_offset == len(has_unreadable)


def test_what_is_corrupt_stays_an_error() -> None:
    content = bytearray(answer([[False, True]]))
    content[-1] ^= 0xFF
    with pytest.raises(CorruptRecordException, match="Invalid CRC"):
        list(records(bytes(content)))


def test_aiokafka_still_can_not_read_such_a_name() -> None:
    content = UNPATCHED_RECORDS(answer([[True]]))
    assert content.has_next()
    partition = TopicPartition("topic", 0)
    read = UNPATCHED_PARTITION(partition, content, [], 0, None, None, True, fetcher.READ_COMMITTED)
    try:
        list(read)
    except (UnicodeDecodeError, CorruptRecordException):
        return
    pytest.fail("remove me: aiokafka reads headers whose name is not UTF-8, so patches.aiokafka.apply can go")


async def test_aiokafka_still_raises_the_cancellation_of_a_fetch_that_it_stops() -> None:
    stopping = fetcher.Fetcher.__new__(fetcher.Fetcher)
    stopping._fetch_task = asyncio.create_task(asyncio.sleep(0))
    stopping._fetch_waiters = set()
    stopping._pending_tasks = {asyncio.create_task(asyncio.Event().wait())}
    try:
        await stopping.close()
    except asyncio.CancelledError:
        return
    pytest.fail("remove me: aiokafka stops its fetches without an error, so patches.aiokafka.stop can go")


async def test_a_consumer_that_raises_a_cancellation_of_its_own_closes_its_connections() -> None:
    closed = asyncio.Event()

    class Client:
        async def close(self) -> None:
            closed.set()

    class Consumer:
        _client = Client()

        async def stop(self) -> None:
            raise asyncio.CancelledError

    assert not await patch.stop(Consumer())
    assert closed.is_set()
