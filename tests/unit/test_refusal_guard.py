"""The limit on refusals: one by one they are believed, and all together they are not."""

from datetime import UTC, datetime, timedelta

import pytest

from notifications.outcome import Failed, Misconfigured, Outcome, Refused, Sent
from notifications.refusal_guard import DIFFERENT_RECIPIENTS, SAMPLE, RefusalGuard

GONE = Refused("UNREGISTERED", "no such device", recipient_is_gone=True)
SENT = Sent("m-1")


def test_a_refusal_among_others_is_believed() -> None:
    refusals = RefusalGuard()
    outcomes = [refusals.judge(GONE if number % 3 else SENT) for number in range(3 * SAMPLE)]
    assert outcomes == [GONE if number % 3 else SENT for number in range(3 * SAMPLE)]


def test_the_first_refusals_are_believed_whatever_comes_after_them() -> None:
    refusals = RefusalGuard()
    assert [refusals.judge(GONE) for _ in range(SAMPLE - 1)] == [GONE] * (SAMPLE - 1)


def test_where_nearly_all_is_refused_the_fault_is_ours() -> None:
    refusals = RefusalGuard()
    last = [refusals.judge(GONE) for _ in range(SAMPLE)][-1]
    assert isinstance(last, Misconfigured)
    assert last.code == "UNREGISTERED"
    assert "50 of its last 50" in last.message


def test_refusals_are_believed_again_once_messages_are_taken() -> None:
    refusals = RefusalGuard()
    for _ in range(SAMPLE):
        refusals.judge(GONE)
    for _ in range(SAMPLE // 4):
        assert refusals.judge(SENT) == SENT
    assert refusals.judge(GONE) == GONE


def test_a_failure_says_nothing_about_messages() -> None:
    refusals = RefusalGuard()
    failed = Failed("503", "away", may_have_arrived=False)
    assert [refusals.judge(failed) for _ in range(2 * SAMPLE)] == [failed] * 2 * SAMPLE
    assert refusals.judge(GONE) == GONE


NOW = datetime(2026, 3, 1, 12, tzinfo=UTC)
RELAY = Failed("554", "5.7.1 <recipient>: Relay access denied", False, concerns="recipient", category="configuration")
POLICY = Failed("550", "5.7.1 blocked using a list 1.2.3.4", False, concerns="recipient", category="policy")
UNCLEAR = Refused("550", "mailbox unavailable", recipient_is_gone=False)
LATER = Failed("451", "4.3.0 local error", False, concerns="recipient")
FULL = Failed("452", "4.2.2 mailbox full", False, concerns="recipient", category="full")


def told(refusals: RefusalGuard, outcome: Outcome, recipients: int) -> list[Outcome]:
    return [refusals.judge(outcome, f"{number}@mail.example", NOW) for number in range(recipients)]


@pytest.mark.parametrize("outcome", [RELAY, POLICY, UNCLEAR], ids=["relay", "policy", "unclear"])
def test_the_same_reply_to_many_recipients_is_about_us(outcome: Outcome) -> None:
    *before, last = told(RefusalGuard(), outcome, DIFFERENT_RECIPIENTS)
    assert before == [outcome] * (DIFFERENT_RECIPIENTS - 1)
    assert isinstance(last, Misconfigured)
    assert last.category == outcome.category  # type: ignore[union-attr]  # none of them was sent


def test_the_same_reply_to_one_recipient_repeatedly_is_about_that_one() -> None:
    refusals = RefusalGuard()
    assert {refusals.judge(RELAY, "ada@mail.example", NOW) for _ in range(30)} == {RELAY}


def test_a_message_that_is_taken_in_between_shows_that_it_is_not_us() -> None:
    refusals = RefusalGuard()
    for _ in range(20):
        assert told(refusals, RELAY, DIFFERENT_RECIPIENTS - 1) == [RELAY] * (DIFFERENT_RECIPIENTS - 1)
        refusals.judge(SENT, "grace@mail.example", NOW)


def test_numbers_of_a_session_make_no_other_reply() -> None:
    refusals = RefusalGuard()
    replies = [
        Failed("550", f"5.7.1 blocked, 192.0.2.{n} ko9si152{n}pab.187 - gsmtp", False, "recipient", "policy")
        for n in range(DIFFERENT_RECIPIENTS)
    ]
    judged = [refusals.judge(reply, f"{n}@mail.example", NOW) for n, reply in enumerate(replies)]
    assert isinstance(judged[-1], Misconfigured)


def test_dead_and_full_mailboxes_are_not_about_us_because_of_their_number() -> None:
    gone = Refused("550", "5.1.1 no such user", recipient_is_gone=True, category="gone")
    assert told(RefusalGuard(), gone, 40) == [gone] * 40
    assert told(RefusalGuard(), FULL, 1000) == [FULL] * 1000


def test_a_temporary_fault_at_many_recipients_is_the_servers() -> None:
    *before, last = told(RefusalGuard(), LATER, DIFFERENT_RECIPIENTS)
    assert all(isinstance(outcome, Failed) and outcome.concerns == "recipient" for outcome in before)
    assert isinstance(last, Failed)
    assert last.concerns == "provider"


def test_addresses_that_we_refuse_ourselves_say_nothing_about_a_provider() -> None:
    ours = Refused("recipient", "no address", recipient_is_gone=False, was_asked=False)
    assert told(RefusalGuard(), ours, 2 * SAMPLE) == [ours] * 2 * SAMPLE


@pytest.mark.parametrize("outcome", [Misconfigured("550", "not for you"), GONE], ids=["refuses us", "refuses most"])
def test_a_message_that_was_given_back_is_to_blame_once_others_were_taken(outcome: Outcome) -> None:
    refusals = RefusalGuard()
    for number in range(SAMPLE):
        refusals.judge(GONE, f"{number}", NOW)
    assert isinstance(refusals.judge(outcome, "x", NOW), Misconfigured)
    refusals.judge(SENT, "other", NOW + timedelta(seconds=1))
    again = refusals.judge(outcome, "x", NOW + timedelta(seconds=2), given_back_at=NOW)
    assert isinstance(again, Failed | Refused)
    assert not isinstance(again, Failed) or again.concerns == "recipient"
    assert not isinstance(again, Refused) or not again.recipient_is_gone


def test_while_nothing_is_taken_a_message_that_was_given_back_is_not_to_blame() -> None:
    refusals = RefusalGuard()
    refusals.judge(SENT, "other", NOW - timedelta(seconds=1))
    refused = Misconfigured("535", "wrong key")
    assert [refusals.judge(refused, "x", NOW, given_back_at=NOW) for _ in range(50)] == [refused] * 50
