"""Applies the migrations of our schema in PostgreSQL: plain SQL files, each applied once, in the order of their names.

Input: the files of `migrations/`. Output: the migrations that were applied, or would be. All are applied in one
transaction under a lock, so a failure leaves the schema as it was, and of two that run at once, one applies them.
"""

import hashlib
import re
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from sinks.changes import Change
from sinks.postgres.pool import (
    OUR_SCHEMA,
    OWN_NAMESPACE,
    Connection,
    Tables,
    connection,
    fetch,
    find_tables,
    owner_of_schema,
)

_OUR_SCHEMA = re.compile(rf"\b{OUR_SCHEMA}\b")
_OWNER_MIGRATION = "0006_installation.sql"
"""Makes the table that says whose the schema is."""


class Migration(NamedTuple):
    """One file: its name, its SQL, and the SHA-256 of that.

    The SQL calls our schema `inkstream`, which stands for its name in the installation.
    """

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


async def migrate(url: str, migrations: Sequence[Migration], namespace: str = "", *, check: bool) -> list[Change]:
    """Apply the migrations that are missing, and return them; with `check`, change nothing.

    A migration that was applied and has another text since is not applied again, only returned as different. A schema
    that says of nobody that it is theirs becomes this installation's; to one that is another's nothing is done.

    Raises:
        psycopg.Error: The server does not answer, lets us not do it, or a migration is wrong. Nothing was changed.
    """
    changes = []
    async with connection(url, namespace) as using:
        if not check:
            await fetch(using, "lock_migrations")
        tables = await find_tables(using)
        owner = tables.owner
        if owner not in (None, namespace):
            return [Change("blocked", owner_of_schema(using.schema, owner), OWN_NAMESPACE)]
        applied = await _applied(using) if tables.has_tables else {}
        if any(migration.name not in applied for migration in migrations):
            (server,) = await fetch(using, "describe_server")
            if not server["has_schema"]:
                return [_without_right(tables, server["role"])]
        for name, sql, checksum in migrations:
            if name not in applied:
                if not check:
                    await using.execute(_OUR_SCHEMA.sub(using.schema, sql).encode())
                    await fetch(using, "record_migration", name=name, checksum=checksum)
                changes.append(Change("create", f"migration {name}", done=not check))
            elif applied[name] != checksum:
                changed = "changed after it was applied; restore the file, and make the change in a new one"
                changes.append(Change("change", f"migration {name}", changed))
        known = {migration.name for migration in migrations}
        if owner is None and _OWNER_MIGRATION in known | applied.keys():
            if not check:
                await fetch(using, "claim_schema", namespace=namespace)
            whose = f"namespace {namespace}" if namespace else "no namespace"
            changes.append(Change("create", f"owner of schema {using.schema}", whose, done=not check))
    changes += [
        Change("report", f"migration {name}", "applied by another release, left as it is")
        for name in applied
        if name not in known
    ]
    return changes


def _without_right(tables: Tables, role: str) -> Change:
    """Say which statements give us a schema in which we may create tables."""
    grant = f"GRANT USAGE, CREATE ON SCHEMA {tables.schema} TO {role};"
    if tables.exists:
        return Change("blocked", f"schema {tables.schema}", f"no right to create tables in it; as its owner: {grant}")
    detail = f"no right to create it; as the database's owner: CREATE SCHEMA {tables.schema}; {grant}"
    return Change("blocked", f"schema {tables.schema}", detail)


async def _applied(using: Connection) -> dict[str, str]:
    """Return the checksum of each migration that was applied."""
    return {row["name"]: row["checksum"] for row in await fetch(using, "applied_migrations")}
