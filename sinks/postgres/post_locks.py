"""Locks that other transactions hold on the platform's posts, and who holds them."""

import asyncio
from collections.abc import Mapping, Sequence
from contextlib import suppress
from datetime import datetime
from typing import NamedTuple

import psycopg
from psycopg import errors, sql

from sinks.postgres.pool import Connection, fetch

LOCKED = "55P03"
"""The SQLSTATE of a post whose row another transaction holds."""

LOCK_MILLISECONDS = 1_000
"""How long to wait for a lock on the platform's posts."""

_LOOK_SECONDS = 0.05


class Blocker(NamedTuple):
    """A session that others wait for.

    Attributes:
        pid: Its process ID in PostgreSQL; 0 for a prepared transaction.
        application: Its application name.
    """

    pid: int
    application: str

    def __str__(self) -> str:
        """Return both as text."""
        return f"pid {self.pid} ({self.application})"


class PostsLockedError(psycopg.OperationalError):
    """Another session holds a lock on the platform's table of posts, so that counts can't be written.

    Attributes:
        since: When this was noticed.
    """

    def __init__(self, table: str, since: datetime, blockers: Sequence[Blocker]) -> None:
        self.since = since
        super().__init__(f"the update of view counts waits for a lock on {table}, held by {named(blockers)}")


async def blockers(
    waiting: Connection, asking: Connection, names: Mapping[str, sql.Composable], post_id: str | None = None
) -> list[Blocker]:
    """Return the sessions that an update of the platform's posts waits for; empty if it need not wait.

    Args:
        waiting: A connection, which takes the lock that an update takes, for a second at most, and releases it.
        asking: Another connection, which looks up what the first one waits for.
        names: The platform's table, from `PlatformTable.names`.
        post_id: The post whose row lock to check; `None` to check locks on the table.

    Raises:
        psycopg.Error: PostgreSQL can't answer.
    """
    (row,) = await fetch(waiting, "backend_pid")

    async def take() -> None:
        async with waiting.transaction(force_rollback=True):
            await fetch(waiting, "limit_lock_wait", milliseconds=LOCK_MILLISECONDS)
            if post_id is None:
                await fetch(waiting, "wait_for_table_lock", names)
            else:
                await fetch(waiting, "wait_for_row_lock", names, post_id=post_id)

    taking = asyncio.create_task(take())
    found: list[Blocker] = []
    try:
        while not found and not taking.done():
            await asyncio.wait({taking}, timeout=_LOOK_SECONDS)
            found = [Blocker(**blocker) for blocker in await fetch(asking, "blocking_sessions", pid=row["pid"])]
    finally:
        with suppress(errors.LockNotAvailable):
            await taking
    return found


def named(blockers: Sequence[Blocker]) -> str:
    """Return the blocking sessions as text."""
    return ", ".join(map(str, blockers)) or "a transaction that has ended"
