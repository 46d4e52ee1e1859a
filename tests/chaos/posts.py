"""Change the platform's own table of posts while Inkstream counts there.

Each function undoes its change before it returns, even if it is interrupted. The platform's own record of the changes
is kept in the scene's `Bookkeeping`.
"""

import asyncio
import re
import time
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Any, LiteralString

import httpx
from psycopg import AsyncConnection, sql
from psycopg.rows import DictRow, dict_row

from dev.blog import Blog
from tests.chaos.scene import Scene

_POSTS = [post.id for post in Blog().posts[:10]]
"""Of these one is chosen: each has several views a second, so what is done to it shows at once."""

_MOST_RESTORED = 3
_RESTORED: Mapping[str, Callable[[int], int]] = {
    "with its count": lambda count: count,
    "with no views": lambda _: 0,
    "with 100 views more": lambda count: count + 100,
}
"""How posts are restored, and with which count, of the count that they had."""

_REPORTED_WITHIN_SECONDS = 40.0
_LOOK_SECONDS = 0.2
_ONE_POST_LEFT_OUT = 0.5
"""The share of row-level security that leaves out one post, and not all."""
_HIGHEST = 2**31 - 1
_Statement = sql.SQL | sql.Composed
_SET_ASIDE = re.compile(r"^inkstream_posts_set_aside (?!0\.0$)", re.MULTILINE)
_LOGGED = b"view count of a post not updated"

_MIGRATION: Sequence[LiteralString] = (
    'ALTER TABLE posts ADD COLUMN "readingTime" integer NOT NULL DEFAULT 0',
    'ALTER TABLE posts ALTER COLUMN "viewCount" TYPE bigint',
    'CREATE INDEX "posts_viewCount_idx" ON posts ("viewCount")',
    'ALTER TABLE posts ADD COLUMN "canonicalUrl" text',
)
_UNDO_MIGRATION: Sequence[LiteralString] = (
    'ALTER TABLE posts DROP COLUMN IF EXISTS "readingTime", DROP COLUMN IF EXISTS "canonicalUrl"',
    'DROP INDEX IF EXISTS "posts_viewCount_idx"',
    'ALTER TABLE posts ALTER COLUMN "viewCount" TYPE integer',
)


async def migrate(scene: Scene) -> str:
    """Add columns, change the count's type, which rewrites the table, and build an index."""
    async with _owner(scene) as owner:
        try:
            for statement in _MIGRATION:
                await owner.execute(statement)
                await asyncio.sleep(scene.chance.uniform(0.3, 1))
        finally:
            for statement in _UNDO_MIGRATION:
                await owner.execute(statement)
    return "columns, an index and another type of the count, and back"


async def lock(scene: Scene) -> str:
    """Keep everybody else from the table for some seconds."""
    hold = scene.chance.uniform(3, 8)
    async with _owner(scene) as owner, owner.transaction():
        await owner.execute("LOCK TABLE posts IN ACCESS EXCLUSIVE MODE")
        await asyncio.sleep(hold)
    return f"for {hold:.1f} s"


async def vacuum(scene: Scene) -> str:
    """Rewrite the table, again and again."""
    times = scene.chance.randint(2, 4)
    async with _owner(scene) as owner:
        for _ in range(times):
            await owner.execute("VACUUM FULL posts")
            await asyncio.sleep(scene.chance.uniform(0.3, 1))
    return f"{times} times"


async def restore(scene: Scene) -> str:
    """Delete posts, and restore them: with the count that they had, or with another."""
    posts = scene.chance.sample(_POSTS, scene.chance.randint(1, _MOST_RESTORED))
    how = {post: scene.chance.choice(list(_RESTORED)) for post in posts}
    hold = scene.chance.uniform(2, 5)
    deleted: list[DictRow] = []
    async with _owner(scene) as owner:
        try:
            for post in posts:
                deleted += await _rows(owner, "DELETE FROM posts WHERE id = %s RETURNING *", post)
            await asyncio.sleep(hold)
        finally:
            for row in deleted:
                count = _RESTORED[how[row["id"]]](row["viewCount"])
                await _insert(owner, {**row, "viewCount": count})
                scene.bookkeeping.changed[row["id"]] += count - row["viewCount"]
    return f"after {hold:.1f} s: " + ", ".join(f"post {post} {counts}" for post, counts in how.items())


async def raise_in_trigger(scene: Scene) -> str:
    """Have a trigger raise for one post."""
    return await _refuse_by_trigger(scene, "RAISE EXCEPTION 'this post is archived';")


async def keep_in_trigger(scene: Scene) -> str:
    """Have a trigger leave one post as it is, without an error."""
    return await _refuse_by_trigger(scene, "RETURN NULL;")


async def hide_behind_policy(scene: Scene) -> str:
    """Switch row-level security on, with policies that leave out one post, or let none be updated."""
    post = await _chosen(scene)
    do = [
        sql.SQL("ALTER TABLE posts ENABLE ROW LEVEL SECURITY"),
        sql.SQL("CREATE POLICY chaos_read ON posts FOR SELECT USING (true)"),
    ]
    undo = [
        sql.SQL("ALTER TABLE posts DISABLE ROW LEVEL SECURITY"),
        sql.SQL("DROP POLICY IF EXISTS chaos_read ON posts"),
        sql.SQL("DROP POLICY IF EXISTS chaos_count ON posts"),
    ]
    if scene.chance.random() < _ONE_POST_LEFT_OUT:
        others = sql.SQL("CREATE POLICY chaos_count ON posts FOR UPDATE USING (id <> {})").format(post)
        return await _while_refused(scene, [*do, others], undo, post)
    return await _while_refused(scene, do, undo, None)


async def refuse_by_check(scene: Scene) -> str:
    """Add a constraint that no count of one post satisfies."""
    post = await _chosen(scene)
    do = sql.SQL('ALTER TABLE posts ADD CONSTRAINT chaos CHECK (id <> {} OR "viewCount" < 0) NOT VALID').format(post)
    return await _while_refused(scene, [do], [sql.SQL("ALTER TABLE posts DROP CONSTRAINT IF EXISTS chaos")], post)


async def fill_count(scene: Scene) -> str:
    """Set one post's count to the highest of its type, and later back."""
    post = await _chosen(scene)
    async with _owner(scene) as owner, owner.transaction():
        (before,) = await _rows(owner, 'SELECT "viewCount" FROM posts WHERE id = %s FOR UPDATE', post)
        await owner.execute('UPDATE posts SET "viewCount" = %s WHERE id = %s', (_HIGHEST, post))
    # As a difference: if anybody has changed it meanwhile, the oracle finds that.
    undo = sql.SQL('UPDATE posts SET "viewCount" = "viewCount" - {} WHERE id = {}').format(
        _HIGHEST - before["viewCount"], post
    )
    return await _while_refused(scene, [], [undo], post)


async def _refuse_by_trigger(scene: Scene, body: LiteralString) -> str:
    post = await _chosen(scene)
    do = (
        sql.SQL(
            f"CREATE FUNCTION chaos_refuse() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN {body} RETURN NEW; END $$"
        ),
        sql.SQL(
            "CREATE TRIGGER chaos BEFORE UPDATE ON posts FOR EACH ROW WHEN (OLD.id = {}) "
            "EXECUTE FUNCTION chaos_refuse()"
        ).format(post),
    )
    undo = (sql.SQL("DROP TRIGGER IF EXISTS chaos ON posts"), sql.SQL("DROP FUNCTION IF EXISTS chaos_refuse()"))
    return await _while_refused(scene, do, undo, post)


async def _chosen(scene: Scene) -> str:
    """Return a popular post; where possible one that is not still waiting since an earlier fault."""
    async with _owner(scene) as owner:
        refused = "SELECT post_id FROM inkstream.counted_posts WHERE refused_code IS NOT NULL"
        rows = await _rows(owner, scene.pipeline.with_schema(refused))
    waiting = {row["post_id"] for row in rows}
    return scene.chance.choice([post for post in _POSTS if post not in waiting] or _POSTS)


async def _while_refused(scene: Scene, do: Sequence[_Statement], undo: Sequence[_Statement], post: str | None) -> str:
    """Have updates of a post, or of all, refused until workers report it; then allow them again."""
    scene.bookkeeping.refusals += 1
    began = time.monotonic()
    logged_before = {log: log.stat().st_size for log in scene.directory.glob("*.log")}
    try:
        async with _owner(scene) as owner, owner.transaction():
            for statement in do:
                await owner.execute(statement)
        is_reported = await _is_reported(scene, logged_before, post)
    finally:
        async with _owner(scene) as owner, owner.transaction():
            for statement in undo:
                await owner.execute(statement)
    what = f"{f'post {post}' if post else 'all posts'}, for {time.monotonic() - began:.1f} s"
    if not is_reported:
        scene.bookkeeping.unreported.append(f"{what}: not in any worker's log, or not in any worker's metrics")
    return what


async def _is_reported(scene: Scene, logged_before: Mapping[Path, int], post: str | None) -> bool:
    """Return whether a worker names the post in its log, and some worker's metrics count it, as soon as both is so."""
    deadline = time.monotonic() + _REPORTED_WITHIN_SECONDS
    async with httpx.AsyncClient(timeout=2) as client:
        while time.monotonic() < deadline:
            if _is_logged(scene, logged_before, post) and await _is_measured(scene, client):
                return True
            await asyncio.sleep(_LOOK_SECONDS)
    return False


def _is_logged(scene: Scene, logged_before: Mapping[Path, int], post: str | None) -> bool:
    for log in scene.directory.glob("*.log"):
        with log.open("rb") as file:
            file.seek(logged_before.get(log, 0))
            if any(_LOGGED in line and (post or "").encode() in line for line in file):
                return True
    return False


async def _is_measured(scene: Scene, client: httpx.AsyncClient) -> bool:
    for worker in scene.workers.slots:
        with suppress(httpx.HTTPError):
            page = await client.get(f"http://127.0.0.1:{worker.environment['INKSTREAM_WEB_PORT']}/metrics")
            if _SET_ASIDE.search(page.text):
                return True
    return False


@asynccontextmanager
async def _owner(scene: Scene) -> AsyncIterator[AsyncConnection[DictRow]]:
    """Connect as the owner of the platform's tables, past the proxy."""
    async with await AsyncConnection.connect(
        scene.platform.owner_url, autocommit=True, row_factory=dict_row
    ) as connection:
        yield connection


async def _rows(
    owner: AsyncConnection[DictRow], statement: LiteralString | bytes, *parameters: object
) -> list[DictRow]:
    return await (await owner.execute(statement, parameters)).fetchall()


async def _insert(owner: AsyncConnection[DictRow], row: Mapping[str, Any]) -> None:
    columns, values = sql.SQL(", ").join(map(sql.Identifier, row)), sql.SQL(", ").join(sql.Placeholder() * len(row))
    await owner.execute(sql.SQL("INSERT INTO posts ({}) VALUES ({})").format(columns, values), list(row.values()))
