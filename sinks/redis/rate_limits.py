"""Rate limits in Redis, shared by all workers: messages to a provider, and notifications to a user.

Input: a name and a limit. Output: whether one more is admitted now. While Redis is down or refuses commands, each
worker applies the limits by itself, so all workers together may exceed them.
"""

import time
from collections import OrderedDict, defaultdict
from collections.abc import Callable
from datetime import timedelta

from redis.exceptions import RedisError

from notifications.rate import Rate
from sinks.redis.connection import connect
from sinks.redis.refusals import RedisRefusals

_TIMEOUT_SECONDS = 1.0
_FEATURE = "limits"
_NAMES_KEPT = 100_000
"""For how many names, the latest used, this worker itself remembers what it admitted."""

# A bucket is `level`, the tokens that it had `at` a moment of Redis' own clock, in microseconds.
_TAKE = """
local rate, burst = tonumber(ARGV[1]), tonumber(ARGV[2])
local time = redis.call('TIME')
local now = time[1] * 1000000 + time[2]
local bucket = redis.call('HMGET', KEYS[1], 'level', 'at')
local level = burst
if bucket[1] then
    level = math.min(burst, tonumber(bucket[1]) + math.max(0, now - tonumber(bucket[2])) * rate / 1000000)
end
local wait = 0
if level >= 1 then level = level - 1 else wait = math.ceil((1 - level) * 1000000 / rate) end
redis.call('HSET', KEYS[1], 'level', tostring(level), 'at', string.format('%.0f', now))
redis.call('PEXPIRE', KEYS[1], math.ceil(burst / rate * 1000) + 1000)
return wait
"""

# What was admitted in the last `window`: a set of names by the time of their admission.
_ADMIT = """
local limit, window, name = tonumber(ARGV[1]), tonumber(ARGV[2]), ARGV[3]
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
redis.call('ZREMRANGEBYSCORE', KEYS[1], '-inf', now - window)
if redis.call('ZSCORE', KEYS[1], name) then return 1 end
if redis.call('ZCARD', KEYS[1]) >= limit then return 0 end
redis.call('ZADD', KEYS[1], now, name)
redis.call('PEXPIRE', KEYS[1], window)
return 1
"""


class RateLimits:
    """Limits that all workers share.

    Args:
        url: Where Redis is.
        prefix: Begins the name of every key.
        clock: Monotonic seconds, used while Redis is down.
        refusals: Reports commands that Redis refuses.

    Raises:
        RedisUrlError: Not a Redis URL.
    """

    def __init__(
        self,
        url: str,
        prefix: str,
        clock: Callable[[], float] = time.monotonic,
        refusals: RedisRefusals | None = None,
    ) -> None:
        self._redis = connect(url, _TIMEOUT_SECONDS)
        self._prefix = f"{prefix}limit:"
        self._take = self._redis.register_script(_TAKE)
        self._admit = self._redis.register_script(_ADMIT)
        self._clock = clock
        self._refusals = refusals or RedisRefusals()
        self._own: defaultdict[str, tuple[float, float]] = defaultdict(lambda: (float("inf"), 0.0))
        self._own_admitted: OrderedDict[str, dict[str, float]] = OrderedDict()  # by name: members, and when

    async def take(self, name: str, rate: Rate) -> timedelta:
        """Take a token; return zero, or how long to wait if there is none."""
        try:
            microseconds = await self._take(keys=[self._prefix + name], args=[rate.per_second, rate.burst])
        except RedisError as error:
            self._refusals.note(_FEATURE, error)
            return self._take_own(name, rate)
        self._refusals.succeeded(_FEATURE)
        return timedelta(microseconds=int(microseconds))

    async def admit(self, name: str, limit: int, window: timedelta, member: str) -> bool:
        """Return whether the member is among the first `limit` within the window; the same again for the same member.

        Without Redis this worker knows only the members that it has admitted itself since.
        """
        try:
            admitted = await self._admit(
                keys=[self._prefix + name], args=[limit, round(window.total_seconds() * 1000), member]
            )
        except RedisError as error:
            self._refusals.note(_FEATURE, error)
            return self._admit_own(name, limit, window, member)
        self._refusals.succeeded(_FEATURE)
        return bool(admitted)

    async def close(self) -> None:
        """Close all connections."""
        await self._redis.aclose()

    def _admit_own(self, name: str, limit: int, window: timedelta, member: str) -> bool:
        now = self._clock()
        before = self._own_admitted.pop(name, {})
        admitted = {one: at for one, at in before.items() if now - at < window.total_seconds()}
        if is_in := member in admitted or len(admitted) < limit:
            admitted.setdefault(member, now)
        self._own_admitted[name] = admitted
        if len(self._own_admitted) > _NAMES_KEPT:
            self._own_admitted.popitem(last=False)
        return is_in

    def _take_own(self, name: str, rate: Rate) -> timedelta:
        level, at = self._own[name]
        now = self._clock()
        level = min(float(rate.burst), level + max(0.0, now - at) * rate.per_second)
        self._own[name] = (level - 1 if level >= 1 else level, now)
        return timedelta(0) if level >= 1 else timedelta(seconds=(1 - level) / rate.per_second)
