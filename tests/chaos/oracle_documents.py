"""Compare the documents of one collection with those that must be there.

Input: a collection as MongoDB has it.
Output: the ids that are missing, those that are unknown, and the documents that are not as computed. A document is
compared by digest; one that has another digest is compared field by field once it has been computed again, so only
digests are kept of what is right.
"""

from collections.abc import Callable, Iterable, Mapping
from datetime import datetime
from typing import Any, NamedTuple, cast

import bson
from bson.codec_options import CodecOptions
from bson.raw_bson import RawBSONDocument
from pymongo.asynchronous.database import AsyncDatabase

from sinks.collections import ERROR_LOGS, NOTIFICATION_QUEUE, NOTIFICATIONS
from tests.chaos.history import Check
from tests.chaos.model import LATE, Group, Model, decoded, digest, digest_of, expires, is_steady, steady
from tests.chaos.oracle_findings import Findings, differences, told

Database = AsyncDatabase[dict[str, Any]]
Inspect = Callable[[dict[str, Any]], list[str]]
"""Says what else is wrong with a document."""

_RAW: CodecOptions[RawBSONDocument] = CodecOptions(document_class=RawBSONDocument)
_OF_GROUPS = (NOTIFICATIONS.name, NOTIFICATION_QUEUE.name)
_MISSING = "are missing"
_STRANGE = "should not be there"
_DIFFERENT = "are not as they should be"


class Origin(NamedTuple):
    """The document that one copy of an event results in.

    Attributes:
        place: Where the copy is.
        body: The document; `None` if it is not compared.
        may_be_gone: Whether MongoDB may have deleted it by now.
    """

    place: str
    body: dict[str, Any] | None
    may_be_gone: bool


class Reading:
    """What a collection holds, against what it must hold.

    Args:
        collection: Its name.
        model: What must be.
        inspect: Says what else is wrong with a document that is as computed; `None` where nothing else matters.

    Attributes:
        collection: Its name.
        stored: Of ids that several documents may have, the digest of the one that is there.
    """

    def __init__(self, collection: str, model: Model, inspect: Inspect | None = None) -> None:
        self.collection = collection
        self.stored: dict[str, bytes] = {}
        self._model = model
        self._documents = model.documents[collection]
        self._inspect = inspect
        self._missing = model.ids(collection)
        self._expected = len(self._missing)
        self._right = 0
        self._suspects: dict[str, bytes] = {}
        self._remarks: dict[str, list[str]] = {}
        self._findings = Findings(f"{collection}: each once, as computed without faults", self._expected)

    async def read(self, database: Database) -> None:
        """Read all of it."""
        async for batch in database[self.collection].find_raw_batches():
            for document in bson.decode_all(cast("bytes", batch), _RAW):
                self._look(document["_id"], bytes(document.raw))

    @property
    def missing(self) -> set[str]:
        """The ids of documents that are not there."""
        return self._missing

    @property
    def suspects(self) -> Mapping[str, bytes]:
        """The documents, encoded, that have another digest than they should."""
        return self._suspects

    def _look(self, document_id: str, raw: bytes) -> None:
        if document_id not in self._missing:
            if not self._is_allowed(document_id, raw):
                self._findings.add(_STRANGE, f"{document_id} should not be there")
            return
        self._missing.discard(document_id)
        if is_steady(self.collection):
            self._compare(document_id, digest(raw), raw)
            return
        document = decoded(raw)
        if self._inspect is not None and (remarks := self._inspect(document)):
            self._remarks[document_id] = remarks
        group = self._model.groups.get(document_id) if self.collection in _OF_GROUPS else None
        if group is not None:
            self._judge(document, self._unlike_group(document, group))
        elif document_id in self._documents:
            self._compare(document_id, digest_of(self.collection, document), raw, document)
        else:
            expected = self._model.parts[self.collection].placeholders(document_id)
            self._judge(document, _nearest(expected, document))

    def _is_allowed(self, document_id: object, raw: bytes) -> bool:
        allowed = self._model.allowed[self.collection]
        return document_id in allowed and allowed.has(str(document_id), digest_of(self.collection, decoded(raw)))

    def _compare(self, document_id: str, its_digest: bytes, raw: bytes, document: dict[str, Any] | None = None) -> None:
        if self._documents.is_one_of_several(document_id):
            self.stored[document_id] = its_digest
        if not self._documents.has(document_id, its_digest):
            self._suspects[document_id] = raw
        elif document is None:
            self._right += 1
        else:
            self._judge(document, self._late_differences(document, its_digest))

    def _late_differences(self, document: dict[str, Any], its_digest: bytes) -> list[str]:
        if self.collection not in LATE:
            return []
        found = {name: document[name] for name in LATE[self.collection] if name in document}
        return differences(self._model.late(self.collection, document["_id"], its_digest), found)

    def _unlike_group(self, document: dict[str, Any], group: Group) -> list[str]:
        made_at = document.get("createdAt")
        if made_at not in group.made_at:
            return [f"createdAt is {made_at}, when nothing happened that it tells of"]
        if self.collection == NOTIFICATION_QUEUE.name:
            expected = group.item(made_at)
        else:
            expected = group.notification(made_at)
            document = {**document, "gathered": {**document.get("gathered", {})}}
            document["gathered"].pop("version", None)
        return differences(steady(self.collection, expected), steady(self.collection, document))

    def _judge(self, document: dict[str, Any], wrong: list[str]) -> None:
        wrong = [*wrong, *self._remarks.get(document["_id"], ())]
        if wrong:
            self._findings.add(_DIFFERENT, f"{document['_id']}: {told(wrong)}")
        else:
            self._right += 1

    def check(self, origins: Mapping[str, Iterable[Origin]]) -> Check:
        """Return the check.

        Args:
            origins: Of what is missing, and of suspects, what the copies of the events make of it.
        """
        for document_id in sorted(self._missing, key=str):
            copies = list(origins.get(document_id, ()))
            if any(copy.may_be_gone for copy in copies):
                self._right += 1
                continue
            came = f", and came as {copies[0].place}" if copies else ""
            self._findings.add(_MISSING, f"{document_id} is missing{came}")
        for document_id, raw in self._suspects.items():
            document = decoded(raw)
            candidates = [self._whole(copy.body) for copy in origins.get(document_id, ()) if copy.body is not None]
            self._judge(document, _nearest(candidates, self._comparable(document)))
        return self._findings.check(self._right)

    def _whole(self, body: dict[str, Any]) -> dict[str, Any]:
        """Return a document as it must be, with what other events add to it."""
        if self.collection not in LATE:
            return self._comparable(body)
        late = {name: body[name] for name in LATE[self.collection] if name in body}
        return {**steady(self.collection, body), **self._model.parts[self.collection].merged(body["_id"], late)}

    def _comparable(self, document: dict[str, Any]) -> dict[str, Any]:
        return steady(self.collection, document) if self.collection in _OF_GROUPS else document


def origin(collection: str, place: str, body: dict[str, Any], now: datetime, *, is_suspect: bool) -> Origin:
    """Return the document that a copy of an event results in, as far as it is needed."""
    return Origin(place, body if is_suspect else None, expires(collection, body, now))


async def errors_check(database: Database, expected: Mapping[str, dict[str, Any]]) -> Check:
    """Return whether each group of errors counts each of its lines once, and looks as the latest of them."""
    findings = Findings(f"{ERROR_LOGS.name}: each line counts once in its group, which is as its latest", len(expected))
    missing, right = set(expected), 0
    async for group in database[ERROR_LOGS.name].find():
        name = group["_id"]
        missing.discard(name)
        if name not in expected:
            findings.add(_STRANGE, f"{name} should not be there, with {group.get('occurrenceCount')} lines")
        elif wrong := differences(expected[name], group):
            findings.add(_DIFFERENT, f"{name}: {told(wrong)}")
        else:
            right += 1
    for name in sorted(missing):
        findings.add(_MISSING, f"{name} is missing, with {expected[name]['occurrenceCount']} lines")
    return findings.check(right)


def _nearest(candidates: Iterable[dict[str, Any]], document: dict[str, Any]) -> list[str]:
    """Return what a document differs in from the candidate that it differs least from."""
    return min(
        (differences(candidate, document) for candidate in candidates), key=len, default=["no event results in it"]
    )
