"""What is odd about a stored document: null, an empty object or NaN where the field should rather be left out.

Input: a collection's name and a document. Output: a line for each place that differs from docs/collections.md.
"""

import math
from collections.abc import Iterator, Mapping
from typing import Any

from sinks.collections import COLLECTIONS, FieldType
from tests.fuzz.validator import problems


def surprises(collection: str, document: Mapping[str, Any]) -> list[str]:
    """Return what a reader of the document would stumble over; empty where all is well."""
    declared = {"_id": "string", **COLLECTIONS[collection].fields}
    return [*problems(collection, document), *_odd(document, declared, collection)]


def _odd(value: object, declared: FieldType, path: str, *, optional: bool = True) -> Iterator[str]:
    if declared in ("any", "object"):
        # Free-form: the producer's word, unless there is none.
        if value == {} and optional and declared == "object":
            yield f"{path} is empty"
        return
    if value is None or value == {} or (isinstance(value, float) and not math.isfinite(value)):
        yield f"{path} is {value!r}"
    elif isinstance(value, Mapping):
        # What is not declared is one of our own fields, and has to follow the same rules.
        fields = declared if isinstance(declared, dict) else {}
        for name, inner in value.items():
            if path == "analyticsEvents.context" and name not in ("page", "referrer", "userAgent"):
                continue  # a producer may add to it
            its_type = fields.get(name, fields.get(f"{name}?", "ours"))
            yield from _odd(inner, its_type, f"{path}.{name}", optional=name not in fields)
    elif isinstance(value, list | tuple):
        for number, item in enumerate(value):
            inner_type = declared[0] if isinstance(declared, list) else "ours"
            yield from _odd(item, inner_type, f"{path}.{number}")
