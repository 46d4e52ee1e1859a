"""Which windows are due to be counted: every touched one, a large one not at every turn."""

from datetime import UTC, datetime, timedelta

import pytest

from agents.view_counts.pending_windows import LARGE, Recounts, Turn
from enrich.view_windows import LENGTH, Window

NOON = datetime(2026, 1, 31, 12, tzinfo=UTC)
HOT, COLD = Window("hot", NOON), Window("cold", NOON)
RATE = LARGE // 10
"""So that the smallest of large windows rests for ten seconds."""


@pytest.fixture
def recounts() -> Recounts:
    return Recounts(RATE)


def windows(turn: Turn) -> tuple[list[Window], list[Window], list[Window]]:
    return list(turn.small), list(turn.large), list(turn.resting)


async def test_a_touched_window_is_due_once(recounts: Recounts) -> None:
    recounts.want(COLD, NOON)
    assert windows(recounts.take_turn(0)) == ([COLD], [], [])
    assert windows(recounts.take_turn(1)) == ([], [], [])


async def test_whoever_touches_a_window_waits_for_the_same_count(recounts: Recounts) -> None:
    first = recounts.want(COLD, NOON)
    assert recounts.want(COLD, NOON) is first
    recounts.take_turn(0).small[COLD].done.set_result(None)
    assert first.done()


async def test_a_small_window_that_is_touched_while_it_is_counted_is_counted_again(recounts: Recounts) -> None:
    first = recounts.want(COLD, NOON)
    counting = recounts.take_turn(0).small
    second = recounts.want(COLD, NOON)
    assert second is not first, "the count that is under way may not have its views"
    counting[COLD].done.set_result(None)
    recounts.counted(COLD, 1, now=0)
    assert not second.done()
    assert recounts.take_turn(1).small[COLD].done is second


async def test_a_large_window_that_is_touched_while_it_is_counted_is_put_off(recounts: Recounts) -> None:
    recounts.counted(HOT, LARGE, now=0)
    recounts.want(HOT, NOON)
    assert windows(recounts.take_turn(10)) == ([], [HOT], [])
    second = recounts.want(HOT, NOON)
    turn = recounts.take_turn(100)
    assert windows(turn) == ([], [], [HOT]), "it is being counted"
    assert turn.resting[HOT].done is second
    recounts.counted(HOT, LARGE, now=100)
    recounts.want(HOT, NOON)
    assert windows(recounts.take_turn(110)) == ([], [HOT], [])


async def test_a_large_window_rests_for_as_long_as_its_views_take_at_the_rate(recounts: Recounts) -> None:
    recounts.counted(HOT, LARGE, now=0)
    recounts.counted(COLD, LARGE - 1, now=0)
    for now, expected in {0.0: ([COLD], [], [HOT]), 9.9: ([COLD], [], [HOT]), 10.0: ([COLD], [HOT], [])}.items():
        recounts.want(HOT, NOON)
        recounts.want(COLD, NOON)
        assert windows(recounts.take_turn(now)) == expected


async def test_a_window_rests_however_often_it_is_put_off(recounts: Recounts) -> None:
    recounts.counted(HOT, LARGE, now=0)
    for now in range(1, 10):
        recounts.want(HOT, NOON)
        assert windows(recounts.take_turn(now)) == ([], [], [HOT])
    recounts.want(HOT, NOON)
    assert windows(recounts.take_turn(10)) == ([], [HOT], [])


async def test_another_window_of_a_hot_post_does_not_rest(recounts: Recounts) -> None:
    recounts.counted(HOT, LARGE, now=0)
    other = Window(HOT.post_id, NOON + LENGTH)
    recounts.want(other, NOON)
    assert windows(recounts.take_turn(0)) == ([other], [], [])


async def test_a_window_that_is_small_by_now_no_longer_rests(recounts: Recounts) -> None:
    recounts.counted(HOT, LARGE, now=0)
    recounts.counted(HOT, LARGE - 1, now=1)
    recounts.want(HOT, NOON)
    assert windows(recounts.take_turn(2)) == ([HOT], [], [])


async def test_a_window_is_counted_for_the_oldest_of_the_views_that_want_it(recounts: Recounts) -> None:
    for minutes in (2, 1, 3):
        recounts.want(COLD, NOON + timedelta(minutes=minutes))
    assert recounts.take_turn(0).small[COLD].oldest_view_at == NOON + timedelta(minutes=1)
    recounts.want(COLD, NOON + timedelta(minutes=4))
    assert recounts.take_turn(0).small[COLD].oldest_view_at == NOON + timedelta(minutes=4)


async def test_large_windows_are_forgotten_some_time_after_their_rest(recounts: Recounts) -> None:
    recounts.counted(HOT, LARGE, now=0)
    recounts.take_turn(3_600)
    assert recounts._rest_until == {}
