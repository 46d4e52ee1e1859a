"""Repairs stored documents that somebody else has changed so that our updates of them fail."""

from collections.abc import Mapping, Sequence

import structlog
from bson.decimal128 import Decimal128
from bson.int64 import Int64
from pymongo import UpdateOne
from pymongo.errors import BulkWriteError

from runtime.metrics import STORED_DOCUMENTS_SPOILED
from sinks.collections import COLLECTIONS
from sinks.mongo.database import NamespacedDatabase
from sinks.mongo.outcome import update_faults

log = structlog.get_logger(__name__)

_PYTHON_TYPES: Mapping[str, tuple[type, ...]] = {"number": (int, float, Int64, Decimal128), "array": (list,)}
"""PyMongo's types for a BSON type."""


async def is_sound(database: NamespacedDatabase, name: str, document_id: str) -> bool:
    """Whether a stored document passes its collection's rules, or is not there."""
    unsound = {"_id": document_id, "$nor": [COLLECTIONS[name].validator]}
    return await database[name].find_one(unsound, {"_id": 1}) is None


async def repair_lists(database: NamespacedDatabase, name: str, document_id: str) -> bool:
    """Replace values that somebody else has put where late fields are lists; return whether there were any."""
    late_fields = COLLECTIONS[name].late_fields
    lists = () if late_fields is None else late_fields.united
    return await repair(database, name, document_id, lists, "array", [])


async def repair(
    database: NamespacedDatabase, name: str, document_id: str, fields: Sequence[str], kind: str, value: object
) -> bool:
    """Replace fields of a stored document that somebody else has changed so that our updates fail.

    Args:
        database: The database.
        name: The collection.
        document_id: The document.
        fields: Which of its fields to look at.
        kind: The BSON type that they should have.
        value: The new value where they have another type.

    Returns:
        Whether there was such a field.
    """
    found = await database[name].find_one({"_id": document_id}) or {}
    spoiled = [field for field in fields if field in found and not isinstance(found[field], _PYTHON_TYPES[kind])]
    if not spoiled:
        return False
    changes = [
        # If another worker was faster, nothing matches.
        UpdateOne({"_id": document_id, field: {"$eq": found[field]}}, {"$set": {field: value}})
        for field in spoiled
    ]
    try:
        await database[name].bulk_write(changes)
    except BulkWriteError as error:
        update_faults(error)  # where the validator is strict, any other field may be in the way
        return False
    STORED_DOCUMENTS_SPOILED.labels(name, "repaired").inc()
    log.warning(
        "repaired a stored document that somebody else has changed", collection=name, id=document_id, fields=spoiled
    )
    return True
