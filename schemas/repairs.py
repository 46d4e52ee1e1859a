"""Repairs: small things in a payload for which its event is not refused.

Input: a payload that its class refused, and the errors. Output: the payload, changed in place, and what was done:

- **null is absence**: an optional field that is `null` has its default. An empty text counts as `null` where a field
  may not be empty, such as the `userId` of a visitor who is not signed in. A required field is then missing.
- **a measurement out of its range becomes the nearest value within it**: a page that bounces scrolls to 100.4 %, and a
  clock that is set gives a negative time. The document says so in `clamped`. Measurements are all numbers that may have
  a fraction; counts, positions and codes are whole, and one out of its range is the producer's mistake.

This happens only after a refusal, so that it costs the others nothing.
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


def repair(payload: object, errors: Iterable[ErrorDetails]) -> Repairs:
    """Change a payload in place so that what can be repaired in it is refused no more.

    Args:
        payload: The payload as it was read from JSON.
        errors: Why it was refused; with paths of the names that producers use.
    """
    absent: dict[Path, str] = {}
    clamped = False
    for error in errors:
        match error:
            # An item of a list has a number for a name, and can't be absent.
            case {"loc": (*way, str(name)), "input": None}:
                absent[error["loc"]] = "null"
                del _holder(payload, way)[name]
            case {"loc": (*way, str(name)), "type": "string_too_short", "input": ""}:
                absent[error["loc"]] = "empty"
                del _holder(payload, way)[name]
            case {
                "loc": (*way, str(name)),
                "type": "greater_than_equal" | "less_than_equal",
                "ctx": {"ge": float(bound)} | {"le": float(bound)},
            }:
                clamped = True
                _holder(payload, way)[name] = bound
    return Repairs(absent, clamped)


def _holder(payload: object, way: Iterable[int | str]) -> dict[str, object]:
    holder: Any = payload
    for name in way:
        holder = holder[name]
    found: dict[str, object] = holder
    return found
