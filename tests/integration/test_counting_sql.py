"""The rule of counting in PostgreSQL's own words: whatever counts come, in whatever order, the totals are the same."""

import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Sequence
from datetime import UTC, datetime
from typing import Any, NamedTuple

import psycopg
import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from psycopg import sql

from agents.view_counts.reconciliation import differences
from dev.stack import Platform
from enrich.view_windows import LENGTH, Window
from sinks.postgres.platform_posts import PlatformPosts, PlatformTable
from sinks.postgres.pool import Connection, Pool, is_transient
from sinks.postgres.view_counts import AT_ONCE, ViewCounts
from sinks.postgres.view_windows import Applied, WindowCount
from tests.integration.pipeline import Pipeline

NOON = datetime(2026, 1, 31, 12, tzinfo=UTC)
POSTS = ["post-0", "post-1", "post-2", "post-3"]
BASELINE = 100
TABLE = PlatformTable("posts", "id", "viewCount")


class Count(NamedTuple):
    """Says that the window of this number of the post of this number has so many views."""

    post: int
    window: int
    views: int


class Apply(NamedTuple):
    """Two workers bring in counts at the same time; the transaction of each may fail at its end."""

    counts: Sequence[Count]
    others: Sequence[Count]
    fails: bool


class Appear(NamedTuple):
    """The platform gets the post, or gets it back; `views` is the count that it comes with."""

    post: int
    views: int | None = BASELINE


class Vanish(NamedTuple):
    """The platform deletes the post."""

    post: int


class Edit(NamedTuple):
    """The platform sets the post's count."""

    post: int
    views: int | None


class Repair(NamedTuple):
    """Our sums are corrected, where nothing is wrong with them."""


class Fold(NamedTuple):
    """The windows before this one are rolled up."""

    window: int


class Settle(NamedTuple):
    """Posts that have appeared get what waits for them."""


counts = st.lists(st.builds(Count, st.integers(0, 3), st.integers(0, 4), st.integers(0, 9)), max_size=5)
platform_views = st.none() | st.just(BASELINE) | st.integers(0, 300)
steps = st.lists(
    st.builds(Apply, counts, st.just([]) | counts, st.just(False) | st.booleans())
    | st.builds(Appear, st.integers(0, 3), platform_views)
    | st.builds(Vanish, st.integers(0, 3))
    | st.builds(Edit, st.integers(0, 3), platform_views)
    | st.builds(Repair)
    | st.builds(Fold, st.integers(0, 4))
    | st.builds(Settle),
    max_size=15,
)


def window_of(count: Count) -> Window:
    return Window(POSTS[count.post], NOON + count.window * LENGTH)


def brought(given_counts: Sequence[Count]) -> list[WindowCount]:
    return [WindowCount(window_of(count), count.views, NOON) for count in given_counts]


class Model:
    """What the tables should say: of each window, the highest count that came before it was rolled up.

    The platform's count is what the platform made it last, and the views that came to it since.
    """

    def __init__(self) -> None:
        self.platform: dict[str, int] = {}
        self.given: Counter[str] = Counter()
        self.baselines: dict[str, int] = {}
        self.views: dict[Window, int] = {}
        self.kept: set[Window] = set()
        self.folded_until: dict[str, datetime] = {}

    def apply(self, given_counts: Sequence[Count]) -> Applied:
        """Bring in counts; return what should be said of it, `as_of` apart."""
        before = dict(self.views)
        too_late = set()
        for count in given_counts:
            window = window_of(count)
            if window.start < self.folded_until.get(window.post_id, NOON):
                too_late.add(window)
            elif count.views > self.views.get(window, 0):
                self.views[window] = count.views
                self.kept.add(window)
        risen = {window: views for window, views in self.views.items() if views != before.get(window, 0)}
        return Applied(
            sorted(WindowCount(window, views, NOON) for window, views in risen.items()),
            sum(self.views.values()) - sum(before.values()),
            sorted(too_late),
        )

    def roll_up(self, before: datetime) -> None:
        for window in [window for window in self.kept if window.start < before]:
            self.kept.remove(window)
            self.folded_until[window.post_id] = max(before, self.folded_until.get(window.post_id, before))

    def give(self, post_id: str) -> None:
        """Give the platform the views that it misses."""
        missing = self.of_post(post_id) - self.given[post_id]
        if missing and post_id in self.platform:
            self.baselines.setdefault(post_id, self.platform[post_id])
            self.platform[post_id] += missing
            self.given[post_id] += missing

    def of_post(self, post_id: str) -> int:
        return sum(views for window, views in self.views.items() if window.post_id == post_id)


def counting_with(pool: Pool, posts: PlatformPosts) -> ViewCounts:
    """Return view counts that write the platform's posts in another way."""
    counts = ViewCounts(pool, posts.table)
    counts._posts = posts
    return counts


class FailsAtTheEnd(PlatformPosts):
    """Loses its connection when all is done but the commit."""

    async def move(self, using: Connection, post_ids: Sequence[str], *, at_once: bool = False) -> None:
        await super().move(using, post_ids, at_once=at_once)
        raise psycopg.OperationalError("the connection is lost")


class Tables:
    """Our tables and the platform's, and two workers that count into them."""

    def __init__(self, pipeline: Pipeline, owner: psycopg.AsyncConnection[tuple[Any, ...]]) -> None:
        self.pools = [pipeline.pool(), pipeline.pool()]
        self.one, self.other = (ViewCounts(pool, TABLE) for pool in self.pools)
        self.failing = counting_with(self.pools[0], FailsAtTheEnd(TABLE, AT_ONCE))
        self.owner = owner
        self.pipeline = pipeline

    async def clear(self) -> None:
        await self.owner.execute('ALTER TABLE posts ALTER COLUMN "viewCount" DROP NOT NULL')
        for table in ("inkstream.view_windows", "inkstream.counted_posts", "posts"):
            await self.owner.execute(self.pipeline.with_schema(f"DELETE FROM {table}"))

    async def add(self, post_id: str, views: int | None = BASELINE) -> None:
        await self.owner.execute(
            """
            INSERT INTO posts (id, slug, title, "authorId", "viewCount")
            VALUES (%(id)s, %(id)s, '', 'author', %(views)s)
            ON CONFLICT DO NOTHING
            """,
            {"id": post_id, "views": views},
        )

    async def rows(self, statement: str) -> list[tuple[Any, ...]]:
        return await (await self.owner.execute(self.pipeline.with_schema(statement))).fetchall()


@pytest.fixture
async def tables(platform: Platform) -> AsyncIterator[Tables]:
    pipeline = Pipeline(platform)
    pipeline.own_tables()
    await pipeline.migrate()
    pipeline.add_posts([])  # makes their author
    async with await psycopg.AsyncConnection.connect(pipeline.tables_url, autocommit=True) as owner:
        its_own = Tables(pipeline, owner)
        yield its_own
        for pool in its_own.pools:
            await pool.close()
    await pipeline.forget()


async def carry_out(step: object, tables: Tables, model: Model) -> None:
    match step:
        case Apply(given_counts, [], False):
            applied = await tables.one.apply(brought(given_counts))
            assert Applied(sorted(applied.risen), applied.views, sorted(set(applied.too_late))) == model.apply(
                given_counts
            )
            for count in given_counts:
                model.give(POSTS[count.post])
        case Apply(given_counts, others, fails):
            worker = tables.failing if fails else tables.one
            outcomes = await asyncio.gather(
                worker.apply(brought(given_counts)), tables.other.apply(brought(others)), return_exceptions=True
            )
            for outcome, its_counts in zip(outcomes, (given_counts, others), strict=True):
                if isinstance(outcome, Applied):
                    model.apply(its_counts)
                    for count in its_counts:
                        model.give(POSTS[count.post])
                else:
                    assert str(outcome) == "the connection is lost"
        case Appear(post, views):
            await tables.add(POSTS[post], views)
            model.platform.setdefault(POSTS[post], views or 0)
        case Vanish(post):
            await tables.owner.execute("DELETE FROM posts WHERE id = %s", [POSTS[post]])
            model.platform.pop(POSTS[post], None)
        case Edit(post, views):
            await tables.owner.execute('UPDATE posts SET "viewCount" = %s WHERE id = %s', [views, POSTS[post]])
            if POSTS[post] in model.platform:
                model.platform[POSTS[post]] = views or 0
        case Repair():
            await tables.one.repair(POSTS, [], nothing)
            for post_id in POSTS:
                model.give(post_id)
        case Fold(window):
            before = NOON + window * LENGTH
            await tables.one.roll_up(before)
            model.roll_up(before)
        case Settle():
            await tables.one.maintain()
            for post_id in POSTS:
                model.give(post_id)


async def nothing(_: object) -> dict[Window, int]:
    return {}


@settings(max_examples=150, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(steps)
@example([Apply([Count(0, 0, 5)], [], False), Fold(1), Apply([Count(0, 0, 7), Count(0, 1, 3)], [], False), Appear(0)])
@example([Appear(0), Apply([Count(0, 0, 5), Count(0, 0, 3)], [Count(0, 0, 4)], True)])
@example([Appear(0), Apply([Count(0, 0, 1)], [], False), Vanish(0), Appear(0, 100), Apply([Count(0, 0, 2)], [], False)])
@example([Appear(0), Apply([Count(0, 0, 1)], [], False), Vanish(0), Apply([Count(0, 0, 5)], [], False), Appear(0, 7)])
@example([Appear(0), Apply([Count(0, 0, 1)], [], False), Edit(0, 0), Repair(), Apply([Count(0, 0, 5)], [], False)])
async def test_a_posts_views_are_the_sum_of_the_highest_counts_of_its_windows(
    tables: Tables, some_steps: Sequence[object]
) -> None:
    await tables.clear()
    model = Model()
    for step in some_steps:
        await carry_out(step, tables, model)
    missing = (await tables.one.maintain()).missing

    for post_id in POSTS:
        model.give(post_id)

    there: dict[str, int] = dict(await tables.rows('SELECT id, coalesce("viewCount", 0) FROM posts'))
    assert there == model.platform
    assert missing == sum(model.of_post(post_id) != model.given[post_id] for post_id in POSTS)
    windows = await tables.rows("SELECT post_id, window_start, views FROM inkstream.view_windows")
    assert sorted(windows) == sorted((*window, model.views[window]) for window in model.kept)
    counted = await tables.rows("SELECT post_id, views, folded, applied, baseline FROM inkstream.counted_posts")
    for post_id, views, folded, applied, baseline in counted:
        kept = sum(model.views[window] for window in model.kept if window.post_id == post_id)
        assert (views, folded) == (model.of_post(post_id), model.of_post(post_id) - kept)
        assert applied == (views if post_id in there else model.given[post_id])
        assert baseline == model.baselines.get(post_id)
    known = [post async for page in tables.one.posts() for post in page]
    assert [difference for post in known for difference in differences(post)] == []
    for post in known:
        if post.view_count is not None and post.baseline is not None:
            assert post.others == model.platform[post.post_id] - model.given[post.post_id] - post.baseline
    # Whatever the platform did, it can be undone, and only that.
    await tables.one.repair(POSTS, [], nothing, overrule=True)
    for post_id, views in await tables.rows('SELECT id, coalesce("viewCount", 0) FROM posts'):
        was = model.baselines.get(post_id, model.platform[post_id])
        assert views == was + model.given[post_id]


@pytest.mark.parametrize("known", [True, False])
async def test_workers_that_apply_the_same_posts_in_opposite_order_never_wait_for_each_other(
    tables: Tables, known: bool
) -> None:
    for round_number in range(30):
        post_ids = [f"post-{number}" if known else f"post-{round_number}-{number}" for number in range(40)]
        for post_id in post_ids[::2]:
            await tables.add(post_id)
        given_counts = [WindowCount(Window(post_id, NOON), round_number + 1, NOON) for post_id in post_ids]
        # PostgreSQL breaks a deadlock with an error, which would come out here.
        await asyncio.gather(
            tables.one.apply(given_counts),
            tables.other.apply(given_counts[::-1]),
            tables.one.maintain(),
            tables.other.roll_up(NOON if round_number % 2 else NOON - LENGTH),
            tables.other.apply(sorted(given_counts, key=lambda count: hash(count.window.post_id))),
        )
    await tables.one.maintain()
    behind = """
        SELECT * FROM inkstream.counted_posts JOIN posts ON id = post_id
        WHERE views = 0 OR views <> applied OR "viewCount" <> baseline + applied
    """
    assert await tables.rows(behind) == []


async def test_a_count_waits_for_nobody_else_who_reads_the_post(tables: Tables) -> None:
    await tables.add("post-0")
    async with (
        await psycopg.AsyncConnection.connect(tables.pipeline.tables_url) as platform,
        asyncio.timeout(5),
    ):
        await platform.execute("SELECT * FROM posts FOR KEY SHARE")  # as a comment does that is being written
        await tables.one.apply(brought([Count(0, 0, 3)]))


async def test_a_worker_that_is_frozen_in_its_transaction_holds_up_others_for_a_bounded_time(tables: Tables) -> None:
    await tables.add("post-0")
    frozen, thawed = asyncio.Event(), asyncio.Event()

    class Freezes(PlatformPosts):
        """Falls silent with all its locks, until it is thawed."""

        async def move(self, using: Connection, post_ids: Sequence[str], *, at_once: bool = False) -> None:
            await super().move(using, post_ids, at_once=at_once)
            frozen.set()
            await thawed.wait()

    worker = counting_with(tables.pools[0], Freezes(TABLE, AT_ONCE))
    applying = asyncio.create_task(worker.apply(brought([Count(0, 0, 2)])))
    await frozen.wait()
    async with asyncio.timeout(30):
        await tables.other.apply(brought([Count(0, 0, 3)]))
    thawed.set()
    with pytest.raises(psycopg.Error) as error:
        await applying
    assert is_transient(error.value), "so it is tried again"
    assert await tables.rows('SELECT "viewCount" FROM posts') == [(BASELINE + 3,)]


@pytest.mark.parametrize(
    ("schema", "table", "id_column", "view_count_column"),
    [
        ("public", "Post", "postId", "views"),
        ("Blog", "posts", "id", "viewCount"),
        ('the "blog"', "posts; --", "an id", 'how "often"'),
        ("blog", "select", "from", "group"),
    ],
)
async def test_the_platforms_names_are_settings(
    tables: Tables, schema: str, table: str, id_column: str, view_count_column: str
) -> None:
    names = {
        "schema": sql.Identifier(schema),
        "table": sql.Identifier(schema, table),
        "id": sql.Identifier(id_column),
        "views": sql.Identifier(view_count_column),
    }
    for statement in (
        "CREATE SCHEMA IF NOT EXISTS {schema}",
        "CREATE TABLE {table} ({id} text PRIMARY KEY, {views} integer)",
        "INSERT INTO {table} VALUES ('post-0', NULL), ('post-1', 7)",
        "GRANT USAGE ON SCHEMA {schema} TO inkstream",
        "GRANT SELECT, UPDATE ({views}) ON {table} TO inkstream",
    ):
        await tables.owner.execute(sql.SQL(statement).format(**names))
    name = table if schema == "public" else f"{schema}.{table}"
    view_counts = ViewCounts(tables.pools[0], PlatformTable(name, id_column, view_count_column))
    await view_counts.apply(brought([Count(0, 0, 3), Count(1, 0, 2), Count(2, 0, 1)]))
    assert (await view_counts.maintain()).missing == 1
    found = await tables.owner.execute(sql.SQL("SELECT {id}, {views} FROM {table} ORDER BY 1").format(**names))
    assert await found.fetchall() == [("post-0", 3), ("post-1", 9)]


async def test_the_workers_role_may_write_the_one_column_and_nothing_else(tables: Tables) -> None:
    await tables.add("post-0")
    url = tables.pipeline.environment["INKSTREAM_POSTGRES_URL"]
    async with await psycopg.AsyncConnection.connect(url, autocommit=True) as worker:
        await worker.execute('UPDATE posts SET "viewCount" = 1')
        for statement in (
            "UPDATE posts SET title = 'ours'",
            'UPDATE posts SET "likeCount" = 1',
            "UPDATE posts SET id = 'ours', \"viewCount\" = 1",
            "DELETE FROM posts",
            "INSERT INTO posts (id, slug, title, \"authorId\") VALUES ('1', '', '', 'author')",
            "TRUNCATE posts CASCADE",
            "ALTER TABLE posts ADD COLUMN ours text",
            "UPDATE users SET role = 'ADMIN'",
            'SELECT "tokenHash" FROM sessions',
        ):
            with pytest.raises(psycopg.errors.InsufficientPrivilege):
                await worker.execute(statement.encode())
