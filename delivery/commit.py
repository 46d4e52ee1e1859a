"""Decides which offsets may be committed: those of the contiguous finished prefix of each partition, and no other.

Input: the spans of offsets of batches, begun in order and finished in any order. Output: the offsets to commit. After a
crash: nothing is kept, and Kafka's committed offset says where to begin.
"""

from collections import deque
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from itertools import count

from aiokafka import TopicPartition

Span = tuple[int, int]
"""The offsets `[first, next)` that a batch took from one partition."""


@dataclass
class _Partition:
    begun: deque[tuple[int, Span]] = field(default_factory=deque)  # (batch number, span), oldest first
    finished: set[int] = field(default_factory=set)  # numbers of batches that wait for an older one


class OffsetTracker:
    """Follows batches in flight, per partition.

    Two batches of a partition may be in flight and finish out of order. A batch's offsets become committable only when
    every batch before it in that partition has finished, so a crash never leaves a hole behind the committed offset.
    """

    def __init__(self) -> None:
        self._numbers = count()
        self._partitions: dict[TopicPartition, _Partition] = {}

    def begin(self, spans: Mapping[TopicPartition, Span]) -> int:
        """Record a batch, whose spans follow those of the previous batch; return its number."""
        number = next(self._numbers)
        for partition, span in spans.items():
            self._partitions.setdefault(partition, _Partition()).begun.append((number, span))
        return number

    def finish(self, number: int, partitions: Iterable[TopicPartition]) -> dict[TopicPartition, int]:
        """Mark a batch finished; return the offsets that may be committed now and could not before.

        A partition that was revoked since is skipped: its new owner reads it again.
        """
        committable = {}
        for partition in partitions:
            state = self._partitions.get(partition)
            if state is None or all(number != begun for begun, _ in state.begun):
                continue
            state.finished.add(number)
            while state.begun and state.begun[0][0] in state.finished:
                oldest, (_, next_offset) = state.begun.popleft()
                state.finished.remove(oldest)
                committable[partition] = next_offset
        return committable

    def revoke(self, partitions: Iterable[TopicPartition]) -> None:
        """Forget partitions that are no longer ours; batches of theirs may finish, but commit nothing."""
        for partition in partitions:
            self._partitions.pop(partition, None)

    def first_unfinished(self, partition: TopicPartition) -> int | None:
        """Return the oldest offset of the partition that is in flight; `None` if nothing is."""
        state = self._partitions.get(partition)
        return state.begun[0][1][0] if state is not None and state.begun else None
