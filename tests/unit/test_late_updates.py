from datetime import UTC, datetime
from typing import Any

from enrich.documents import PartialUpdate
from sinks.collections import SEARCH_QUERIES
from sinks.mongo.late_updates import CombinedUpdate, completion

NOW = datetime(2026, 3, 1, 12, tzinfo=UTC)


def seen(**highest: Any) -> PartialUpdate:
    return PartialUpdate("pageViews", "a", NOW, highest, {})


def clicked(*posts: str) -> PartialUpdate:
    return PartialUpdate("searchQueries", "a", NOW, {}, {"clickedResults": [{"postId": post} for post in posts]})


def test_updates_of_one_document_become_one_update_with_the_highest_of_each() -> None:
    updates = CombinedUpdate(
        [seen(timeSpent=5, interacted=False), seen(timeSpent=3, interacted=True), seen(scrollDepth=1)]
    )
    assert updates.repeated == 0
    [_, operators] = vars_of(updates.update())
    assert operators["$max"] == {"timeSpent": 5, "interacted": True, "scrollDepth": 1}


def test_a_part_that_adds_nothing_to_those_before_it_is_counted_as_repeated() -> None:
    assert CombinedUpdate([seen(timeSpent=5), seen(timeSpent=5), seen(timeSpent=4), seen(timeSpent=6)]).repeated == 2
    assert CombinedUpdate([clicked("x", "y"), clicked("y"), clicked("y", "z")]).repeated == 1


def test_parts_that_change_nothing_do_not_touch_what_was_given() -> None:
    first = clicked("x")
    CombinedUpdate([first, clicked("y")])
    assert first.added == {"clickedResults": [{"postId": "x"}]}


def test_what_starts_with_a_dollar_sign_is_text_and_no_field() -> None:
    assert SEARCH_QUERIES.late_fields is not None
    body = {"_id": "a", "query": "$where", "clickedResults": []}
    [condition, pipeline] = vars_of(completion(body, SEARCH_QUERIES.late_fields))
    assert condition == {"_id": "a", "incomplete": True}
    assert pipeline[0]["$replaceWith"]["$mergeObjects"][0] == {"$literal": body}


def vars_of(update: Any) -> list[Any]:
    return [update._filter, update._doc]
