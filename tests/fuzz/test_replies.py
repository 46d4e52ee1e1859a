"""Replies of mail servers made of codes, phases, enhanced codes, words and echoed addresses: what none may lead to.

Whatever a server says, in whatever combination: the address that it repeats has no say, nothing temporary is for good,
and no reply to one recipient opens a circuit.
"""

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from random import Random
from typing import get_args

from hypothesis import given
from hypothesis import strategies as st

from notifications.circuit_breaker import CircuitBreaker
from notifications.outcome import Failed, Misconfigured, Refused, Throttled
from notifications.refusal_guard import RefusalGuard
from notifications.replies import MEANINGS, SMTP, SmtpStep, confirms_gone, of_smtp, outcome
from notifications.retry_policy import MOST_GIVEN_BACK, POLICIES
from notifications.states import begin, plan, settle
from tests.fuzz.profiles import fuzzed

NOW = datetime(2026, 3, 1, 12, tzinfo=UTC)
NEUTRAL = "ada.lovelace@reader.example"
WORDS = [row.example.split(maxsplit=2)[2].partition(" ")[2] or row.example for row in SMTP] + [
    "User unknown in relay recipient table",
    "no such user",
    "is receiving mail at a rate that prevents delivery",
    "Daily user sending limit exceeded",
    "your IP address is listed",
    "mailbox full",
    "Relay access denied",
    "this message looks like spam",
    "temporarily unavailable, try again later",
    "account disabled",
    "",
]
NASTY = [
    "relay", "spam", "blacklisted", "throttled", "rate-limit", "daily.limit", "mailbox.full", "over-quota", "unknown",
    "no.such.user", "user.unknown", "greylisted", "dmarc", "disabled", "try.again.later", "5.1.1", "550", "smtp",
    '"relay access denied"', '"a@b"', "a+b", "$1", "%72elay", "(x)", "x" * 64,
]  # fmt: skip

steps = st.sampled_from(get_args(SmtpStep))
codes = st.sampled_from(
    [421, 430, 450, 451, 452, 454, 455, 500, 501, 503, 521, 525, 530, 535, 541, 550, 551, 552, 553, 554, 556, 571]
)
details = st.sampled_from([0, 1, 2, 3, 4, 5, 6, 7, 8, 10, 26, 28, 121, 606])
enhanced = st.just("") | st.builds("{}.{}.{}".format, st.sampled_from([4, 5]), st.integers(0, 7), details)
echoes = st.sampled_from(
    ["", "<{to}>", "{to}", "<{to}>:", "rfc822;{to}", "[{to}]", '"{to}"', "({to})", "<{encoded}>", "{to}..."]
)
addresses = st.builds(
    "{}@{}".format,
    st.sampled_from(NASTY),
    st.sampled_from(["mail.example", "relay.example", "spam.blacklist.example", "user-unknown.example"]),
)


@st.composite
def replies(draw: st.DrawFn) -> tuple[SmtpStep, int, str]:
    """Draw a reply; `{to}` stands where the address is repeated, `{encoded}` where it is percent-encoded."""
    parts = [draw(enhanced), draw(echoes), draw(st.sampled_from(WORDS)), draw(echoes), draw(st.sampled_from(WORDS))]
    return draw(steps), draw(codes), " ".join(part for part in parts if part)


def written(text: str, to: str) -> str:
    return text.replace("{encoded}", to.replace("@", "%40")).replace("{to}", to)


@fuzzed(2_000)
@given(reply=replies(), to=addresses)
def test_an_echoed_address_never_changes_what_a_reply_means(reply: tuple[SmtpStep, int, str], to: str) -> None:
    step, code, text = reply
    if "{" in text:
        assert of_smtp(step, code, written(text, to), to) == of_smtp(step, code, written(text, NEUTRAL), NEUTRAL)


@fuzzed(1_000)
@given(reply=replies(), to=addresses)
def test_nothing_temporary_is_for_good_and_nothing_said_before_rcpt_is_about_the_recipient(
    reply: tuple[SmtpStep, int, str], to: str
) -> None:
    step, code, text = reply
    meaning = MEANINGS[of_smtp(step, code, written(text, to), to)]
    if code < 500:
        assert meaning.is_tried_again
    if step in ("CONNECT", "MAIL"):
        assert not meaning.suppresses


@fuzzed(1_000)
@given(reply=replies(), other=st.sampled_from(WORDS[-11:-2]), to=addresses)
def test_words_of_ours_or_of_time_suppress_nobody(reply: tuple[SmtpStep, int, str], other: str, to: str) -> None:
    step, code, text = reply
    if other in ("User unknown in relay recipient table", "no such user"):
        return
    assert not MEANINGS[of_smtp(step, code, f"{written(text, to)} {other}", to)].suppresses


@fuzzed(500)
@given(reply=replies(), to=addresses, times=st.integers(1, 30))
def test_a_reply_about_one_recipient_never_opens_a_circuit(
    reply: tuple[SmtpStep, int, str], to: str, times: int
) -> None:
    _, code, text = reply
    category = of_smtp("RCPT", code, written(text, to), to)
    refusals, circuit = RefusalGuard(), CircuitBreaker()
    for _ in range(times):
        made = refusals.judge(outcome(category, str(code), text, about_message=True), to, NOW)
        circuit.record(made, NOW)
    assert circuit.state(NOW) == "closed"


@fuzzed(300)
@given(reply=replies(), to=addresses, attempts=st.integers(1, 5), seed=st.integers(0, 9))
def test_every_reply_to_a_message_has_an_end(
    reply: tuple[SmtpStep, int, str], to: str, attempts: int, seed: int
) -> None:
    step, code, text = reply
    category = of_smtp(step, code, written(text, to), to)
    made = outcome(category, str(code), text, about_message=step in ("RCPT", "DATA"))
    assert isinstance(made, Refused | Throttled | Failed | Misconfigured)
    delivery, now, chance = plan("email", NOW), NOW, Random(seed)
    policy = replace(POLICIES["email"], max_attempts=attempts)
    tried = 0
    while delivery.state == "waiting":
        now = max(now, delivery.next_attempt_at or now)
        delivery = settle(begin(delivery, "smtp", now), made, policy, now, chance)
        tried += 1
        assert tried <= MOST_GIVEN_BACK + attempts
    assert (delivery.state, delivery.attempts) == ("failed", 1 if isinstance(made, Refused) else attempts)
    assert category != "throttled" or now - NOW > timedelta(hours=24)


@fuzzed(500)
@given(text=st.text(max_size=300), code=st.one_of(st.none(), st.text(max_size=12)), to=addresses)
def test_whatever_a_provider_reports_of_a_bounce_is_read(text: str, code: str | None, to: str) -> None:
    assert confirms_gone(text, code, to) in (True, False)


@fuzzed(500)
@given(text=st.text(max_size=300), step=steps, code=st.integers(400, 599), to=st.text(max_size=80))
def test_whatever_a_server_says_has_a_category(text: str, step: SmtpStep, code: int, to: str) -> None:
    assert of_smtp(step, code, text, to, text) in MEANINGS
