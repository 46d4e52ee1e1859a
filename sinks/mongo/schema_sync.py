"""Syncs MongoDB's collections, indexes, retention and validators with the declarations in `sinks.collections`.

Safe to repeat, to interrupt, and to run in several workers at once. A change that would delete existing documents,
refuse writes that MongoDB accepts now, or drop an index waits until its risk is allowed (`sinks.changes`); all others
are made. An index that is not declared stays.

An index of ours that has other fields or options is dropped and rebuilt, if that is allowed. MongoDB allows no second
index of the same name, so it can't be built first: queries that need it are slow meanwhile, and expired documents
stay a little longer. No declared index is unique, so no invalid document can be stored meanwhile.
"""

import asyncio
from collections.abc import Collection as Several
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any, NamedTuple

import pymongo
from bson import ObjectId
from pymongo.asynchronous.collection import AsyncCollection
from pymongo.asynchronous.database import AsyncDatabase
from pymongo.errors import OperationFailure, PyMongoError

from sinks.changes import NO_RISKS, Change, Risk, Risks, is_allowed
from sinks.collections import COLLECTIONS, Collection, Retention
from sinks.mongo.database import NamespacedDatabase

_INDEX_BUILD_LIMIT_S = 3600.0
"""Building an index over months of page views takes longer than a client's usual time limit."""

_COUNT_LIMIT_S = 30.0
"""For each count of documents: in a plan, an unknown number is better than an endless wait."""

_ATTEMPTS = 20
_PAUSE_S = 0.1

_OVERTAKEN_CODES = frozenset(
    {
        27,  # IndexNotFound
        48,  # NamespaceExists
        68,  # IndexAlreadyExists
        85,  # IndexOptionsConflict
        86,  # IndexKeySpecsConflict
        112,  # WriteConflict
        117,  # ConflictingOperationInProgress
        276,  # IndexBuildAborted
        285,  # IndexBuildAlreadyInProgress
    }
)
"""MongoDB's errors if another worker syncs the same collection at the same moment."""


class _Step(NamedTuple):
    """Changes that are made together, and the database commands that make them."""

    changes: tuple[Change, ...]
    commands: tuple[dict[str, Any], ...] = ()


async def sync_schema(database: NamespacedDatabase, *, check: bool, allowed: Several[Risk] = NO_RISKS) -> list[Change]:
    """Sync the database with the declarations, and return the differences that it had.

    Takes as long as MongoDB needs to build the missing indexes, up to an hour for each collection.

    Args:
        database: The platform's database, with our namespace.
        check: Change nothing.
        allowed: The risks that may be taken. A change with another risk is only returned.

    Raises:
        PyMongoError: MongoDB refuses or does not answer, or permissions are missing. Changes made so far remain.
    """
    changes: list[Change] = []
    server = database.server_names
    declared = [replace(collection, name=database.name_of(name)) for name, collection in COLLECTIONS.items()]
    for collection in declared:
        with pymongo.timeout(_INDEX_BUILD_LIMIT_S):
            changes += await _sync_collection(server, collection, frozenset(allowed), check=check)
    known = {collection.name for collection in declared}
    for name in sorted(await server.list_collection_names()):
        if name not in known and not _is_of_others(name, database.namespace):
            changes.append(Change("report", f"collection {name}", "not declared, left as it is"))
    return changes


def _is_of_others(name: str, namespace: str) -> bool:
    """Whether a collection that we don't declare is MongoDB's, or of an installation with another namespace."""
    if namespace:
        return not name.startswith(namespace)
    return name.startswith("system.") or name.rpartition(".")[2] in COLLECTIONS


async def _sync_collection(
    database: AsyncDatabase[dict[str, Any]], collection: Collection, allowed: Risks, *, check: bool
) -> list[Change]:
    done: list[Change] = []
    for attempt in range(1, _ATTEMPTS + 1):
        steps = await _plan_collection(database, collection, allowed)
        if check:
            return [change for step in steps for change in step.changes]
        try:
            found: list[Change] = []
            for step in steps:
                if not step.commands or not is_allowed(step.changes, allowed):
                    found += step.changes
                    continue
                for command in step.commands:
                    await database.command(command)
                done += [change.as_done() for change in step.changes]
        except OperationFailure as error:
            if error.code not in _OVERTAKEN_CODES or attempt == _ATTEMPTS:
                raise
            await asyncio.sleep(_PAUSE_S)
        else:
            return done + found
    raise AssertionError("the last attempt returns or raises")


async def _plan_collection(
    database: AsyncDatabase[dict[str, Any]], collection: Collection, allowed: Risks
) -> list[_Step]:
    """Compare the collection with its declaration, and return the steps to sync it."""
    infos = [info async for info in await database.list_collections(filter={"name": collection.name})]
    if infos and (obstacle := _obstacle(infos[0])):
        return [_Step((Change("blocked", f"collection {collection.name}", obstacle),))]
    stored = database[collection.name]
    indexes = [index async for index in await stored.list_indexes()]
    if not infos:
        change = Change("create", f"collection {collection.name}", collection.purpose)
        create = {"create": collection.name, "validator": collection.validator, **_ENFORCED}
        return [_Step((change,), (create,)), *await _plan_indexes(stored, collection, indexes)]
    return [
        *await _plan_validator(stored, collection, infos[0].get("options", {}), allowed),
        *await _plan_indexes(stored, collection, indexes),
    ]


def _obstacle(info: Mapping[str, Any]) -> str | None:
    """Return why Inkstream can't use a collection that exists, and what to do; `None` if it can."""
    options = info.get("options", {})
    rename = "rename it or move its documents away, and run `inkstream bootstrap` again"
    if info.get("type") == "view":
        return f"is a view, and Inkstream has to write to it; {rename}"
    if info.get("type") == "timeseries":
        return f"is a time-series collection, in which no document can be updated by its _id; {rename}"
    if options.get("capped"):
        return f"is capped, so new documents overwrite old ones; {rename}"
    if "collation" in options:
        locale = options["collation"].get("locale")
        return f"has the collation {locale!r}, by which different ids may be equal; {rename}"
    return None


# Validators -----------------------------------------------------------------------------------------------

# Moderate: a document that does not match, because it is older or was changed by hand, may still be updated. Otherwise
# one such document would stop its queue or its error group.
_ENFORCED: Mapping[str, str] = {"validationLevel": "moderate", "validationAction": "error"}
_LOGGED: Mapping[str, str] = {"validationLevel": "moderate", "validationAction": "warn"}
_BY_DEFAULT: Mapping[str, str] = {"validationLevel": "strict", "validationAction": "error"}

_IN_USE = timedelta(days=7)
"""Documents that don't match and are younger than this may be followed by similar ones."""


async def _plan_validator(
    stored: AsyncCollection[dict[str, Any]], collection: Collection, options: Mapping[str, Any], allowed: Risks
) -> list[_Step]:
    """Return the steps to the declared validator, without refusing documents that something still writes.

    If accepted documents of the last week don't match, MongoDB accepts and logs such documents until refusals are
    allowed or there are none. A validator that others created stays until refusals are allowed.
    """
    # MongoDB leaves out what has its default value.
    found = {name: options.get(name, default) for name, default in _BY_DEFAULT.items()}
    found["validator"] = options.get("validator", {})
    wanted = {**_ENFORCED, "validator": collection.validator}
    if found == wanted:
        return []
    what = f"validator of {collection.name}"
    enforce = {"collMod": collection.name, **wanted}
    if found["validator"] and not _is_ours(found["validator"]):
        change = Change("change", what, "replaces a validator that others made", risks=frozenset({Risk.REFUSALS}))
        return [_Step((change,), (enforce,))]
    accepted = found["validator"] if found["validationAction"] == "error" else {}
    in_use = await _count(stored, _in_use(collection, accepted))
    if in_use == 0:
        return [_Step((Change("change", what, "not the declared fields and types"),), (enforce,))]
    detail = f"refuses new documents like {_documents(in_use)} of the last week"
    steps = [_Step((Change("change", what, detail, risks=frozenset({Risk.REFUSALS})),), (enforce,))]
    logged = {**_LOGGED, "validator": collection.validator}
    if found != logged and Risk.REFUSALS not in allowed:
        steps.insert(0, _Step((Change("change", what, "logs what does not match"),), ({**enforce, **logged},)))
    return steps


def _in_use(collection: Collection, accepted: Mapping[str, Any]) -> dict[str, Any]:
    """Return a filter for documents that are accepted now, don't match, and, by their id, may be of the last week.

    An ObjectId holds its time of creation in seconds. Any other id may be of today.
    """
    begin = ObjectId.from_datetime(datetime.now(UTC) - _IN_USE)
    young = {"$or": [{"_id": {"$not": {"$type": "objectId"}}}, {"_id": {"$gte": begin}}]}
    return {"$and": [young, dict(accepted), {"$nor": [collection.validator]}]}


def _is_ours(validator: Mapping[str, Any]) -> bool:
    """Whether a validator is ours, of any release: only ours requires a string, the event's id, as `_id`."""
    schema = validator.get("$jsonSchema", {})
    document = next(iter(schema.get("anyOf", ())), schema)
    return bool(document.get("properties", {}).get("_id") == {"bsonType": "string"})


# Indexes --------------------------------------------------------------------------------------------------


def _declared_indexes(collection: Collection) -> list[dict[str, Any]]:
    """Return the collection's indexes as MongoDB's `createIndexes` takes them."""
    indexes: list[dict[str, Any]] = [
        {"key": dict(index.keys), "name": index.name, **_partial(index.only_where)} for index in collection.indexes
    ]
    if (retention := collection.retention) is not None:
        indexes.append(
            {
                "key": retention.keys,
                "name": retention.name,
                "expireAfterSeconds": int(retention.keep.total_seconds()),
                **_partial(retention.only_where),
            }
        )
    return indexes


def _partial(only_where: Mapping[str, Any]) -> dict[str, Any]:
    return {"partialFilterExpression": dict(only_where)} if only_where else {}


async def _plan_indexes(
    stored: AsyncCollection[dict[str, Any]], collection: Collection, found: Iterable[Mapping[str, Any]]
) -> list[_Step]:
    unclaimed = {index["name"]: index for index in found if index["name"] != "_id_"}
    missing: list[dict[str, Any]] = []
    steps: list[_Step] = []
    for declared in _declared_indexes(collection):
        index = _counterpart(declared, unclaimed)
        if index is not None:
            del unclaimed[index["name"]]
            steps += await _plan_index(stored, collection, declared, index)
        elif "expireAfterSeconds" in declared and (expiring := await _expiring(stored, collection.retention)):
            change = Change("create", _name_of(collection, declared), expiring, risks=frozenset({Risk.EXPIRY}))
            steps.append(_Step((change,), ({"createIndexes": collection.name, "indexes": [declared]},)))
        else:
            missing.append(declared)
    if missing:
        changes = tuple(Change("create", _name_of(collection, index)) for index in missing)
        # In one command, so that MongoDB reads the collection once for all of them.
        steps.append(_Step(changes, ({"createIndexes": collection.name, "indexes": missing},)))
    return [*steps, *_report_undeclared(collection, unclaimed.values())]


def _counterpart(declared: Mapping[str, Any], found: Mapping[str, Mapping[str, Any]]) -> Mapping[str, Any] | None:
    """Return the index that equals the declared one, under any name, or else the index that has its name."""
    # An equal index under another name serves as well, and MongoDB allows no second one.
    twin = next((index for index in found.values() if _definition(index) == _definition(declared)), None)
    return twin or found.get(declared["name"])


async def _plan_index(
    stored: AsyncCollection[dict[str, Any]],
    collection: Collection,
    declared: Mapping[str, Any],
    index: Mapping[str, Any],
) -> list[_Step]:
    """Return the steps that change an index to the declared one."""
    before, after = index.get("expireAfterSeconds"), declared.get("expireAfterSeconds")
    what = _name_of(collection, declared)
    is_other = _definition(index) != _definition(declared)
    expiring = await _expiring(stored, collection.retention) if after is not None and before != after else ""
    # MongoDB can change or add an expiry, but not remove it.
    if is_other or (before is not None and after is None):
        detail = "has other fields or options, so it is dropped and built again"
        risks = {Risk.REBUILDS, *([Risk.EXPIRY] if expiring else [])}
        change = Change("change", what, "; ".join(filter(None, (detail, expiring))), risks=frozenset(risks))
        drop = {"dropIndexes": collection.name, "index": index["name"]}
        return [_Step((change,), (drop, {"createIndexes": collection.name, "indexes": [declared]}))]
    if before == after:
        return []
    detail = "; ".join(filter(None, (_expiry_change(before, int(after or 0)), expiring)))
    retime = {"collMod": collection.name, "index": {"name": index["name"], "expireAfterSeconds": after}}
    return [_Step((Change("change", what, detail, risks=frozenset({Risk.EXPIRY})),), (retime,))]


def _report_undeclared(collection: Collection, indexes: Iterable[Mapping[str, Any]]) -> Iterator[_Step]:
    for index in indexes:
        unique = "; it is unique, so a document with a value that exists becomes a dead letter"
        detail = "not declared, left as it is" + (unique if index.get("unique") else "")
        yield _Step((Change("report", _name_of(collection, index), detail),))


async def _expiring(stored: AsyncCollection[dict[str, Any]], retention: Retention | None) -> str:
    """Return how many existing documents a retention would delete, as text; empty if none."""
    if retention is None:
        return ""
    dated = {"$and": [{retention.since: {"$type": "date"}}, dict(retention.only_where)]}
    subject = await _count(stored, dated)
    if subject == 0:
        return ""
    due = await _count(stored, {**dated, retention.since: {"$lt": datetime.now(UTC) - retention.keep}})
    later = f", {subject - due:,} later" if subject is not None and due is not None and subject > due else ""
    return f"deletes {_documents(due)} at once{later}"


async def _count(stored: AsyncCollection[dict[str, Any]], condition: Mapping[str, Any]) -> int | None:
    """Count documents; return `None` where it takes too long."""
    try:
        with pymongo.timeout(_COUNT_LIMIT_S):
            return await stored.count_documents(condition)
    except PyMongoError as error:
        if not error.timeout:
            raise
        return None


def _documents(count: int | None) -> str:
    if count is None:
        return f"an unknown number of documents (not counted within {_COUNT_LIMIT_S:.0f} s)"
    return f"{count:,} document{'' if count == 1 else 's'}"


def _name_of(collection: Collection, index: Mapping[str, Any]) -> str:
    return f"index {collection.name}.{index['name']}"


def _expiry_change(before: int | None, after: int) -> str:
    return f"documents expire after {_duration(after)} instead of {'never' if before is None else _duration(before)}"


def _duration(seconds: int) -> str:
    days, rest = divmod(seconds, 86_400)
    return f"{days} days" if days and not rest else f"{seconds} s"


_DEFAULT_OPTIONS = {"default_language": "english", "language_override": "language"}
_WITHOUT_MEANING = ("v", "ns", "key", "name", "background", "textIndexVersion", "weights", "expireAfterSeconds")


def _definition(index: Mapping[str, Any]) -> tuple[list[tuple[str, Any]], dict[str, Any]]:
    """Return an index's definition: its fields in order, and its options, without name and expiry."""
    keys = dict(index["key"])
    if "_fts" in keys:
        # How MongoDB lists a text index.
        keys = dict.fromkeys(index["weights"], "text")
    options = {
        name: value
        for name, value in index.items()
        if name not in _WITHOUT_MEANING and _DEFAULT_OPTIONS.get(name) != value
    }
    return list(keys.items()), options
