"""Send samples to Kafka as the platform's services would: some compressed, each with one codec or another.

Input: samples. Output: records; the ledger gets each record that Kafka has confirmed, with its place. A record that
Kafka did not confirm is counted as such, and may or may not be there.
"""

import asyncio
import contextlib
import time
from collections.abc import Callable, Iterable, Mapping
from functools import partial
from typing import Any, Self

from aiokafka import AIOKafkaProducer
from aiokafka.errors import KafkaError

from dev.traffic import COMPRESSIONS, Compression, Sample

LINGER_MILLISECONDS = 20


class Producer:
    """One producer for each of Kafka's codecs. Use it as an asynchronous context manager.

    Args:
        client_options: How to reach Kafka.
        namespace: What stands before the name of every topic.
        confirmed: Is called with each record that Kafka has, its partition, offset and timestamp.
    """

    def __init__(
        self, client_options: Mapping[str, Any], namespace: str, confirmed: Callable[[Sample, int, int, int], None]
    ) -> None:
        self._client_options = client_options
        self._namespace = namespace
        self._confirmed = confirmed
        self._producers: dict[Compression, AIOKafkaProducer] = {}
        self.failed = 0

    async def __aenter__(self) -> Self:
        """Connect."""
        for compression in COMPRESSIONS:
            self._producers[compression] = producer = AIOKafkaProducer(
                **self._client_options,
                acks="all",
                enable_idempotence=True,
                compression_type=compression,
                linger_ms=LINGER_MILLISECONDS,
            )
            try:
                await producer.start()
            except BaseException:
                await self.__aexit__()
                raise
        return self

    async def __aexit__(self, *error: object) -> None:
        """Send what is left, and close."""
        await asyncio.gather(*(producer.stop() for producer in self._producers.values()))

    async def send(self, samples: Iterable[Sample], *, seconds: float | None, until: asyncio.Event) -> None:
        """Send samples, each at its moment, for so many seconds or until it is time to stop."""
        began = time.monotonic()
        for sample in samples:
            wait = began + sample.due - time.monotonic()
            if wait > 0 and (seconds is None or sample.due < seconds):
                with contextlib.suppress(TimeoutError):
                    await asyncio.wait_for(until.wait(), wait)
            if until.is_set() or (seconds is not None and sample.due >= seconds):
                if sample.owed:
                    await self._send_one(sample)
                break
            await self._send_one(sample)

    async def send_at_once(self, samples: Iterable[Sample]) -> None:
        """Send samples without waiting for their moments, and return when Kafka has everything."""
        for sample in samples:
            await self._send_one(sample)
        await asyncio.gather(*(producer.flush() for producer in self._producers.values()))

    async def _send_one(self, sample: Sample) -> None:
        # Said by us: of a batch, aiokafka would give the timestamp of the first record for all.
        timestamp = time.time_ns() // 1_000_000
        sending = await self._producers[sample.compression].send(
            self._namespace + sample.topic,
            value=sample.value,
            key=sample.key,
            headers=list(sample.headers),
            timestamp_ms=timestamp,
        )
        sending.add_done_callback(partial(self._done, sample, timestamp))

    def _done(self, sample: Sample, timestamp: int, sending: "asyncio.Future[Any]") -> None:
        if sending.cancelled() or isinstance(sending.exception(), KafkaError):
            self.failed += 1
            return
        place = sending.result()
        self._confirmed(sample, place.partition, place.offset, timestamp)
