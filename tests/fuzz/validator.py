"""A collection's validator as MongoDB reads it: JSON Schema of draft 4, with `bsonType` beside `type`.

Input: a collection's name and a document. Output: the problem, if MongoDB would refuse the document.
"""

from collections.abc import Iterator, Mapping
from datetime import datetime
from functools import cache
from typing import Any

import jsonschema

from sinks.collections import COLLECTIONS

_TYPES: Mapping[str, type | tuple[type, ...]] = {
    "object": dict,
    "array": (list, tuple),
    "string": str,
    "number": (int, float),
    "bool": bool,
    "date": datetime,
}


def problems(collection: str, document: Mapping[str, Any]) -> list[str]:
    """Return where a document is not as its collection's validator wants it; empty where it is."""
    return [
        f"{collection}{error.json_path.removeprefix('$')}: {error.message[:200]}"
        for error in _validator(collection).iter_errors(document)
    ]


@cache
def _validator(collection: str) -> jsonschema.protocols.Validator:
    validator: jsonschema.protocols.Validator = _Validator(COLLECTIONS[collection].validator["$jsonSchema"])
    return validator


def _has_bson_type(
    _: jsonschema.protocols.Validator, expected: str, value: object, __: Mapping[str, Any]
) -> Iterator[jsonschema.ValidationError]:
    if not isinstance(value, _TYPES[expected]) or (expected == "number" and isinstance(value, bool)):
        yield jsonschema.ValidationError(f"{type(value).__name__} is no {expected}")


_Validator = jsonschema.validators.create(
    jsonschema.Draft4Validator.META_SCHEMA, {**jsonschema.Draft4Validator.VALIDATORS, "bsonType": _has_bson_type}
)
