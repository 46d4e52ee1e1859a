"""The declarations against the specification's own TypeScript, which is kept word for word beside this file."""

import re
from pathlib import Path

import pytest

from sinks.collections import COLLECTIONS, NAMES, PAGE_VIEWS, SEARCH_QUERIES, Collection, FieldType

_TOKEN = re.compile(r'"[^"]*"|\[key: string\]|\w+|[{}()\[\]<>|:;?]')


class _Interfaces:
    """A reader for as much of TypeScript as the specification uses."""

    def __init__(self, text: str) -> None:
        without_comments = re.sub(r"//.*", "", text)
        self._tokens = _TOKEN.findall(without_comments)

    def read(self) -> list[dict[str, FieldType]]:
        interfaces = []
        while self._tokens:
            self._expect("interface")
            self._take()
            fields = self._object()
            assert isinstance(fields, dict)
            interfaces.append(fields)
        return interfaces

    def _take(self) -> str:
        return str(self._tokens.pop(0))

    def _expect(self, token: str) -> None:
        assert self._take() == token

    def _next_is(self, token: str) -> bool:
        if self._tokens[0] == token:
            self._take()
            return True
        return False

    def _object(self) -> FieldType:
        self._expect("{")
        fields: dict[str, FieldType] = {}
        while not self._next_is("}"):
            name = self._take()
            optional = "?" if self._next_is("?") else ""
            self._expect(":")
            fields[name + optional] = self._type()
            self._expect(";")
        return "object" if fields == {"[key: string]": "any"} else fields

    def _type(self) -> FieldType:
        self._next_is("|")
        alternatives = [self._single()]
        while self._next_is("|"):
            alternatives.append(self._single())
        if str(alternatives[0]).startswith('"'):
            return tuple(str(alternative).strip('"') for alternative in alternatives)
        assert len(alternatives) == 1
        return alternatives[0]

    def _single(self) -> FieldType:
        if self._tokens[0] == "{":
            single = self._object()
        elif self._next_is("("):
            single = self._type()
            self._expect(")")
        elif self._next_is("Array"):
            self._expect("<")
            single = [self._type()]
            self._expect(">")
        else:
            single = self._take()
        if self._next_is("["):
            self._expect("]")
            return [single]
        return single


_TEXT = (Path(__file__).parent / "specification" / "interfaces.ts").read_text()
_SPECIFIED = dict(zip(re.findall(r"^// (\w+)$", _TEXT, re.MULTILINE), _Interfaces(_TEXT).read(), strict=True))


def test_there_are_the_twelve_collections_of_the_specification() -> None:
    assert len(_SPECIFIED) == 12
    assert set(_SPECIFIED) <= NAMES == set(COLLECTIONS)
    assert all(name == collection.name for name, collection in COLLECTIONS.items())


@pytest.mark.parametrize("collection", [COLLECTIONS[name] for name in _SPECIFIED], ids=_SPECIFIED)
def test_the_fields_are_those_of_the_specification(collection: Collection) -> None:
    specified = dict(_SPECIFIED[collection.name])
    assert specified.pop("_id") == "ObjectId"
    if collection.name == "pageViews":
        # An empty one would make every query by local time fail.
        specified["geo?"] = {"country": "string", "city": "string", "timezone?": "string"}
    if collection.name == "analyticsEvents":
        # Its own document in §4.1 has neither.
        specified["sessionId?"] = specified.pop("sessionId")
        specified["context?"] = specified.pop("context")
    if collection.name == "emailLogs":
        # A mail server of one's own is a provider, too.
        specified["provider"] = (*specified["provider"], "smtp")
    if collection.name in ("pageViews", "searchQueries", "performanceLogs"):
        # Our own mark of a document with a measurement that was out of its range.
        specified["clamped?"] = "boolean"
    assert collection.fields == specified


def test_a_required_field_is_required_and_an_optional_one_is_not() -> None:
    schema = COLLECTIONS["performanceLogs"].validator["$jsonSchema"]
    assert schema["required"] == ["_id", "method", "endpoint", "statusCode", "duration", "service", "timestamp"]
    assert schema["properties"]["timings"] == {
        "bsonType": "object",
        "properties": {part: {"bsonType": "number"} for part in ("database", "cache", "external", "processing")},
    }


def test_a_field_of_any_type_is_never_required_since_json_leaves_out_what_is_undefined() -> None:
    changes = COLLECTIONS["auditLogs"].validator["$jsonSchema"]["properties"]["changes"]
    assert changes == {"bsonType": "object", "properties": {"before": {}, "after": {}}}


@pytest.mark.parametrize("collection", [PAGE_VIEWS, SEARCH_QUERIES], ids=lambda collection: collection.name)
def test_late_fields_are_fields_of_their_collection(collection: Collection) -> None:
    assert collection.late_fields is not None
    fields = {name.removesuffix("?") for name in collection.fields}
    assert {*collection.late_fields.highest, *collection.late_fields.united} <= fields
