"""The bytes of a push message, within what a provider takes: a body that is too long is shortened, not refused.

Input: the body of a message and a function that makes the payload. Output: bytes. The only possible failure is the
size.
"""

import json
from bisect import bisect_right
from collections.abc import Callable
from typing import Any

ELLIPSIS = "…"


def as_json(value: Any) -> bytes:  # noqa: ANN401
    """Return the shortest JSON, in UTF-8."""
    text = json.dumps(value, ensure_ascii=False, separators=(",", ":"))
    # Half a surrogate pair, which JSON lets through, has no bytes: it becomes a question mark.
    return text.encode("utf-8", "replace")


def fitted(body: str, most: int, payload: Callable[[str], bytes]) -> bytes | None:
    """Return the payload with as much of the body as fits.

    Args:
        body: The text to shorten. It is cut between characters, and `…` says so.
        most: The most bytes that the payload may have.
        payload: Makes the payload of a body. A longer body never makes a shorter payload.

    Returns:
        The payload; `None` if it is too large without any body.
    """
    whole = payload(body)
    if len(whole) <= most:
        return whole
    lengths = range(len(body))
    fitting = bisect_right(lengths, most, key=lambda length: len(payload(_beginning(body, length))))
    return payload(_beginning(body, lengths[fitting - 1])) if fitting else None


def _beginning(body: str, length: int) -> str:
    return body[:length].rstrip() + ELLIPSIS
