"""A platform's table of posts for one test, as that platform has it, and the view counts that go there."""

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from typing import Any, LiteralString

import psycopg
from psycopg import sql

from enrich.view_windows import Window
from sinks.postgres.platform_posts import PlatformTable
from sinks.postgres.view_counts import ViewCounts
from sinks.postgres.view_windows import WindowCount
from tests.integration.pipeline import Pipeline

NOON = datetime(2026, 1, 31, 12, tzinfo=UTC)
POSTS = ("first", "last", "middle")
"""In the order of their ids; `last` is the one that is refused, between two others."""


class Theirs:
    """A platform's table of posts, made for a test, and the view counts that go there."""

    def __init__(self, pipeline: Pipeline, owner: psycopg.AsyncConnection[tuple[Any, ...]]) -> None:
        self._pool = pipeline.pool()
        self.pipeline = pipeline
        self.owner = owner
        self.counts = self.worker()
        self.environment = pipeline.environment | {
            "INKSTREAM_POSTS_TABLE": "theirs",
            "INKSTREAM_POSTS_ID_COLUMN": "id",
            "INKSTREAM_VIEW_COUNT_COLUMN": "views",
        }

    def worker(self, update_every: timedelta = timedelta(0)) -> ViewCounts:
        """Return the view counts as another worker has them."""
        return ViewCounts(self._pool, PlatformTable("theirs", "id", "views"), update_every)

    async def rows(self, statement: LiteralString) -> list[tuple[Any, ...]]:
        """Run a query as the owner of the table."""
        return await (await self.owner.execute(self.pipeline.with_schema(statement))).fetchall()

    async def execute(self, *statements: LiteralString) -> None:
        """Run statements as the owner of the table."""
        for statement in statements:
            await self.owner.execute(self.pipeline.with_schema(statement))

    async def create(self, id_type: str = "text", views_type: str = "integer", ids: Sequence[object] = POSTS) -> None:
        """Make the table with a post of each id."""
        types = {"id": sql.SQL(id_type), "views": sql.SQL(views_type)}
        await self.owner.execute(
            sql.SQL("CREATE TABLE theirs (id {id} PRIMARY KEY, views {views} NOT NULL DEFAULT 0)").format(**types)
        )
        await self.execute("GRANT SELECT, UPDATE (views) ON theirs TO inkstream")
        for one in ids:
            await self.owner.execute("INSERT INTO theirs (id) VALUES (%s)", [one])

    async def view(self, views: int, *post_ids: str) -> None:
        """Bring in a count of one window for each of the posts."""
        await self.counts.apply([WindowCount(Window(post_id, NOON), views, NOON) for post_id in post_ids])

    async def views(self) -> dict[Any, int]:
        """Return the platform's counts."""
        return {row[0]: row[1] for row in await (await self.owner.execute("SELECT id, views FROM theirs")).fetchall()}

    async def refused(self) -> dict[str, int]:
        """Look after the counts; return why posts are set aside, and how many."""
        return {refused.code: refused.posts for refused in (await self.counts.maintain()).set_aside}

    async def let_wait_end(self) -> None:
        """Have every post tried at once that is set aside."""
        await self.execute("UPDATE inkstream.counted_posts SET retry_at = now() WHERE retry_at IS NOT NULL")

    async def close(self) -> None:
        await self._pool.close()
