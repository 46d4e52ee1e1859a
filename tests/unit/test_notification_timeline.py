"""Timelines of notifications: the state, what to do, past and future events, and what is masked."""

import re
from datetime import UTC, datetime, timedelta
from typing import Any, get_args

import pytest

from notifications.grouping import merge
from notifications.notice import Gather
from notifications.preferences import Preferences, QuietHours
from notifications.states import BOUNCED, INTERRUPTED, Delivery, Reason, State, Status
from ops.notifications.timeline import REASONS, Circumstances, Timeline, build_timeline
from runtime.settings import ROOT
from sinks.mongo.notification_admin import UNREADABLE, StoredNotification
from tests.notification_documents import (
    ADDRESS,
    DEVICE,
    KEY_OF_A_RULE,
    TOKEN,
    email_log,
    entry,
    notice,
    push_log,
    shown,
)

NOON = datetime(2026, 1, 31, 12, tzinfo=UTC)
SECOND, MINUTE, HOUR, DAY = (timedelta(seconds=number) for number in (1, 60, 3_600, 86_400))
RULES = {"comment_reply": "comment.created"}
N_1 = notice("n-1", NOON)


def delivery(state: Any, *, channel: Any = "email", since: datetime = NOON + SECOND, **fields: Any) -> Delivery:
    if state == "failed":
        fields = {"provider": "smtp", "attempts": 5, "code": "421", "message": "too busy", **fields}
    if state in ("sent", "delivered"):
        fields = {"provider": "sendgrid", "attempts": 1, **fields}
    return Delivery(channel=channel, state=state, since=since, **fields)


def told(
    item: dict[str, Any] | None,
    *,
    emails: tuple[dict[str, Any], ...] = (),
    pushes: tuple[dict[str, Any], ...] = (),
    notification: dict[str, Any] | None = None,
    now: datetime = NOON + HOUR,
    full: bool = False,
    **known: Any,
) -> Timeline:
    case = StoredNotification("n-1", item, notification or (shown(N_1) if item else None), emails, pushes)
    return build_timeline(case, Circumstances(**{"events": RULES, **known}), now, full=full)


def lines(entries: Any) -> list[tuple[str, str, str]]:
    return [(f"{at:%H:%M:%S}", about, what) for at, about, what in entries]


def all_of(one: Timeline) -> str:
    return "\n".join(
        [
            one.standing,
            *one.advice,
            *map(str, one.facts),
            *(what for entry in (one.past, one.coming) for what in map(str, entry)),
        ]
    )


def test_a_bounce_is_shown_with_the_providers_text_and_how_to_retry() -> None:
    bounced = {
        "provider": "sendgrid",
        "permanent": True,
        "code": "5.1.1",
        "message": "550 5.1.1 <recipient>: no such user",
    }
    log = email_log(
        N_1,
        "bounced",
        ("sent", NOON + 2 * SECOND, {}),
        ("bounced", NOON + 9 * SECOND, bounced),
        error={"code": "5.1.1", "message": "550 5.1.1 <recipient>: no such user"},
        providerId="14c5d75ce93",
    )
    failed = delivery(
        "failed",
        provider="sendgrid",
        attempts=1,
        code="bounced",
        message="the provider could not",
        since=NOON + 9 * SECOND,
    )
    one = told(entry(N_1, [failed]), emails=(log,), suppressed={("email", ADDRESS): "bounced"})
    assert one.standing == (
        "Failed: the e-mail was accepted by sendgrid and bounced: 5.1.1: 550 5.1.1 <recipient>: no such user, "
        "and its address is suppressed: it bounced permanently."
    )
    assert one.advice == (
        "If the address works again: `inkstream suppressions remove email …`, "
        "then `inkstream notifications retry n-1`.",
    )
    assert lines(one.past) == [
        ("12:00:00", "", "requested, by a service with notification.requested"),
        ("12:00:00", "e-mail", "queued"),
        ("12:00:01", "", "last claimed by a worker"),
        ("12:00:02", "e-mail", "accepted by sendgrid, as 14c5d75ce93"),
        ("12:00:09", "e-mail", "bounce reported by sendgrid: 5.1.1: 550 5.1.1 <recipient>: no such user"),
    ]
    assert [what for _, _, what in one.coming] == ["expires: not sent any more, and deleted"]
    assert dict(one.facts)["e-mail address"] == "g…@example.org (suppressed: it bounced permanently)"


def test_nothing_personal_is_shown_unless_it_is_asked_for() -> None:
    log = email_log(N_1, "sent", ("clicked", NOON, {"url": "https://blog.example/?token=hush"}))
    failed = delivery("failed", message=f"no mailbox {ADDRESS}")
    gone = delivery("failed", channel="push", device=DEVICE, provider="fcm", code="UNREGISTERED", message="gone")
    item = entry(N_1, [failed, gone], errors=[{"message": f"smtp: 421: <{ADDRESS}> is full", "timestamp": NOON}])
    asked: dict[str, Any] = {
        "emails": (log,),
        "pushes": (push_log(N_1, "failed"),),
        "suppressed": {("email", ADDRESS): "gone", ("push", TOKEN): "gone"},
        "email": "grace@home.example",
    }
    masked, full = told(item, **asked), told(item, full=True, **asked)
    for personal in (ADDRESS, TOKEN, "hush", "grace@home.example", N_1.title):
        assert personal not in all_of(masked)
        assert personal in all_of(full)
    assert f"`inkstream suppressions remove email {ADDRESS}`" in full.advice[0]
    # A device's name is enough to let it be written to again.
    assert f"`inkstream suppressions remove push device:{DEVICE}`" in masked.advice[1]
    assert dict(masked.facts)["e-mail address"].endswith("g…@home.example today")


def test_a_device_that_is_gone_is_shown_at_the_time_of_the_receipt() -> None:
    gone = delivery(
        "failed", channel="push", device=DEVICE, provider="fcm", attempts=1, code="bounced", message="it came back"
    )
    log = push_log(N_1, "failed", sentAt=NOON, error={"code": "UNREGISTERED", "message": "", "eventId": "fcm:1"})
    one = told(entry(N_1, [gone]), pushes=(log,), suppressed={("push", TOKEN): "gone"})
    assert one.standing == (
        "Failed: the push message was accepted by fcm and bounced: UNREGISTERED, "
        "and its address is suppressed: the provider reported that it does not exist any more."
    )
    assert lines(one.past)[-1] == (
        "12:00:01",
        f"push android device:{DEVICE}",
        "was accepted by fcm and bounced: UNREGISTERED",
    )


def test_a_failed_delivery_can_be_retried() -> None:
    errors = [{"message": "smtp: 421: too busy", "timestamp": NOON + number * MINUTE} for number in range(5)]
    one = told(entry(N_1, [delivery("failed", since=NOON + 4 * MINUTE)], errors=errors))
    assert one.standing == "Failed: the e-mail failed after 5 attempts; last error from smtp: 421: too busy."
    assert one.advice == ("After fixing the cause: `inkstream notifications retry n-1`.",)
    assert lines(one.past)[-2:] == [
        ("12:04:00", "", "smtp: 421: too busy"),
        ("12:04:00", "e-mail", "failed after 5 attempts"),
    ]


def test_an_interrupted_attempt_may_have_arrived() -> None:
    one = told(entry(N_1, [delivery("failed", code="interrupted", message="stopped")]))
    assert one.standing == "Failed: the e-mail failed after 5 attempts: a worker stopped during the last one."
    assert one.advice[0].endswith("It may have arrived already; then it arrives twice.")


def test_a_refusal_is_no_exhaustion() -> None:
    one = told(entry(N_1, [delivery("failed", attempts=1, code="550", message="no such user")]))
    assert one.standing == "Failed: the e-mail was refused by smtp: 550: no such user."


def test_a_response_is_shown_with_its_meaning() -> None:
    full = delivery("failed", code="452", message="4.2.2 over quota", category="full")
    one = told(entry(N_1, [full]))
    assert one.standing == (
        "Failed: the e-mail failed after 5 attempts; last error from smtp: the mailbox is full (452: 4.2.2 over quota)."
    )


def test_what_failed_and_is_past_its_time_is_not_tried_again() -> None:
    one = told(entry(N_1, [delivery("failed")]), now=NOON + 100 * DAY)
    assert one.advice == ("It has expired and is not sent any more: request a new one.",)


def test_another_try_is_announced() -> None:
    again = delivery(
        "waiting", attempts=2, provider="smtp", code="421", message="too busy", next_attempt_at=NOON + 10 * MINUTE
    )
    one = told(entry(N_1, [again]), now=NOON + 5 * MINUTE)
    assert one.standing == (
        "Waiting: the e-mail is retried at 2026-01-31 12:10:00 UTC, attempt 3 of 5; "
        "last error from smtp: 421: too busy."
    )
    assert one.advice == (
        "No action needed: it continues automatically. `inkstream notifications cancel n-1` cancels it.",
    )
    assert lines(one.coming)[0] == ("12:10:00", "e-mail", "due, attempt 3")


def test_quiet_hours_are_named_where_they_are_why_it_waits() -> None:
    quiet = QuietHours(start="11:00", end="14:00", time_zone="UTC")
    waiting = delivery("waiting", next_attempt_at=NOON + 2 * HOUR)
    one = told(entry(N_1, [waiting]), preferences=Preferences(quiet_hours=quiet))
    assert one.standing == (
        "Waiting: the e-mail waits until 2026-01-31 14:00:00 UTC for the end of the person's quiet hours."
    )
    assert dict(one.facts)["preferences today"] == "quiet from 11:00 to 14:00, UTC"
    other = told(entry(N_1, [waiting]))
    assert "for a provider that is down or busy, or for quiet hours that have changed since" in other.standing


@pytest.mark.parametrize(
    ("reason", "standing", "advice"),
    [
        ("preferences", "the person has turned it off", "this is the person's choice"),
        (
            "suppressed",
            "the address is suppressed, as the person reported spam",
            "then request a new one, with a new id",
        ),
        ("throttled", "the person had reached the daily limit", "INKSTREAM_NOTIFY_LIMIT"),
        ("expired", "it expired before it could be sent", "`expiresAt`"),
        ("no-address", "there was no address", "INKSTREAM_RECIPIENTS_VIEW"),
        ("no-provider", "no provider is configured for it", "INKSTREAM_EMAIL_PROVIDERS"),
    ],
)
def test_what_was_not_sent_has_a_reason(reason: Any, standing: str, advice: str) -> None:
    item = entry(N_1, [delivery("skipped", reason=reason)])
    one = told(item, suppressed={("email", ADDRESS): "complained"}, email=ADDRESS)
    assert one.standing == f"The e-mail was not sent: {standing}."
    assert advice in one.advice[0]


def test_a_sent_channel_is_shown_beside_a_skipped_one() -> None:
    pushed = delivery("sent", channel="push", device=DEVICE, provider="fcm", provider_id="fcm-1")
    one = told(entry(N_1, [delivery("skipped", reason="preferences"), pushed]), pushes=(push_log(N_1, "sent"),))
    assert one.standing == (
        "Done: the e-mail was not sent: the person has turned it off; "
        "the push message was accepted by fcm, with no receipt yet."
    )


def test_devices_of_which_the_same_is_to_be_said_are_counted() -> None:
    sent = [delivery("sent", channel="push", device=name, provider="fcm") for name in ("a", "b")]
    gone = delivery(
        "failed", channel="push", device="c", provider="fcm", attempts=1, code="UNREGISTERED", message="gone"
    )
    one = told(entry(N_1, [*sent, gone]))
    assert one.standing == (
        "Done: the push message was accepted by fcm, with no receipt yet (2 of 3 devices), "
        "was refused by fcm: UNREGISTERED: gone (1 of 3 devices)."
    )


def test_what_a_person_did_with_an_email_is_shown() -> None:
    log = email_log(N_1, "delivered", ("opened", NOON + MINUTE, {"provider": "sendgrid"}))
    one = told(entry(N_1, [delivery("delivered")]), emails=(log,))
    assert one.standing == "Done: the e-mail was delivered by sendgrid, and opened."
    assert one.advice == ()
    unseen = told(entry(N_1, [delivery("delivered")]), emails=(email_log(N_1, "delivered"),))
    assert unseen.advice == ("It is in the person's mailbox: ask them to check the spam folder.",)


def test_of_a_mail_without_a_receipt_the_provider_can_be_asked() -> None:
    one = told(entry(N_1, [delivery("sent", provider="smtp", provider_id="queued as 7B2")]))
    assert one.advice == ("Ask smtp about queued as 7B2, and ask the person to check the spam folder.",)


def test_a_worker_that_has_it_is_named_and_one_that_stopped_too() -> None:
    lease = {"worker": "host-1", "token": "t", "until": NOON + MINUTE}
    item = entry(N_1, status="processing", lease=lease, processedAt=NOON)
    assert told(item, now=NOON + SECOND).standing == (
        "In progress: worker host-1 has it until 2026-01-31 12:01:00 UTC at the latest."
    )
    late = told(item, now=NOON + 5 * MINUTE)
    assert late.standing == ("Interrupted: worker host-1 stopped; another worker recovers it within seconds.")
    assert late.advice == (
        "No worker has claimed it since 2026-01-31 12:01:00 UTC: `inkstream doctor` shows whether one is running.",
    )


def test_what_no_worker_has_taken_is_due() -> None:
    one = told(entry(N_1), now=NOON + SECOND)
    assert one.standing == "Due: the next worker sends it by e-mail and push."
    assert one.advice == ()
    assert told(entry(N_1)).advice == (
        "No worker has claimed it since 2026-01-31 12:00:00 UTC: `inkstream doctor` shows whether one is running.",
    )


def test_what_was_just_retried_is_not_overdue() -> None:
    retried = delivery("waiting", since=NOON + HOUR, next_attempt_at=NOON + HOUR)
    one = told(entry(N_1, [retried], nextRetryAt=None), now=NOON + HOUR + SECOND)
    assert one.standing == "Waiting: the e-mail is due."
    assert one.advice[0].startswith("No action needed: it continues automatically.")


def test_a_group_waits_for_more_people_and_shows_how_many_joined() -> None:
    gather = Gather("5f2b1c0a9d8e7f6a5b4c3d2e1f0a9b8c", NOON, "\ufffc liked it", "Well")
    liked = [notice(f"like-{name}", NOON + at * SECOND, gather=gather, actor_id=name) for at, name in enumerate("ab")]
    gathered = merge(merge(None, liked[0]), liked[1])
    item = entry(N_1, nextRetryAt=NOON + MINUTE)
    one = told(item, notification={**shown(N_1), "gathered": gathered.document()}, now=NOON + 2 * SECOND)
    assert one.standing == ("Waiting: it is sent after 2026-01-31 12:01:00 UTC; until then more people may join it.")
    assert ("12:00:01", "", "the latest of 2 people joined it") in lines(one.past)


def test_what_is_for_the_application_alone_is_read_or_not() -> None:
    alone = notice("n-1", NOON, "inApp")
    assert told(entry(alone), notification=shown(alone)).standing == (
        "Done: it was only for the application, where it is unread."
    )
    read = shown(alone)
    read["channels"]["inApp"] |= {"read": True, "readAt": NOON + MINUTE}
    one = told(entry(alone), notification=read)
    assert one.standing.endswith("where it is read.")
    assert ("12:01:00", "in the application", "read") in lines(one.past)


def test_the_event_of_a_rule_is_named() -> None:
    of_rule = notice(KEY_OF_A_RULE, NOON)
    one = build_timeline(
        StoredNotification(KEY_OF_A_RULE, entry(of_rule), None, (), ()), Circumstances(events=RULES), NOON
    )
    assert dict(one.facts)["type"] == "comment_reply, by the rule on comment.created"


def test_an_item_that_can_not_be_read_says_so() -> None:
    item = entry(N_1, status="failed", errors=[{"message": "the item can't be read: KeyError", "timestamp": NOON}])
    assert told(item).standing == (
        "Failed: its item in the queue could not be read. Last error: the item can't be read: KeyError."
    )
    item["deliveries"] = [{"channel": "email"}]
    one = told(item)
    assert one.standing.startswith("Failed: its item in the queue can't be read.")
    assert one.advice == ("Correct its document in `notificationQueue`, then run `inkstream notifications retry n-1`.",)


def test_after_the_queue_has_forgotten_it_the_log_speaks() -> None:
    log = email_log(N_1, "failed", error={"code": "421", "message": "too busy"})
    one = told(None, emails=(log,))
    assert (
        one.standing
        == "The queue has deleted it; according to its log, the e-mail failed with sendgrid: 421: too busy."
    )
    assert told(None, notification=shown(N_1)).standing == (
        "The queue has deleted it, 7 days after it was completed, and no log of a message is left."
    )


def test_what_could_not_be_looked_up_is_said() -> None:
    one = told(entry(N_1), missing=("whether an address is suppressed: PostgreSQL: connection refused",))
    assert ("not known", "whether an address is suppressed: PostgreSQL: connection refused") in one.facts


def test_the_page_explains_every_state_and_every_reason() -> None:
    page = (ROOT / "docs" / "notifications.md").read_text(encoding="utf-8")
    explained = set(re.findall(r"^\| `([a-z-]+)` \|", page, re.MULTILINE))
    assert explained == {
        *get_args(State),
        *get_args(Reason),
        *get_args(Status),
        BOUNCED,
        INTERRUPTED,
        UNREADABLE,
        "timeout",
        "invalid-address",
    }
    assert set(REASONS) == set(get_args(Reason))
