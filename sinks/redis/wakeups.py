"""Wake-ups: notifies workers through Redis that something in the queue is due, or when it will be.

Input: due times. Output: the end of a wait. The queue in MongoDB is the source of truth: workers look there every few
seconds, and once a second while Redis is down.
"""

import asyncio
import time
from collections.abc import Iterable
from datetime import datetime, timedelta

from redis.asyncio.client import PubSub
from redis.exceptions import RedisError

from sinks.redis.connection import connect
from sinks.redis.refusals import RedisRefusals

LOOK_EVERY = timedelta(seconds=5)
"""How often to look without an announcement, as one may have been lost."""

LOOK_EVERY_WITHOUT_REDIS = timedelta(seconds=1)

_TIMEOUT_SECONDS = 1.0
_FEATURE = "wake-ups"
_KEPT = timedelta(days=1)
_GRAIN_MILLISECONDS = 100
"""Due times are rounded up to this."""


class WakeUps:
    """Wakes the workers of a queue.

    Args:
        url: Where Redis is.
        prefix: Begins the name of every key and channel.
        refusals: Reports commands that Redis refuses.

    Raises:
        RedisUrlError: Not a Redis URL.
    """

    def __init__(self, url: str, prefix: str, refusals: RedisRefusals | None = None) -> None:
        self._redis = connect(url, _TIMEOUT_SECONDS)
        self._refusals = refusals or RedisRefusals()
        self._due = f"{prefix}queue:due"
        self._channel = f"{prefix}queue:wake"
        self._listening: PubSub | None = None

    async def announce(self, due: Iterable[datetime], now: datetime) -> None:
        """Announce due times, at which waiting workers wake up. Without Redis this has no effect."""
        moments = set(due)
        later = {_grain(moment) for moment in moments if moment > now}
        try:
            async with self._redis.pipeline(transaction=False) as commands:
                if later:
                    commands.zadd(self._due, {str(moment): moment for moment in later})
                    commands.expire(self._due, _KEPT)
                # A waiting worker read the next due time when its wait began, and would miss an earlier one.
                if any(moment < now + LOOK_EVERY for moment in moments):
                    commands.publish(self._channel, "")
                await commands.execute()
        except RedisError as error:
            self._refusals.note(_FEATURE, error)
        else:
            self._refusals.succeeded(_FEATURE)

    async def wait(self) -> None:
        """Return when something is due, when it is time to look, or when the connection is lost."""
        try:
            listening = await self._listen()
            seconds = await self._seconds_to_next()
            await listening.get_message(ignore_subscribe_messages=True, timeout=seconds)
        except RedisError as error:
            self._refusals.note(_FEATURE, error)
            await self._forget()
            await asyncio.sleep(LOOK_EVERY_WITHOUT_REDIS.total_seconds())

    async def close(self) -> None:
        """Close all connections."""
        await self._forget()
        await self._redis.aclose()

    async def _listen(self) -> PubSub:
        if self._listening is None:
            listening = self._redis.pubsub()
            await listening.subscribe(self._channel)
            self._listening = listening
        return self._listening

    async def _forget(self) -> None:
        listening, self._listening = self._listening, None
        if listening is not None:
            await listening.aclose()  # type: ignore[no-untyped-call]

    async def _seconds_to_next(self) -> float:
        now = time.time() * 1000
        async with self._redis.pipeline(transaction=True) as commands:
            commands.zremrangebyscore(self._due, "-inf", now)
            commands.zrange(self._due, 0, 0, withscores=True)
            removed, first = await commands.execute()
        if removed:
            return 0.0
        coming = (first[0][1] - now) / 1000 if first else LOOK_EVERY.total_seconds()
        return float(min(max(coming, 0.0), LOOK_EVERY.total_seconds()))


def _grain(moment: datetime) -> int:
    return -(round(-moment.timestamp() * 1000) // _GRAIN_MILLISECONDS) * _GRAIN_MILLISECONDS
