"""The limit on dead letters: when most of what arrives is refused, stop instead of draining."""

import pytest

from delivery.dead_letters import DeadLetterLimit, DeadLetterLimitExceededError


def test_single_bad_records_among_good_ones_are_accepted() -> None:
    limit = DeadLetterLimit(0.5, sample=100)
    for _ in range(1_000):
        limit.check(10, 1)


def test_nothing_is_concluded_from_few_records() -> None:
    limit = DeadLetterLimit(0.5, sample=100)
    limit.check(99, 99)


def test_mostly_bad_records_stop_the_worker_and_the_message_says_what_to_do() -> None:
    limit = DeadLetterLimit(0.5, sample=100)
    with pytest.raises(DeadLetterLimitExceededError, match=r"60 of the latest 100 .* INKSTREAM_DEAD_LETTER_LIMIT"):
        limit.check(100, 60)


def test_bad_records_of_long_ago_do_not_count() -> None:
    limit = DeadLetterLimit(0.5, sample=100)
    limit.check(90, 90)
    for _ in range(10):
        limit.check(100, 0)
    limit.check(100, 50)


def test_a_limit_of_one_accepts_everything() -> None:
    DeadLetterLimit(1.0, sample=1).check(1_000, 1_000)
