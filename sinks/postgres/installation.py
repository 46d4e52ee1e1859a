"""Moves the data of an earlier release to names with the namespace.

Earlier releases had the namespace in Kafka and Redis alone: PostgreSQL's schema was always `inkstream`, and collections
had their declared names. An installation without a namespace keeps these names.

After a crash: the collections move one by one, and the schema last, in a transaction. As long as it has its old name,
the move is not finished, and can be repeated.
"""

from psycopg import sql
from pymongo.errors import OperationFailure

from sinks.changes import Change, Risk
from sinks.collections import COLLECTIONS
from sinks.mongo.database import NamespacedDatabase
from sinks.postgres.pool import OUR_SCHEMA, Connection, Tables, connection, fetch, find_tables

_MOVED = frozenset({Risk.MOVE})
_ALREADY_MOVED = 26  # NamespaceNotFound: somebody else was faster


async def move(database: NamespacedDatabase, postgres_url: str, *, check: bool) -> list[Change]:
    """Move what an earlier release left under names without the namespace, and return it; with `check`, only look.

    Nothing is moved where something is in the way; then a change of the result is `blocked` and says what to do.

    Args:
        database: MongoDB's database, with the namespace.
        postgres_url: PostgreSQL's database.
        check: Change nothing.

    Raises:
        psycopg.Error: PostgreSQL is not up to it.
        PyMongoError: MongoDB is not up to it. What was moved by then stays moved.
    """
    if not database.namespace:
        return []
    async with connection(postgres_url, database.namespace) as using:
        if not check:
            await fetch(using, "lock_migrations")
        ours, old = await find_tables(using), await find_tables(using, OUR_SCHEMA)
        has_old_schema = not ours.has_tables and old.has_tables and old.owner is None
        # Tables of ours that belong to nobody were moved by hand, and their collections may be left.
        if not has_old_schema and not (ours.has_tables and ours.owner is None):
            return []
        names = set(await database.server_names.list_collection_names())
        collections = [name for name in COLLECTIONS if name in names]
        changes = [_of_collection(name, database.name_of(name), names) for name in collections]
        if has_old_schema:
            changes.append(await _of_schema(using, ours))
        if check or any(change.action == "blocked" for change in changes):
            return changes
        for name in collections:
            await _rename(database, name)
        if has_old_schema:
            identifiers = {"ours": sql.Identifier(OUR_SCHEMA), "name": sql.Identifier(ours.schema)}
            await fetch(using, "rename_schema", identifiers)
    return [change.as_done() for change in changes]


def _of_collection(name: str, new_name: str, names: set[str]) -> Change:
    what = f"collection {name}"
    if new_name in names:
        detail = f"can't be renamed to {new_name}, which exists too; keep one of them, and drop or rename the other"
        return Change("blocked", what, detail)
    return Change("change", what, f"renamed to {new_name}", risks=_MOVED)


async def _of_schema(using: Connection, ours: Tables) -> Change:
    what, rename = f"schema {OUR_SCHEMA}", f"ALTER SCHEMA {OUR_SCHEMA} RENAME TO {ours.schema}"
    (row,) = await fetch(using, "may_rename_schema", {"ours_name": sql.Literal(OUR_SCHEMA)})
    if ours.exists:
        detail = f"can't be renamed to {ours.schema}, which exists; as its owner: DROP SCHEMA {ours.schema}; {rename}"
        return Change("blocked", what, detail)
    if not row["may_rename"]:
        return Change("blocked", what, f"no right to rename it; as its owner: {rename}")
    return Change("change", what, f"renamed to {ours.schema}", risks=_MOVED)


async def _rename(database: NamespacedDatabase, name: str) -> None:
    try:
        await database.server_names[name].rename(database.name_of(name))
    except OperationFailure as error:
        if error.code != _ALREADY_MOVED:
            raise
