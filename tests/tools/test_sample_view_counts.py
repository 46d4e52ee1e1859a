"""The report of `make run` on view counts: what agrees, what does not, and how long counting took."""

from datetime import UTC, datetime, timedelta

import pytest

from dev.counts import PostCount, PostRecord, StoredWindow, compare, counted_within
from dev.report import view_counts_lines, view_counts_problems
from enrich.view_windows import LENGTH, Window

BEGAN = datetime(2026, 1, 31, 12, 2, tzinfo=UTC)
START = datetime(2026, 1, 31, 12, tzinfo=UTC)
FIRST, SECOND = Window("post", START), Window("post", START + LENGTH)
METRICS = """
# TYPE inkstream_counted_after_seconds histogram
inkstream_counted_after_seconds_bucket{agent="post-view-counts",le="1.0"} 0.0
inkstream_counted_after_seconds_bucket{agent="post-view-counts",le="2.0"} 50.0
inkstream_counted_after_seconds_bucket{agent="post-view-counts",le="4.0"} 98.0
inkstream_counted_after_seconds_bucket{agent="post-view-counts",le="6.0"} 100.0
inkstream_counted_after_seconds_bucket{agent="post-view-counts",le="+Inf"} 100.0
inkstream_counted_after_seconds_count{agent="post-view-counts"} 100.0
inkstream_counted_after_seconds_sum{agent="post-view-counts"} 200.0
"""


def record(view_count: int, before: int = 0, old_views: int = 0) -> PostRecord:
    return PostRecord("post", "a-post", view_count, before, old_views)


def stored(window: Window, views: int, latest: timedelta = timedelta(seconds=1)) -> StoredWindow:
    return StoredWindow(window, views, BEGAN + latest)


def count(view_count: int, stored: int, before: int = 0) -> PostCount:
    return PostCount(f"post-{view_count}", f"post-{view_count}", view_count, before, stored)


def test_a_post_agrees_when_all_its_windows_are_counted() -> None:
    (post,) = compare([record(7)], {FIRST, SECOND}, [stored(FIRST, 3), stored(SECOND, 4)], BEGAN)
    assert post == PostCount("post", "a-post", 7, 0, 7)
    assert post.agrees


def test_a_window_that_is_stored_and_not_counted_is_a_difference() -> None:
    (post,) = compare([record(3)], {FIRST}, [stored(FIRST, 3), stored(SECOND, 4)], BEGAN)
    assert not post.agrees


def test_a_window_that_had_its_last_view_before_counting_began_is_left_out() -> None:
    earlier = stored(FIRST, 3, timedelta(seconds=-1))
    assert [post.stored for post in compare([record(0)], set(), [earlier], BEGAN)] == [0]
    assert [post.stored for post in compare([record(3)], {FIRST}, [earlier], BEGAN)] == [3]


def test_what_was_there_before_and_what_is_too_old_to_count_is_added() -> None:
    (post,) = compare([record(110, before=100, old_views=6)], {FIRST}, [stored(FIRST, 4)], BEGAN)
    assert post.agrees


def test_a_view_counted_twice_is_a_difference() -> None:
    (post,) = compare([record(4)], {FIRST}, [stored(FIRST, 3)], BEGAN)
    assert not post.agrees


def test_views_of_a_post_that_is_not_there_are_nobodys() -> None:
    assert compare([], {FIRST}, [stored(FIRST, 3)], BEGAN) == []


def test_the_most_read_post_comes_first() -> None:
    posts = [PostRecord(str(views), str(views), views, 0, views) for views in (3, 9, 5)]
    assert [post.view_count for post in compare(posts, set(), [], BEGAN)] == [9, 5, 3]


def test_posts_that_nobody_read_are_not_said_to_agree() -> None:
    line, *_ = view_counts_lines([count(5, 5), count(0, 0)], [], [])
    assert line.startswith("All 1 posts that were read agree")


def test_each_post_that_disagrees_is_a_problem_up_to_three() -> None:
    counts = [count(number, number + 1) for number in range(1, 6)]
    problems = view_counts_problems(counts)
    assert problems[0] == 'post-1: posts."viewCount" is 1, and should be 2: 2 views by people are stored'
    assert problems[-1] == "and 2 more posts whose view counts disagree"
    assert len(problems) == 4
    assert view_counts_lines(counts, [], [])[0] == "5 of 5 posts that were read disagree."


def test_counts_of_earlier_runs_are_named() -> None:
    (problem,) = view_counts_problems([count(10, 3, before=8)])
    assert problem.endswith("should be 11: 3 views by people are stored, 8 are from earlier runs")


def test_posts_that_trend_are_told_by_slug_and_strangers_left_out() -> None:
    assert view_counts_lines([count(5, 5)], [], ["post-5", "unknown"])[-1] == "Trending now, from Redis: post-5."
    assert len(view_counts_lines([count(5, 5)], [], ["unknown"])) == 1


def test_the_time_that_counting_took_lies_within_the_steps_of_the_histogram() -> None:
    assert counted_within(METRICS, 0.5, 0.99) == [pytest.approx(2.0), pytest.approx(5.0)]
    assert counted_within(METRICS, 0.25) == [pytest.approx(1.5)]


def test_what_took_longer_than_the_last_step_is_told_as_that_step() -> None:
    slow = 'inkstream_counted_after_seconds_bucket{agent="x",le="%s"} %s\n'
    metrics = "# TYPE inkstream_counted_after_seconds histogram\n" + slow % ("60.0", "1.0") + slow % ("+Inf", "4.0")
    assert counted_within(metrics, 0.99) == [60]


def test_before_the_first_count_there_is_no_time_to_tell() -> None:
    assert counted_within("", 0.5) == []
    assert (
        counted_within(METRICS.replace(" 100.0", " 0.0").replace(" 50.0", " 0.0").replace(" 98.0", " 0.0"), 0.5) == []
    )
