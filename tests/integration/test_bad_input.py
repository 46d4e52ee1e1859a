"""Anything that a producer can put on a topic: it goes alone to the dead letters, and its neighbours are stored."""

import orjson

from tests import header_names
from tests.integration.pipeline import Message, Pipeline, headers_of

EMAIL = "ann@example.com"


def tracked(identity: str, **changes: object) -> bytes:
    return orjson.dumps(
        {
            "eventId": identity,
            "eventType": "cta_clicked",
            "category": "engagement",
            "entityId": "post-1",
            "entityType": "post",
            "sessionId": "session-1",
            "properties": {},
            "context": {"page": "/", "userAgent": "Mozilla/5.0"},
            **changes,
        }
    )


def page_view(identity: str, **changes: object) -> bytes:
    return orjson.dumps(
        {
            "type": "page.viewed",
            "eventId": identity,
            "postId": "post-1",
            "postSlug": "introduction",
            "sessionId": "session-1",
            "ipAddress": "81.2.69.160",
            "userAgent": "Mozilla/5.0",
            **changes,
        }
    )


def nested(levels: int) -> dict[str, object]:
    value: dict[str, object] = {}
    for _ in range(levels):
        value = {"in": value}
    return value


BAD: dict[str, tuple[Message, str]] = {
    "neither key nor value": (Message(None), "not-json"),
    "a key but no value": (Message(None, key=b"key"), "not-json"),
    "empty value": (Message(b""), "not-json"),
    "not JSON": (Message(b"hello"), "not-json"),
    "truncated": (Message(tracked("t")[:-10]), "not-json"),
    "invalid UTF-8": (Message(tracked("u").replace(b"cta_clicked", b"cta\xff\xfe")), "not-json"),
    "lone surrogate": (Message(tracked("s").replace(b"cta_clicked", b"\\ud83d")), "not-json"),
    "an array": (Message(b"[1, 2]"), "schema"),
    "wrong types": (Message(tracked("w", sessionId=7, properties=[EMAIL])), "schema"),
    "missing field": (Message(tracked("m").replace(b"entityId", b"entityID")), "schema"),
    "absurd date": (Message(tracked("d", timestamp="0001-01-01T00:00:00+14:00")), "schema"),
    "no time zone": (Message(tracked("z", timestamp="2026-01-31T12:00:00")), "schema"),
    "unknown type": (Message(tracked("x"), [("ce_type", b"analytics.invented"), ("ce_id", b"x")]), "unknown-type"),
    "null header": (Message(tracked("h"), [("ce_type", None), ("ce_id", b"\xff")]), "schema"),  # type: ignore[list-item]
    "integer beyond 64 bits": (
        Message(tracked("i").replace(b'"properties":{}', b'"properties":{"n":%d}' % 2**70)),
        "schema",
    ),
    "a number that would become Infinity": (
        Message(tracked("f").replace(b'"properties":{}', b'"properties":{"n":1e999}')),
        "schema",
    ),
    "a number that JSON does not have": (
        Message(tracked("a").replace(b'"properties":{}', b'"properties":{"n":NaN}')),
        "not-json",
    ),
    "a text where an object belongs": (Message(tracked("o", properties=EMAIL)), "schema"),
    "a time of digits": (Message(tracked("e", timestamp="1769860800")), "schema"),
    "null where a field is required": (Message(tracked("q", entityId=None)), "schema"),
    "a text of a megabyte": (Message(tracked("l", category="." * 1_000_000)), "schema"),
    "null byte in a name": (Message(tracked("n", properties={"a\0b": 1})), "refused-by-store"),
    "too deep for MongoDB": (Message(tracked("p", properties=nested(190))), "schema"),
    "too deep for JSON": (Message(b"[" * 100_000), "not-json"),
    "over 16 MB": (Message(tracked("b", properties={"text": "x" * 17 * 2**20})), "schema"),
}


async def test_every_kind_of_bad_record_goes_alone_to_the_dead_letters(pipeline: Pipeline) -> None:
    messages = []
    good = set()
    for number, (bad, _) in enumerate(BAD.values()):
        messages += [Message(tracked(f"good-{number}-a")), bad, Message(tracked(f"good-{number}-b"))]
        good |= {f"good-{number}-a", f"good-{number}-b"}
    sent = await pipeline.send("analytics-events", messages, compression_type="zstd", max_batch_size=2**20)
    with pipeline.worker(agents="analytics-events") as worker:
        await worker.until_ready()
        await pipeline.settled("analytics-events")
        log = worker.log.read_text()

    assert set(await pipeline.documents("analyticsEvents")) == good
    letters = {
        (headers_of(letter)["dl_partition"], headers_of(letter)["dl_offset"]): letter
        for letter in await pipeline.read("analytics-events.dead-letter")
    }
    assert len(letters) == len(BAD)
    for (kind, (bad, reason)), (partition, offset) in zip(BAD.items(), sent[1::3], strict=True):
        letter = letters[str(partition), str(offset)]
        headers = headers_of(letter)
        assert letter.value == bad.value, kind
        assert list(letter.headers)[: len(bad.headers)] == list(bad.headers), kind
        assert headers["dl_topic"] == f"{pipeline.namespace}analytics-events"
        assert headers["dl_reason"] == reason, (kind, headers)
        assert headers["dl_message"], kind
        assert headers["dl_release"]
        assert EMAIL not in headers["dl_message"]
    assert EMAIL not in log


async def test_a_header_whose_name_is_not_utf_8_delays_no_other_record(pipeline: Pipeline) -> None:
    values = [(tracked("before"), False), (tracked("itself"), True), (b"bad", True), (tracked("after"), False)]
    await pipeline.send_with_header_names("analytics-events", values)
    with pipeline.worker(agents="analytics-events"):
        await pipeline.settled("analytics-events")
    assert set(await pipeline.documents("analyticsEvents")) == {"before", "itself", "after"}
    [letter] = await pipeline.read("analytics-events.dead-letter")
    assert letter.value == b"bad"
    assert letter.headers[:2] == (("first", b"1"), (header_names.NAME_READ, b"2"))


async def test_names_that_mongodb_treats_specially_are_stored_as_they_are(pipeline: Pipeline) -> None:
    special = {"$set": {"$where": 1}, "a.b": {"$": "x"}, "": 2, "text": "$notAField"}
    await pipeline.send("analytics-events", [Message(tracked("special", properties=special))])
    with pipeline.worker(agents="analytics-events"):
        await pipeline.settled("analytics-events")
    assert (await pipeline.documents("analyticsEvents"))["special"]["properties"] == special


async def test_what_is_no_reason_to_refuse_an_event_is_stored_and_marked(pipeline: Pipeline) -> None:
    values: dict[str, dict[str, object]] = {
        "null": {"scrollDepth": None, "timeSpent": None, "interacted": None, "source": None, "userId": ""},
        "clamped": {"scrollDepth": 100.4, "timeSpent": -0.3},
        "port": {"ipAddress": "81.2.69.160:51344"},
        "port6": {"ipAddress": "[2001:db8::1]:443"},
        "alone6": {"ipAddress": "2001:db8::1"},
        "hidden": {"ipAddress": "unknown"},
    }
    left = {"type": "page.exited", "viewId": "null", "postId": "post-1", "exitedAt": 1769860800000, "scrollDepth": 250}
    messages = [Message(page_view(identity, **changes)) for identity, changes in values.items()]
    await pipeline.send("page-views", [Message(orjson.dumps(left)), *messages])
    with pipeline.worker(agents="page-views"):
        await pipeline.settled("page-views")
    documents = await pipeline.documents("pageViews")
    assert set(documents) == set(values)
    assert await pipeline.read("page-views.dead-letter") == []
    assert {name: document.get("clamped") for name, document in documents.items() if "clamped" in document} == {
        "null": True,
        "clamped": True,
    }
    assert (documents["null"]["scrollDepth"], documents["null"]["timeSpent"]) == (100, 0)
    assert (documents["clamped"]["scrollDepth"], documents["clamped"]["timeSpent"]) == (100, 0)
    assert "userId" not in documents["null"]
    hashes = {name: document["ipAddress"] for name, document in documents.items()}
    assert hashes["port"] == hashes["null"]
    assert hashes["port6"] == hashes["alone6"] != hashes["port"]
    assert hashes["hidden"] == "unknown"


async def test_when_most_is_bad_the_worker_stops_with_nothing_committed(pipeline: Pipeline) -> None:
    await pipeline.send("analytics-events", [Message(b"broken release", key=b"k")] * 300)
    with pipeline.worker(agents="analytics-events", batch_records=300, dead_letter_sample=100) as worker:
        assert worker.process.wait(60) == 1
        assert "INKSTREAM_DEAD_LETTER_LIMIT" in worker.log.read_text()
    assert await pipeline.lag("analytics-events") > 0
