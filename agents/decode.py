"""Decode: which records of a batch are valid events, and why the others are not.

In come records; out go events, and dead letters for the rest. The same records give the same answer every time.
"""

from collections.abc import Iterable

from delivery.batch import Record
from delivery.dead_letters.letter import DeadLetter
from schemas.cloudevents import Decoder
from schemas.envelope import Envelope, InvalidEvent
from schemas.event import Event


def decode(decoder: Decoder, records: Iterable[Record]) -> tuple[list[Envelope[Event]], list[DeadLetter]]:
    """Return the events in the records, and the records that are no valid events."""
    events: list[Envelope[Event]] = []
    invalid: list[DeadLetter] = []
    for record in records:
        try:
            events.append(decoder.decode(record))
        except InvalidEvent as error:
            invalid.append(DeadLetter(record, error.reason, error.message))
    return events, invalid
