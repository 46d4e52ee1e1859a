"""Records with a header whose name is no UTF-8: what aiokafka does not send, and librdkafka does."""

from collections.abc import Sequence
from typing import Any

from aiokafka.record.default_records import _DefaultRecordBatchBuilderPy

NAME = b"na\xffme"
NAME_READ = r"na\xffme"


class UnreadableName(str):
    """A header's name that becomes `NAME` in Kafka."""

    __slots__ = ()

    def encode(self, encoding: str = "utf-8", errors: str = "strict") -> bytes:
        """Return the name as it is sent."""
        return NAME


def builder(values: Sequence[tuple[bytes, bool]], compression: int = 0) -> Any:
    """Return a batch of records with these values; those with `True` have a header whose name is `NAME`."""
    batch = _DefaultRecordBatchBuilderPy(2, compression, 0, -1, -1, -1, 2**20)
    for number, (value, is_unreadable) in enumerate(values):
        name = UnreadableName() if is_unreadable else "name"
        assert batch.append(number, None, None, value, [("first", b"1"), (name, b"2")]) is not None
    return batch
