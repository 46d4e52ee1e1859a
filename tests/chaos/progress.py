"""Watch the offsets that consumer groups commit, several times a second.

Input: groups.
Output: when each of their partitions moved, and so how long it took after a fault until events were stored again: an
offset is committed only once its events are stored. While Kafka does not answer, nothing is known.
"""

import asyncio
import contextlib
import time
from collections.abc import Callable, Collection, Mapping
from typing import Self

from aiokafka import TopicPartition
from aiokafka.admin import AIOKafkaAdminClient
from aiokafka.errors import KafkaError

_LOOK_EVERY_SECONDS = 0.1
_ASK_WITHIN_SECONDS = 5.0


class Progress:
    """Watches groups from when it is entered until it is left.

    Args:
        brokers: Kafka's own address, not the proxy's.
        watched: The groups whose partitions are looked at ten times a second: the partitions, by group.
        clock: Seconds since the run began.
    """

    def __init__(
        self, brokers: str, watched: Mapping[str, Collection[TopicPartition]], clock: Callable[[], float]
    ) -> None:
        self._brokers = brokers
        self._watched = watched
        self._clock = clock
        self._offsets: dict[tuple[str, TopicPartition], int] = {}
        self._moved: dict[tuple[str, TopicPartition], list[tuple[float, float]]] = {
            (group, partition): [] for group, partitions in watched.items() for partition in partitions
        }
        self._looked: dict[str, float] = {}
        self._most_committed = 0
        self._admin: AIOKafkaAdminClient | None = None
        self._looking: asyncio.Task[None] | None = None

    async def __aenter__(self) -> Self:
        """Begin to look."""
        self._looking = asyncio.create_task(self._look())
        return self

    async def __aexit__(self, *error: object) -> None:
        """Look no longer."""
        if self._looking is not None:
            self._looking.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._looking
        await self._disconnect()

    def resumed(self, group: str, since: float) -> tuple[float, float] | None:
        """Return how long after a moment the first partition of a group moved, and the last of them did for the first
        time; `None` while that has not happened.
        """
        waits = []
        for partition in self._watched[group]:
            # What moved between two looks may have moved before the moment, if the first of them was before it.
            later = next((at for not_before, at in self._moved[group, partition] if not_before > since), None)
            if later is None:
                return None
            waits.append(later - since)
        return min(waits), max(waits)

    async def committed(self, groups: Collection[str]) -> int | None:
        """Return the sum of all offsets that groups have committed; `None` where Kafka does not say in time."""
        try:
            async with asyncio.timeout(_ASK_WITHIN_SECONDS):
                answers = [await self._ask(group) for group in groups]
        except (KafkaError, OSError, TimeoutError):
            return None
        total = sum(sum(answer.values()) for answer in answers)
        if total < self._most_committed:
            return None  # a broker that has just started does not know all of it yet
        self._most_committed = total
        return total

    async def _look(self) -> None:
        while True:
            began = time.monotonic()
            try:
                async with asyncio.timeout(_ASK_WITHIN_SECONDS):
                    for group in self._watched:
                        asked = self._clock()
                        self._note(group, await self._ask(group))
                        self._looked[group] = asked
            except (KafkaError, OSError, TimeoutError):
                await self._disconnect()
            await asyncio.sleep(max(0.0, began + _LOOK_EVERY_SECONDS - time.monotonic()))

    def _note(self, group: str, offsets: Mapping[TopicPartition, int]) -> None:
        now = self._clock()
        for partition in self._watched[group]:
            offset = offsets.get(partition, 0)
            if offset > self._offsets.setdefault((group, partition), offset):
                self._offsets[group, partition] = offset
                self._moved[group, partition].append((self._looked.get(group, 0.0), now))

    async def _ask(self, group: str) -> dict[TopicPartition, int]:
        if self._admin is None:
            admin = AIOKafkaAdminClient(bootstrap_servers=self._brokers)
            try:
                await admin.start()
            except BaseException:
                await admin.close()
                raise
            self._admin = admin
        answer = await self._admin.list_consumer_group_offsets(group)
        return {partition: position.offset for partition, position in answer.items()}

    async def _disconnect(self) -> None:
        admin, self._admin = self._admin, None
        if admin is not None:
            with contextlib.suppress(KafkaError, OSError):
                await admin.close()
