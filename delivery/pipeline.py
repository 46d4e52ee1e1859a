"""The Faust application, with a transport of its own: `consume` joins a topic to an agent.

Input: agents, services and pages. Output: an application that runs them. An agent that raises ends the process with
exit code 1 and commits nothing, and the supervisor starts the process again.
"""

import asyncio
import gc
from collections.abc import AsyncIterable, Awaitable, Callable, Iterable
from typing import Any, Protocol

from faust.web.base import Web
from mode import ServiceT

from delivery.batch import RecordBatch
from delivery.consumer import BatchChannel, RecordConsumer
from delivery.kafka import client_options
from runtime.health import Health
from runtime.patches.faust import Application, QuietWorker
from runtime.settings import Settings
from runtime.web_address import in_url


def application(namespace: str) -> str:
    """Return Faust's name for the application, which begins the name of each consumer group."""
    return f"{namespace}inkstream"


def group_of(namespace: str, agent: str) -> str:
    """Return the name of an agent's consumer group."""
    return f"{application(namespace)}.{agent}"


Agent = Callable[[AsyncIterable[RecordBatch]], Awaitable[None]]


class Closable(Protocol):
    """Connections, or other resources to close."""

    async def close(self) -> None:
        """Close it."""


class Pipeline(Application):
    """Faust's application, reading Kafka through `RecordConsumer`s.

    Args:
        settings: Where Kafka is and how much is in flight.
        health: Where consumers report.
        web_server: Serves the pages.
    """

    def __init__(self, settings: Settings, health: Health, web_server: type[Web]) -> None:
        self._settings = settings
        self._web_server = web_server
        self._health = health
        self._consumers: list[RecordConsumer] = []
        self._services: list[ServiceT] = []
        self._resources: list[Closable] = []
        super().__init__(
            application(settings.namespace),
            # With autodiscovery a broken import leaves an empty agent table and exit code 0.
            autodiscover=False,
            agent_supervisor="mode.CrashingSupervisor",
            web_bind=settings.web_host,
            web_host=in_url(settings.web_host),  # for its canonical URL
            web_port=settings.web_port,
            Worker=QuietWorker,
        )

    def consume(self, topic: str, agent: Agent, *, name: str | None = None, gathers: int | None = None) -> None:
        """Run the agent over the topic's record batches, in a consumer group of its own.

        Args:
            topic: The topic's name in Kafka.
            agent: Commits each batch, before it takes the next one unless it `gathers`.
            name: The agent's name, if another agent of the topic has the topic's name.
            gathers: How many batches the agent may hold at once, if it takes more while others are unfinished.
        """
        label = topic if name is None else self._settings.namespace + name
        name = label.removeprefix(self._settings.namespace)
        channel = BatchChannel(self)
        # Two actors take batches from one channel: while one waits for a store, the other decodes.
        actors = 1 if gathers else self._settings.batches_in_flight
        consumer = RecordConsumer(
            topic,
            label,
            group=group_of(self._settings.namespace, name),
            channel=channel,
            client_options=client_options(self._settings),
            batch_records=self._settings.batch_records,
            batches_in_flight=gathers or self._settings.batches_in_flight,
            stop_timeout=self._settings.stop_timeout,
            health=self._health,
        )
        self.agent(channel, name=name, concurrency=actors)(_stream_function(agent, name, consumer))
        self._health.agent(label, "not started")
        self._consumers.append(consumer)

    def run(self, service: ServiceT) -> None:
        """Start the service with the worker, and stop it after the consumers."""
        self._services.append(service)

    def close_last(self, resource: Closable) -> None:
        """Close the resource after all that may use it has stopped."""
        self._resources.append(resource)

    async def on_start(self) -> None:
        """Start, with the garbage collector set for batches of short-lived objects.

        Measured on page views: by default it takes a fifth of the time of decoding and enriching, to scan repeatedly
        what was imported at the start and the batches in use.
        """
        gc.freeze()
        gc.set_threshold(50_000, 20, 100)
        await super().on_start()

    def _new_web(self) -> Web:
        return self._web_server(self)

    def on_init_dependencies(self) -> Iterable[ServiceT]:
        """Return all services to start, in order; Faust stops them in the opposite order."""
        return [*super().on_init_dependencies(), *self._services, *self._consumers]

    async def on_stop(self) -> None:
        """Let all consumers finish what is in flight, in parallel; stop what they need after that."""
        await asyncio.gather(*(consumer.stop() for consumer in self._consumers))
        await super().on_stop()

    async def on_shutdown(self) -> None:
        """Close the resources of the services and consumers, the last one first."""
        await super().on_shutdown()
        for resource in reversed(self._resources):
            await resource.close()


def _stream_function(agent: Agent, name: str, consumer: RecordConsumer) -> Callable[[Any], Awaitable[None]]:
    # Faust inspects whether an agent is a coroutine function, and logs its name.
    async def run(batches: AsyncIterable[RecordBatch]) -> None:
        try:
            await agent(batches)
        except Exception:
            await consumer.agent_failed()
            raise

    run.__name__ = run.__qualname__ = name
    return run
