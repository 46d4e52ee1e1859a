"""Encode a fact as a record's value and headers, in each of the three forms that Inkstream reads.

Input: a fact. Output: bytes. The forms are CloudEvents 1.0 in binary and in structured mode, and a plain JSON body.

Format: https://github.com/cloudevents/spec/blob/v1.0.2/cloudevents/bindings/kafka-protocol-binding.md
"""

import orjson

from dev.scenarios import Fact

Headers = tuple[tuple[str, bytes], ...]
Encoded = tuple[bytes, Headers]

_SOURCE = "https://blog.example/sample-traffic"


def binary(fact: Fact) -> Encoded:
    """Encode in binary mode: attributes in headers, the payload as the value."""
    return orjson.dumps(fact.data), headers_of(fact)


def headers_of(fact: Fact) -> Headers:
    """Return the headers of binary mode."""
    return (
        ("ce_specversion", b"1.0"),
        ("ce_id", fact.id.encode()),
        ("ce_type", fact.type.encode()),
        ("ce_source", _SOURCE.encode()),
        ("ce_time", _time(fact).encode()),
        ("content-type", b"application/json"),
    )


def structured(fact: Fact) -> Encoded:
    """Encode in structured mode: attributes and payload in one JSON object."""
    body = {
        "specversion": "1.0",
        "id": fact.id,
        "type": fact.type,
        "source": _SOURCE,
        "time": _time(fact),
        "datacontenttype": "application/json",
        "data": fact.data,
    }
    return orjson.dumps(body), (("content-type", b"application/cloudevents+json; charset=UTF-8"),)


def plain(fact: Fact, *, with_type: bool, with_id: bool = True) -> Encoded:
    """Encode as a JSON body that knows nothing of CloudEvents.

    Args:
        fact: What to encode.
        with_type: Whether the body says its type; it must, where a topic carries several.
        with_id: Whether the body has an id; else its place in Kafka becomes its id.
    """
    body = {**fact.data, "timestamp": _time(fact)}
    if with_type:
        body["type"] = fact.type
    if with_id:
        body["eventId"] = fact.id
    return orjson.dumps(body), ()


def _time(fact: Fact) -> str:
    return fact.time.isoformat(timespec="milliseconds")
