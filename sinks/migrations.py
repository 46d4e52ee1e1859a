"""Brings our schema in PostgreSQL up to date: plain SQL files, each applied once, in the order of their names.

In come the files of `migrations/`; out goes what was applied, or would be. All of it happens in one transaction under a
lock, so a failure leaves the schema as it was, and two that run at once do it once.
"""

import hashlib
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from sinks.changes import Change
from sinks.postgres import Connection, connection, fetch


class Migration(NamedTuple):
    """One file: its name, its SQL, and the SHA-256 of that."""

    name: str
    sql: str
    checksum: str


def read(directory: Path) -> list[Migration]:
    """Return the migrations of a directory, in the order in which they are applied."""
    migrations = []
    for path in sorted(directory.glob("*.sql")):
        content = path.read_bytes()
        migrations.append(Migration(path.name, content.decode(), hashlib.sha256(content).hexdigest()))
    return migrations


async def migrate(url: str, migrations: Sequence[Migration], *, check: bool) -> list[Change]:
    """Apply the migrations that are missing, and return them; with `check`, change nothing.

    A migration that was applied and has another text since is not applied again, only returned as different.

    Raises:
        psycopg.Error: The server does not answer, lets us not do it, or a migration is wrong. Nothing was changed.
    """
    changes = []
    async with connection(url) as using:
        if not check:
            await fetch(using, "lock_migrations")
        applied = await _applied(using)
        for name, sql, checksum in migrations:
            if name not in applied:
                if not check:
                    await using.execute(sql)
                    await fetch(using, "record_migration", name=name, checksum=checksum)
                changes.append(Change("create", f"migration {name}", done=not check))
            elif applied[name] != checksum:
                changed = "changed after it was applied; restore the file, and make the change in a new one"
                changes.append(Change("change", f"migration {name}", changed))
    known = {migration.name for migration in migrations}
    changes += [
        Change("report", f"migration {name}", "applied by another release, left as it is")
        for name in applied
        if name not in known
    ]
    return changes


async def _applied(using: Connection) -> dict[str, str]:
    """Return the checksum of each migration that was applied."""
    (row,) = await fetch(using, "migrations_exist")
    return {row["name"]: row["checksum"] for row in await fetch(using, "applied_migrations")} if row["exist"] else {}
