"""The offset tracker: only a contiguous finished prefix is ever committable."""

from aiokafka import TopicPartition
from hypothesis import given
from hypothesis import strategies as st

from delivery.commit import OffsetTracker

HERE = TopicPartition("page-views", 0)
THERE = TopicPartition("page-views", 1)


def test_a_finished_batch_makes_its_offsets_committable() -> None:
    tracker = OffsetTracker()
    batch = tracker.begin({HERE: (0, 10), THERE: (5, 8)})
    assert tracker.finish(batch, [HERE, THERE]) == {HERE: 10, THERE: 8}


def test_a_batch_waits_for_an_older_one_of_its_partition() -> None:
    tracker = OffsetTracker()
    older = tracker.begin({HERE: (0, 10)})
    newer = tracker.begin({HERE: (10, 20), THERE: (0, 3)})
    assert tracker.finish(newer, [HERE, THERE]) == {THERE: 3}
    assert tracker.first_unfinished(HERE) == 0
    assert tracker.finish(older, [HERE]) == {HERE: 20}
    assert tracker.first_unfinished(HERE) is None


def test_a_batch_of_a_revoked_partition_commits_nothing() -> None:
    tracker = OffsetTracker()
    batch = tracker.begin({HERE: (0, 10), THERE: (0, 10)})
    tracker.revoke([HERE])
    assert tracker.finish(batch, [HERE, THERE]) == {THERE: 10}


def test_a_batch_from_before_a_revocation_does_not_finish_one_from_after_it() -> None:
    tracker = OffsetTracker()
    before = tracker.begin({HERE: (0, 10)})
    tracker.revoke([HERE])
    after = tracker.begin({HERE: (0, 7)})
    assert tracker.finish(before, [HERE]) == {}
    assert tracker.finish(after, [HERE]) == {HERE: 7}


@given(
    sizes=st.lists(st.integers(min_value=1, max_value=50), min_size=1, max_size=20),
    order=st.randoms(use_true_random=False),
)
def test_in_whatever_order_batches_finish_no_hole_is_left_behind_the_committed_offset(
    sizes: list[int], order: object
) -> None:
    tracker = OffsetTracker()
    spans = []
    first = 0
    for size in sizes:
        spans.append((first, first + size))
        first += size
    batches = [(tracker.begin({HERE: span}), span) for span in spans]
    order.shuffle(batches)  # type: ignore[attr-defined]
    committed = 0
    finished: set[int] = set()
    for batch, (start, end) in batches:
        finished |= set(range(start, end))
        committed = tracker.finish(batch, [HERE]).get(HERE, committed)
        assert set(range(committed)) <= finished
        assert committed == first or committed not in finished
    assert committed == first
