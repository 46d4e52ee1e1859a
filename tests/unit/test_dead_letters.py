"""The limit on dead letters: when most of what arrives is refused, stop instead of draining."""

from collections.abc import Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from delivery.dead_letters.limit import DeadLetterLimit, DeadLetterLimitExceededError


def bad(count: int) -> range:
    """Return the places of so many refused records at the beginning of a batch."""
    return range(count)


def exceeds(outcomes: Sequence[bool], batch: int, *, share: float = 0.5, sample: int = 100) -> int | None:
    """Return in which batch the limit is exceeded, where records are refused or not; `None` where it is not."""
    limit = DeadLetterLimit(share, sample)
    for start in range(0, len(outcomes), batch):
        some = outcomes[start : start + batch]
        try:
            limit.check(len(some), [place for place, is_refused in enumerate(some) if is_refused])
        except DeadLetterLimitExceededError:
            return start // batch
    return None


def exceeds_by_hand(outcomes: Sequence[bool], *, share: float, sample: int) -> bool:
    windows = (outcomes[end - sample : end] for end in range(sample, len(outcomes) + 1))
    return any(sum(window) > share * sample for window in windows)


def test_single_bad_records_among_good_ones_are_accepted() -> None:
    limit = DeadLetterLimit(0.5, sample=100)
    for _ in range(1_000):
        limit.check(10, bad(1))


def test_nothing_is_concluded_from_few_records() -> None:
    limit = DeadLetterLimit(0.5, sample=100)
    limit.check(99, bad(99))


def test_mostly_bad_records_stop_the_worker_and_the_message_says_what_to_do() -> None:
    limit = DeadLetterLimit(0.5, sample=100)
    with pytest.raises(DeadLetterLimitExceededError, match=r"60 of the latest 100 .* INKSTREAM_DEAD_LETTER_LIMIT"):
        limit.check(100, bad(60))


def test_the_limit_looks_back_over_records_and_not_over_whole_batches() -> None:
    limit = DeadLetterLimit(0.5, sample=100)
    limit.check(90, bad(20))
    # Of the latest 100 records 50 were refused, and a batch of 90 with 20 bad ones is not among them as a whole.
    limit.check(90, range(40, 90))
    with pytest.raises(DeadLetterLimitExceededError):
        limit.check(1, bad(1))


def test_many_bad_records_within_one_large_batch_are_too_many() -> None:
    with pytest.raises(DeadLetterLimitExceededError):
        DeadLetterLimit(0.5, sample=100).check(2_000, range(500, 551))


def test_bad_records_of_long_ago_do_not_count() -> None:
    limit = DeadLetterLimit(0.5, sample=100)
    limit.check(90, bad(50))
    for _ in range(10):
        limit.check(100, ())
    limit.check(100, bad(50))


def test_a_good_record_can_be_the_one_with_which_there_are_enough() -> None:
    limit = DeadLetterLimit(0.5, sample=100)
    limit.check(99, bad(60))
    with pytest.raises(DeadLetterLimitExceededError):
        limit.check(1, ())


@given(
    outcomes=st.lists(st.booleans(), max_size=60),
    batch=st.integers(1, 60),
    share=st.sampled_from([0, 0.25, 0.5, 0.9, 1]),
    sample=st.integers(1, 20),
)
def test_how_records_are_cut_into_batches_makes_no_difference(
    outcomes: list[bool], batch: int, share: float, sample: int
) -> None:
    exceeded = exceeds(outcomes, batch, share=share, sample=sample)
    assert (exceeded is not None) == exceeds_by_hand(outcomes, share=share, sample=sample)


def test_a_limit_of_one_accepts_everything() -> None:
    DeadLetterLimit(1.0, sample=1).check(1_000, bad(1_000))
