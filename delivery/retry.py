"""Trying again, for ever: what a store cannot do now, it does when it is back.

In comes an operation that may be repeated without harm; out comes its result, however long that takes. While it fails,
the dependency is reported unwell. An error that is not transient is raised at once.
"""

from collections.abc import Awaitable, Callable
from typing import Protocol, TypeVar

import structlog
from tenacity import AsyncRetrying, RetryCallState, retry_if_exception, wait_random_exponential

from runtime.health import Health
from runtime.metrics import RETRIES

T = TypeVar("T")
log = structlog.get_logger(__name__)

# Full jitter, see "Exponential Backoff And Jitter" (AWS Architecture Blog): a crowd of workers that lost a store at the
# same moment must not come back at the same moment.
BACKOFF = wait_random_exponential(multiplier=0.2, max=10)


class Dependency(Protocol):
    """A server that operations need: its name, and which errors mean that it is unwell, not that we are wrong."""

    name: str

    def is_transient(self, error: BaseException) -> bool:
        """Whether the same operation may succeed later, unchanged."""


async def until_done(operation: Callable[[], Awaitable[T]], dependency: Dependency, health: Health) -> T:
    """Run the operation until it succeeds; return its result.

    Raises:
        Exception: Any error that the dependency does not call transient.
    """

    def report(state: RetryCallState) -> None:
        assert state.outcome is not None
        error = state.outcome.exception()
        problem = type(error).__name__
        RETRIES.labels(dependency.name).inc()
        health.dependency(dependency.name, problem)
        log.warning(
            "dependency unwell, trying again",
            dependency=dependency.name,
            problem=problem,
            attempt=state.attempt_number,
            seconds=round(state.upcoming_sleep, 2),
        )

    try:
        return await operation()
    except Exception as error:  # apart, as nearly every operation succeeds at once, and an unused retry costs a lot
        if not dependency.is_transient(error):
            raise
        first: Exception | None = error

    async def attempt() -> T:
        nonlocal first
        if first is not None:
            failed, first = first, None
            raise failed
        return await operation()

    retrying = AsyncRetrying(
        retry=retry_if_exception(dependency.is_transient), wait=BACKOFF, before_sleep=report, reraise=True
    )
    result: T = await retrying(attempt)
    health.dependency(dependency.name, None)
    log.info("dependency is back", dependency=dependency.name, attempts=retrying.statistics["attempt_number"])
    return result
