"""The format of a dead-letter topic: its letters, the notes about them, and the headers of both.

A letter is the record that was refused, byte for byte, with headers that say where it was and why it was refused after
all headers that it had. A note has no value; its headers say that a letter was replayed, or what was decided about it.
"""

from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime
from enum import StrEnum
from typing import NamedTuple, Self

from delivery.batch import Record

SUFFIX = ".dead-letter"
"""What the name of a dead-letter topic has after the name of its topic."""

CAUSES = ("not-json", "schema", "unknown-type", "refused-by-store", "too-large")
"""The classes of reasons."""

Headers = Sequence[tuple[str, bytes | None]]
"""Headers of a record; a value may be null, and a name may be there twice."""

_TOPIC, _PARTITION, _OFFSET = "dl_topic", "dl_partition", "dl_offset"
_REASON, _MESSAGE, _TIME = "dl_reason", "dl_message", "dl_time"
_TIMESTAMP, _RELEASE = "dl_timestamp", "dl_release"
_OF_LETTER = frozenset((_TOPIC, _PARTITION, _OFFSET, _REASON, _MESSAGE, _TIME, _TIMESTAMP, _RELEASE))
_OF_DECISION = ("dl_decided", "dl_status", "dl_by", "dl_at", "dl_because")
_REPLAYED = "dl_replayed"


class DeadLetter(NamedTuple):
    """A record that is refused, and why.

    Attributes:
        record: The record as it was read.
        reason: The class of the reason, one of `CAUSES`.
        message: What the producer's developer has to change; holds no value of a personal field.
    """

    record: Record
    reason: str
    message: str


class Refusal(NamedTuple):
    """What the headers of a letter say.

    Attributes:
        origin: Where the record was, `topic:partition:offset`; the same when it was dead-lettered twice.
        reason: The class of the reason.
        message: What its producer has to change.
        time: When it was dead-lettered.
        timestamp: The record's own Kafka timestamp, in milliseconds since 1970; negative where it had none.
        release: The release of Inkstream that refused it; empty where that is not known.
    """

    origin: str
    reason: str
    message: str
    time: datetime
    timestamp: int
    release: str = ""

    @classmethod
    def read(cls, headers: Headers) -> Self | None:
        """Return what a record's headers say; `None` where the record is not a letter."""
        # A producer's header may have the name of one of ours, which come last.
        ours = {name: (value or b"").decode(errors="replace") for name, value in headers if name in _OF_LETTER}
        try:
            return cls(
                origin=f"{ours[_TOPIC]}:{int(ours[_PARTITION])}:{int(ours[_OFFSET])}",
                reason=ours[_REASON],
                message=ours[_MESSAGE],
                time=datetime.fromisoformat(ours[_TIME]).astimezone(UTC),
                timestamp=int(ours[_TIMESTAMP]),
                release=ours.get(_RELEASE, ""),
            )
        except (KeyError, ValueError, OverflowError):  # a moment at the end of time may be in no other zone
            return None


class Status(StrEnum):
    """The status of a dead letter since it was refused last."""

    OPEN = "open"
    ACKNOWLEDGED = "acknowledged"
    DISCARDED = "discarded"
    REPLAYED = "replayed"


class Decision(NamedTuple):
    """What somebody decided about a dead letter; the latest decision counts.

    Attributes:
        origin: The origin of the dead letter.
        status: `acknowledged`: it no longer counts as open, and a replay sends it; `discarded`: a replay leaves it out;
            `open`: the decision before is undone.
        by: Who decided.
        time: When.
        reason: Why.
    """

    origin: str
    status: Status
    by: str
    time: datetime
    reason: str

    def headers(self) -> list[tuple[str, bytes]]:
        """Return the headers of the note that keeps it."""
        values = (self.origin, self.status, self.by, self.time.isoformat(), self.reason)
        return [(name, value.encode()) for name, value in zip(_OF_DECISION, values, strict=True)]

    @classmethod
    def read(cls, headers: Headers) -> Self | None:
        """Return the decision that a record keeps; `None` where the record is not such a note."""
        named = dict(headers)
        try:
            origin, status, by, time, reason = ((named[name] or b"").decode(errors="replace") for name in _OF_DECISION)
            return cls(origin, Status(status), by, datetime.fromisoformat(time).astimezone(UTC), reason)
        except (KeyError, ValueError, OverflowError):
            return None


class Replayed(NamedTuple):
    """That a dead letter was replayed.

    Attributes:
        origin: The origin of the dead letter.
    """

    origin: str

    def headers(self) -> list[tuple[str, bytes]]:
        """Return the headers of the note that keeps it."""
        return [(_REPLAYED, self.origin.encode())]

    @classmethod
    def read(cls, headers: Headers) -> Self | None:
        """Return what a record keeps; `None` where the record is not such a note."""
        origin = dict(headers).get(_REPLAYED)
        return None if origin is None else cls(origin.decode(errors="replace"))


Entry = Refusal | Replayed | Decision


def entry(headers: Headers) -> Entry | None:
    """Return what a record of a dead-letter topic is; `None` where it is neither a letter nor a note."""
    # The letter first: its record may have a header by the name of a note's.
    return Refusal.read(headers) or Replayed.read(headers) or Decision.read(headers)


def headers_of(letter: DeadLetter, release: str) -> list[tuple[str, bytes]]:
    """Return the headers of a letter: all that its record had, then ours.

    Args:
        letter: The letter.
        release: The version of this program.
    """
    record = letter.record
    ours: Mapping[str, object] = {
        _TOPIC: record.topic,
        _PARTITION: record.partition,
        _OFFSET: record.offset,
        _REASON: letter.reason,
        _MESSAGE: letter.message,
        _TIME: datetime.now(UTC).isoformat(),
        _TIMESTAMP: record.timestamp,
        _RELEASE: release,
    }
    return [*record.headers, *((name, str(value).encode()) for name, value in ours.items())]


def headers_before(headers: Iterable[tuple[str, bytes]]) -> list[tuple[str, bytes]]:
    """Return the headers that a letter's record had before it became a letter."""
    headers = list(headers)
    ours = {name: place for place, (name, _) in enumerate(headers) if name in _OF_LETTER}
    return [header for place, header in enumerate(headers) if ours.get(header[0]) != place]
