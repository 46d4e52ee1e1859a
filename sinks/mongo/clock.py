"""The time that all workers share: MongoDB's.

Input: the primary's clock, read from time to time. Output: the current time, measured by this machine's monotonic clock
since then. So a wrong or jumping wall clock makes no worker take over another's lease, or keep one for hours.
"""

import time
from datetime import UTC, datetime, timedelta
from typing import Any

from pymongo.asynchronous.database import AsyncDatabase


class MongoClock:
    """The primary's clock; before it was read for the first time, the machine's own."""

    def __init__(self, database: AsyncDatabase[dict[str, Any]]) -> None:
        self._database = database
        self._read: tuple[datetime, float] | None = None

    async def read(self) -> None:
        """Read the primary's clock.

        Raises:
            PyMongoError: No primary answers.
        """
        asked = time.monotonic()
        answer = await self._database.command("hello", codec_options=self._database.codec_options)
        # Somewhere on its way; that is known better than clocks agree.
        self._read = answer["localTime"], (asked + time.monotonic()) / 2

    def now(self) -> datetime:
        """Return the time."""
        if self._read is None:
            return datetime.now(UTC)
        moment, at = self._read
        return moment + timedelta(seconds=time.monotonic() - at)
