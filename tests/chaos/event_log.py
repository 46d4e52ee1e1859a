"""Log every record that Kafka acknowledged, and nothing else; it alone decides what must be true at the end.

Input: records with their places, as acknowledgements arrive. Output: the same records, in the order of their places.
The log is an SQLite database in one file.
"""

import sqlite3
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import orjson

_KEPT_BACK = 5_000
"""So many records are written together."""

_SCHEMA = """
CREATE TABLE records (
    topic TEXT NOT NULL, partition INTEGER NOT NULL, offset INTEGER NOT NULL, timestamp INTEGER NOT NULL,
    key BLOB, value BLOB, headers TEXT NOT NULL, reason TEXT,
    PRIMARY KEY (topic, partition, offset)
) WITHOUT ROWID;
"""


class Entry(NamedTuple):
    """A record that Kafka has; what decodes records takes it as one.

    Attributes:
        topic: Its name in Kafka, namespace and all.
        partition: Its partition.
        offset: Its offset.
        timestamp: Its own, in milliseconds since 1970.
        key: Its key.
        value: Its value.
        headers: Its headers.
        reason: The reason that its dead letter must give; `None` where the record is valid.
    """

    topic: str
    partition: int
    offset: int
    timestamp: int
    key: bytes | None
    value: bytes | None
    headers: tuple[tuple[str, bytes], ...]
    reason: str | None

    @property
    def place(self) -> str:
        """Where it is, as dead letters say it: `topic:partition:offset`."""
        return f"{self.topic}:{self.partition}:{self.offset}"


class EventLog:
    """A new event log in a file that must not exist yet."""

    def __init__(self, path: Path) -> None:
        self._database = sqlite3.connect(path)
        # It need not outlive this program, so it need not wait for the disk.
        self._database.execute("PRAGMA synchronous = OFF")
        self._database.executescript(_SCHEMA)
        self._kept_back: list[tuple[object, ...]] = []
        self.count = 0

    def record(self, entry: Entry) -> None:
        """Log a record that Kafka has acknowledged.

        Raises:
            sqlite3.IntegrityError: Another record was said to be at the same place.
        """
        headers = orjson.dumps([(name, value.decode("latin-1")) for name, value in entry.headers]).decode()
        self._kept_back.append((*entry[:6], headers, entry.reason))
        self.count += 1
        if len(self._kept_back) >= _KEPT_BACK:
            self._write()

    def entries(self, *topics: str) -> Iterator[Entry]:
        """Yield the records of topics, each topic's in the order of their places; of all topics where none is named."""
        self._write()
        chosen = topics or tuple(self.counts())
        for topic in chosen:
            rows = self._database.execute("SELECT * FROM records WHERE topic = ? ORDER BY partition, offset", [topic])
            for name, partition, offset, timestamp, key, value, listed, reason in rows:
                headers = tuple((header, text.encode("latin-1")) for header, text in orjson.loads(listed))
                yield Entry(name, partition, offset, timestamp, key, value, headers, reason)

    def counts(self) -> dict[str, int]:
        """Return how many records each topic has."""
        self._write()
        return dict(self._database.execute("SELECT topic, count(*) FROM records GROUP BY topic ORDER BY topic"))

    def close(self) -> None:
        """Close the file."""
        self._write()
        self._database.close()

    def _write(self) -> None:
        with self._database:
            self._database.executemany("INSERT INTO records VALUES (?, ?, ?, ?, ?, ?, ?, ?)", self._kept_back)
        self._kept_back.clear()
