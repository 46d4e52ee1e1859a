import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta, timezone
from functools import partial
from itertools import permutations, product
from pathlib import Path
from random import Random
from typing import Any, get_args

import bson
import pytest
from bson.codec_options import CodecOptions
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from notifications.outcome import Category, Failed, Misconfigured, Outcome, Refused, Sent, Throttled
from notifications.replies import outcome as outcome_of
from notifications.retry_policy import LONGEST_WAIT, MOST_GIVEN_BACK, UNSAID, RetryPolicy
from notifications.states import (
    BOUNCED,
    INTERRUPTED,
    TRANSITIONS,
    Confirmation,
    Delivery,
    IllegalTransition,
    Reason,
    State,
    Status,
    begin,
    cancel,
    confirm,
    expired,
    is_due,
    next_due,
    plan,
    postpone,
    recover,
    retry,
    settle,
    skip,
    status_of,
    store,
)

PAGE = (Path(__file__).parents[2] / "docs/notification-states.md").read_text()
NOW = datetime(2026, 1, 31, 12, tzinfo=UTC)
LATER = NOW + timedelta(minutes=5)
POLICY = RetryPolicy(base=timedelta(seconds=30), factor=4, cap=timedelta(hours=2), max_attempts=2)
NOTHING = "[*]"

SENT = Sent("id-1")
REFUSED = Refused("550", "no such user", recipient_is_gone=True)
FAILED = Failed("503", "come again", may_have_arrived=False)
LOST = Failed("ReadTimeout", "the provider's answer did not come", may_have_arrived=True)
THROTTLED = Throttled("429", "too many requests", timedelta(seconds=90))
MISCONFIGURED = Misconfigured("401", "wrong key")
OUTCOMES: tuple[Outcome, ...] = (SENT, REFUSED, FAILED, LOST, THROTTLED, MISCONFIGURED)

WAITING = plan("email", NOW)
SENDING = begin(WAITING, "sendgrid", NOW)


def settled(delivery: Delivery, outcome: Outcome, now: datetime = NOW, policy: RetryPolicy = POLICY) -> Delivery:
    return settle(delivery, outcome, policy, now, Random(1))


def kept(delivery: Delivery) -> bytes:
    return bson.encode(delivery.to_document())


def read(stored: bytes) -> Delivery:
    options: CodecOptions[Mapping[str, Any]] = CodecOptions(tz_aware=True)
    return Delivery.from_document(bson.decode(stored, codec_options=options))


AGAIN = settled(SENDING, LOST)
LAST = begin(AGAIN, "sendgrid", LATER)
EXAMPLES: tuple[Delivery, ...] = (
    WAITING,
    AGAIN,
    SENDING,
    LAST,
    settled(SENDING, SENT),
    confirm(settled(SENDING, SENT), "delivered", NOW),
    confirm(settled(SENDING, SENT), "bounced", NOW),
    settled(SENDING, REFUSED),
    skip(WAITING, "preferences", NOW),
    cancel(AGAIN, LATER),
    store(NOW),
)
STEPS: dict[str, tuple[Callable[[Delivery], Delivery], ...]] = {
    "begin": (lambda delivery: begin(delivery, "smtp", LATER),),
    "settle": tuple(partial(settled, outcome=outcome, now=LATER) for outcome in OUTCOMES),
    "postpone": (lambda delivery: postpone(delivery, LATER + timedelta(hours=1)),),
    "skip": (lambda delivery: skip(delivery, "expired", LATER),),
    "cancel": (lambda delivery: cancel(delivery, LATER),),
    "recover": (lambda delivery: recover(delivery, POLICY, LATER),),
    "confirm": (
        lambda delivery: confirm(delivery, "delivered", LATER),
        lambda delivery: confirm(delivery, "bounced", LATER),
    ),
    "retry": (lambda delivery: retry(delivery, LATER),),
}


def changes(deliveries: Sequence[Delivery]) -> Iterator[tuple[str, int, Delivery]]:
    """Yield every step that changes one of the deliveries: the step, which of them, and what it becomes."""
    for step, ways in STEPS.items():
        for way, (at, delivery) in product(ways, enumerate(deliveries)):
            try:
                after = way(delivery)
            except IllegalTransition:
                continue
            if replace(after, provider_id=delivery.provider_id) != delivery:
                yield step, at, after


def figure(number: int) -> set[tuple[str, str, str]]:
    """Read the arrows of a figure of the page: step, from, to."""
    block = re.findall(r"```mermaid\nstateDiagram-v2\n(.*?)```", PAGE, re.DOTALL)[number]
    arrows = re.findall(r"^ +(\S+) --> (\S+): (.+)$", block, re.MULTILINE)
    assert len(arrows) == block.count("\n")
    return {(step, start, end) for start, end, steps in arrows for step in steps.split(", ")}


def table(title: str) -> set[tuple[str, str, str]]:
    """Read a table of transitions of the page: step, from, to."""
    section = re.split(r"^## ", PAGE, flags=re.MULTILINE)
    [text] = [part for part in section if part.startswith(title)]
    rows = text.split("| from | to | step |")[1].splitlines()[2:]
    cells = [[cell.strip() for cell in row.split("|")[1:4]] for row in rows if row.startswith("|")]
    return {
        (step.strip("`"), start, end.strip("`"))
        for starts, end, step in cells
        for start in re.findall(r"`([^`]+)`", starts)
    }


def test_the_page_has_the_transitions_of_the_code() -> None:
    declared = {(step, start or NOTHING, end) for step, moves in TRANSITIONS.items() for start, end in moves}
    assert table("Deliveries") == declared
    assert figure(0) == declared


def test_every_transition_that_is_declared_can_be_made_and_no_other() -> None:
    made = {(step, delivery.state, after.state) for delivery in EXAMPLES for step, _, after in changes([delivery])}
    declared = {(step, start, end) for step, moves in TRANSITIONS.items() for start, end in moves if start is not None}
    assert made == declared


def test_the_page_has_every_transition_of_an_item() -> None:
    names = {"confirm": "receipt", "retry": "retry", "cancel": "cancel"}
    pushes = [replace(delivery, channel="push", device=device) for delivery in EXAMPLES for device in ("a", "b")]
    idle = [delivery for delivery in [*EXAMPLES, *pushes] if delivery.state != "sending"]
    by_others: set[tuple[str, Status, Status]] = set()
    let_go: set[tuple[str, Status, Status]] = set()
    for item in product(idle, idle):
        before = status_of(item)
        for step, at, changed in changes(item):
            after = status_of([changed if position == at else other for position, other in enumerate(item)])
            if step in names and after != before:
                by_others.add((names[step], before, after))
            if step == "skip":
                let_go.add(("let go", "processing", after))
    let_go |= {
        ("let go", "processing", status_of([after]))
        for step, _, after in changes([SENDING, LAST])
        if step in ("settle", "recover")
    }
    by_worker = {
        ("store", NOTHING, "pending"),
        ("claim", "pending", "processing"),
        ("run out", "processing", "pending"),
        ("put back", "processing", "pending"),
    }
    assert table("Items") == by_others | let_go | by_worker
    assert figure(1) == table("Items")


def test_the_page_explains_every_state_and_every_reason() -> None:
    assert set(re.findall(r"^\| `(\w+)` \| [^|]*\|$", PAGE, re.MULTILINE)) == set(get_args(State))
    assert all(f"`{reason}`" in PAGE for reason in get_args(Reason))


@pytest.mark.parametrize("delivery", EXAMPLES, ids=lambda delivery: delivery.state)
def test_a_delivery_comes_back_from_mongodb_as_it_was(delivery: Delivery) -> None:
    assert read(kept(delivery)) == delivery
    assert read(kept(delivery)).to_document() == delivery.to_document()


@given(st.datetimes(timezones=st.sampled_from([UTC, timezone(timedelta(hours=5, minutes=45))])), st.text())
def test_moments_are_kept_as_mongodb_keeps_them(now: datetime, device: str) -> None:
    try:
        now.astimezone(UTC)
    except OverflowError:
        return
    delivery = plan("push", now, device=device.replace("\0", ""))
    assert read(kept(delivery)) == delivery
    assert timedelta(0) <= now - delivery.since < timedelta(milliseconds=1)


def test_the_fields_in_the_queue_are_named_as_its_others() -> None:
    stored = AGAIN.to_document()
    assert stored == {
        "channel": "email",
        "state": "waiting",
        "since": NOW,
        "attempts": 1,
        "nextAttemptAt": AGAIN.next_attempt_at,
        "provider": "sendgrid",
        "error": {"code": "ReadTimeout", "message": "the provider's answer did not come"},
    }


@pytest.mark.parametrize(
    "fields",
    [
        {"state": "sent"},
        {"state": "lost"},
        {"state": "sending", "nextAttemptAt": None},
        {"state": "failed", "nextAttemptAt": None},
        {"state": "skipped", "nextAttemptAt": None},
        {"nextAttemptAt": None},
        {"attempts": -1},
        {"reason": "expired"},
        {"since": NOW.replace(tzinfo=None)},
        {"error": {"code": "503"}},
    ],
)
def test_what_can_be_no_delivery_is_not_read(fields: Mapping[str, Any]) -> None:
    stored = {name: value for name, value in {**WAITING.to_document(), **fields}.items() if value is not None}
    with pytest.raises(ValueError, match=r"match the state|zone"):
        Delivery.from_document(stored)


def test_an_attempt_counts_from_its_beginning() -> None:
    assert (SENDING.state, SENDING.attempts, SENDING.provider) == ("sending", 1, "sendgrid")
    assert SENDING.next_attempt_at is None


def test_nothing_is_tried_before_its_time() -> None:
    delivery = plan("email", NOW, at=LATER)
    assert not is_due(delivery, LATER - timedelta(milliseconds=1))
    with pytest.raises(IllegalTransition, match="waits until"):
        begin(delivery, "smtp", LATER - timedelta(milliseconds=1))
    assert begin(delivery, "smtp", LATER).state == "sending"


def test_what_was_sent_has_the_providers_id_and_no_error_left() -> None:
    sent = settled(LAST, SENT, LATER)
    assert (sent.state, sent.provider_id, sent.code, sent.message) == ("sent", "id-1", None, None)
    assert sent.since == LATER


def test_what_is_refused_fails_at_the_first_attempt() -> None:
    refused = settled(SENDING, REFUSED)
    assert (refused.state, refused.attempts, refused.code, refused.message) == ("failed", 1, "550", "no such user")


def test_a_failure_is_tried_again_within_the_backoff_until_attempts_are_used_up() -> None:
    failed = settled(SENDING, FAILED)
    assert failed.next_attempt_at is not None
    assert NOW <= failed.next_attempt_at <= NOW + POLICY.base
    assert (failed.state, failed.attempts, failed.code) == ("waiting", 1, "503")
    assert settled(LAST, FAILED, LATER).state == "failed"


@pytest.mark.parametrize("attempt", [SENDING, LAST], ids=["first", "last"])
def test_what_is_throttled_waits_as_the_provider_says_and_burns_nothing(attempt: Delivery) -> None:
    throttled = settled(attempt, THROTTLED)
    assert throttled.next_attempt_at is not None
    asked = timedelta(seconds=90)
    assert NOW + asked <= throttled.next_attempt_at <= NOW + asked + POLICY.base
    assert (throttled.state, throttled.attempts) == ("waiting", attempt.attempts - 1)


@pytest.mark.parametrize(("asked", "wait"), [(None, UNSAID), (timedelta(days=4000), LONGEST_WAIT)])
def test_a_provider_that_does_not_say_or_says_nonsense_is_left_alone_for_a_while(
    asked: timedelta | None, wait: timedelta
) -> None:
    throttled = settled(SENDING, replace(THROTTLED, retry_after=asked))
    assert throttled.next_attempt_at is not None
    assert NOW + wait <= throttled.next_attempt_at <= NOW + wait + POLICY.base


@pytest.mark.parametrize("attempt", [SENDING, LAST], ids=["first", "last"])
def test_a_provider_that_refuses_us_burns_nothing_and_leaves_it_to_the_next(attempt: Delivery) -> None:
    waiting = settled(attempt, MISCONFIGURED)
    assert (waiting.state, waiting.attempts, waiting.next_attempt_at) == ("waiting", attempt.attempts - 1, NOW)


@pytest.mark.parametrize("outcome", [THROTTLED, MISCONFIGURED], ids=["throttled", "misconfigured"])
def test_no_message_is_retried_for_ever_because_of_its_own_replies(outcome: Outcome) -> None:
    given_back = settled(replace(SENDING, given_back=MOST_GIVEN_BACK - 1), outcome)
    assert (given_back.state, given_back.attempts, given_back.given_back) == ("waiting", 0, MOST_GIVEN_BACK)
    counted = settled(replace(SENDING, given_back=MOST_GIVEN_BACK), outcome)
    assert (counted.state, counted.attempts) == ("waiting", SENDING.attempts)
    assert settled(replace(LAST, given_back=MOST_GIVEN_BACK), outcome).state == "failed"


def test_somebody_who_asks_for_another_try_gets_all_of_it() -> None:
    failed = settled(replace(LAST, given_back=MOST_GIVEN_BACK), MISCONFIGURED)
    assert retry(failed, LATER).given_back == 0


@pytest.mark.parametrize("category", ["gone", "full", "policy", "configuration", "content", "throttled"])
def test_what_an_answer_means_is_kept_with_the_delivery(category: Category) -> None:
    settled_one = settled(SENDING, outcome_of(category, "550", "said", about_message=True))
    assert settled_one.category == category
    assert Delivery.from_document(settled_one.to_document()) == settled_one


def test_what_waits_for_a_circuit_waits_no_shorter_than_before() -> None:
    assert postpone(WAITING, LATER).next_attempt_at == LATER
    assert postpone(postpone(WAITING, LATER), NOW).next_attempt_at == LATER
    assert postpone(WAITING, LATER).since == WAITING.since


def test_an_attempt_that_nobody_ended_counts() -> None:
    recovered = recover(SENDING, POLICY, LATER)
    assert (recovered.state, recovered.attempts, recovered.code) == ("waiting", 1, INTERRUPTED)
    assert is_due(recovered, LATER)
    assert recover(LAST, POLICY, LATER).state == "failed"


@pytest.mark.parametrize("delivery", [each for each in EXAMPLES if each.state not in ("waiting", "sending")])
def test_what_is_final_is_not_tried_again(delivery: Delivery) -> None:
    for step in ("begin", "recover", "postpone", "skip", "cancel"):
        with pytest.raises(IllegalTransition):
            STEPS[step][0](delivery)


def test_what_is_under_way_cannot_be_cancelled() -> None:
    with pytest.raises(IllegalTransition, match="sending"):
        cancel(SENDING, NOW)


def test_a_retry_resets_the_attempts_and_keeps_the_last_error() -> None:
    again = retry(settled(LAST, FAILED, LATER), LATER)
    assert (again.state, again.attempts, again.code) == ("waiting", 0, "503")
    assert is_due(again, LATER)


def test_a_message_that_arrived_although_its_answer_was_lost_is_not_sent_again() -> None:
    assert confirm(AGAIN, "delivered", LATER).state == "delivered"
    assert confirm(recover(SENDING, POLICY, LATER), "delivered", LATER).state == "delivered"
    assert confirm(settled(LAST, LOST, LATER), "delivered", LATER).state == "delivered"


def test_an_old_receipt_does_not_undo_a_retry() -> None:
    bounced = confirm(settled(SENDING, SENT), "bounced", NOW)
    again = retry(bounced, LATER)
    assert confirm(again, "bounced", LATER) == again
    assert confirm(again, "delivered", LATER) == again


@pytest.mark.parametrize("outcome", [SENT, REFUSED, LOST])
@pytest.mark.parametrize("receipts", [["delivered"], ["bounced"], ["delivered", "bounced"]])
def test_receipts_and_the_answer_lead_to_the_same_state_in_any_order(
    outcome: Outcome, receipts: list[Confirmation]
) -> None:
    def answer(delivery: Delivery) -> Delivery:
        return settled(delivery, outcome, LATER)

    def report(receipt: Confirmation) -> Callable[[Delivery], Delivery]:
        return lambda delivery: confirm(delivery, receipt, LATER)

    ends = set()
    for order in permutations([answer, *map(report, receipts), *map(report, receipts)]):
        delivery = SENDING
        for step in order:
            delivery = step(delivery)
        ends.add(delivery)
    assert len(ends) == 1
    [end] = ends
    assert end.state == ("failed" if "bounced" in receipts else "delivered")
    assert (end.code == BOUNCED) == ("bounced" in receipts)
    assert end.provider_id == ("id-1" if outcome == SENT else None)


@pytest.mark.parametrize("delivery", [WAITING, store(NOW), skip(WAITING, "suppressed", NOW)])
@pytest.mark.parametrize("receipt", get_args(Confirmation))
def test_a_receipt_of_what_was_never_sent_changes_nothing(delivery: Delivery, receipt: Confirmation) -> None:
    assert confirm(delivery, receipt, LATER) == delivery


def push(delivery: Delivery, device: str) -> Delivery:
    return replace(delivery, channel="push", device=device)


FAILURE = settled(SENDING, REFUSED)
SUCCESS = settled(SENDING, SENT)


@pytest.mark.parametrize(
    ("deliveries", "status"),
    [
        pytest.param([store(NOW), WAITING], "pending", id="one waits"),
        pytest.param([FAILURE, push(WAITING, "a")], "pending", id="one waits after another failed"),
        pytest.param([WAITING, push(SENDING, "a")], "processing", id="one is under way"),
        pytest.param([store(NOW)], "completed", id="in the application alone"),
        pytest.param([store(NOW), SUCCESS, skip(WAITING, "preferences", NOW)], "completed", id="sent and skipped"),
        pytest.param([store(NOW), FAILURE], "failed", id="the mail failed"),
        pytest.param([push(FAILURE, "a"), push(SUCCESS, "b")], "completed", id="one of two devices"),
        pytest.param([push(FAILURE, "a"), push(FAILURE, "b"), SUCCESS], "failed", id="no device"),
    ],
)
def test_an_items_status_follows_from_its_deliveries(deliveries: list[Delivery], status: Status) -> None:
    assert status_of(deliveries) == status


def test_an_item_of_which_nothing_is_decided_yet_has_no_status() -> None:
    with pytest.raises(ValueError, match="without deliveries"):
        status_of([])


def test_an_item_is_next_due_when_the_first_that_waits_is() -> None:
    assert next_due([store(NOW), plan("email", NOW, at=LATER), push(plan("push", NOW, at=NOW), "a")]) == NOW
    assert next_due([store(NOW), SENDING]) is None


def test_a_notification_expires_at_its_time() -> None:
    assert not expired(None, NOW)
    assert not expired(LATER, NOW)
    assert expired(NOW, NOW)


outcomes = st.one_of(
    st.sampled_from(OUTCOMES),
    st.builds(
        Throttled, st.just("429"), st.just("slow down"), st.none() | st.timedeltas(timedelta(0), timedelta(days=3))
    ),
)
lengths = st.timedeltas(timedelta(0), timedelta(hours=3))


class Deliveries(RuleBasedStateMachine):
    """Deliveries of one item through whatever may happen, written to the queue and read from it at every step."""

    def __init__(self) -> None:
        super().__init__()
        self.now = NOW
        self.policy = POLICY
        self.stored: list[bytes] = []
        self.finished: list[bool] = []

    @initialize(devices=st.integers(0, 2), attempts=st.integers(1, 4))
    def decide(self, devices: int, attempts: int) -> None:
        self.policy = replace(POLICY, max_attempts=attempts)
        planned = [plan("email", self.now), *(plan("push", self.now, device=str(name)) for name in range(devices))]
        self.stored = [kept(delivery) for delivery in (store(self.now), *planned)]
        self.finished = [True, *(False for _ in planned)]

    def read(self, at: int) -> tuple[int, Delivery]:
        at %= len(self.stored)
        return at, read(self.stored[at])

    def write(self, at: int, delivery: Delivery, *, anew: bool = False) -> None:
        finished = delivery.state not in ("waiting", "sending")
        assert finished or anew or not self.finished[at]
        self.finished[at] = finished
        self.stored[at] = kept(delivery)

    @property
    def deliveries(self) -> list[Delivery]:
        return [self.read(at)[1] for at in range(len(self.stored))]

    @rule(length=lengths)
    def time_passes(self, length: timedelta) -> None:
        self.now += length

    @rule(at=st.integers(0, 3), provider=st.sampled_from(["sendgrid", "smtp"]))
    def try_it(self, at: int, provider: str) -> None:
        at, delivery = self.read(at)
        if self.finished[at] or not is_due(delivery, self.now):
            with pytest.raises(IllegalTransition):
                begin(delivery, provider, self.now)
        else:
            self.write(at, begin(delivery, provider, self.now))

    @rule(at=st.integers(0, 3), outcome=outcomes, seed=st.integers(0, 9))
    def an_answer_comes(self, at: int, outcome: Outcome, seed: int) -> None:
        at, delivery = self.read(at)
        if delivery.state != "sending":
            # A worker that lost its lease, or a bug: it is refused, or changes no state.
            try:
                late = settle(delivery, outcome, self.policy, self.now, Random(seed))
            except IllegalTransition:
                return
            assert late.state == delivery.state
            return
        after = settle(delivery, outcome, self.policy, self.now, Random(seed))
        if isinstance(outcome, Throttled | Misconfigured):
            assert (after.state, after.attempts) == ("waiting", delivery.attempts - 1)
        if isinstance(outcome, Sent):
            assert after.state == "sent"
        self.write(at, after)

    @rule(at=st.integers(0, 3))
    def the_lease_runs_out(self, at: int) -> None:
        at, delivery = self.read(at)
        if delivery.state == "sending":
            self.write(at, recover(delivery, self.policy, self.now))

    @rule(at=st.integers(0, 3), receipt=st.sampled_from(get_args(Confirmation)), times=st.integers(1, 2))
    def a_receipt_comes(self, at: int, receipt: Confirmation, times: int) -> None:
        at, delivery = self.read(at)
        after = delivery
        for _ in range(times):
            after = confirm(after, receipt, self.now)
        assert after == confirm(delivery, receipt, self.now)
        if self.finished[at]:
            assert after.state in (delivery.state, "delivered", "failed")
        self.write(at, after)

    @rule(at=st.integers(0, 3), length=lengths)
    def it_is_postponed(self, at: int, length: timedelta) -> None:
        at, delivery = self.read(at)
        if delivery.state == "waiting":
            self.write(at, postpone(delivery, self.now + length))

    @rule(at=st.integers(0, 3), reason=st.sampled_from(get_args(Reason)))
    def it_is_skipped(self, at: int, reason: Reason) -> None:
        at, delivery = self.read(at)
        if delivery.state == "waiting":
            self.write(at, skip(delivery, reason, self.now))

    @rule(at=st.integers(0, 3))
    def somebody_cancels(self, at: int) -> None:
        at, delivery = self.read(at)
        if delivery.state == "waiting":
            self.write(at, cancel(delivery, self.now))

    @precondition(lambda self: any(delivery.state == "failed" for delivery in self.deliveries))
    @rule()
    def somebody_asks_for_another_try(self) -> None:
        for at, delivery in enumerate(self.deliveries):
            if delivery.state == "failed":
                self.write(at, retry(delivery, self.now), anew=True)

    @invariant()
    def each_is_in_one_state(self) -> None:
        for delivery in self.deliveries:
            assert delivery.state in get_args(State)
            assert (delivery.next_attempt_at is not None) == (delivery.state == "waiting")
            assert (delivery.reason is not None) == (delivery.state == "skipped")

    @invariant()
    def attempts_never_exceed_the_maximum(self) -> None:
        for delivery in self.deliveries:
            assert 0 <= delivery.attempts <= self.policy.max_attempts
            if delivery.state == "waiting":
                assert delivery.attempts < self.policy.max_attempts

    @invariant()
    def what_waits_has_a_time_that_comes(self) -> None:
        for delivery in self.deliveries:
            if delivery.next_attempt_at is not None:
                assert delivery.next_attempt_at <= self.now + LONGEST_WAIT + self.policy.cap

    @invariant()
    def the_status_says_whether_anything_is_left_to_do(self) -> None:
        if self.stored:
            status = status_of(self.deliveries)
            assert (status in ("completed", "failed")) == all(self.finished)
            assert (status == "pending") <= (next_due(self.deliveries) is not None)

    def teardown(self) -> None:
        """From wherever it has come to, a worker alone brings it to an end, though providers fail in every way."""
        expires_at = self.now + timedelta(days=30)
        answers = iter(OUTCOMES[1:] * 1000)
        while not all(self.finished):
            for at, delivery in enumerate(self.deliveries):
                if delivery.state == "sending":
                    self.write(at, recover(delivery, self.policy, self.now))
                elif delivery.state == "waiting" and expired(expires_at, self.now):
                    self.write(at, skip(delivery, "expired", self.now))
                elif is_due(delivery, self.now):
                    attempt = begin(delivery, "smtp", self.now)
                    self.write(at, settle(attempt, next(answers), self.policy, self.now, Random(1)))
            self.now = next_due(self.deliveries) or self.now
            assert self.now <= expires_at + LONGEST_WAIT + self.policy.cap


Deliveries.TestCase.settings = settings(max_examples=150, stateful_step_count=40, deadline=None)
TestDeliveries = Deliveries.TestCase


@given(st.lists(outcomes.filter(lambda outcome: isinstance(outcome, Throttled)), min_size=1, max_size=60))
def test_a_delivery_that_is_only_throttled_is_skipped_when_the_notification_expires(answers: list[Outcome]) -> None:
    delivery, now, expires_at = WAITING, NOW, NOW + timedelta(hours=6)
    for answer in answers * 400:
        if expired(expires_at, now):
            break
        delivery = settled(begin(delivery, "smtp", now), answer, now)
        assert delivery.attempts == 0
        assert delivery.next_attempt_at is not None
        now = max(delivery.next_attempt_at, now + timedelta(minutes=1))
    assert expired(expires_at, now)
    assert skip(delivery, "expired", now).reason == "expired"
