"""Read push messages as a worker of development writes them: one JSON object a line, the newest last.

Input: the file that `INKSTREAM_PUSH_FILE` names, as `providers/push/file.py` appends to it. Output: messages, the
newest first. The file may be missing, grow meanwhile, or end in half a line: what can't be read is left out.
"""

import json
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, NamedTuple

FILE = "push.jsonl"
"""Where they are in the inbox's directory."""

SHOWN = 5_000
"""How many messages are read, the newest."""

_READ_BYTES = 8 * 1024 * 1024


class PushMessage(NamedTuple):
    """One message to one device.

    Attributes:
        key: Names the message; the same at every attempt.
        sent: When it was handed over; UTC.
        platform: `ios`, `android` or `web`.
        token: The device.
        title: In bold.
        body: Below it.
        url: What a touch opens; `None` for the application itself.
        data: More for the application.
        urgent: Whether it may wake up the device.
    """

    key: str
    sent: datetime
    platform: str
    token: str
    title: str
    body: str
    url: str | None
    data: Mapping[str, str]
    urgent: bool


class PushMessages:
    """The messages of a file.

    Args:
        file: The file, which need not be there.
    """

    def __init__(self, file: Path) -> None:
        self._file = file
        self._read_to: tuple[int, int] | None = None
        self._messages: list[PushMessage] = []

    def newest(self) -> list[PushMessage]:
        """Return the messages, the newest first."""
        try:
            status = self._file.stat()
            state = (status.st_size, status.st_mtime_ns)
            if state != self._read_to:
                self._messages = [message for line in self._lines() if (message := _message(line))][-SHOWN:]
                self._read_to = state
        except FileNotFoundError:
            self._messages, self._read_to = [], None
        return self._messages[::-1]

    def _lines(self) -> list[bytes]:
        with self._file.open("rb") as file:
            start = max(0, file.seek(0, 2) - _READ_BYTES)
            file.seek(start)
            lines = file.read().splitlines()
        return lines[1:] if start else lines


def _message(line: bytes) -> PushMessage | None:
    try:
        found: dict[str, Any] = json.loads(line)
        return PushMessage(
            key=str(found["key"]),
            sent=datetime.fromisoformat(found["at"]).astimezone(UTC),
            platform=str(found["platform"]),
            token=str(found["token"]),
            title=str(found["title"]),
            body=str(found["body"]),
            url=found.get("url"),
            data={str(name): str(value) for name, value in (found.get("data") or {}).items()},
            urgent=bool(found.get("urgent")),
        )
    except (ValueError, KeyError, TypeError, AttributeError):
        return None
