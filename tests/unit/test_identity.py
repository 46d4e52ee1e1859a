"""One space of ids: what Inkstream makes up can't be had by a producer, and two events never have one id by it."""

import re

import orjson
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from enrich.context import Context
from enrich.documents import PartialUpdate
from enrich.page_views import exited
from enrich.searches import result_clicked
from notifications.notice import digest
from notifications.rules import requested
from schemas import identity
from schemas.envelope import InvalidEvent
from schemas.identity import ReplaySigner
from tests.unit.test_cloudevents import SAMPLED, TOPICS, VIEWED, Headers, decode

TRACKED = next(iter(TOPICS["analytics-events"].events.values())).examples[0]
PLACE = "analytics-events:0:17"
CONTEXT = Context(ip_hash_key=b"key", geo=None)
SIGNER = ReplaySigner(b"secret")
positions = st.builds(
    identity.position,
    st.from_regex(r"[a-z0-9._-]{1,20}", fullmatch=True) | st.just("id"),
    st.integers(0, 2**31),
    st.integers(0, 2**63),
)
names = st.one_of(
    positions,
    st.text(min_size=1, max_size=30),
    st.builds(lambda times, name: "id:" * times + name, st.integers(0, 4), positions | st.text(max_size=10)),
    st.from_regex(r"(id:){0,3}[a-z:]{0,5}:[0-9]{1,3}:[0-9]{1,3}", fullmatch=True),
)


def with_id(name: str) -> list[tuple[str, object, Headers]]:
    """Return the topic, body and headers of an event with this id, in each of its forms."""
    headers = [("ce_id", name.encode()), ("ce_type", b"analytics.tracked")]
    envelope = {"specversion": "1.0", "id": name, "type": "analytics.tracked", "source": "/", "data": TRACKED}
    return [
        ("analytics-events", TRACKED, headers),
        ("analytics-events", TRACKED, [("CE-ID", name.encode())]),
        ("analytics-events", {**TRACKED, "eventId": name}, []),
        ("analytics-events", envelope, [("content-type", b"application/cloudevents+json")]),
        ("analytics-events", envelope, []),
    ]


def test_an_event_without_an_id_is_known_by_its_place() -> None:
    assert decode("analytics-events", TRACKED, offset=17).id == PLACE


def test_a_producers_id_is_never_that_of_an_event_without_one() -> None:
    for topic, body, headers in with_id(PLACE):
        assert decode(topic, body, headers).id == f"id:{PLACE}"


@pytest.mark.parametrize(
    "name",
    [
        "searches:5:0",
        "staging.analytics-events:0:17",
        "a-topic-that-is-declared-next-year:0:0",
        "id:analytics-events:0:17",
        "id:id:analytics-events:0:17",
        "analytics-events:00:017",
        "id:0:17",
    ],
)
def test_whatever_has_the_form_of_a_place_is_set_apart(name: str) -> None:
    for topic, body, headers in with_id(name):
        assert decode(topic, body, headers).id == f"id:{name}"


@pytest.mark.parametrize(
    "name",
    [
        "0190f3c5-7a1e-7d3b-9c41-5f6f1f0f0001",
        "01JAB2Z3Y4X5W6V7U8T9S0R1Q2",
        "order:17",
        "a:b:17",
        "a:17:b",
        "urn:uuid:0190f3c5-7a1e-7d3b-9c41-5f6f1f0f0001",
        "2026-01-31T12:00:00Z",
        "analytics-events:0:17 ",
        "analytics-events:0:17\n",
        "analytics-events:0:\uff11\uff17",
        "/analytics-events:0:17",
        "a:b:0:17",
        "id:",
    ],
)
def test_any_other_id_stays_as_it_is(name: str) -> None:
    for topic, body, headers in with_id(name):
        assert decode(topic, body, headers).id == name


@given(one=names, other=names, place=positions)
@example(one="id:0:1", other="id:id:0:1", place="id:0:1")
def test_two_names_have_two_ids_and_none_of_them_is_a_place(one: str, other: str, place: str) -> None:
    assert (identity.of_producer(one) == identity.of_producer(other)) == (one == other)
    assert identity.of_producer(one) != place


@given(one=names, other=names, digests=st.lists(st.text(max_size=5), min_size=3, max_size=5), generation=st.integers(0))
def test_no_request_has_the_id_of_a_notification_by_a_rule(
    one: str, other: str, digests: list[str], generation: int
) -> None:
    group = digest(*digests)
    for forged in (one, group, f"{group}-{generation}", f"{group}-x\n", f"id:{group}"):
        made = identity.of_request(identity.of_producer(forged))
        assert made != group
        assert not made.startswith(f"{group}-")
        assert (made == identity.of_request(identity.of_producer(other))) == (forged == other)


@pytest.mark.parametrize("suffix", ["", "-1", "-x", "-1-2"])
def test_a_request_that_takes_a_groups_id_gets_one_of_its_own(suffix: str) -> None:
    group = digest("user-1", "post_liked", "post", "post-1", "2026-01-31T12:00:00+00:00")
    example = TOPICS["notifications"].events["notification.requested"].examples[0]
    event = decode("notifications", {**example, "eventId": group + suffix})
    assert requested(event).id == f"id:{group}{suffix}"  # type: ignore[arg-type]  # of the topic's only class
    dashed = "0190f3c5-7a1e-7d3b-9c41-5f6f1f0f0001"
    assert requested(decode("notifications", {**example, "eventId": dashed})).id == dashed  # type: ignore[arg-type]


def test_an_exit_and_a_click_name_their_document_as_its_producer_did() -> None:
    view = decode("page-views", {**VIEWED, "type": "page.viewed", "eventId": "view:1:2"})
    leaving = {**TOPICS["page-views"].events["page.exited"].examples[0], "type": "page.exited", "viewId": "view:1:2"}
    (part,) = exited(decode("page-views", leaving), CONTEXT)  # type: ignore[arg-type]  # by its type an exit
    assert isinstance(part, PartialUpdate)
    assert part.id == view.id == "id:view:1:2"
    clicked = TOPICS["searches"].events["search.result_clicked"].examples[0]
    event = decode("searches", {**clicked, "type": "search.result_clicked", "searchId": "searches:0:7"})
    part, _ = result_clicked(event, CONTEXT)  # type: ignore[arg-type]  # by its type a click
    assert isinstance(part, PartialUpdate)
    assert part.id == "id:searches:0:7"


# Replays ----------------------------------------------------------------------------------------------------


def replayed(
    value: bytes, origin: str, headers: Headers = (), signer: ReplaySigner = SIGNER
) -> list[tuple[str, bytes]]:
    signature = signer.sign(origin, identity.content(value, headers))
    return [*headers, ("replayed_from", origin.encode()), ("replay_attempt", b"1"), ("replay_signature", signature)]


BODY = orjson.dumps(SAMPLED)


def test_a_replayed_record_without_an_id_keeps_its_first_position_as_id() -> None:
    headers = replayed(BODY, "performance-samples:3:14", [("trace", b"\xff"), ("trace", b"2")])
    assert decode("performance-samples", BODY, headers, signer=SIGNER).id == "performance-samples:3:14"


def test_a_replayed_record_with_an_id_keeps_its_id() -> None:
    headers = replayed(BODY, "performance-samples:3:14", [("ce_id", b"mine"), ("ce_type", b"performance.sampled")])
    assert decode("performance-samples", BODY, headers, signer=SIGNER).id == "mine"


@pytest.mark.parametrize("attempt", [[], [("replay_attempt", b"1")]])
@pytest.mark.parametrize("signer", [None, SIGNER])
def test_a_producer_cannot_take_another_events_identity_by_a_header(
    attempt: list[tuple[str, bytes]], signer: ReplaySigner | None
) -> None:
    for claimed in (b"performance-samples:3:14", b"searches:0:0", b"", b"\xff", b"mine"):
        headers = [("replayed_from", claimed), *attempt, ("dl_topic", b"x"), ("dl_offset", b"17")]
        event = decode("performance-samples", BODY, headers, signer=signer)
        assert event.id == "performance-samples:0:7"


def test_a_forged_or_copied_signature_is_refused_with_what_to_do() -> None:
    genuine = replayed(BODY, "performance-samples:3:14", [("trace", b"1")])
    by_another_key = replayed(BODY, "performance-samples:3:14", signer=ReplaySigner(b"guessed"))
    elsewhere = [(name, b"performance-samples:3:15" if name == "replayed_from" else value) for name, value in genuine]
    more_headers = [("ce_type", b"performance.sampled"), *genuine]
    for value, headers in (
        (BODY, by_another_key),
        (BODY, elsewhere),
        (BODY, more_headers),
        (BODY + b" ", genuine),
        (BODY, [("replayed_from", b"searches:0:0"), ("replay_signature", b"")]),
        (BODY, [("replayed_from", b"\xff"), ("replay_signature", b"\xff")]),
        (BODY, [("replay_signature", b"x")]),
    ):
        with pytest.raises(InvalidEvent, match="replay_signature: was not made with this worker's INKSTREAM_IP_HASH"):
            decode("performance-samples", value, headers, signer=SIGNER)


def test_content_keeps_value_and_headers_apart() -> None:
    said = {
        identity.content(value, headers)
        for value in (None, b"", b"a", b"-", b"1:a")
        for headers in ((), [("a", b"")], [("a", None)], [("", b"a")], [("a", b"b")], [("a", b"b"), ("a", b"b")])
    }
    assert len(said) == 30


def test_a_signature_tells_nothing_of_the_key() -> None:
    signature = SIGNER.sign("a:0:1", b"said")
    assert re.fullmatch(rb"[0-9a-f]{64}", signature)
    assert signature != ReplaySigner(b"secret2").sign("a:0:1", b"said")


def test_an_id_may_have_256_characters_without_what_sets_it_apart() -> None:
    longest = "a" * 252 + ":0:1"
    assert decode("analytics-events", {**TRACKED, "eventId": longest}).id == f"id:{longest}"
    for name in ("a" + longest, "a" * 257):
        with pytest.raises(InvalidEvent, match="at most 256 characters; came 257"):
            decode("analytics-events", {**TRACKED, "eventId": name})
