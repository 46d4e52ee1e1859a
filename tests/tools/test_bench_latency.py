import pytest
from hypothesis import given
from hypothesis import strategies as st

from bench.latency import latency_of, quantile


def test_the_median_of_an_odd_number_of_values_is_the_middle_one() -> None:
    assert quantile([3.0, 1.0, 2.0], 0.5) == 2.0


def test_of_a_hundred_values_one_is_above_the_ninety_ninth_percentile() -> None:
    assert quantile([float(number) for number in range(1, 101)], 0.99) == 99.0


def test_a_single_value_is_every_quantile() -> None:
    assert {quantile([7.0], share) for share in (0.0, 0.5, 0.99, 1.0)} == {7.0}


def test_there_is_no_quantile_of_nothing() -> None:
    with pytest.raises(ValueError, match="no values"):
        quantile([], 0.5)


@given(st.lists(st.floats(0, 1e6), min_size=1), st.floats(0.01, 1))
def test_a_quantile_is_one_of_the_values_and_as_many_as_it_says_do_not_exceed_it(
    values: list[float], share: float
) -> None:
    found = quantile(values, share)
    assert found in values
    assert sum(value <= found for value in values) >= share * len(values)


def test_what_was_never_seen_counts_as_if_it_had_come_at_the_end() -> None:
    latency = latency_of([10.0, 11.0], {0: 10.25}, until=41.0)
    assert (latency.p50_ms, latency.p99_ms) == (250.0, 30_000.0)
    assert (latency.samples, latency.missing) == (2, 1)
