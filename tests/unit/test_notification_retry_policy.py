from dataclasses import FrozenInstanceError
from datetime import timedelta
from random import Random
from statistics import mean

import pytest
from hypothesis import given
from hypothesis import strategies as st

from notifications.retry_policy import (
    LONGEST_WAIT,
    POLICIES,
    UNSAID,
    RetryPolicy,
    after_throttling,
    backoff,
    growing,
)
from schemas.notifications import NotificationRequested

SECOND = timedelta(seconds=1)
POLICY = RetryPolicy(base=timedelta(seconds=10), factor=3, cap=timedelta(seconds=100), max_attempts=5)


@pytest.mark.parametrize(("attempt", "longest"), [(1, 10), (2, 30), (3, 90), (4, 100), (5, 100), (100_000, 100)])
def test_the_longest_wait_grows_up_to_the_cap(attempt: int, longest: int) -> None:
    assert growing(attempt, POLICY.base, POLICY.factor, POLICY.cap) == timedelta(seconds=longest)


@pytest.mark.parametrize(("attempt", "longest"), [(1, 10), (2, 30), (4, 100)])
def test_a_crowd_that_failed_together_comes_back_spread_over_the_whole_wait(attempt: int, longest: int) -> None:
    chance = Random(1)
    waits = [backoff(attempt, POLICY, chance) / SECOND for _ in range(10_000)]
    assert 0 <= min(waits) < longest * 0.01
    assert longest * 0.99 < max(waits) <= longest
    assert mean(waits) == pytest.approx(longest / 2, rel=0.05)


@given(
    st.integers(1, 10_000),
    st.timedeltas(timedelta(microseconds=1), timedelta(days=1)),
    st.floats(1, 1000),
    st.integers(),
)
def test_no_wait_is_longer_than_the_cap_or_negative(attempt: int, base: timedelta, factor: float, seed: int) -> None:
    policy = RetryPolicy(base=base, factor=factor, cap=timedelta(days=1))
    assert timedelta(0) <= backoff(attempt, policy, Random(seed)) <= policy.cap


def test_the_same_chance_gives_the_same_wait() -> None:
    assert backoff(3, POLICY, Random(7)) == backoff(3, POLICY, Random(7))


@pytest.mark.parametrize(
    ("asked", "least"),
    [
        (timedelta(minutes=7), timedelta(minutes=7)),
        (None, UNSAID),
        (timedelta(0), timedelta(0)),
        (timedelta(days=-1), timedelta(0)),
        (timedelta.max, LONGEST_WAIT),
    ],
)
def test_a_provider_is_left_alone_for_as_long_as_it_asks(asked: timedelta | None, least: timedelta) -> None:
    chance = Random(1)
    waits = [after_throttling(asked, POLICY, chance) for _ in range(100)]
    assert least <= min(waits)
    assert max(waits) <= least + POLICY.base
    assert len(set(waits)) == 100


@pytest.mark.parametrize(
    ("base", "factor", "cap", "attempts"),
    [(0, 2, 10, 5), (-1, 2, 10, 5), (10, 2, 9, 5), (1, 0.5, 10, 5), (1, 2, 10, 0)],
)
def test_a_policy_that_makes_no_sense_is_refused(base: float, factor: float, cap: float, attempts: int) -> None:
    with pytest.raises(ValueError, match="a policy"):
        RetryPolicy(base * SECOND, factor, cap * SECOND, attempts)


def test_a_policy_is_fixed() -> None:
    with pytest.raises(FrozenInstanceError):
        POLICY.base = SECOND  # type: ignore[misc]


def test_every_channel_with_attempts_has_a_policy_with_the_attempts_of_a_request() -> None:
    assert set(POLICIES) == {"email", "push"}
    usual = NotificationRequested.model_fields["max_attempts"].default
    assert {policy.max_attempts for policy in POLICIES.values()} == {usual}
