"""Combines requests for single keys that come at the same moment into one query.

Input: keys, one by one. Output: their values. A query that fails, fails only for the callers that it was made for.
"""

import asyncio
from collections.abc import Callable, Coroutine, Mapping
from typing import Any, Generic, TypeVar

Value = TypeVar("Value")


class BatchLoader(Generic[Value]):
    """Loads values with one query for all keys that are requested at the same moment, or while the key is being loaded.

    Args:
        load: Returns the values of keys; a key that is missing in the result has no value.
    """

    def __init__(self, load: Callable[[list[str]], Coroutine[Any, Any, Mapping[str, Value]]]) -> None:
        self._load = load
        self._pending: list[str] = []
        self._latest: asyncio.Task[Mapping[str, Value]] | None = None
        self._loading: dict[str, asyncio.Task[Mapping[str, Value]]] = {}

    async def __call__(self, key: str) -> Value | None:
        """Return the value of a key; `None` if there is none.

        Raises:
            Exception: The error of `load`, for every caller of the same query.
        """
        loading = self._loading.get(key)
        if loading is None:
            if self._latest is None:
                self._latest = asyncio.create_task(self._begin())
            self._pending.append(key)
            loading = self._loading[key] = self._latest
        # A caller that is cancelled does not cancel the query of the others.
        values = await asyncio.shield(loading)
        return values.get(key)

    async def close(self) -> None:
        """Cancel all queries, and the callers that wait for them."""
        in_progress = set(self._loading.values())
        for task in in_progress:
            task.cancel()
        await asyncio.gather(*in_progress, return_exceptions=True)

    async def _begin(self) -> Mapping[str, Value]:
        # A task first runs after all callers in the same turn of the event loop have added their keys.
        keys, self._pending, self._latest = self._pending, [], None
        try:
            return await self._load(keys)
        finally:
            for key in keys:
                del self._loading[key]
