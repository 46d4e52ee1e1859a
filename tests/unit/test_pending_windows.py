"""Which windows are due to be counted: every requested one, but a large one not at every turn."""

from datetime import UTC, datetime, timedelta

import pytest

from agents.view_counts.pending_windows import LARGE, DueWindows, PendingWindows
from enrich.view_windows import LENGTH, Window

NOON = datetime(2026, 1, 31, 12, tzinfo=UTC)
HOT, COLD = Window("hot", NOON), Window("cold", NOON)
RATE = LARGE // 10
"""Defers the smallest large window for ten seconds."""


@pytest.fixture
def pending() -> PendingWindows:
    return PendingWindows(RATE)


def windows(due: DueWindows) -> tuple[list[Window], list[Window], list[Window]]:
    return list(due.small), list(due.large), list(due.deferred)


async def test_a_requested_window_is_due_once(pending: PendingWindows) -> None:
    pending.request(COLD, NOON)
    assert windows(pending.next_due(0)) == ([COLD], [], [])
    assert windows(pending.next_due(1)) == ([], [], [])


async def test_two_requests_for_a_window_wait_for_the_same_count(pending: PendingWindows) -> None:
    first = pending.request(COLD, NOON)
    assert pending.request(COLD, NOON) is first
    pending.next_due(0).small[COLD].done.set_result(None)
    assert first.done()


async def test_a_small_window_that_is_requested_during_its_count_is_counted_again(pending: PendingWindows) -> None:
    first = pending.request(COLD, NOON)
    counting = pending.next_due(0).small
    second = pending.request(COLD, NOON)
    assert second is not first, "the count that is under way may not have its views"
    counting[COLD].done.set_result(None)
    pending.counted(COLD, 1, now=0)
    assert not second.done()
    assert pending.next_due(1).small[COLD].done is second


async def test_a_large_window_that_is_requested_during_its_count_is_deferred(pending: PendingWindows) -> None:
    pending.counted(HOT, LARGE, now=0)
    pending.request(HOT, NOON)
    assert windows(pending.next_due(10)) == ([], [HOT], [])
    second = pending.request(HOT, NOON)
    due = pending.next_due(100)
    assert windows(due) == ([], [], [HOT]), "it is being counted"
    assert due.deferred[HOT].done is second
    pending.counted(HOT, LARGE, now=100)
    pending.request(HOT, NOON)
    assert windows(pending.next_due(110)) == ([], [HOT], [])


async def test_a_large_window_is_deferred_for_as_long_as_its_views_take_at_the_rate(pending: PendingWindows) -> None:
    pending.counted(HOT, LARGE, now=0)
    pending.counted(COLD, LARGE - 1, now=0)
    for now, expected in {0.0: ([COLD], [], [HOT]), 9.9: ([COLD], [], [HOT]), 10.0: ([COLD], [HOT], [])}.items():
        pending.request(HOT, NOON)
        pending.request(COLD, NOON)
        assert windows(pending.next_due(now)) == expected


async def test_a_window_stays_deferred_when_it_is_requested_again(pending: PendingWindows) -> None:
    pending.counted(HOT, LARGE, now=0)
    for now in range(1, 10):
        pending.request(HOT, NOON)
        assert windows(pending.next_due(now)) == ([], [], [HOT])
    pending.request(HOT, NOON)
    assert windows(pending.next_due(10)) == ([], [HOT], [])


async def test_another_window_of_a_hot_post_is_not_deferred(pending: PendingWindows) -> None:
    pending.counted(HOT, LARGE, now=0)
    other = Window(HOT.post_id, NOON + LENGTH)
    pending.request(other, NOON)
    assert windows(pending.next_due(0)) == ([other], [], [])


async def test_a_window_that_has_become_small_is_no_longer_deferred(pending: PendingWindows) -> None:
    pending.counted(HOT, LARGE, now=0)
    pending.counted(HOT, LARGE - 1, now=1)
    pending.request(HOT, NOON)
    assert windows(pending.next_due(2)) == ([HOT], [], [])


async def test_a_window_is_counted_for_the_oldest_of_its_requested_views(pending: PendingWindows) -> None:
    for minutes in (2, 1, 3):
        pending.request(COLD, NOON + timedelta(minutes=minutes))
    assert pending.next_due(0).small[COLD].oldest_view_at == NOON + timedelta(minutes=1)
    pending.request(COLD, NOON + timedelta(minutes=4))
    assert pending.next_due(0).small[COLD].oldest_view_at == NOON + timedelta(minutes=4)


async def test_large_windows_are_forgotten_some_time_after_they_were_deferred(pending: PendingWindows) -> None:
    pending.counted(HOT, LARGE, now=0)
    pending.next_due(3_600)
    assert pending._deferred_until == {}
