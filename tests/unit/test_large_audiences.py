"""Events that notify very many people, from the record to the writes: whole, in portions, and with a stated limit."""

from datetime import timedelta
from itertools import chain
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import orjson
import pytest

from agents.store import MOST_WRITES, Store
from delivery.dead_letters.letter import DeadLetter
from enrich.enricher import Enricher
from enrich.notifications import Notifier
from notifications import rules
from schemas.cloudevents import Decoder
from schemas.envelope import InvalidEvent
from schemas.posts import MOST_FOLLOWERS
from schemas.topics import load
from sinks.collections import NAMES

ROOT = Path(__file__).parents[2]
TOPIC = load(ROOT / "topics.yaml", NAMES).inbound["domain-events"]
NOTIFIER = Notifier(rules.load(ROOT / "notifications.yaml", TOPIC.events))
KAFKAS_DEFAULT_BYTES = 2**20


def published(followers: int, offset: int = 0, **fields: object) -> Any:
    payload = {
        "postId": "post-1",
        "slug": "types",
        "title": "Types",
        "authorId": "alan",
        "followerIds": [f"{number:08d}-0000-4000-8000-000000000000" for number in range(followers)],
        **fields,
    }
    headers = {"specversion": "1.0", "id": f"published-{offset}", "type": "post.published", "source": "/tests"}
    return SimpleNamespace(
        topic=TOPIC.name,
        partition=0,
        offset=offset,
        timestamp=1_769_860_800_000,
        key=b"post-1",
        value=orjson.dumps(payload),
        headers=[(f"ce_{name}", value.encode()) for name, value in headers.items()],
    )


def decoder() -> Decoder:
    return Decoder(TOPIC, timedelta(hours=24))


def portions(records: list[Any]) -> tuple[list[tuple[int, int]], list[DeadLetter]]:
    """Return the number of writes and of those who are notified of each portion, and the invalid records."""
    unused = cast("Any", None)
    store = Store("notify", decoder(), NOTIFIER.documents, unused, unused, unused)
    invalid: list[DeadLetter] = []
    sizes = []
    for writes, origins in store._portions(records, invalid):
        assert len(writes) == len(origins)
        sizes.append((len(writes), len({cast("Any", write).body["userId"] for write in writes})))
    return sizes, invalid


@pytest.mark.parametrize("followers", [10_001, 20_000, 25_000])
def test_a_list_that_fits_into_a_record_of_kafkas_default_size_is_taken_whole(followers: int) -> None:
    record = published(followers)
    assert len(record.value) < KAFKAS_DEFAULT_BYTES
    sizes, invalid = portions([record])
    assert invalid == []
    assert sum(people for _, people in sizes) == followers


def test_however_long_the_list_is_a_portion_has_a_bound() -> None:
    sizes, _ = portions([published(MOST_FOLLOWERS)])
    assert sum(writes for writes, _ in sizes) == 2 * MOST_FOLLOWERS
    assert max(writes for writes, _ in sizes) <= MOST_WRITES


def test_many_lists_in_one_batch_are_portions_as_well() -> None:
    sizes, invalid = portions([published(6_000, offset) for offset in range(8)] + [published(0, 8)])
    assert invalid == []
    assert sum(writes for writes, _ in sizes) == 8 * 12_000
    assert max(writes for writes, _ in sizes) < 2 * MOST_WRITES


def test_a_batch_of_small_events_is_one_portion() -> None:
    sizes, _ = portions([published(2, offset) for offset in range(2_000)])
    assert sizes == [(8_000, 2)]


def test_an_invalid_record_between_long_lists_is_found_in_its_place() -> None:
    sizes, (letter,) = portions([published(9_000, 0), published(1, 1, slug=7), published(9_000, 2)])
    assert letter.record.offset == 1
    assert sum(writes for writes, _ in sizes) == 36_000


@pytest.mark.parametrize("followers", [MOST_FOLLOWERS + 1, 2 * MOST_FOLLOWERS])
def test_a_longer_list_is_refused_and_the_reason_says_how_to_split_it(followers: int) -> None:
    with pytest.raises(InvalidEvent, match=r"followerIds: should have at most 100,000 ids; .* continues ") as refused:
        decoder().decode(published(followers))
    assert "0000-4000" not in refused.value.message


def test_a_part_of_an_event_becomes_no_document_but_notifications() -> None:
    enricher = Enricher(ip_hash_key=b"key of the tests", geo=None)
    first, part = (decoder().decode(record) for record in (published(2), published(3, 1, continues="published-0")))
    assert len(enricher.documents(first)) == len(first.type.collections)
    assert enricher.documents(part) == []
    told = chain(NOTIFIER.documents(first), NOTIFIER.documents(part))
    assert len({cast("Any", write).body["_id"] for write in told}) == 3
