"""Suggests the known name that a wrong one was probably meant to be."""

from collections.abc import Collection
from difflib import get_close_matches
from functools import lru_cache

_LISTED = 8
"""So many names are listed where none is near; more of them help nobody."""
_LONGEST = 100
"""Characters of a name that are compared: `difflib` takes a time that grows with the square of the length."""


def suggestion(name: str, known: Collection[str], listed_by: str) -> str:
    """Return `did you mean X?`, or what there is where no known name is near.

    Args:
        name: What somebody wrote.
        known: What it could have been.
        listed_by: Where all known names are listed, such as a command.
    """
    return _suggestion(name[:_LONGEST], tuple(known), listed_by)


@lru_cache(maxsize=256)
def _suggestion(name: str, known: tuple[str, ...], listed_by: str) -> str:
    folded = {one.casefold(): one for one in known}
    if nearest := get_close_matches(name.casefold(), folded, n=1):
        return f"did you mean {folded[nearest[0]]}?"
    if len(known) <= _LISTED:
        return f"there are {', '.join(known)}" if known else "there are none"
    return f"{listed_by} lists all {len(known)}"
