"""A server goes away and comes back: the worker waits, says so, and loses nothing; nothing good is dead-lettered."""

import asyncio
import signal
import time
from functools import partial

import orjson

from tests.integration.pipeline import Pipeline, Worker, until
from tests.integration.test_crash import view


async def is_paused(worker: Worker) -> bool:
    """Whether the worker has so much in flight that it reads no more."""
    metrics = await asyncio.to_thread(worker.metrics)
    return any(name.startswith("inkstream_paused_partitions") and metrics[name] for name in metrics)


async def test_mongodb_away_for_a_while_costs_time_and_nothing_else(pipeline: Pipeline) -> None:
    mongo = pipeline.platform.mongo
    with pipeline.worker(agents="page-views", batch_records=100) as worker:
        await worker.until_ready()
        await pipeline.send("page-views", [view(number) for number in range(500)])
        await pipeline.settled("page-views")

        await asyncio.to_thread(mongo.kill)
        try:
            await pipeline.send("page-views", [view(number) for number in range(500, 2_000)])

            async def red() -> bool:
                status, body = await asyncio.to_thread(worker.page, "/readyz")
                return status == 503 and not orjson.loads(body)["dependencies"]["mongodb"]["ready"]

            await until(red, "readiness names MongoDB")
            assert worker.page("/healthz")[0] == 200

            async def retried() -> bool:
                metrics = await asyncio.to_thread(worker.metrics)
                return metrics.get('inkstream_retries_total{dependency="mongodb"}', 0) > 0

            await until(retried, "the write has failed by its time-out, and is tried again")
            assert worker.process.poll() is None
            assert worker.metrics()['inkstream_dependency_up{dependency="mongodb"}'] == 0
        finally:
            await asyncio.to_thread(mongo.start)
        await pipeline.settled("page-views")
        await worker.until_ready()
        assert worker.terminate() == 0
    assert set(await pipeline.documents("pageViews")) == {f"view-{number}" for number in range(2_000)}
    assert await pipeline.read("page-views.dead-letter") == []


async def test_sigterm_while_mongodb_is_away_abandons_what_is_in_flight_in_time(pipeline: Pipeline) -> None:
    mongo = pipeline.platform.mongo
    with pipeline.worker(batch_records=100, stop_timeout=2) as worker:
        await worker.until_ready()
        await asyncio.to_thread(mongo.kill)
        try:
            for topic in ("page-views", "performance-samples"):
                await pipeline.send(topic, [view(number) for number in range(300)])
            await until(partial(is_paused, worker), "batches wait for MongoDB")
            started = time.monotonic()
            assert await asyncio.to_thread(worker.terminate) == 0
            assert time.monotonic() - started < 15, "the consumers wait at the same time, not one after another"
        finally:
            await asyncio.to_thread(mongo.start)
    with pipeline.worker(agents="page-views") as worker:
        await pipeline.settled("page-views")
    assert set(await pipeline.documents("pageViews")) == {f"view-{number}" for number in range(300)}


async def test_sigterm_while_mongodb_is_away_and_then_back_is_obeyed_all_the_same(pipeline: Pipeline) -> None:
    mongo = pipeline.platform.mongo
    with pipeline.worker(batch_records=100, stop_timeout=1) as worker:
        await worker.until_ready()
        await asyncio.to_thread(mongo.pause)
        try:
            await pipeline.send("page-views", [view(number) for number in range(300)])

            await until(partial(is_paused, worker), "batches wait for MongoDB")
            worker.process.send_signal(signal.SIGTERM)

            async def abandoned() -> bool:
                return b"batches abandoned" in await asyncio.to_thread(worker.log.read_bytes)

            await until(abandoned, "what is in flight is abandoned")
        finally:
            await asyncio.to_thread(mongo.resume)
        assert await asyncio.to_thread(worker.process.wait, 30) == 0, worker.log.read_text()[-4_000:]


async def test_sigterm_while_kafka_is_away_is_obeyed(pipeline: Pipeline) -> None:
    kafka = pipeline.platform.kafka
    with pipeline.worker() as worker:
        await worker.until_ready()
        await asyncio.to_thread(kafka.kill)
        try:

            async def noticed() -> bool:
                return b"Failed fetch messages" in await asyncio.to_thread(worker.log.read_bytes)

            await until(noticed, "a fetch has failed")
            assert await asyncio.to_thread(worker.terminate) == 0, worker.log.read_text()[-4_000:]
        finally:
            await asyncio.to_thread(kafka.start)


async def test_kafka_restarted_costs_time_and_nothing_else(pipeline: Pipeline) -> None:
    kafka = pipeline.platform.kafka
    with pipeline.worker(agents="page-views", batch_records=100) as worker:
        await worker.until_ready()
        await pipeline.send("page-views", [view(number) for number in range(500)])
        await asyncio.to_thread(kafka.kill)
        await asyncio.to_thread(kafka.start)
        await pipeline.send("page-views", [view(number) for number in range(500, 1_000)])
        await pipeline.settled("page-views")
    assert set(await pipeline.documents("pageViews")) == {f"view-{number}" for number in range(1_000)}
