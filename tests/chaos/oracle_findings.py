"""Say what is wrong, in words.

Input: two documents, or findings. Output: their differences, and a check with the first findings of each kind.
"""

from collections import Counter
from collections.abc import Iterator, Mapping
from typing import Any

from tests.chaos.history import Check

SHOWN = 5
"""How many findings of one kind are told."""

_DIFFERENCES_SHOWN = 3
_LONGEST = 60
_NO_FIELD = object()


class Findings:
    """The findings of one check, by kind.

    Args:
        promise: What must be.
        expected: How many there should be.
    """

    def __init__(self, promise: str, expected: int) -> None:
        self._promise = promise
        self._expected = expected
        self._shown: dict[str, list[str]] = {}
        self._count = Counter[str]()

    def add(self, kind: str, finding: str) -> None:
        """Take a finding in.

        Args:
            kind: What those have in common of which the first are told: `are missing`.
            finding: A sentence with the id that it is about.
        """
        self._count[kind] += 1
        shown = self._shown.setdefault(kind, [])
        if len(shown) < SHOWN:
            shown.append(finding)

    def check(self, found: int) -> Check:
        """Return the check, of which so many are as they should be."""
        lines = []
        for kind, shown in self._shown.items():
            more = self._count[kind] - len(shown)
            lines += [*shown, f"and {more:,} more {kind}"] if more else shown
        return Check(self._promise, self._expected, found, lines)


def differences(expected: object, found: object, path: str = "") -> list[str]:
    """Return what of two values is not the same: `geo.city should be 'Oslo', and is 'Rome'`; numbers as Python does."""
    return list(_differences(expected, found, path))


def told(some: list[str]) -> str:
    """Return differences as a part of a sentence, the first of them where there are many."""
    more = len(some) - _DIFFERENCES_SHOWN
    return "; ".join([*some[:_DIFFERENCES_SHOWN], *([f"and {more} fields more"] if more > 0 else [])])


def _differences(expected: object, found: object, path: str) -> Iterator[str]:
    if isinstance(expected, Mapping) and isinstance(found, Mapping):
        for name in [*expected, *(name for name in found if name not in expected)]:
            inner = f"{path}.{name}" if path else str(name)
            yield from _differences(expected.get(name, _NO_FIELD), found.get(name, _NO_FIELD), inner)
    elif isinstance(expected, list) and isinstance(found, list) and len(expected) == len(found):
        for position, (one, other) in enumerate(zip(expected, found, strict=True)):
            yield from _differences(one, other, f"{path}[{position}]")
    elif not _are_same(expected, found):
        yield f"{path or 'it'} should be {_shown(expected)}, and is {_shown(found)}"


def _are_same(one: Any, other: Any) -> bool:
    if isinstance(one, bool) is not isinstance(other, bool):
        return False  # to Python, True is 1
    is_same: bool = one == other or (one != one and other != other)
    return is_same


def _shown(value: object) -> str:
    if value is _NO_FIELD:
        return "missing"
    text = value.isoformat() if hasattr(value, "isoformat") else repr(value)
    return text if len(text) <= _LONGEST else f"{text[:_LONGEST]}…"
