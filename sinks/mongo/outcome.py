"""The outcome of writes to MongoDB: how many were written, repeated and refused, and which single writes failed."""

from collections import Counter
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Any, NamedTuple, TypeVar

from pymongo.errors import BulkWriteError

from enrich.documents import Write
from sinks.mongo.errors import (
    Refusal,
    blames_content,
    blames_document,
    blames_stored_document,
    is_transient,
    refusal_of_error,
)
from sinks.mongo.notification_groups import GroupResult

WriteT = TypeVar("WriteT", bound=Write)


class Outcome(NamedTuple):
    """The result of writes; each of them is counted once in every collection that it writes to.

    Attributes:
        written: How many created or changed a document, per collection.
        duplicates: How many changed nothing because they had been carried out before, per collection.
        refused: The writes that can never be carried out: their positions in the input, and why.
        gathered: The result for each group of notices.
    """

    written: dict[str, int]
    duplicates: dict[str, int]
    refused: list[tuple[int, Refusal]]
    gathered: Sequence[GroupResult] = ()


Placed = tuple[int, WriteT]
"""A write, preceded by its position in the input."""


class Tally:
    """Collects the outcome while several collections are written at the same time."""

    def __init__(self) -> None:
        self.written: Counter[str] = Counter()
        self.duplicates: Counter[str] = Counter()
        self.refused: list[tuple[int, Refusal]] = []
        self.gathered: list[GroupResult] = []

    def count(self, collection: str, *, written: int, duplicates: int) -> None:
        """Add to the counts of a collection."""
        self.written[collection] += written
        self.duplicates[collection] += duplicates

    def refuse(self, index: int, refusal: Refusal) -> None:
        """Add a write that can never be carried out, by its position."""
        self.refused.append((index, refusal))

    def outcome(self) -> Outcome:
        """Return the result."""
        return Outcome(dict(+self.written), dict(+self.duplicates), sorted(self.refused), tuple(self.gathered))


async def sift(
    items: Sequence[Placed[WriteT]],
    store: Callable[[Sequence[Placed[WriteT]]], Awaitable[None]],
    tally: Tally,
) -> None:
    """Store all items at once; if the content of one stops them, halve them until it is alone, and refuse it."""
    if not items:
        return
    try:
        await store(items)
    except Exception as error:
        if not blames_content(error):
            raise
        if len(items) == 1:
            tally.refuse(items[0][0], refusal_of_error(error))
            return
        middle = len(items) // 2
        await sift(items[:middle], store, tally)
        await sift(items[middle:], store, tally)


def content_faults(error: BulkWriteError) -> list[dict[str, Any]]:
    """Return the writes that failed because of their documents' content; raise the error if it has any other."""
    return _faults(error, blames_document)


def update_faults(error: BulkWriteError) -> list[dict[str, Any]]:
    """Return the updates that failed because of content, also a stored document's; raise the error if it has others."""
    return _faults(error, lambda fault: blames_document(fault) or blames_stored_document(fault))


def _faults(error: BulkWriteError, is_known: Callable[[Mapping[str, Any]], bool]) -> list[dict[str, Any]]:
    faults: list[dict[str, Any]] = error.details.get("writeErrors", [])
    if is_transient(error) or not all(map(is_known, faults)):
        raise error
    return faults


def require_content(error: BulkWriteError, fault: Mapping[str, Any]) -> None:
    """Raise the error unless a document's content caused the fault."""
    if not blames_document(fault):
        raise error
