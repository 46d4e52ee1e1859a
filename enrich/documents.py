"""What an event becomes: plain descriptions of writes, with no store in sight.

`enrich` makes them and `sinks` carries them out. Each has the same effect when it is carried out again, and any two may
be carried out in either order: so a batch read twice, or two batches in flight, leave the same documents.
"""

from datetime import datetime
from typing import Any, NamedTuple

from notifications.notice import Notice


class Document(NamedTuple):
    """A whole document. The first with its `_id` stays; another is a duplicate and changes nothing.

    Where a `Part` came first, the document completes it.
    """

    collection: str
    body: dict[str, Any]


class Part(NamedTuple):
    """What a later event adds to a document that another event makes, which may come before or after it.

    Attributes:
        collection: Where the document lives.
        id: The `_id` of the document that it belongs to.
        timestamp: The event time, for the retention of a document whose maker never comes.
        highest: Fields of which the highest value stays (also `True` over `False`, the later over the earlier).
        added: Fields that hold a list of distinct items, and the items to add; the list stays sorted by
            `clickedAt`, `position`, `postId`.
    """

    collection: str
    id: str
    timestamp: datetime
    highest: dict[str, Any]
    added: dict[str, list[dict[str, Any]]]


class Occurrence(NamedTuple):
    """An error in a log line: the line itself, and its part in the error's group; both are written, or neither.

    Attributes:
        line: The document for `systemLogs`.
        group: The document for `errorLogs` as it is when this is the group's only occurrence; `_id` is its fingerprint.
    """

    line: dict[str, Any]
    group: dict[str, Any]


class Gathering(NamedTuple):
    """A notice that joins others like it in one notification, which has one item in the queue.

    Attributes:
        collection: Where notifications live.
        notice: What to tell, and what it is gathered with.
    """

    collection: str
    notice: Notice


Write = Document | Part | Occurrence | Gathering
