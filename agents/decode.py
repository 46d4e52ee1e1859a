"""Decodes a batch: which records are valid events, and why the others are not.

Input: records. Output: events, and a dead letter for each invalid record; the same records give the same output.
"""

from collections.abc import Iterable

from delivery.batch import Record
from delivery.dead_letters.letter import DeadLetter
from schemas.cloudevents import Decoder
from schemas.envelope import Envelope, InvalidEvent
from schemas.event import Event


def decode(decoder: Decoder, records: Iterable[Record]) -> tuple[list[Envelope[Event]], list[DeadLetter]]:
    """Return the events in the records, and a dead letter for each record that is not a valid event."""
    events: list[Envelope[Event]] = []
    invalid: list[DeadLetter] = []
    for record in records:
        try:
            events.append(decoder.decode(record))
        except InvalidEvent as error:
            invalid.append(DeadLetter(record, error.reason, error.message))
    return events, invalid
