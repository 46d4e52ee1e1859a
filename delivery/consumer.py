"""Reads one topic in a consumer group of its own, and puts record batches on the agent's channel.

Input: records. Output: `RecordBatch`es, a bounded number at a time, and the committed offsets. After a crash, or when a
partition moves to another worker: all that was not committed is read again.
"""

import asyncio
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from datetime import timedelta
from typing import Any

import structlog
from aiokafka import AIOKafkaConsumer, ConsumerRebalanceListener, TopicPartition
from aiokafka.errors import CommitFailedError, ConsumerStoppedError, IllegalStateError, KafkaConnectionError, KafkaError
from mode import Service

from delivery.batch import Record, RecordBatch
from delivery.commit import OffsetTracker
from runtime.health import Health
from runtime.metrics import BATCH_RECORDS, LAG_RECORDS, PAUSED_PARTITIONS, RECORDS_READ
from runtime.patches import aiokafka as patch
from runtime.patches.faust import OwnChannel

log = structlog.get_logger(__name__)

# A dead worker is noticed after the session; another worker has its partitions in less than 10 s.
SESSION_TIMEOUT = timedelta(seconds=6)
HEARTBEAT_INTERVAL = timedelta(seconds=2)
POLL_TIMEOUT = timedelta(milliseconds=500)
PAUSE_AFTER = timedelta(seconds=1)


BatchChannel = OwnChannel[RecordBatch]
"""The channel between a consumer and its agent; the consumer bounds it by counting batches in flight."""


class RecordConsumer(Service, ConsumerRebalanceListener):  # type: ignore[misc]
    """Owns the consumer of one topic and the batches in flight from it.

    Args:
        topic: The topic's name in Kafka.
        agent: Names the topic's agent in metrics, logs and on the health page.
        group: The consumer group, which belongs to this topic's agent alone: so a slow sink delays no other agent.
        channel: Where the agent takes its batches from.
        client_options: How to reach Kafka.
        batch_records: Most records in a batch.
        batches_in_flight: Most batches that are enqueued and not finished.
        stop_timeout: How long a stop or a rebalance waits for batches in flight before it abandons them.
        health: Where to report.
    """

    mundane_level = "debug"  # of the lines that say that a service starts and stops

    def __init__(
        self,
        topic: str,
        agent: str,
        group: str,
        channel: BatchChannel,
        *,
        client_options: Mapping[str, Any],
        batch_records: int,
        batches_in_flight: int,
        stop_timeout: timedelta,
        health: Health,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self._topic = topic
        self._agent = agent
        self._group = group
        self._channel = channel
        self._client_options = client_options
        self._batch_records = batch_records
        self._batches_in_flight = batches_in_flight
        self._stop_timeout = stop_timeout
        self._health = health
        self._consumer: AIOKafkaConsumer | None = None
        self._tracker = OffsetTracker()
        self._numbers: dict[RecordBatch, int] = {}  # batches in flight
        self._changed = asyncio.Condition()
        self._rebalancing = False
        self._agent_failed = False

    @property
    def label(self) -> str:
        """Return the service's name in Faust's logs."""
        return f"RecordConsumer: {self._agent}"

    @Service.task
    async def _read(self) -> None:
        """Fetch batches and enqueue them, until the service stops."""
        self._health.agent(self._agent, "joining the consumer group")
        self._consumer = consumer = await self._connect()
        self._health.agent(self._agent, None)
        try:
            while not self.should_stop:
                await self._wait_for_room(consumer)
                fetched = await consumer.getmany(
                    timeout_ms=int(POLL_TIMEOUT.total_seconds() * 1000), max_records=self._batch_records
                )
                if self.should_stop:
                    return  # records fetched at the last moment are read again by the next worker
                await self._enqueue(fetched)
        except ConsumerStoppedError:
            if not self.should_stop:
                raise

    async def _connect(self) -> AIOKafkaConsumer:
        """Join the group; retry while no broker answers."""
        while True:
            consumer = AIOKafkaConsumer(
                **self._client_options,
                group_id=self._group,
                enable_auto_commit=False,
                auto_offset_reset="earliest",
                isolation_level="read_committed",
                session_timeout_ms=int(SESSION_TIMEOUT.total_seconds() * 1000),
                heartbeat_interval_ms=int(HEARTBEAT_INTERVAL.total_seconds() * 1000),
                # A rebalance waits for the batches in flight of every member.
                rebalance_timeout_ms=int((self._stop_timeout + SESSION_TIMEOUT).total_seconds() * 1000),
            )
            consumer.subscribe([self._topic], listener=self)
            try:
                await consumer.start()
            except KafkaConnectionError as error:
                self._health.dependency("kafka", type(error).__name__)
                await self._close(consumer)
                await self.sleep(1)
            except BaseException:  # stopped while the group was still forming
                await self._close(consumer)
                raise
            else:
                return consumer

    async def _wait_for_room(self, consumer: AIOKafkaConsumer) -> None:
        """Return once another batch may be in flight.

        If that takes long, the partitions are paused and still polled: so Kafka sees that this worker lives, and keeps
        its partitions here while a store is down.
        """
        paused: set[TopicPartition] = set()
        while not self.should_stop:
            try:
                async with asyncio.timeout(PAUSE_AFTER.total_seconds()), self._changed:
                    await self._changed.wait_for(self._has_room)
                break
            except TimeoutError:
                paused = set(consumer.assignment())
                consumer.pause(*paused)
                PAUSED_PARTITIONS.labels(self._agent).set(len(paused))
                # A partition that was assigned a moment ago is not paused: its records must not be dropped.
                await self._enqueue(await consumer.getmany(timeout_ms=0, max_records=self._batch_records))
        if paused:
            consumer.resume(*(paused & consumer.assignment()))
            PAUSED_PARTITIONS.labels(self._agent).set(0)

    def _has_room(self) -> bool:
        return len(self._numbers) < self._batches_in_flight and not self._rebalancing

    async def _enqueue(self, fetched: Mapping[TopicPartition, Sequence[Record]]) -> None:
        """Put fetched records on the channel as a batch, and track it."""
        if not fetched:
            return
        batch = RecordBatch(self._topic, fetched, self._finish)
        self._numbers[batch] = self._tracker.begin(batch.spans)
        RECORDS_READ.labels(self._agent).inc(len(batch.records))
        BATCH_RECORDS.labels(self._agent).observe(len(batch.records))
        await self._channel.put(batch)  # type: ignore[arg-type]  # a channel may carry any value

    async def _finish(self, batch: RecordBatch) -> None:
        """Commit the offsets that a finished batch makes committable, then make room for another."""
        offsets = self._tracker.finish(self._numbers[batch], batch.spans)
        try:
            await self._commit(offsets)
        finally:
            del self._numbers[batch]
            async with self._changed:
                self._changed.notify_all()

    async def _commit(self, offsets: Mapping[TopicPartition, int]) -> None:
        assert self._consumer is not None
        ours = {partition: offset for partition, offset in offsets.items() if partition in self._consumer.assignment()}
        if not ours:
            return
        try:
            await self._consumer.commit(ours)
        except (CommitFailedError, ConsumerStoppedError, IllegalStateError) as error:
            # The group moved on without us. The new owner of the partitions repeats the work, which changes nothing.
            log.info("offsets not committed, partitions have moved", agent=self._agent, problem=type(error).__name__)

    async def on_partitions_revoked(self, revoked: Iterable[TopicPartition]) -> None:
        """Release partitions: finish what is in flight, for a bounded time, then forget the rest."""
        self._rebalancing = True
        await self._drain()
        self._tracker.revoke(revoked)
        for partition in revoked:
            LAG_RECORDS.remove(self._agent, partition.partition)

    async def on_partitions_assigned(self, assigned: Iterable[TopicPartition]) -> None:
        """Start reading partitions, each from its committed offset."""
        partitions = sorted(partition.partition for partition in assigned)
        log.info("partitions assigned", agent=self._agent, partitions=partitions)
        self._rebalancing = False
        async with self._changed:
            self._changed.notify_all()

    async def agent_failed(self) -> None:
        """Record that the agent raised: what it had in flight is not finished."""
        self._agent_failed = True
        async with self._changed:
            self._changed.notify_all()

    async def _drain(self) -> None:
        """Wait until no batch is in flight, for a bounded time; not for what a failed agent had."""
        with suppress(TimeoutError):
            async with asyncio.timeout(self._stop_timeout.total_seconds()), self._changed:
                await self._changed.wait_for(lambda: not self._numbers or self._agent_failed)
        if self._numbers:
            log.warning("batches abandoned, to be read again", agent=self._agent, batches=len(self._numbers))

    @Service.timer(1.0)
    async def _measure_lag(self) -> None:
        """Publish how far behind this worker is in each of its partitions."""
        consumer = self._consumer
        if consumer is None:
            return
        with suppress(IllegalStateError):  # a partition moves to another worker meanwhile
            for partition in consumer.assignment():
                end = consumer.highwater(partition)
                if end is not None:
                    first = self._tracker.first_unfinished(partition)
                    position = first if first is not None else await consumer.position(partition)
                    LAG_RECORDS.labels(self._agent, partition.partition).set(end - position)

    async def on_stop(self) -> None:
        """Stop reading, let batches in flight finish for a bounded time, leave the group."""
        self._health.agent(self._agent, "stopped")
        await self._drain()
        if self._consumer is not None:
            await self._close(self._consumer)

    async def _close(self, consumer: AIOKafkaConsumer) -> None:
        """Leave the group and close all connections, as far as Kafka allows."""
        try:
            if not await patch.stop(consumer):
                log.warning("consumer not stopped cleanly", agent=self._agent, problem="no broker answers")
        except KafkaError as error:
            log.warning("consumer not stopped cleanly", agent=self._agent, problem=type(error).__name__)
