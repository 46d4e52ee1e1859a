"""Retries an operation on a server for as long as the server is unwell.

Input: an operation that may be repeated without harm. Output: its result, however long that takes. While it fails, the
server is reported unwell. An error that is not transient is raised at once.
"""

from collections.abc import Awaitable, Callable
from typing import Protocol, TypeVar

import structlog
from tenacity import AsyncRetrying, RetryCallState, retry_if_exception, wait_random_exponential

from runtime.health import Health
from runtime.metrics import RETRIES

T = TypeVar("T")
log = structlog.get_logger(__name__)

# Full jitter, see "Exponential Backoff And Jitter" (AWS Architecture Blog): many workers that lost a store at the same
# moment must not come back at the same moment.
BACKOFF = wait_random_exponential(multiplier=0.2, max=10)


class Dependency(Protocol):
    """A server that operations need: its name, and which errors mean that it is unwell, not that we are wrong."""

    name: str

    def is_transient(self, error: BaseException) -> bool:
        """Whether the same operation may succeed later, unchanged."""


class Retrier:
    """Runs operations on one server until they succeed.

    Args:
        dependency: The server.
        health: Where to report that it is unwell, and that it works again.
    """

    __slots__ = ("_dependency", "_health")

    def __init__(self, dependency: Dependency, health: Health) -> None:
        self._dependency = dependency
        self._health = health

    async def run(self, operation: Callable[[], Awaitable[T]]) -> T:
        """Run the operation until it succeeds; return its result.

        Raises:
            Exception: Any error that the dependency does not call transient.
        """
        try:
            return await operation()
        except Exception as error:  # apart: nearly every operation succeeds at once, and an unused retry costs a lot
            if not self._dependency.is_transient(error):
                raise
            return await self._retry(operation, error)

    async def _retry(self, operation: Callable[[], Awaitable[T]], first: Exception) -> T:
        """Run the operation again until it succeeds; `first` is what it raised the first time."""
        failure: Exception | None = first

        async def attempt() -> T:
            nonlocal failure
            if failure is not None:
                failed, failure = failure, None
                raise failed
            return await operation()

        retrying = AsyncRetrying(
            retry=retry_if_exception(self._dependency.is_transient),
            wait=BACKOFF,
            before_sleep=self._report,
            reraise=True,
        )
        result: T = await retrying(attempt)
        name = self._dependency.name
        self._health.dependency(name, None)
        log.info("dependency is back", dependency=name, attempts=retrying.statistics["attempt_number"])
        return result

    def _report(self, state: RetryCallState) -> None:
        assert state.outcome is not None
        name, problem = self._dependency.name, type(state.outcome.exception()).__name__
        RETRIES.labels(name).inc()
        self._health.dependency(name, problem)
        log.warning(
            "dependency unwell, trying again",
            dependency=name,
            problem=problem,
            attempt=state.attempt_number,
            seconds=round(state.upcoming_sleep, 2),
        )
