"""Counts page views by people in MongoDB, by window.

Input: windows, or a span of time. Output: their views; each view counts once, as it is stored once. Nothing is written,
so any failure may be retried.
"""

import asyncio
from collections import defaultdict
from collections.abc import Collection
from datetime import datetime, timedelta
from typing import Any

from pymongo.asynchronous.database import AsyncDatabase
from pymongo.read_concern import ReadConcern

from enrich.view_windows import LENGTH, Window
from sinks.collections import PAGE_VIEWS

BY_PEOPLE = {"bot": {"$exists": False}}
"""Which views count: those that no rule of `enrich.bots` took for a program's."""

_POSTS_PER_QUERY = 1_000


class StoredViews:
    """The views in MongoDB.

    Args:
        database: Where `pageViews` is.
        since: Views before this moment do not count; `None` where all do.
    """

    def __init__(self, database: AsyncDatabase[dict[str, Any]], since: datetime | None) -> None:
        # Linearizable, so that a count has every view that was acknowledged before it began, also right after another
        # member has become primary, and none that may be rolled back.
        self._views = database.get_collection(PAGE_VIEWS.name, read_concern=ReadConcern("linearizable"))
        # For many windows at once, in several answers, which a linearizable read can't give.
        self._durable_views = database.get_collection(PAGE_VIEWS.name, read_concern=ReadConcern("majority"))
        self._since = since

    async def count(self, windows: Collection[Window]) -> dict[Window, int]:
        """Return how many views by people are stored for each window.

        A count has all views that were durable when it was asked for, and perhaps later ones. It reads every view of a
        window, at a microsecond each.

        Raises:
            PyMongoError: MongoDB is not up to it.
        """
        posts_by_start: defaultdict[datetime, list[str]] = defaultdict(list)
        for window in windows:
            posts_by_start[window.start].append(window.post_id)
        # A query for all posts of a window costs a third of one for each: 30 µs a post.
        queries = [
            self._count(start, posts[first : first + _POSTS_PER_QUERY])
            for start, posts in posts_by_start.items()
            for first in range(0, len(posts), _POSTS_PER_QUERY)
        ]
        counted = dict.fromkeys(windows, 0)
        for views in await asyncio.gather(*queries):
            counted.update(views)
        return counted

    async def _count(self, start: datetime, post_ids: list[str]) -> dict[Window, int]:
        window = Window("", start)
        of_window = {"postId": {"$in": post_ids}, "timestamp": self._span(start, window.end), **BY_PEOPLE}
        cursor = await self._views.aggregate(
            [{"$match": of_window}, {"$group": {"_id": "$postId", "views": {"$sum": 1}}}],
            # All in one answer: each waits until MongoDB is sure that it is still the primary.
            batchSize=len(post_ids) + 1,
        )
        return {Window(row["_id"], start): row["views"] async for row in cursor}

    async def between(
        self, start: datetime, end: datetime | None, post_ids: Collection[str] | None = None
    ) -> dict[Window, int]:
        """Return how many views by people are stored for each window that has any.

        The views of the last moments may be missing: what is to be exact is for `count`.

        Args:
            start: Windows that start here or later.
            end: Windows that start before; `None` for no end.
            post_ids: Windows of these posts; `None` for all.

        Raises:
            PyMongoError: MongoDB is not up to it.
        """
        # A placeholder, which an exit left whose view has not come, is no view.
        of_span: dict[str, Any] = {"timestamp": self._span(start, end), "incomplete": {"$ne": True}, **BY_PEOPLE}
        if post_ids is not None:
            of_span["postId"] = {"$in": list(post_ids)}
        minutes = LENGTH // timedelta(minutes=1)
        window_start = {"$dateTrunc": {"date": "$timestamp", "unit": "minute", "binSize": minutes}}
        cursor = await self._durable_views.aggregate(
            [
                {"$match": of_span},
                {"$group": {"_id": {"postId": "$postId", "start": window_start}, "views": {"$sum": 1}}},
            ],
            allowDiskUse=True,
        )
        stored = {Window(row["_id"]["postId"], row["_id"]["start"]): row["views"] async for row in cursor}
        # PostgreSQL's texts have no NUL, so no post has an id with one.
        return {window: views for window, views in stored.items() if "\0" not in window.post_id}

    def _span(self, start: datetime, end: datetime | None) -> dict[str, datetime]:
        """Return the condition on an event time of a view that counts."""
        first = start if self._since is None else max(start, self._since)
        return {"$gte": first} if end is None else {"$gte": first, "$lt": end}
