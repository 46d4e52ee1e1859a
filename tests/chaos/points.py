"""Marked points: places in the product where a worker can be made to die, wrapped from outside.

Input: an order, with a point and how many times it must be passed. Output: the worker dies by SIGKILL at the last of
these. Without an order, passing a point costs a comparison. A place that the product no longer has ends the program, so
that no run skips it unnoticed.
"""

import asyncio
import functools
import importlib
import inspect
import os
import signal
import sys
from collections.abc import Awaitable, Callable, Mapping
from typing import Any, Literal, NamedTuple, NoReturn

from sinks.collections import NOTIFICATION_QUEUE, NOTIFICATIONS

_HELD_BACK_SECONDS = 0.5
"""Longer than it takes to write the other one of two documents."""


class Place(NamedTuple):
    """Where a point is.

    Attributes:
        module: The module.
        name: The function in it; with its class and a dot where it is a method.
        side: Whether the point is passed before the function begins, or after it has returned.
        counts: Whether a passing counts; it gets what the function returned (`None` before), and its arguments.
    """

    module: str
    name: str
    side: Literal["before", "after"]
    counts: Callable[..., bool] = lambda *_, **__: True


POINTS: Mapping[str, Place] = {
    # Store: written, dead letters sent, announced, committed.
    "after-write": Place(
        "sinks.mongo.writer", "MongoWriter.write", "after", lambda outcome, sink, writes: bool(writes)
    ),
    "after-dead-letters-before-commit": Place(
        "delivery.dead_letters.writer",
        "DeadLetters.send",
        "after",
        lambda _, sender, topic, records, letters: bool(letters),
    ),
    "after-touch-windows": Place("agents.view_counts.touch_windows", "TouchWindows.send", "after"),
    "after-announce-before-commit": Place("delivery.batch", "RecordBatch.commit", "before"),
    "after-commit": Place("delivery.batch", "RecordBatch.commit", "after"),
    # Within a write. The updates of groups are made once the lines are inserted, in the same transaction.
    "between-line-and-group": Place("sinks.mongo.occurrences", "group_updates", "before"),
    "between-document-and-parts": Place("sinks.mongo.writer", "MongoWriter._update", "before"),
    "between-gathered-item-and-notification": Place(
        "sinks.mongo.notification_groups",
        "_write",
        "after",
        lambda _, collection, writes: bool(writes) and collection.name == NOTIFICATION_QUEUE.name,
    ),
    # Counts of views: MongoDB has told them, Kafka has not got them; PostgreSQL has done all statements but the last.
    "after-count-before-send": Place("agents.view_counts.count_views", "CountViews._event", "before"),
    "amid-postgres-transaction": Place(
        "sinks.postgres.platform_posts",
        "PlatformPosts.move",
        "after",
        lambda _, posts, using, post_ids, **_options: bool(post_ids),
    ),
    # Delivery: claimed, begun, sent, recorded, noted in the message's log, given back.
    "amid-claim": Place(
        "sinks.mongo.notification_queue", "NotificationQueue.claim", "after", lambda claims, *_: bool(claims)
    ),
    "after-begin-before-send": Place("agents.notifications.attempt", "Attempts._send", "before"),
    "after-send-before-record": Place("agents.notifications.attempt", "attempt", "after"),
    "after-record-before-note": Place("agents.notifications.attempt", "Attempts._record", "before"),
    "before-give-back": Place("agents.notifications.leased_item", "LeasedItem.release", "before"),
    "amid-receipt": Place("agents.notifications.apply_receipts", "ApplyReceipts._update_notification", "before"),
    # Partitions come and go.
    "during-revoke-before-drain": Place(
        "delivery.consumer",
        "RecordConsumer.on_partitions_revoked",
        "before",
        lambda _, consumer, revoked: bool(revoked),
    ),
    "during-revoke-after-drain": Place(
        "delivery.commit", "OffsetTracker.revoke", "before", lambda _, tracker, partitions: bool(partitions)
    ),
    "during-assign": Place(
        "delivery.consumer",
        "RecordConsumer.on_partitions_assigned",
        "before",
        lambda _, consumer, assigned: bool(assigned),
    ),
    "during-stop": Place(
        "delivery.consumer", "RecordConsumer._drain", "after", lambda _, consumer: bool(consumer.should_stop)
    ),
}
"""What a point is called, and where it is; two more are in `BETWEEN`."""

BETWEEN: Mapping[str, tuple[str, str]] = {
    "between-notification-and-queue-item": (NOTIFICATIONS.name, NOTIFICATION_QUEUE.name),
    "between-queue-item-and-notification": (NOTIFICATION_QUEUE.name, NOTIFICATIONS.name),
}
"""Points between two collections that are written at the same time: the first is written, the second not yet."""

NAMES = (*POINTS, *BETWEEN)
"""Of all points."""

ON_STOP = ("during-stop",)
"""Points that a worker passes when it is told to stop."""

ON_REBALANCE = ("during-revoke-before-drain", "during-revoke-after-drain", "during-assign")
"""Points that a worker passes when another one comes or goes."""


class _Order:
    """At which point the worker dies; at none where there is no order."""

    def __init__(self) -> None:
        self.point: str | None = None
        self.left = 0

    def passes(self, point: str) -> None:
        """Take note that a point is passed."""
        if self.point != point:
            return
        self.left -= 1
        if self.left <= 0:
            os.kill(os.getpid(), signal.SIGKILL)


_order = _Order()


def die_at(point: str, passing: int) -> None:
    """Order this process to kill itself when it passes a point for so many times from now on.

    Raises:
        KeyError: There is no such point.
    """
    if point not in NAMES:
        raise KeyError(f"no point {point}; there are {', '.join(NAMES)}")
    _order.point, _order.left = point, passing


def apply() -> None:
    """Wrap all places, in this process.

    Raises:
        SystemExit: The product no longer has one of them.
    """
    for point, place in POINTS.items():
        wrap(place.module, place.name, functools.partial(_marked, point, place))
    for point, (first, second) in BETWEEN.items():
        wrap("sinks.mongo.writer", "MongoWriter._write_collection", functools.partial(_in_turn, point, first, second))


def wrap(module: str, name: str, wrapper: Callable[[Callable[..., Any]], Callable[..., Any]]) -> None:
    """Replace a function of the product by a wrapped one.

    Raises:
        SystemExit: There is no such function any more.
    """
    owner: Any = importlib.import_module(module)
    *classes, last = name.split(".")
    for each in classes:
        owner = getattr(owner, each, None)
    original = getattr(owner, last, None)
    if not callable(original):
        end_for_want_of(f"{name} in {module}")
    setattr(owner, last, functools.wraps(original)(wrapper(original)))


def end_for_want_of(place: str) -> NoReturn:
    """End the worker, and say in its log which place of the product is gone."""
    sys.stderr.write(f"the chaos harness wants to replace {place}, and there is no such thing any more\n")
    raise SystemExit(1)


def _marked(point: str, place: Place, original: Callable[..., Any]) -> Callable[..., Any]:
    """Return the function with a point at one of its sides."""
    counts, passes = place.counts, _order.passes

    def before(arguments: tuple[Any, ...], named: Mapping[str, Any]) -> None:
        if _order.point == point and place.side == "before" and counts(None, *arguments, **named):
            passes(point)

    def after(result: Any, arguments: tuple[Any, ...], named: Mapping[str, Any]) -> None:
        if _order.point == point and place.side == "after" and counts(result, *arguments, **named):
            passes(point)

    if not inspect.iscoroutinefunction(original):

        def function(*arguments: Any, **named: Any) -> Any:
            before(arguments, named)
            result = original(*arguments, **named)
            after(result, arguments, named)
            return result

        return function

    async def coroutine(*arguments: Any, **named: Any) -> Any:
        before(arguments, named)
        result = await original(*arguments, **named)
        after(result, arguments, named)
        return result

    return coroutine


def _in_turn(
    point: str, first: str, second: str, original: Callable[..., Awaitable[None]]
) -> Callable[..., Awaitable[None]]:
    """Return `_write_collection` with a point after the first of two collections, as the second is held back."""

    async def write_collection(sink: Any, name: str, documents: Any, *others: Any) -> None:
        is_ordered = _order.point == point and bool(documents)
        if is_ordered and name == second:
            await asyncio.sleep(_HELD_BACK_SECONDS)
        await original(sink, name, documents, *others)
        if is_ordered and name == first:
            _order.passes(point)

    return write_collection
