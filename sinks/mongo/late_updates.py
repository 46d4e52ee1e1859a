"""Updates that bring a document and its parts together, whichever comes first.

A document and the parts that later events add to it come in, out go MongoDB's updates. The final document is the same
in any order and however often each is carried out: the highest value of a field stays, and the union of a list.
A part that comes first leaves a placeholder, marked `incomplete: true`, which its document completes.
"""

from collections.abc import Sequence
from typing import Any

from pymongo import UpdateOne

from enrich.documents import Part
from sinks.collections import LateFields

_LIST_ORDER = {"clickedAt": 1, "position": 1, "postId": 1}


class PartSum:
    """What one or more parts of the same document add to it together, so that one update carries them out."""

    def __init__(self, parts: Sequence[Part]) -> None:
        self._id = parts[0].id
        self._timestamp = parts[0].timestamp
        self._highest: dict[str, Any] = {}
        self._added: dict[str, list[dict[str, Any]]] = {}
        self.repeated = sum(not self._takes_in(part) for part in parts)
        """How many of the parts add nothing to those before them."""

    def _takes_in(self, part: Part) -> bool:
        higher = {
            field: value
            for field, value in part.highest.items()
            if field not in self._highest or value > self._highest[field]
        }
        self._highest |= higher
        differs = bool(higher)
        for field, items in part.added.items():
            known = self._added.setdefault(field, [])
            new = [item for item in items if item not in known]
            known += new
            differs = differs or bool(new)
        return differs

    def update(self) -> UpdateOne:
        """Return the update that carries it out, or leaves a placeholder where the document is yet to come."""
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
    """Return the update that turns a placeholder into its document, and matches nothing where the document is there."""
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
