"""Push messages in a file, for development: shows what would be sent.

Input: a push message. Output: a line of JSON at the end of the file, durable when it counts as sent. Several processes
may write the same file: each line is one write, so lines are never mixed.
"""

import asyncio
import os
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path

from notifications.messages import Push
from notifications.outcome import Failed, Outcome, Sent
from providers.push.payload import as_json

# It has tokens and what is said to whom.
_MODE = 0o600


class PushFile:
    """Writes push messages into a file.

    A line has `at` (ISO 8601), `provider`, `key`, `platform`, `token`, `title`, `body`, `url`, `data`, `expiresAt` and
    `urgent`.

    Args:
        path: The file; it is created with its directories if needed.
        name: The provider that it replaces: `fcm`, `apns` or `web-push`.
        clock: Returns the current time, with a zone.
    """

    may_repeat = True

    def __init__(self, path: Path, name: str, clock: Callable[[], datetime] = lambda: datetime.now(UTC)) -> None:
        self.name = name
        self._path = path
        self._clock = clock

    async def send(self, message: Push) -> Outcome:
        """Append a message to the file."""
        line = as_json(self._fields(message)) + b"\n"
        try:
            written = await asyncio.to_thread(_append, self._path, line)
        except OSError as error:
            return Failed(type(error).__name__, "the file can't be written", may_have_arrived=False)
        if written < len(line):
            return Failed("ENOSPC", "the file has room for a part of the line alone", may_have_arrived=False)
        return Sent(message.key)

    async def close(self) -> None:
        """Do nothing: the file is open only while a line is written."""

    def _fields(self, message: Push) -> dict[str, object]:
        return {
            "at": self._clock().isoformat(timespec="milliseconds"),
            "provider": self.name,
            "key": message.key,
            "platform": message.platform,
            "token": message.token,
            "title": message.title,
            "body": message.body,
            "url": message.url,
            "data": dict(message.data),
            "expiresAt": message.expires_at.isoformat() if message.expires_at else None,
            "urgent": message.urgent,
        }


def _append(path: Path, line: bytes) -> int:
    path.parent.mkdir(parents=True, exist_ok=True)
    file = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, _MODE)
    try:
        written = os.write(file, line)
        os.fsync(file)
    finally:
        os.close(file)
    return written
