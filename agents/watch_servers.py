"""Pings each server every few seconds, so that readiness is known before any event needs the server.

Input: functions that raise when their server does not answer. Output: reports to `Health`, and a line in the log when
a server stops answering or answers again. A probe changes nothing.
"""

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from typing import Any

import structlog
from mode import Service

from agents.server_problems import with_address
from runtime.health import Health

log = structlog.get_logger(__name__)

Ping = Callable[[], Awaitable[object]]


class Probe(Service):
    """Pings the dependencies of a worker.

    Args:
        pings: For each dependency, a function that returns when it answers and raises when it does not.
        health: Where to report.
    """

    mundane_level = "debug"  # of the lines that say that a service starts and stops
    INTERVAL_SECONDS = 5.0
    TIMEOUT_SECONDS = 5.0

    def __init__(self, pings: Mapping[str, Ping], health: Health, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self._pings = pings
        self._health = health
        self._silent: set[str] = set()
        for name in pings:
            health.dependency(name, "not asked yet")

    @Service.task
    async def _probe(self) -> None:
        while not self.should_stop:
            await asyncio.gather(*(self._ping(name, ping) for name, ping in self._pings.items()))
            await self.sleep(self.INTERVAL_SECONDS)

    async def _ping(self, name: str, ping: Ping) -> None:
        try:
            async with asyncio.timeout(self.TIMEOUT_SECONDS):
                await ping()
        except Exception as error:  # readiness shows it, whatever it is
            self._health.dependency(name, type(error).__name__)
            if name not in self._silent:
                self._silent.add(name)
                log.warning("server does not answer, trying again", server=name, problem=with_address(error))
        else:
            self._health.dependency(name, None)
            if name in self._silent:
                self._silent.remove(name)
                log.info("server answers again", server=name)
