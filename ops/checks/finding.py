"""What a check found, and how it is worded.

Input: what a check saw. Output: a `Finding`.
"""

from collections.abc import Sequence
from enum import StrEnum
from typing import NamedTuple

LINES_SHOWN = 3
"""Lines of a long list in one finding."""

_NAMES_LISTED = 5


class State(StrEnum):
    """How serious a finding is."""

    WELL = "well"
    NOTE = "note"
    PROBLEM = "problem"


class Finding(NamedTuple):
    """The result of one check.

    Attributes:
        subject: What was checked.
        state: How serious it is.
        what: What was found.
        advice: What to do; empty if nothing is to be done.
    """

    subject: str
    state: State
    what: str
    advice: str = ""


def shortened(lines: Sequence[str]) -> str:
    """Return the first lines, and how many more there are."""
    more = len(lines) - LINES_SHOWN
    return "\n".join([*lines[:LINES_SHOWN], *([f"and {more} more"] if more > 0 else [])])


def listed(names: Sequence[str]) -> str:
    """Return the first names, separated by commas, and how many more there are."""
    more = len(names) - _NAMES_LISTED
    return ", ".join(names[:_NAMES_LISTED]) + (f" and {more} more" if more > 0 else "")


def count(number: int, noun: str) -> str:
    """Return a number with its noun, in the plural if needed: `1 post`, `1,234 posts`."""
    return f"{number:,} {noun}" if number == 1 else f"{number:,} {noun}s"
