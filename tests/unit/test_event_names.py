"""What a record that was refused says of itself: the type and the id of its event."""

from collections.abc import Sequence

import pytest

from runtime.settings import ROOT
from schemas.cloudevents import names_of
from schemas.topics import load
from sinks.collections import NAMES

TOPICS = load(ROOT / "topics.yaml", NAMES).inbound
SEVERAL, SINGLE = TOPICS["domain-events"], TOPICS["log-lines"]
BINARY = [("ce_type", b"post.liked"), ("ce_id", b"i-1")]


@pytest.mark.parametrize(
    ("value", "headers"),
    [
        (b"{not json", BINARY),
        (None, BINARY),
        (b"{}", [("CE-Type", b"post.liked"), ("ce-id", b"i-1")]),
        (b'{"type": "post.liked", "eventId": "i-1"}', []),
        (b'\xef\xbb\xbf{"type": "post.liked", "eventId": "i-1"}', []),
        (b'{"specversion": "1.0", "type": "post.liked", "id": "i-1"}', []),
        (b'{"type": "post.liked", "id": "i-1"}', [("content-type", b"application/cloudevents+json")]),
        (b'{"specversion": "1.0", "type": "post.liked", "id": "i-1", "data_base64": "*"}', []),
    ],
)
def test_type_and_id_are_read_from_every_form(value: bytes | None, headers: Sequence[tuple[str, bytes]]) -> None:
    assert names_of(value, headers, SEVERAL) == ("post.liked", "i-1")


@pytest.mark.parametrize("value", [b"", b"[1]", b'"text"', b'{"type": 7, "eventId": null}', b"\xff"])
def test_what_cannot_be_read_is_empty(value: bytes) -> None:
    assert names_of(value, [("ce_id", b"")], SEVERAL) == ("", "")


def test_a_topic_with_one_type_gives_it_to_a_plain_event() -> None:
    (name,) = SINGLE.events
    assert names_of(b'{"type": "image", "eventId": "i-2"}', [], SINGLE) == (name, "i-2")
    assert names_of(b"{", [("ce_type", b"other")], SINGLE) == ("other", "")
