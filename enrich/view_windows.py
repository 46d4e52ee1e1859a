"""Windows of page views: five minutes of event time of one post, the unit in which views are counted.

Input: the writes of events. Output: the windows that they touch. A window is always recounted from stored views, so a
window that is touched twice, or by a view that was already stored, has the same count.
"""

from collections import Counter
from collections.abc import Iterable
from datetime import UTC, datetime, timedelta
from typing import NamedTuple

from enrich import page_views
from enrich.documents import Document, Write

LENGTH = timedelta(minutes=5)
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


class Window(NamedTuple):
    """`[start, start + LENGTH)` of a post's event time; `start` is a multiple of five minutes, in UTC."""

    post_id: str
    start: datetime

    @property
    def end(self) -> datetime:
        """The first moment after the window."""
        return self.start + LENGTH


def start_of(moment: datetime) -> datetime:
    """Return the start of the window that a moment falls in."""
    return _moment(_number(moment))


def touched(writes: Iterable[Write]) -> dict[Window, int]:
    """Return the windows of the page views among the writes, and how many of these fall in each.

    Views by bots touch their window like any other: which views count is decided when they are counted.
    """
    views: Counter[tuple[str, int]] = Counter()
    for write in writes:
        if type(write) is Document and write.collection == page_views.COLLECTION:
            views[write.body["postId"], _number(write.body["timestamp"])] += 1
    # PostgreSQL's texts have no NUL, so no post has an id with one.
    return {
        Window(post_id, _moment(number)): count for (post_id, number), count in views.items() if "\0" not in post_id
    }


def _number(moment: datetime) -> int:
    return (moment - _EPOCH) // LENGTH


def _moment(number: int) -> datetime:
    return _EPOCH + number * LENGTH
