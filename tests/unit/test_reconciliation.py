"""What a reconciliation concludes from what it reads, without servers."""

from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agents.view_counts.reconciliation import (
    Column,
    Comparison,
    PostDifference,
    Seen,
    WindowDifference,
    WindowStatus,
    differences,
    first_start,
    may_catch_up,
    slices,
    status_of,
)
from enrich.view_windows import LENGTH, Window, start_of
from sinks.postgres.post_counts import PostCounts

NOW = datetime(2026, 1, 31, 12, 3, tzinfo=UTC)
WELL = PostCounts("post", views=7, views_of_windows=7, applied=7, baseline=100, view_count=107)


@pytest.mark.parametrize(
    ("first", "now", "judgement"),
    [
        pytest.param((5, 3), (5, 5), WindowStatus.WELL, id="counted meanwhile"),
        pytest.param((5, 3), (9, 6), WindowStatus.WELL, id="has all that was stored at the first look"),
        pytest.param((5, 3), (9, 4), WindowStatus.MOVING, id="some of it was counted"),
        pytest.param((5, 3), (5, 3), WindowStatus.BEHIND, id="nothing was counted"),
        pytest.param((5, 3), (9, 3), WindowStatus.BEHIND, id="more came and nothing was counted"),
        pytest.param((5, 6), (5, 6), WindowStatus.WRONG, id="more than is stored"),
        pytest.param((5, 3), (2, 3), WindowStatus.WRONG, id="views were deleted"),
        pytest.param((0, 0), (0, 0), WindowStatus.WELL, id="nothing there"),
    ],
)
def test_a_window_is_judged_by_two_looks(first: tuple[int, int], now: tuple[int, int], judgement: WindowStatus) -> None:
    assert status_of(Seen(*first), Seen(*now)) is judgement


@given(st.lists(st.booleans(), max_size=40), st.integers(0, 5), st.integers(0, 40), st.integers(0, 40))
def test_a_count_that_follows_what_is_stored_is_never_wrong(
    steps: list[bool], stored: int, one: int, other: int
) -> None:
    # A step stores a view or counts all there are; two looks come anywhere, each at the count first.
    history = [(stored, 0)]
    for is_count in steps:
        stored_now, counted = history[-1]
        history.append((stored_now, stored_now) if is_count else (stored_now + 1, counted))
    earlier, later = sorted(min(look, len(history) - 1) for look in (one, other))
    looks = [Seen(history[min(look + 1, len(history) - 1)][0], history[look][1]) for look in (earlier, later)]
    assert status_of(*looks) is not WindowStatus.WRONG


@pytest.mark.parametrize(
    ("post", "found"),
    [
        pytest.param(WELL, [], id="well"),
        pytest.param(WELL._replace(view_count=105), [], id="the platform's count, by others"),
        pytest.param(WELL._replace(view_count=0, changed_by_others=-107), [], id="the platform's count, moved since"),
        pytest.param(WELL._replace(applied=6), [(Column.APPLIED, 6, 7)], id="what is applied"),
        pytest.param(
            WELL._replace(applied=6, view_count=106), [(Column.VIEW_COUNT, 106, 107)], id="a view not applied"
        ),
        pytest.param(
            WELL._replace(applied=6, view_count=106, is_grouped=True), [], id="a view that waits for its turn"
        ),
        pytest.param(
            WELL._replace(applied=6, view_count=5), [(Column.VIEW_COUNT, 5, 6)], id="a view not applied, and others"
        ),
        pytest.param(
            WELL._replace(views=9, applied=6, view_count=106, is_grouped=True),
            [(Column.VIEWS, 9, 7), (Column.VIEW_COUNT, 106, 107)],
            id="our sum, while views wait for their turn",
        ),
        pytest.param(
            WELL._replace(views=9),
            [(Column.VIEWS, 9, 7)],
            id="our sum, of which nothing was applied",
        ),
        pytest.param(
            WELL._replace(views=9, applied=9, view_count=109),
            [(Column.VIEWS, 9, 7), (Column.VIEW_COUNT, 109, 107)],
            id="our sum, applied",
        ),
        pytest.param(WELL._replace(view_count=None), [], id="no such post"),
        pytest.param(WELL._replace(view_count=None, applied=0, baseline=None), [], id="no such post yet"),
        pytest.param(
            WELL._replace(applied=0, baseline=None, view_count=100), [(Column.VIEW_COUNT, 100, 107)], id="appeared"
        ),
    ],
)
def test_what_is_wrong_with_a_post_is_named(post: PostCounts, found: list[tuple[Column, int, int]]) -> None:
    assert differences(post) == [PostDifference("post", *difference) for difference in found]


def test_only_views_that_wait_for_their_post_may_catch_up() -> None:
    assert may_catch_up(WELL._replace(applied=0, baseline=None, view_count=100))
    assert may_catch_up(WELL._replace(applied=5, view_count=105))
    assert not may_catch_up(WELL)
    assert not may_catch_up(WELL._replace(view_count=106))
    assert may_catch_up(WELL._replace(applied=5, view_count=106)), "others may have changed it meanwhile"
    assert not may_catch_up(WELL._replace(views=9))
    assert not may_catch_up(WELL._replace(applied=0, view_count=None))


@given(st.integers(0, 5_000), st.integers(1, 300))
def test_slices_join_without_a_gap_to_the_end_of_time(minutes: int, windows: int) -> None:
    first = first_start(NOW - timedelta(minutes=minutes))
    found = list(slices(first, NOW, windows * LENGTH))
    assert found[0].start == first
    assert [end for _, end in found[:-1]] == [start for start, _ in found[1:]]
    assert found[-1].end is None
    assert found[-1].start + windows * LENGTH > NOW


def test_the_first_window_from_a_moment_on_does_not_begin_before() -> None:
    assert first_start(NOW) == datetime(2026, 1, 31, 12, 5, tzinfo=UTC)
    assert first_start(datetime(2026, 1, 31, 12, 5, tzinfo=UTC)) == datetime(2026, 1, 31, 12, 5, tzinfo=UTC)


def test_drift_adds_up_whatever_its_direction() -> None:
    report = Comparison(
        of_windows=[
            WindowDifference(Window("a", start_of(NOW)), stored=5, counted=3),
            WindowDifference(Window("b", start_of(NOW)), stored=1, counted=2),
        ],
        of_posts=[PostDifference("a", Column.VIEW_COUNT, 10, 6)],
    )
    assert report.drift == 7
    assert not report.is_well
    assert Comparison().is_well
