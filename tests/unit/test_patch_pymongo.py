"""PyMongo's lock, when whoever waits for it is cancelled twice."""

import asyncio

import pymongo.lock

from runtime.patches import pymongo as patch


async def test_who_is_cancelled_twice_while_waiting_takes_the_lock_from_nobody() -> None:
    patch.apply()
    lock = pymongo.lock._async_create_lock()
    condition = pymongo.lock._async_create_condition(lock)

    async def wait() -> None:
        async with condition:
            await pymongo.lock._async_cond_wait(condition, 10)

    waiting = asyncio.create_task(wait())
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    async with lock:  # somebody else's
        for _ in range(2):
            waiting.cancel()
            for _ in range(10):
                await asyncio.sleep(0)
        # To leave, it must have the lock again; else it would give away somebody else's.
        assert not waiting.done()
    outcome = (await asyncio.gather(waiting, return_exceptions=True))[0]
    assert isinstance(outcome, asyncio.CancelledError)
    assert not lock.locked()
