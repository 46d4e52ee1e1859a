import re
from itertools import islice

import orjson

from bench import traffic
from runtime.settings import ROOT
from schemas.topics import load
from sinks.collections import NAMES

INBOUND = {name: topic for name, topic in load(ROOT / "topics.yaml", NAMES).inbound.items() if topic.collections}
SCENARIOS = traffic.Scenarios(INBOUND.values(), told=3_000)


def without_time(record: traffic.Record) -> dict[str, object]:
    view = orjson.loads(record.value)
    del view["timestamp"]
    return dict(view)


def test_the_same_seed_gives_the_same_views_and_another_one_others() -> None:
    first, again, other = (list(traffic.page_views(50, seed)) for seed in (1, 1, 2))
    assert [*map(without_time, first)] == [*map(without_time, again)]
    assert not {view["eventId"] for view in map(without_time, first)} & {
        view["eventId"] for view in map(without_time, other)
    }


def test_views_are_of_about_520_bytes_and_keyed_by_post() -> None:
    views = list(traffic.page_views(2_000))
    assert 470 < sum(len(view.value) for view in views) / len(views) < 570
    assert all(view.key.decode() == orjson.loads(view.value)["postId"] for view in views)


def test_one_view_in_so_many_is_a_sample() -> None:
    sessions = [view["sessionId"] for view in traffic.sampled_page_views(100, 50, seed=1)]
    assert [session for session in sessions if session.startswith("sample-")] == ["sample-0", "sample-1"]


def test_there_are_as_many_events_of_every_topic_as_are_wanted_each_with_ids_of_its_own() -> None:
    for topic in INBOUND:
        records = list(SCENARIOS.records(topic, 5_000))
        assert len(records) == 5_000
        ids = [dict(record.headers).get("ce_id") for record in records]
        known = [identity for identity in ids if identity is not None]
        assert len(set(known)) == len(known) > 0


def test_a_copy_of_a_click_refers_to_the_copy_of_its_search() -> None:
    searched, clicked = set(), set()
    for record in SCENARIOS.records("searches", 12_000):
        body = record.value.decode()
        clicked |= set(re.findall(r'"searchId":"([^"]+)"', body))
        if '"resultsCount"' in body:
            headers = dict(record.headers)
            searched |= (
                {headers["ce_id"].decode()}
                if "ce_id" in headers
                else set(re.findall(r'"(?:eventId|id)":"([^"]+)"', body))
            )
    assert len(clicked) > 1_000
    # All but those whose search is further on.
    assert len(clicked - searched) < len(clicked) / 100


def test_records_come_lazily() -> None:
    assert len(list(islice(SCENARIOS.records("audit-entries", 10**9), 10))) == 10
