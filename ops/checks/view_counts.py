"""Checks whether views can be counted in the platform's table of posts.

Input: PostgreSQL's URL, the namespace, and the platform's table. Output: findings.
"""

from collections.abc import Iterator, Mapping, Sequence
from difflib import get_close_matches

from ops.checks.finding import Finding, State, count
from sinks.postgres import pool
from sinks.postgres.platform_posts import NOT_UPDATED, PlatformTable, SetAside, set_aside, takes_ids_of
from sinks.postgres.pool import PostsTable
from sinks.postgres.post_locks import LOCKED, Blocker, blockers, named

_VIEW_COUNTS = "view counts"
_MOST_VIEWS: Mapping[str, int] = {"integer": 2**31 - 1, "smallint": 2**15 - 1}
_REFUSALS: Mapping[str, str] = {
    "22003": "the count exceeds its column's type: ALTER TABLE {table} ALTER COLUMN {column} TYPE bigint "
    "(in Prisma: BigInt)",
    "23514": "a check constraint of {table} refuses the new count; change the constraint or the row",
    "42501": "a policy or a trigger refuses the update; see the policies of {table} with \\d {table} in psql",
    LOCKED: "another transaction locks the row, or what a trigger of {table} writes; end it if it is stuck",
    "P0001": "a trigger of {table} raises an exception; make it accept updates of {column} alone",
    NOT_UPDATED: "row-level security, a trigger that returns NULL or a rule prevents the update; "
    "see the policies, triggers and rules of {table} with \\d {table} in psql",
}
_REFUSED_OTHERWISE = "update {column} of that row of {table} manually to see PostgreSQL's message"
_COLUMNS_SHOWN = 3


async def check_posts(url: str, namespace: str, posts: PlatformTable) -> list[Finding]:
    """Return whether views can be counted in the platform's table, and which counts can't be updated."""
    async with pool.connection(url, namespace) as using, pool.connection(url, namespace) as waiting:
        table = await pool.describe_posts(using, *posts)
        findings = [*_obstacles(table, posts), *_excess_permissions(table)]
        if table.is_prepared and takes_ids_of(table):
            names = posts.names(table.id_type)
            if holders := await blockers(waiting, using, names):
                return [*findings, _locked(table, holders)]
            await pool.fetch(using, "limit_lock_wait", milliseconds=1_000)
            (row,) = await pool.fetch(using, "highest_view_count", names)
            findings += _room(table, row["highest"])
            if table.may_read_counts:
                (row,) = await pool.fetch(using, "count_missing_posts", names)
                findings += _missing_posts(table, row["missing"])
                for refused in await set_aside(using, names):
                    is_locked = refused.code == LOCKED
                    holders = await blockers(waiting, using, names, refused.example) if is_locked else []
                    findings.append(_refused(table, refused, holders))
    return findings or [Finding(_VIEW_COUNTS, State.WELL, f"in {table.table}, column {table.view_count_column}")]


def _obstacles(table: PostsTable, named: PlatformTable) -> Iterator[Finding]:
    """Yield what prevents counting, with the SQL statement that fixes it if the owner can fix it."""
    if table.schema is None:
        advice = "is this the platform's database? Set INKSTREAM_POSTS_TABLE to its table of posts, as `schema.table`"
        yield Finding(
            _VIEW_COUNTS, State.PROBLEM, f"table {table.table} does not exist, so no views are counted", advice
        )
        return
    columns = (
        (named.id_column, table.id_column, "INKSTREAM_POSTS_ID_COLUMN"),
        (named.view_count_column, table.view_count_column, "INKSTREAM_VIEW_COUNT_COLUMN"),
    )
    missing = [column for column in columns if column[0] not in table.columns]
    for name, quoted, setting in missing:
        nearest = get_close_matches(name.lower(), [column.lower() for column in table.columns], n=1)
        meant = [column for column in table.columns if column.lower() in nearest]
        advice = f"set {setting}" + (f"; did you mean {meant[0]}?" if meant else "")
        yield Finding(_VIEW_COUNTS, State.PROBLEM, f"{table.table} has no column {quoted}", advice)
    if table.id_type is not None and not takes_ids_of(table):
        what = f"{table.table}.{table.id_column} has type {table.id_type}, which can't hold post ids"
        advice = "set INKSTREAM_POSTS_ID_COLUMN to a column of type text, varchar, uuid, integer or bigint"
        yield Finding(_VIEW_COUNTS, State.PROBLEM, what, advice)
    if not table.may_use_schema:
        advice = f"as its owner: GRANT USAGE ON SCHEMA {table.schema} TO {table.role}"
        yield Finding(_VIEW_COUNTS, State.PROBLEM, f"no permission to use schema {table.schema}", advice)
    if not missing and not (table.may_read and table.may_count):
        lacking = " or ".join(
            [
                *([] if table.may_read else [f"read {table.id_column} and {table.view_count_column}"]),
                *([] if table.may_count else [f"write {table.view_count_column}"]),
            ]
        )
        what = f"no permission to {lacking} of {table.table}"
        advice = (
            f"as its owner: GRANT SELECT ({table.id_column}, {table.view_count_column}), "
            f"UPDATE ({table.view_count_column}) ON {table.table} TO {table.role}"
        )
        yield Finding(_VIEW_COUNTS, State.PROBLEM, what, advice)
    if table.row_security:
        for command in ("SELECT", "UPDATE"):
            if command not in table.policies and "ALL" not in table.policies:
                what = (
                    f"row-level security is enabled for {table.table}, and no policy allows {table.role} to {command}"
                )
                advice = f"as its owner: CREATE POLICY inkstream_{command.lower()} ON {table.table} FOR {command} " + (
                    f"TO {table.role} USING (true)"
                )
                yield Finding(_VIEW_COUNTS, State.PROBLEM, what, advice)


def _room(table: PostsTable, highest: int | None) -> Iterator[Finding]:
    """Yield a note if a count is near the maximum of its type."""
    most = _MOST_VIEWS.get(table.view_count_type or "")
    if most is not None and highest is not None and highest > most // 2:
        what = f"{table.table}.{table.view_count_column} has type {table.view_count_type} and reaches {highest:,}"
        advice = f"the maximum is {most:,}: change the type to bigint (in Prisma: BigInt) before then"
        yield Finding(_VIEW_COUNTS, State.NOTE, what, advice)


def _locked(table: PostsTable, holders: Sequence[Blocker]) -> Finding:
    """Return a finding with the holders of a lock that all counts wait for."""
    what = f"the update of {table.view_count_column} waits for a lock on {table.table}, held by {named(holders)}"
    advice = (
        "views are counted when the lock is released; none are lost. See pg_stat_activity for what the holder does; "
        "pg_terminate_backend ends it if it is stuck"
    )
    return Finding(_VIEW_COUNTS, State.PROBLEM, what, advice)


def _refused(table: PostsTable, refused: SetAside, holders: Sequence[Blocker]) -> Finding:
    """Return a finding about posts whose count can't be updated, with a fix."""
    what = (
        f"PostgreSQL refuses to update {table.view_count_column} of {count(refused.posts, 'post')} with "
        f"{refused.code}, since {refused.since:%Y-%m-%dT%H:%M:%SZ}; for example {refused.example}"
        + (f", held by {named(holders)}" if holders else "")
    )
    advice = _REFUSALS.get(refused.code, _REFUSED_OTHERWISE).format(table=table.table, column=table.view_count_column)
    return Finding(_VIEW_COUNTS, State.PROBLEM, what, f"{advice}; the updates are retried automatically")


def _excess_permissions(table: PostsTable) -> Iterator[Finding]:
    """Yield a note if the role may write more columns of the platform's posts than the view count."""
    if not (table.has_view_count and table.also_writable):
        return
    shown = ", ".join(table.also_writable[:_COLUMNS_SHOWN])
    more = len(table.also_writable) - _COLUMNS_SHOWN
    what = f"role {table.role} may also write {shown}{f' and {more} more' if more > 0 else ''} of {table.table}"
    if table.is_owner:
        advice = f"use a role that does not own {table.table}: only {table.view_count_column} is written"
    else:
        # Revoking a privilege on the table revokes it on the columns as well.
        advice = (
            f"as its owner: REVOKE UPDATE ON {table.table} FROM {table.role}; "
            f"GRANT UPDATE ({table.view_count_column}) ON {table.table} TO {table.role}"
        )
    yield Finding(_VIEW_COUNTS, State.NOTE, what, advice)


def _missing_posts(table: PostsTable, missing: int) -> Iterator[Finding]:
    if missing:
        what = f"{count(missing, 'post')} with views not in {table.table}; the views wait for the post"
        advice = f"they are counted when the post appears. Does {table.id_column} hold the postId of events?"
        yield Finding(_VIEW_COUNTS, State.NOTE, what, advice)
