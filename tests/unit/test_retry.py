"""Retries: transient faults for ever, anything else at once; health says so meanwhile."""

import pytest
from tenacity import wait_none

from delivery import retry
from runtime.health import Health


class Store:
    name = "store"

    def is_transient(self, error: BaseException) -> bool:
        return isinstance(error, ConnectionError)


@pytest.fixture(autouse=True)
def _no_waiting(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(retry, "BACKOFF", wait_none())


async def test_a_transient_fault_is_retried_until_it_is_over_and_health_is_red_meanwhile() -> None:
    health = Health()
    health.dependency("store", None)
    ready: list[bool] = []

    async def write() -> str:
        if len(ready) < 100:
            ready.append(health.ready)
            raise ConnectionError
        return "written"

    assert await retry.Retrier(Store(), health).run(write) == "written"
    assert ready == [True] + [False] * 99
    assert health.ready
    assert health.dependencies["store"]["problem"] is None


async def test_any_other_error_is_raised_at_once() -> None:
    attempts = 0

    async def write() -> None:
        nonlocal attempts
        attempts += 1
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        await retry.Retrier(Store(), Health()).run(write)
    assert attempts == 1
