"""Combines a document and the late updates that add to it, in any order.

Input: a document and its partial updates. Output: MongoDB updates. The final document is the same in any order and
however often each is carried out: a field keeps its highest value, and a list is a union. A partial update that comes
before its document creates a placeholder with `incomplete: true`, which the document completes.
"""

from collections.abc import Sequence
from typing import Any

from pymongo import UpdateOne

from enrich.documents import PartialUpdate
from sinks.collections import LateFields

_LIST_ORDER = {"clickedAt": 1, "position": 1, "postId": 1}


class CombinedUpdate:
    """One or more partial updates of the same document, combined in one update."""

    def __init__(self, updates: Sequence[PartialUpdate]) -> None:
        self._id = updates[0].id
        self._timestamp = updates[0].timestamp
        self._highest: dict[str, Any] = {}
        self._added: dict[str, list[dict[str, Any]]] = {}
        self.repeated = sum(not self._add(update) for update in updates)
        """How many of the updates add nothing to those before them."""

    def _add(self, update: PartialUpdate) -> bool:
        higher = {
            field: value
            for field, value in update.highest.items()
            if field not in self._highest or value > self._highest[field]
        }
        self._highest |= higher
        differs = bool(higher)
        for field, items in update.added.items():
            known = self._added.setdefault(field, [])
            new = [item for item in items if item not in known]
            known += new
            differs = differs or bool(new)
        return differs

    def update(self) -> UpdateOne:
        """Return the update; it creates a placeholder if the document has not arrived yet."""
        if not self._added:
            # Plain operators cost the server less than a pipeline.
            return UpdateOne(
                {"_id": self._id},
                {"$max": self._highest, "$setOnInsert": {"timestamp": self._timestamp, "incomplete": True}},
                upsert=True,
            )
        is_new = {"$eq": [{"$type": "$timestamp"}, "missing"]}
        fields: dict[str, Any] = {
            "timestamp": {"$cond": [is_new, self._timestamp, "$timestamp"]},
            "incomplete": {"$cond": [is_new, True, "$incomplete"]},
        }
        fields |= {field: _highest_of(field, value) for field, value in self._highest.items()}
        fields |= {field: _union_of(field, items) for field, items in self._added.items()}
        return UpdateOne({"_id": self._id}, [{"$set": fields}], upsert=True)


def completion(document: dict[str, Any], late_fields: LateFields) -> UpdateOne:
    """Return the update that turns a placeholder into its document; it matches nothing if the document exists."""
    merged: dict[str, Any] = {field: _highest_of(field, document.get(field)) for field in late_fields.highest}
    merged |= {field: _union_of(field, document.get(field, [])) for field in late_fields.united}
    return UpdateOne(
        {"_id": document["_id"], "incomplete": True},
        [{"$replaceWith": {"$mergeObjects": [{"$literal": document}, merged]}}],
    )


def _highest_of(field: str, value: object) -> dict[str, Any]:
    # $max passes over what is missing or null; $$REMOVE leaves the field out where both are. $literal keeps a
    # string that starts with a dollar sign from being read as a field's name.
    return {"$ifNull": [{"$max": [f"${field}", {"$literal": value}]}, "$$REMOVE"]}


def _union_of(field: str, items: Sequence[dict[str, Any]]) -> dict[str, Any]:
    union = {"$setUnion": [{"$ifNull": [f"${field}", []]}, {"$literal": list(items)}]}
    return {"$sortArray": {"input": union, "sortBy": _LIST_ORDER}}
