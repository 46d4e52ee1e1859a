"""What a run of sample traffic expects of notifications, and what it finds wrong."""

from collections.abc import Mapping
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from itertools import islice
from typing import Any

import orjson
import pytest

from dev.blog import Blog, Person
from dev.notifications import NotificationLedger, Reached
from dev.report import notifications_lines
from dev.scenarios import Trace
from dev.traffic import Sample, Traffic
from enrich.notifications import queue_item
from notifications.item import Item
from notifications.notice import Notice
from notifications.preferences import DEFAULTS
from notifications.states import Delivery, device_name, plan, skip
from runtime.settings import ROOT, Settings
from schemas.topics import load
from sinks import collections

BEGAN = datetime(2026, 1, 31, 12, tzinfo=UTC)
NOON = int(BEGAN.timestamp() * 1000)
TOPICS = load(ROOT / "topics.yaml", collections.NAMES).inbound
SETTINGS = Settings(_env_file=None, gather_window=timedelta(seconds=10))
BLOG = Blog()


@pytest.fixture
def ledger() -> NotificationLedger:
    return NotificationLedger(SETTINGS, TOPICS.values(), BEGAN)


def somebody(*, devices: int, email_is_off: bool = False) -> Person:
    return next(
        person
        for person in BLOG.people
        if len(person.devices) == devices
        and ("email" in person.preferences.channels_off if email_is_off else person.preferences == DEFAULTS)
    )


def sample(topic: str, type_: str, id_: str, **payload: object) -> Sample:
    body = {"eventId": id_, "type": type_, "timestamp": BEGAN.isoformat(), **payload}
    return Sample(
        due=0,
        topic=topic,
        key=b"",
        value=orjson.dumps(body),
        headers=(),
        compression=None,
        outcome="stored",
        id=id_,
        traces=(Trace("notifications"),),
    )


def request(to: Person, *channels: str) -> Sample:
    words = {"title": "Your week", "message": "Read on"}
    return sample(
        "notifications", "notification.requested", "one", userId=to.id, type="digest", channels=channels, **words
    )


def like(post: str, reader: str, id_: str) -> Sample:
    who = {"authorId": BLOG.posts[0].author.id, "userId": reader, "userName": reader}
    return sample("domain-events", "post.liked", id_, postId=post, title="Types", slug="types", **who)


def expect(ledger: NotificationLedger, *samples: Sample) -> list[Notice]:
    for offset, sent in enumerate(samples):
        ledger.expect(sent, 0, offset, NOON)
    return list(ledger._open.values())


def judged(
    ledger: NotificationLedger, notice: Notice, *deliveries: Delivery, logs: Mapping[str, str] | None = None
) -> list[str]:
    """Return what is wrong with a notification that was delivered like this, where logs say that all was sent."""
    document = queue_item(notice) | {"deliveries": [delivery.to_document() for delivery in deliveries]}
    document.pop("recipient", None)  # as it is when there is nothing more to send
    said = {one.key(notice.id): "sent" for one in deliveries if one.state == "sent"} if logs is None else logs
    ledger._judge(Item.from_document(document), ledger._open.pop(notice.id), said)
    return [problem.removeprefix(f"{notice.id} ({notice.type}) ") for problem in ledger._problems]


def sent(channel: Any, device: str | None = None) -> Delivery:
    return Delivery(channel=channel, device=device, state="sent", since=BEGAN, attempts=1, provider="smtp")


def test_a_mail_that_was_sent_and_logged_is_accounted_for(ledger: NotificationLedger) -> None:
    [notice] = expect(ledger, request(somebody(devices=0), "email"))
    assert ledger.reached.waiting == 1
    assert judged(ledger, notice, sent("email")) == []
    assert ledger.reached == Reached(0, 1, 0, 0, {}, 0, 0)
    assert ledger.documents == {"emailLogs": 1}


def test_whoever_the_platform_does_not_know_gets_what_the_request_names_an_address_for(
    ledger: NotificationLedger,
) -> None:
    stranger = {"userId": "stranger", "title": "Welcome", "message": "Hello", "channels": ["email"]}
    welcome = sample(
        "notifications", "notification.requested", "one", type="welcome", email="new@mail.example", **stranger
    )
    [notice] = expect(ledger, welcome)
    assert judged(ledger, notice, sent("email")) == []
    [notice] = expect(ledger, sample("notifications", "notification.requested", "two", type="welcome", **stranger))
    assert judged(ledger, notice, skip(plan("email", BEGAN), "no-address", BEGAN)) == []


def test_a_request_that_comes_again_is_expected_once(ledger: NotificationLedger) -> None:
    twice = request(somebody(devices=0), "email")
    [notice] = expect(ledger, twice, replace(twice, outcome="duplicate"))
    assert judged(ledger, notice, sent("email")) == []
    assert expect(ledger, twice) == []


def test_a_mail_without_its_log_is_a_problem(ledger: NotificationLedger) -> None:
    [notice] = expect(ledger, request(somebody(devices=0), "email"))
    assert judged(ledger, notice, sent("email"), logs={}) == ["is sent by email, and its log says None"]


def test_a_mail_whose_log_says_something_else_is_a_problem(ledger: NotificationLedger) -> None:
    [notice] = expect(ledger, request(somebody(devices=0), "email"))
    logs = {sent("email").key(notice.id): "queued"}
    assert judged(ledger, notice, sent("email"), logs=logs) == ["is sent by email, and its log says queued"]


def test_what_somebody_turned_off_must_not_come(ledger: NotificationLedger) -> None:
    [notice] = expect(ledger, request(somebody(devices=0, email_is_off=True), "email"))
    assert judged(ledger, notice, sent("email")) == ["was sent by email, and should not for preferences"]


def test_what_somebody_turned_off_is_skipped(ledger: NotificationLedger) -> None:
    [notice] = expect(ledger, request(somebody(devices=0, email_is_off=True), "email"))
    assert judged(ledger, notice, skip(plan("email", BEGAN), "preferences", BEGAN)) == []
    assert ledger.reached.skipped == {"preferences": 1}


def test_what_nobody_turned_off_must_not_be_skipped_for_that(ledger: NotificationLedger) -> None:
    [notice] = expect(ledger, request(somebody(devices=0), "email"))
    skipped = skip(plan("email", BEGAN), "preferences", BEGAN)
    assert judged(ledger, notice, skipped) == ["was not sent by email for preferences, and could be"]


def test_a_push_message_goes_to_each_device(ledger: NotificationLedger) -> None:
    person = somebody(devices=2)
    [notice] = expect(ledger, request(person, "push"))
    first, second = (device_name(device.token) for device in person.devices)
    assert judged(ledger, notice, sent("push", first), sent("push", second)) == []
    assert ledger.reached.pushes == 2


def test_a_push_message_to_one_device_of_two_is_a_problem(ledger: NotificationLedger) -> None:
    person = somebody(devices=2)
    [notice] = expect(ledger, request(person, "push"))
    only = sent("push", device_name(person.devices[0].token))
    assert judged(ledger, notice, only) == ["goes to other devices than the person has"]


def test_a_channel_of_which_nothing_was_decided_is_a_problem(ledger: NotificationLedger) -> None:
    [notice] = expect(ledger, request(somebody(devices=0), "email", "push"))
    assert judged(ledger, notice, skip(plan("push", BEGAN), "no-address", BEGAN)) == [
        "was given up before anything was decided on email"
    ]


def test_likes_of_a_post_within_a_window_are_one_notification(ledger: NotificationLedger) -> None:
    open_ = expect(ledger, like("types", "ada", "1"), like("types", "grace", "2"), like("other", "ada", "3"))
    assert len(open_) == 2
    assert sorted(gathered.count for gathered in ledger._groups.values()) == [1, 2]


def test_nobody_is_expected_to_hear_of_what_is_dead_lettered_or_of_no_ones_concern(
    ledger: NotificationLedger,
) -> None:
    unread = replace(like("types", "ada", "1"), outcome="dead-lettered")
    own = like("types", BLOG.posts[0].author.id, "2")
    assert expect(ledger, unread, own) == []


def test_the_sample_traffic_tells_of_all_that_rules_and_services_tell_of(ledger: NotificationLedger) -> None:
    traffic = Traffic(TOPICS.values(), began=BEGAN, rate=300)
    told = {notice.type for notice in expect(ledger, *islice(traffic, 12_000))}
    assert told == {*ledger._rules.by_type, "welcome", "password_changed", "unknown_sign_in", "weekly_digest"}


def test_some_people_have_devices_preferences_and_quiet_hours_and_most_have_no_wishes() -> None:
    assert {device.platform for person in BLOG.people for device in person.devices} == {"ios", "android", "web"}
    wishes = [person.preferences for person in BLOG.people]
    assert sum(one == DEFAULTS for one in wishes) > len(wishes) * 0.7
    assert any(one.quiet_hours for one in wishes)
    assert any(one.channels_off for one in wishes)
    assert any(one.types_off for one in wishes)
    tokens = [device.token for person in BLOG.people for device in person.devices]
    assert len(set(tokens)) == len(tokens)


def test_the_report_says_how_many_there_are_and_where_to_read_them() -> None:
    everything = Reached(214, 1_120, 95, 2, {"preferences": 3, "no-address": 4}, 5, 0)
    assert notifications_lines(everything, "http://inbox") == [
        "214 in the application, 1,120 mails (read them at http://inbox), 95 push messages "
        "(http://inbox/push-messages), 0 waiting.",
        "Messages that were not sent: 4 without an address or a device, 3 turned off by the person, "
        "2 that no provider accepted.",
        "5 notifications wait until quiet hours end.",
    ]
    assert len(notifications_lines(Reached(1, 0, 0, 0, {}, 0, 0), "http://inbox")) == 1
