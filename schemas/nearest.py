"""Suggests the known name that an unknown one was probably meant to be."""

from collections.abc import Collection
from difflib import get_close_matches
from functools import lru_cache

_LISTED = 12
"""How many names are listed where none is near."""
_LONGEST = 100
"""Characters of a name that are compared: `difflib` takes a time that grows with the square of the length."""


def suggestion(name: str, known: Collection[str], listed_by: str = "") -> str:
    """Return `did you mean X?`, or the known names where none of them is near.

    Args:
        name: What somebody wrote.
        known: The names that are allowed, in the order in which to list them.
        listed_by: What lists all known names, such as a command; without it, the first of many are listed.
    """
    return _suggestion(name[:_LONGEST], tuple(known), listed_by)


@lru_cache(maxsize=256)
def _suggestion(name: str, known: tuple[str, ...], listed_by: str) -> str:
    folded = {one.casefold(): one for one in known}
    if nearest := get_close_matches(name.casefold(), folded, n=1):
        return f"did you mean {folded[nearest[0]]}?"
    if not known:
        return "there are none"
    if len(known) > _LISTED and listed_by:
        return f"{listed_by} lists all {len(known)}"
    more = f" and {len(known) - _LISTED} more" if len(known) > _LISTED else ""
    return f"there are {', '.join(known[:_LISTED])}{more}"
