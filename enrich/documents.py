"""What an event becomes: descriptions of writes, independent of any store.

`enrich` creates them and `sinks` carries them out. Each has the same effect when it is repeated, and any two may be
carried out in either order, so a batch that is read twice, or two batches in flight, leave the same documents.
"""

from datetime import datetime
from typing import Any, NamedTuple

from notifications.notice import Notice


class Document(NamedTuple):
    """A whole document. The first with its `_id` stays; another is a duplicate and changes nothing.

    If a `PartialUpdate` came first, the document completes its placeholder.
    """

    collection: str
    body: dict[str, Any]


class PartialUpdate(NamedTuple):
    """What a later event adds to a document that another event creates, which may come before or after it.

    Attributes:
        collection: The document's collection.
        id: The `_id` of the document that it belongs to.
        timestamp: The event time, for the retention of a placeholder whose document never comes.
        highest: Fields that keep their highest value (`True` is higher than `False`, a later time than an earlier one).
        added: Fields that hold a list of distinct items, and the items to add; the list stays sorted by
            `clickedAt`, `position`, `postId`.
    """

    collection: str
    id: str
    timestamp: datetime
    highest: dict[str, Any]
    added: dict[str, list[dict[str, Any]]]


class Occurrence(NamedTuple):
    """An error in a log line: the line itself, and its count in the error's group; both are written, or neither.

    Attributes:
        line: The document for `systemLogs`.
        group: The document for `errorLogs` if this is the group's only occurrence; `_id` is its fingerprint.
    """

    line: dict[str, Any]
    group: dict[str, Any]


class GroupedNotification(NamedTuple):
    """A notice that joins similar ones in one notification, which has one item in the queue.

    Attributes:
        collection: The collection of notifications.
        notice: The notice, and the group that it belongs to.
    """

    collection: str
    notice: Notice


Write = Document | PartialUpdate | Occurrence | GroupedNotification
