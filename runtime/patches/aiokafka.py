"""aiokafka, kept from the one kind of record that it can't read: with a header whose name is no UTF-8.

In comes what Kafka answered; out go all its records, such a name with escapes in it. Kafka's protocol calls the name a
string and its brokers take any bytes; librdkafka sends what it is given. Aiokafka's consumer raises at such a record,
each time that it is read, and with the others of the answer: one bad record would hold up a whole partition for ever.
Nothing of it changes for all other answers, which is why they are read by aiokafka's compiled code as before.
"""

from collections.abc import Iterator
from typing import Any, SupportsIndex, overload

import aiokafka.consumer.fetcher
from aiokafka.consumer.fetcher import MemoryRecords, PartitionRecords
from aiokafka.errors import CorruptRecordException
from aiokafka.record._protocols import DefaultRecordBatchProtocol, LegacyRecordBatchProtocol
from aiokafka.record.default_records import DefaultRecordBatch, _DefaultRecordBatchPy
from aiokafka.record.memory_records import _MemoryRecordsPy


def apply() -> None:
    """Have aiokafka's consumers read every record."""
    aiokafka.consumer.fetcher.MemoryRecords = _KeptRecords
    aiokafka.consumer.fetcher.PartitionRecords = _ReadablePartitionRecords


class _KeptRecords:
    """Aiokafka's records, with the bytes that they are read from, so that they can be read once more."""

    __slots__ = ("content", "has_next", "next_batch", "size_in_bytes")

    def __init__(self, content: bytes) -> None:
        self.content = content
        records = MemoryRecords(content)
        self.has_next = records.has_next
        self.next_batch = records.next_batch
        self.size_in_bytes = records.size_in_bytes


class _ReadablePartitionRecords(PartitionRecords):  # type: ignore[misc]  # aiokafka's consumer is not typed
    """A partition's records in an answer, read once more where a name can't be read, from that record on."""

    _records: _KeptRecords

    def _unpack_records(self) -> Iterator[Any]:
        try:
            yield from super()._unpack_records()
        except (UnicodeDecodeError, CorruptRecordException):  # the latter without compiled code
            # What was read already is passed over, as it is before the next offset.
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
    """Bytes that are always text. Aiokafka makes text of nothing but the names of headers."""

    @overload
    def __getitem__(self, place: SupportsIndex) -> int: ...
    @overload
    def __getitem__(self, place: slice) -> "_LenientBytes": ...
    def __getitem__(self, place: SupportsIndex | slice) -> "int | _LenientBytes":
        found = super().__getitem__(place)
        return found if isinstance(found, int) else _LenientBytes(found)

    def decode(self, encoding: str = "utf-8", errors: str = "strict") -> str:
        return super().decode(encoding, "backslashreplace")
