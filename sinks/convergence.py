"""Makes MongoDB's collections, indexes, retention and validators what `sinks.collections` declares.

The declarations and a database come in; out goes a list of what was changed, or would be. It is safe to repeat, to
break off, and to run in several workers at once. It drops no document, and no index that it does not know.

An index of ours that has other fields or options is dropped and built anew. MongoDB takes no second index of the same
name, so it can't be built first: queries that need it are slow in between, and documents due for deletion stay a little
longer. No declared index is unique, so nothing wrong can slip in meanwhile.
"""

import asyncio
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple

import pymongo
from pymongo.asynchronous.database import AsyncDatabase
from pymongo.errors import OperationFailure

from sinks.collections import COLLECTIONS, Collection

_INDEX_BUILD_LIMIT_S = 3600.0
"""Building an index over months of page views takes longer than a client's usual time limit."""

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
"""What MongoDB says where another worker converges the same collection at the same moment."""


@dataclass(frozen=True, slots=True)
class Change:
    """Something in the database that is not as declared.

    Attributes:
        action: What is done about it: `create` what is missing, `change` what is different, or only `report` what
            nobody declared.
        what: Which thing: `index pageViews.sessionId_1`.
        detail: What is different, or what becomes of it; may be empty.
        done: Whether it was done, or only found.
    """

    action: Literal["create", "change", "report"]
    what: str
    detail: str = ""
    done: bool = False

    @property
    def line(self) -> str:
        """The change as a person reads it: `created index pageViews.sessionId_1`."""
        words = {"create": ("missing", "created"), "change": ("different", "changed"), "report": ("unexpected",) * 2}
        return f"{words[self.action][self.done]} {self.what}" + (f": {self.detail}" if self.detail else "")


class _Step(NamedTuple):
    """Changes that belong together, and the database commands that make them."""

    changes: tuple[Change, ...]
    commands: tuple[dict[str, Any], ...] = ()


async def converge(database: AsyncDatabase[dict[str, Any]], *, check: bool) -> list[Change]:
    """Make the database what is declared, and return what was not so; with `check`, change nothing.

    Takes as long as MongoDB needs to build the missing indexes, up to an hour for each collection.

    Raises:
        PyMongoError: If MongoDB is not up to it, or rights are missing. What was done by then stays done.
    """
    changes: list[Change] = []
    for collection in COLLECTIONS.values():
        with pymongo.timeout(_INDEX_BUILD_LIMIT_S):
            changes += await _converge_collection(database, collection, check=check)
    for name in sorted(await database.list_collection_names()):
        if name not in COLLECTIONS and not name.startswith("system."):
            changes.append(Change("report", f"collection {name}", "not declared, left as it is"))
    return changes


async def _converge_collection(
    database: AsyncDatabase[dict[str, Any]], collection: Collection, *, check: bool
) -> list[Change]:
    done: list[Change] = []
    for attempt in range(1, _ATTEMPTS + 1):
        steps = await _steps(database, collection)
        if check:
            return [change for step in steps for change in step.changes]
        try:
            for step in steps:
                for command in step.commands:
                    await database.command(command)
                done += [Change(change.action, change.what, change.detail, done=True) for change in step.changes]
        except OperationFailure as error:
            if error.code not in _OVERTAKEN_CODES or attempt == _ATTEMPTS:
                raise
            await asyncio.sleep(_PAUSE_S)
        else:
            break
    return done


async def _steps(database: AsyncDatabase[dict[str, Any]], collection: Collection) -> list[_Step]:
    """Look at the collection, and return what it takes to make it as declared."""
    infos = [info async for info in await database.list_collections(filter={"name": collection.name})]
    indexes = [index async for index in await database[collection.name].list_indexes()]
    return [*_collection_steps(collection, infos), *_index_steps(collection, indexes)]


def _collection_steps(collection: Collection, infos: Sequence[Mapping[str, Any]]) -> list[_Step]:
    # Moderate: what somebody else has stored against the rules may still be updated, as else one such document would
    # stop what it belongs to: a queue, an error's group. All that we insert or change has to pass.
    rules = {"validator": collection.validator, "validationLevel": "moderate", "validationAction": "error"}
    if not infos:
        change = Change("create", f"collection {collection.name}", collection.purpose)
        return [_Step((change,), ({"create": collection.name, **rules},))]
    options = infos[0].get("options", {})
    # MongoDB leaves out what has its default value.
    found = {"validationLevel": "strict", "validationAction": "error", **options}
    if all(found.get(name) == value for name, value in rules.items()):
        return []
    change = Change("change", f"validator of {collection.name}", "not the declared fields and types")
    return [_Step((change,), ({"collMod": collection.name, **rules},))]


def _declared_indexes(collection: Collection) -> list[dict[str, Any]]:
    """Return the collection's indexes as MongoDB's `createIndexes` takes them."""
    indexes: list[dict[str, Any]] = [{"key": dict(index.keys), "name": index.name} for index in collection.indexes]
    if (retention := collection.retention) is not None:
        index = {
            "key": retention.keys,
            "name": retention.name,
            "expireAfterSeconds": int(retention.keep.total_seconds()),
        }
        if retention.only_where:
            index["partialFilterExpression"] = dict(retention.only_where)
        indexes.append(index)
    return indexes


def _index_steps(collection: Collection, found: Iterable[Mapping[str, Any]]) -> list[_Step]:
    unclaimed = {index["name"]: index for index in found if index["name"] != "_id_"}
    missing: list[dict[str, Any]] = []
    steps: list[_Step] = []
    for declared in _declared_indexes(collection):
        what = f"index {collection.name}.{declared['name']}"
        same_name = unclaimed.get(declared["name"])
        # Under another name it serves as well, and MongoDB would take no second.
        twin = next((index for index in unclaimed.values() if _definition(index) == _definition(declared)), None)
        index = same_name if same_name is not None else twin
        if index is None:
            missing.append(declared)
            continue
        del unclaimed[index["name"]]
        # MongoDB can change an expiry and add one, but not take it away.
        must_not_expire = "expireAfterSeconds" in index and "expireAfterSeconds" not in declared
        if must_not_expire or _definition(index) != _definition(declared):
            change = Change("change", what, "had other fields or options, so it is dropped and built anew")
            drop = {"dropIndexes": collection.name, "index": index["name"]}
            steps.append(_Step((change,), (drop, {"createIndexes": collection.name, "indexes": [declared]})))
        elif index.get("expireAfterSeconds") != declared.get("expireAfterSeconds"):
            seconds = declared["expireAfterSeconds"]
            change = Change("change", what, _expiry_change(index.get("expireAfterSeconds"), seconds))
            retime = {"name": index["name"], "expireAfterSeconds": seconds}
            steps.append(_Step((change,), ({"collMod": collection.name, "index": retime},)))
    if missing:
        changes = tuple(Change("create", f"index {collection.name}.{index['name']}") for index in missing)
        # In one command, so that MongoDB reads the collection once for all of them.
        steps.append(_Step(changes, ({"createIndexes": collection.name, "indexes": missing},)))
    steps += [
        _Step((Change("report", f"index {collection.name}.{name}", "not declared, left as it is"),))
        for name in unclaimed
    ]
    return steps


def _expiry_change(before: int | None, after: int) -> str:
    return f"documents expire after {after} s instead of {'never' if before is None else f'{before} s'}"


_DEFAULT_OPTIONS = {"default_language": "english", "language_override": "language"}
_WITHOUT_MEANING = ("v", "ns", "key", "name", "background", "textIndexVersion", "weights", "expireAfterSeconds")


def _definition(index: Mapping[str, Any]) -> tuple[list[tuple[str, Any]], dict[str, Any]]:
    """Return what makes an index what it is: its fields in order, and its options, without name and expiry."""
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
