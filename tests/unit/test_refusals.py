"""The limit on refusals: one by one they are believed, and all together they are not."""

from notifications.outcome import Failed, Misconfigured, Refused, Sent
from notifications.refusals import SAMPLE, Refusals

GONE = Refused("UNREGISTERED", "no such device", recipient_is_gone=True)
SENT = Sent("m-1")


def test_a_refusal_among_others_is_believed() -> None:
    refusals = Refusals()
    outcomes = [refusals.judge(GONE if number % 3 else SENT) for number in range(3 * SAMPLE)]
    assert outcomes == [GONE if number % 3 else SENT for number in range(3 * SAMPLE)]


def test_the_first_refusals_are_believed_whatever_comes_after_them() -> None:
    refusals = Refusals()
    assert [refusals.judge(GONE) for _ in range(SAMPLE - 1)] == [GONE] * (SAMPLE - 1)


def test_where_nearly_all_is_refused_the_fault_is_ours() -> None:
    refusals = Refusals()
    last = [refusals.judge(GONE) for _ in range(SAMPLE)][-1]
    assert isinstance(last, Misconfigured)
    assert last.code == "UNREGISTERED"
    assert "50 of its last 50" in last.message


def test_refusals_are_believed_again_once_messages_are_taken() -> None:
    refusals = Refusals()
    for _ in range(SAMPLE):
        refusals.judge(GONE)
    for _ in range(SAMPLE // 4):
        assert refusals.judge(SENT) == SENT
    assert refusals.judge(GONE) == GONE


def test_a_failure_says_nothing_about_messages() -> None:
    refusals = Refusals()
    failed = Failed("503", "away", may_have_arrived=False)
    assert [refusals.judge(failed) for _ in range(2 * SAMPLE)] == [failed] * 2 * SAMPLE
    assert refusals.judge(GONE) == GONE
