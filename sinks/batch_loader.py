"""Combines requests for single keys that come at the same moment into one query.

Input: keys, one by one. Output: their values. A query that fails, fails only for the callers that it was made for.
"""

import asyncio
from collections.abc import Callable, Coroutine, Mapping
from typing import Any, Generic, TypeVar

Answer = TypeVar("Answer")


class Together(Generic[Answer]):
    """Asks one question for all who ask at the same moment, or while the answer to the same question is under way.

    Args:
        ask: Answers for some keys; those of which it says nothing have no answer.
    """

    def __init__(self, ask: Callable[[list[str]], Coroutine[Any, Any, Mapping[str, Answer]]]) -> None:
        self._ask = ask
        self._gathering: list[str] = []
        self._latest: asyncio.Task[Mapping[str, Answer]] | None = None
        self._asked: dict[str, asyncio.Task[Mapping[str, Answer]]] = {}

    async def __call__(self, key: str) -> Answer | None:
        """Return the answer for a key; `None` where there is none.

        Raises:
            Exception: What `ask` raised, to all who asked with it.
        """
        asked = self._asked.get(key)
        if asked is None:
            if self._latest is None:
                self._latest = asyncio.create_task(self._begin())
            self._gathering.append(key)
            asked = self._asked[key] = self._latest
        # Whoever goes away leaves the others their answer.
        answers = await asyncio.shield(asked)
        return answers.get(key)

    async def close(self) -> None:
        """End all questions; who still waits gets no answer."""
        under_way = set(self._asked.values())
        for task in under_way:
            task.cancel()
        await asyncio.gather(*under_way, return_exceptions=True)

    async def _begin(self) -> Mapping[str, Answer]:
        # By the time that a task runs first, all who asked in the same turn of the event loop are there.
        keys, self._gathering, self._latest = self._gathering, [], None
        try:
            return await self._ask(keys)
        finally:
            for key in keys:
                del self._asked[key]
