"""Repairs small errors in a payload, for which its event is not refused.

Input: a payload that its class refused, and the errors. Output: the payload, changed in place, and the repairs:

- **null is absence**: an optional field that is `null` has its default, an object that should have fields and holds
  none counts as `null`, and an item of a list that is `null` is left out. An empty text counts as `null` where a field
  may not be empty: the `userId` of a visitor who is not signed in, a time, one of a few words. A required field is
  missing then.
- **a measurement out of its range is set to the nearest valid value**: a page that bounces scrolls to 100.4 %, and a
  clock that is set gives a negative time. The document then has `clamped`. Measurements are all numbers that may have
  a fraction; counts, positions and codes are whole, and one out of its range is the producer's mistake.

Only refused payloads are repaired, so that valid ones cost nothing.
"""

from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple

from pydantic_core import ErrorDetails

Path = tuple[int | str, ...]


class Repairs(NamedTuple):
    """What was done to a payload.

    Attributes:
        absent: The fields that were taken out, and as what they came: `null`, or `empty`.
        clamped: Whether a measurement was out of its range.
    """

    absent: Mapping[Path, str]
    clamped: bool


NO_REPAIRS = Repairs({}, False)


def repair(payload: object, errors: Iterable[ErrorDetails], before: Repairs = NO_REPAIRS) -> Repairs:
    """Change a payload in place so that what can be repaired in it is refused no more.

    Args:
        payload: The payload as it was read from JSON.
        errors: Why it was refused; with paths of the names that producers use.
        before: What was done to it already: that an object needs a field shows only when a null was taken out of it.
    """
    absent = dict(before.absent)
    around: set[Path] = set()
    without: list[tuple[list[object], object]] = []
    clamped = before.clamped
    for error in errors:
        match error:
            case {"loc": (*way, str(name)), "input": None}:
                absent[error["loc"]] = "null"
                del _holder(payload, way)[name]
            case {"loc": (*way, int()), "input": None}:
                without.append((_holder(payload, way), None))
            case {
                "loc": (*way, str(name)),
                "type": "string_too_short" | "moment" | "literal_error",
                "input": "",
            }:
                absent[error["loc"]] = "empty"
                del _holder(payload, way)[name]
            case {"loc": (*way, int()), "type": "string_too_short" | "moment" | "literal_error", "input": ""}:
                without.append((_holder(payload, way), ""))
            case {"loc": (*way, str()), "type": "missing"}:
                around.add(tuple(way))
            case {
                "loc": (*way, str(name)),
                "type": "greater_than_equal" | "less_than_equal",
                "ctx": {"ge": float(bound)} | {"le": float(bound)},
            }:
                clamped = True
                _holder(payload, way)[name] = bound
    for items, nothing in without:
        # Last, as the paths of the errors have numbers of items in them. A list complains of its first item alone.
        items[:] = [item for item in items if item != nothing]
    for path in sorted(around, key=len):
        _leave_out_empty(payload, path, absent)
    return Repairs(absent, clamped)


def _leave_out_empty(payload: object, path: Path, absent: dict[Path, str]) -> None:
    """Take an object out that holds nothing, and those around it that hold nothing then. Items of lists stay."""
    while path and isinstance(path[-1], str) and all(value is None for value in _holder(payload, path).values()):
        *way, name = path
        del _holder(payload, way)[name]
        absent[path] = "empty"
        path = tuple(way)


def _holder(payload: object, way: Iterable[int | str]) -> Any:  # noqa: ANN401  # an object or a list of JSON
    holder: Any = payload
    for name in way:
        holder = holder[name]
    return holder
