"""Changes to aiokafka 0.14: its consumers read every record, and close their connections also without a broker.

1. A record with a header whose name is not UTF-8. Kafka's protocol calls the name a string, its brokers take any
   bytes, and librdkafka sends what it is given. aiokafka's consumer raises at such a record each time that it is read,
   and does not return the others of the response: one bad record would stop a partition for ever. `apply` has it return
   the record, with escapes in the name. All other responses are read by aiokafka's compiled code as before.
   Upstream: no issue found.
2. `AIOKafkaConsumer.stop` while no broker answers. A fetch waits between two attempts; aiokafka cancels it, raises that
   `CancelledError` from `stop`, and does not close its connections. `stop` closes them.
   Upstream: https://github.com/aio-libs/aiokafka/issues/647

Remove each change when its test in tests/unit/test_patch_aiokafka.py says so.
"""

import asyncio
from collections.abc import Iterator
from typing import Any, SupportsIndex, overload

import aiokafka.consumer.fetcher
from aiokafka import AIOKafkaConsumer
from aiokafka.consumer.fetcher import MemoryRecords, PartitionRecords
from aiokafka.errors import CorruptRecordException
from aiokafka.record._protocols import DefaultRecordBatchProtocol, LegacyRecordBatchProtocol
from aiokafka.record.default_records import DefaultRecordBatch, _DefaultRecordBatchPy
from aiokafka.record.memory_records import _MemoryRecordsPy


def apply() -> None:
    """Have aiokafka's consumers read every record."""
    aiokafka.consumer.fetcher.MemoryRecords = _KeptRecords
    aiokafka.consumer.fetcher.PartitionRecords = _ReadablePartitionRecords


async def stop(consumer: AIOKafkaConsumer) -> bool:
    """Stop a consumer and close its connections; return whether it could leave its group.

    Raises:
        KafkaError: It was not stopped.
    """
    try:
        await consumer.stop()
    except asyncio.CancelledError:
        task = asyncio.current_task()
        if task is not None and task.cancelling():
            raise
        # The caller was not cancelled.
        await consumer._client.close()
        return False
    return True


class _KeptRecords:
    """aiokafka's records, with the bytes that they are read from, so that they can be read again."""

    __slots__ = ("content", "has_next", "next_batch", "size_in_bytes")

    def __init__(self, content: bytes) -> None:
        self.content = content
        records = MemoryRecords(content)
        self.has_next = records.has_next
        self.next_batch = records.next_batch
        self.size_in_bytes = records.size_in_bytes


class _ReadablePartitionRecords(PartitionRecords):  # type: ignore[misc]  # aiokafka's consumer is not typed
    """A partition's records in a response, read again from the first record whose name can't be read."""

    _records: _KeptRecords

    def _unpack_records(self) -> Iterator[Any]:
        try:
            yield from super()._unpack_records()
        except (UnicodeDecodeError, CorruptRecordException):  # the latter without compiled code
            # Records that were read already are skipped, as they are before the next offset.
            self._records = _LenientRecords(self._records.content)
            yield from super()._unpack_records()


class _LenientRecords(_MemoryRecordsPy):  # type: ignore[misc]  # final for whoever checks types alone
    def next_batch(self, *_: int) -> DefaultRecordBatchProtocol | LegacyRecordBatchProtocol | None:
        content = self._next_slice
        batch = super().next_batch()
        return _LenientBatch(content) if isinstance(batch, DefaultRecordBatch) else batch


class _LenientBatch(_DefaultRecordBatchPy):  # type: ignore[misc]
    _buffer: bytearray

    def _maybe_uncompress(self) -> None:
        super()._maybe_uncompress()
        self._buffer = _LenientBytes(self._buffer)


class _LenientBytes(bytearray):
    """Bytes that can always be decoded. aiokafka decodes only the names of headers."""

    @overload
    def __getitem__(self, place: SupportsIndex) -> int: ...
    @overload
    def __getitem__(self, place: slice) -> "_LenientBytes": ...
    def __getitem__(self, place: SupportsIndex | slice) -> "int | _LenientBytes":
        found = super().__getitem__(place)
        return found if isinstance(found, int) else _LenientBytes(found)

    def decode(self, encoding: str = "utf-8", errors: str = "strict") -> str:
        return super().decode(encoding, "backslashreplace")
