from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from notifications.circuit_breaker import CircuitBreaker, CircuitPolicy
from notifications.outcome import Failed, Misconfigured, Outcome, Refused, Sent, Throttled

NOW = datetime(2026, 1, 31, 12, tzinfo=UTC)
SECOND = timedelta(seconds=1)
PAUSE = 30 * SECOND
POLICY = CircuitPolicy(failures=3, pause=PAUSE, factor=2, longest=100 * SECOND, probe=20 * SECOND)

SENT = Sent("id-1")
REFUSED = Refused("550", "no such user", recipient_is_gone=True)
FAILED = Failed("503", "come again", may_have_arrived=False)
THROTTLED = Throttled("429", "too many requests", None)
MISCONFIGURED = Misconfigured("401", "wrong key")


def breaker(*outcomes: Outcome) -> CircuitBreaker:
    circuit = CircuitBreaker(POLICY)
    for outcome in outcomes:
        assert circuit.admit(NOW)
        circuit.record(outcome, NOW)
    return circuit


def failed_probe(circuit: CircuitBreaker, at: datetime, outcome: Outcome = FAILED) -> datetime:
    assert circuit.admit(at)
    circuit.record(outcome, at)
    assert circuit.state(at) == "open"
    return circuit.admits_at(at)


def test_a_closed_circuit_admits_everything() -> None:
    circuit = breaker(FAILED, FAILED)
    assert circuit.state(NOW) == "closed"
    assert circuit.admits_at(NOW) == NOW
    assert all(circuit.admit(NOW) for _ in range(100))


def test_failures_in_a_row_open_it() -> None:
    circuit = breaker(FAILED, FAILED, FAILED)
    assert circuit.state(NOW) == "open"
    assert not circuit.admit(NOW)
    assert circuit.admits_at(NOW) == NOW + PAUSE


@pytest.mark.parametrize("between", [SENT, REFUSED])
def test_an_answer_about_a_message_ends_a_row_of_failures(between: Outcome) -> None:
    assert breaker(FAILED, FAILED, between, FAILED, FAILED).state(NOW) == "closed"


def test_a_reply_about_one_recipient_opens_no_circuit() -> None:
    full = Failed("452", "4.2.2 mailbox full", may_have_arrived=False, concerns="recipient", category="full")
    assert breaker(*[full] * 100).state(NOW) == "closed"
    assert breaker(FAILED, FAILED, full, FAILED).state(NOW) == "open"


def test_a_reply_about_one_recipient_shows_that_the_provider_works_again() -> None:
    circuit = breaker(MISCONFIGURED)
    at = circuit.admits_at(NOW)
    assert circuit.admit(at)
    circuit.record(Failed("452", "4.2.2 mailbox full", may_have_arrived=False, concerns="recipient"), at)
    assert circuit.state(at) == "closed"


def test_a_message_that_no_provider_was_asked_about_closes_no_circuit_and_takes_no_probe() -> None:
    circuit = breaker(MISCONFIGURED)
    at = circuit.admits_at(NOW)
    assert circuit.admit(at)
    circuit.record(Refused("recipient", "no address", recipient_is_gone=False, was_asked=False), at)
    assert circuit.state(at) == "half-open"
    assert circuit.admit(at)


def test_throttling_neither_ends_a_row_of_failures_nor_adds_to_it() -> None:
    assert breaker(FAILED, FAILED, *[THROTTLED] * 10).state(NOW) == "closed"
    assert breaker(FAILED, FAILED, THROTTLED, FAILED).state(NOW) == "open"


def test_a_provider_that_refuses_us_opens_it_at_once() -> None:
    assert breaker(MISCONFIGURED).state(NOW) == "open"


def test_after_the_pause_a_single_probe_is_admitted() -> None:
    circuit = breaker(MISCONFIGURED)
    at = NOW + PAUSE
    assert not circuit.admit(at - timedelta(microseconds=1))
    assert circuit.state(at) == "half-open"
    assert [circuit.admit(at) for _ in range(5)] == [True, False, False, False, False]
    assert circuit.state(at) == "half-open"
    assert circuit.admits_at(at) == at + POLICY.probe


@pytest.mark.parametrize("answer", [SENT, REFUSED])
def test_a_probe_that_succeeds_closes_it(answer: Outcome) -> None:
    circuit = breaker(MISCONFIGURED)
    at = NOW + PAUSE
    circuit.admit(at)
    circuit.record(answer, at)
    assert circuit.state(at) == "closed"
    assert all(circuit.admit(at) for _ in range(5))


@pytest.mark.parametrize("answer", [FAILED, MISCONFIGURED])
def test_a_probe_that_fails_opens_it_for_longer_up_to_a_limit(answer: Outcome) -> None:
    circuit = breaker(FAILED, FAILED, FAILED)
    at = circuit.admits_at(NOW)
    pauses = []
    for _ in range(4):
        until = failed_probe(circuit, at, answer)
        pauses.append((until - at) / SECOND)
        at = until
    assert pauses == [60, 100, 100, 100]


def test_once_closed_it_starts_counting_again() -> None:
    circuit = breaker(MISCONFIGURED)
    at = failed_probe(circuit, NOW + PAUSE)
    circuit.admit(at)
    circuit.record(SENT, at)
    for _ in range(2):
        circuit.record(FAILED, at)
    assert circuit.state(at) == "closed"
    circuit.record(FAILED, at)
    assert circuit.admits_at(at) == at + PAUSE


def test_a_probe_without_a_result_is_followed_by_another() -> None:
    circuit = breaker(MISCONFIGURED)
    at = NOW + PAUSE
    assert circuit.admit(at)
    assert not circuit.admit(at + POLICY.probe - SECOND)
    assert [circuit.admit(at + POLICY.probe) for _ in range(3)] == [True, False, False]


def test_a_throttled_probe_is_followed_by_another() -> None:
    circuit = breaker(MISCONFIGURED)
    at = NOW + PAUSE
    circuit.admit(at)
    circuit.record(THROTTLED, at)
    assert circuit.state(at) == "half-open"
    assert not circuit.admit(at)
    assert circuit.admit(at + POLICY.probe)


@pytest.mark.parametrize("late", [SENT, FAILED, MISCONFIGURED])
def test_what_was_under_way_when_it_opened_changes_nothing(late: Outcome) -> None:
    circuit = breaker(FAILED, FAILED, FAILED)
    for _ in range(50):
        circuit.record(late, NOW + SECOND)
    assert circuit.state(NOW + SECOND) == "open"
    assert circuit.admits_at(NOW + SECOND) == NOW + PAUSE


def test_it_can_fail_for_ever() -> None:
    circuit = CircuitBreaker(POLICY)
    at = NOW
    circuit.record(MISCONFIGURED, at)
    for _ in range(3000):
        at = failed_probe(circuit, circuit.admits_at(at))


steps = st.lists(
    st.tuples(
        st.sampled_from([SENT, REFUSED, FAILED, THROTTLED, MISCONFIGURED, None]),
        st.timedeltas(timedelta(0), 60 * SECOND),
    )
)


@given(steps)
def test_whatever_comes_it_admits_something_within_the_longest_pause(
    course: list[tuple[Outcome | None, timedelta]],
) -> None:
    circuit, now = CircuitBreaker(POLICY), NOW
    for outcome, passed in course:
        now += passed
        at = circuit.admits_at(now)
        assert now <= at <= now + POLICY.longest
        # It keeps its word, both ways.
        assert circuit.admit(now) == (at == now)
        if outcome is not None:
            circuit.record(outcome, now)


@given(st.timedeltas(timedelta(0), 60 * SECOND), st.integers(2, 20))
def test_an_open_circuit_never_admits_two_at_once(passed: timedelta, asking: int) -> None:
    circuit = breaker(MISCONFIGURED)
    assert sum(circuit.admit(NOW + passed) for _ in range(asking)) == (passed >= PAUSE)
