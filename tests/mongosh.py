"""Queries as pages have them, in mongosh's JavaScript, run with PyMongo: as much of the language as the pages use.

Runs the statements of a block on a database; returns what each finds, and by which index.
What is not understood raises `SyntaxError` or `NameError`, so that no query is passed over.
"""

import re
from collections.abc import Iterator, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any, NamedTuple

from pymongo.collection import Collection
from pymongo.database import Database

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_KEY = re.compile(r"([{,]\s*)([A-Za-z_$][\w$]*)\s*:")


class Found(NamedTuple):
    """What came of a statement.

    Attributes:
        result: The documents, or the number.
        stages: The stages of the plan that read the collection, such as `IXSCAN` and `COLLSCAN`.
    """

    result: Any
    stages: set[str]


class Date:
    """JavaScript's `Date`, with what the pages need of it: `new Date(milliseconds)` is the moment itself."""

    def __new__(cls, milliseconds: float | None = None) -> Any:
        """Return the moment, or where none is given an object for the present one."""
        return super().__new__(cls) if milliseconds is None else _EPOCH + timedelta(milliseconds=milliseconds)

    @staticmethod
    def now() -> float:
        """Return the milliseconds since 1970."""
        return (datetime.now(UTC) - _EPOCH) / timedelta(milliseconds=1)

    @staticmethod
    def setUTCHours(hours: int, minutes: int, seconds: int, milliseconds: int) -> float:  # noqa: N802
        """Return the milliseconds since 1970 of that time of today."""
        moment = datetime.now(UTC).replace(hour=hours, minute=minutes, second=seconds, microsecond=1000 * milliseconds)
        return (moment - _EPOCH) / timedelta(milliseconds=1)


class _Query:
    def __init__(self, collection: Collection[dict[str, Any]], command: dict[str, Any]) -> None:
        self._collection = collection
        self._command = command

    def sort(self, by: Mapping[str, int]) -> "_Query":
        return _Query(self._collection, {**self._command, "sort": by})

    def limit(self, limit: int) -> "_Query":
        return _Query(self._collection, {**self._command, "limit": limit})

    def found(self) -> Found:
        database = self._collection.database
        explained = database.command("explain", self._command, verbosity="queryPlanner")
        stages = {stage for stage in _stages(explained) if stage.endswith(("SCAN", "IDHACK"))}
        if "count" in self._command:
            return Found(self._collection.count_documents(self._command["query"]), stages)
        return Found(database.command(self._command)["cursor"]["firstBatch"], stages)


class _Collection:
    def __init__(self, collection: Collection[dict[str, Any]]) -> None:
        self._collection = collection

    def find(self, wanted: Mapping[str, Any], fields: Mapping[str, Any] | None = None) -> _Query:
        projection = {"projection": fields} if fields else {}
        return _Query(self._collection, {"find": self._collection.name, "filter": wanted, **projection})

    def aggregate(self, pipeline: Sequence[Mapping[str, Any]]) -> _Query:
        return _Query(self._collection, {"aggregate": self._collection.name, "pipeline": pipeline, "cursor": {}})

    def countDocuments(self, wanted: Mapping[str, Any]) -> _Query:  # noqa: N802
        return _Query(self._collection, {"count": self._collection.name, "query": wanted})


class _Shell:
    def __init__(self, database: Database[dict[str, Any]]) -> None:
        self._database = database

    def __getattr__(self, name: str) -> _Collection:
        return _Collection(self._database[name])


def statements(block: str) -> list[str]:
    """Return the statements of a block that ask the database, as Python."""
    lines = [line for line in block.splitlines() if not line.lstrip().startswith("//")]
    code = _KEY.sub(r'\1"\2":', "\n".join(lines)).replace("new Date(", "Date(")
    return [each.strip() for each in re.split(r";\s*(?:\n|$)", code) if each.strip().startswith("db.")]


def run(database: Database[dict[str, Any]], statement: str, places: Mapping[str, str]) -> Found:
    """Run one statement.

    Args:
        database: Whom to ask.
        statement: One of `statements`.
        places: What to put in place of the ids in it.
    """
    for example, real in places.items():
        statement = statement.replace(f'"{example}"', f'"{real}"')
    names = {
        "db": _Shell(database),
        "Date": Date,
        "ISODate": datetime.fromisoformat,
        "null": None,
        "true": True,
        "false": False,
    }
    query = eval(statement, {"__builtins__": {}}, names)  # our own pages
    assert isinstance(query, _Query)
    return query.found()


def _stages(plan: object) -> Iterator[str]:
    if isinstance(plan, dict):
        for name, inner in plan.items():
            if name == "stage" and isinstance(inner, str):
                yield inner
            if name != "rejectedPlans":
                yield from _stages(inner)
    elif isinstance(plan, list):
        for inner in plan:
            yield from _stages(inner)
