"""An item of the queue: what is planned of it, and what may hinder a delivery."""

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from notifications.item import Item, UnreadableItemError
from notifications.preferences import DEFAULTS, Preferences, QuietHours
from notifications.states import Delivery, device_name, plan
from schemas.notifications import Device

NOON = datetime(2026, 11, 23, 12, tzinfo=UTC)
NIGHT = QuietHours(start="22:00", end="07:30", time_zone="Europe/Berlin")
PHONE, BROWSER = Device(token="phone", platform="android"), Device(token="browser", platform="web")
EMAIL = plan("email", NOON)


def document(**fields: Any) -> dict[str, Any]:
    return {
        "_id": "n-1",
        "notificationId": "n-1",
        "userId": "ada",
        "type": "comment_reply",
        "channels": ["inApp", "email", "push"],
        "priority": 2,
        "attempts": 0,
        "maxAttempts": 5,
        "createdAt": NOON,
        "expiresAt": NOON + timedelta(days=90),
        "deliveries": [{"channel": "inApp", "state": "delivered", "since": NOON, "attempts": 0}],
        **fields,
    }


ITEM = Item.from_document(document())


def test_an_item_of_an_earlier_release_is_read() -> None:
    old = document()
    for name in ("expiresAt", "deliveries"):
        del old[name]
    item = Item.from_document(old)
    assert (item.deliveries, item.expires_at, item.transactional, item.recipient) == ((), None, False, None)
    assert item.unplanned == ("email", "push")


def test_there_is_a_delivery_for_the_address_and_for_each_device() -> None:
    planned = ITEM.plan([PHONE, BROWSER, PHONE], NOON)
    assert [(delivery.channel, delivery.device) for delivery in planned] == [
        ("email", None),
        ("push", device_name("phone")),
        ("push", device_name("browser")),
    ]
    assert replace(ITEM, deliveries=(*ITEM.deliveries, *planned)).plan([PHONE], NOON) == ()


def test_somebody_without_devices_has_a_delivery_that_can_say_so() -> None:
    assert [delivery.channel for delivery in ITEM.plan([], NOON)] == ["email", "push"]


def test_the_key_is_the_same_at_every_attempt_and_no_other_message_has_it() -> None:
    deliveries = ITEM.plan([PHONE, BROWSER], NOON)
    keys = {delivery.key("n-1") for delivery in deliveries} | {delivery.key("n-2") for delivery in deliveries}
    assert len(keys) == 6
    assert all(len(key) == 32 for key in keys)
    assert [delivery.key("n-1") for delivery in ITEM.plan([PHONE, BROWSER], NOON + timedelta(days=1))] == [
        delivery.key("n-1") for delivery in deliveries
    ]


def test_nothing_hinders_what_nobody_minds() -> None:
    assert ITEM.blocked_by(EMAIL, DEFAULTS, NOON) is None


def test_what_is_past_its_time_is_not_sent_however_urgent() -> None:
    urgent = replace(ITEM, priority=4, transactional=True)
    assert urgent.blocked_by(EMAIL, DEFAULTS, NOON + timedelta(days=90)) == "expired"


def test_a_channel_that_is_turned_off_is_skipped_unless_the_person_must_know() -> None:
    wants = Preferences(channels_off=frozenset({"email"}))
    assert ITEM.blocked_by(EMAIL, wants, NOON) == "preferences"
    assert replace(ITEM, transactional=True).blocked_by(EMAIL, wants, NOON) is None


def test_at_night_it_waits_for_the_morning() -> None:
    wants = Preferences(quiet_hours=NIGHT)
    night = datetime(2026, 11, 23, 22, 30, tzinfo=UTC)
    assert ITEM.blocked_by(EMAIL, wants, night) == datetime(2026, 11, 24, 6, 30, tzinfo=UTC)
    assert ITEM.blocked_by(EMAIL, wants, NOON) is None


@pytest.mark.parametrize("change", [{"priority": 4}, {"transactional": True}])
def test_what_is_urgent_or_asked_for_passes_quiet_hours(change: dict[str, Any]) -> None:
    night = datetime(2026, 11, 23, 22, 30, tzinfo=UTC)
    assert replace(ITEM, **change).blocked_by(EMAIL, Preferences(quiet_hours=NIGHT), night) is None


@pytest.mark.parametrize(
    "hours",
    [
        ("00:00", "24:00", "UTC"),
        ("9:00", "23:59", "UTC"),
        ("22:00", "07:00", "europe/berlin"),
        ("22:00", "07:00", "Mars/Olympus"),
        ("22:00", "22:00", "UTC"),
        ("late", "07:00", "UTC"),
        ("22:00", "early", "UTC"),
        ("late", "early", "Mars"),
        ("22:00", "07:00", None),
        (None, None, None),
        ("", "", ""),
        ("10 PM", "7am", " utc "),
        ("22.00", "7.00", "GMT"),
        ("22:00:00", "07:00:00", "UTC+0"),
        ("1970-01-01T22:00:00.000Z", "1970-01-01T07:00:00.000Z", "Etc/UTC"),
        ("25:00", "07:00", "UTC"),
        ("\uff12\uff12:00", "07:00", "UTC"),
    ],
)
def test_at_night_it_is_silent_whether_or_not_the_hours_can_be_read(hours: tuple[str | None, ...]) -> None:
    start, end, zone = hours
    wants = Preferences(quiet_hours=QuietHours(start=start, end=end, time_zone=zone))
    night = datetime(2026, 11, 23, 23, 30, tzinfo=UTC)
    until = ITEM.blocked_by(EMAIL, wants, night)
    assert isinstance(until, datetime)
    assert timedelta(0) < until - night <= timedelta(hours=24)
    assert replace(ITEM, priority=4).blocked_by(EMAIL, wants, night) is None
    assert replace(ITEM, transactional=True).blocked_by(EMAIL, wants, night) is None


def test_who_wants_silence_all_day_is_sent_nothing_but_what_is_urgent() -> None:
    wants = Preferences(quiet_hours=QuietHours(start="00:00", end="24:00", time_zone="UTC"))
    until = ITEM.blocked_by(EMAIL, wants, NOON)
    assert isinstance(until, datetime)
    assert until == datetime(2026, 11, 24, tzinfo=UTC)
    assert isinstance(ITEM.blocked_by(EMAIL, wants, until), datetime)
    assert replace(ITEM, priority=4).blocked_by(EMAIL, wants, NOON) is None


def test_an_item_may_have_attempts_of_its_own() -> None:
    item = Item.from_document(document(maxAttempts=2))
    assert (item.policy("email").max_attempts, item.policy("push").max_attempts) == (2, 2)


def test_a_document_that_is_no_item_is_refused() -> None:
    with pytest.raises((KeyError, ValueError)):
        Item.from_document(document(deliveries=[{"channel": "email", "state": "lost", "since": NOON, "attempts": 0}]))


@pytest.mark.parametrize("change", [{"deliveries": ["lost"]}, {"channels": None}, {"maxAttempts": "five"}])
def test_whatever_is_wrong_with_a_document_is_said_in_one_way(change: dict[str, Any]) -> None:
    with pytest.raises(UnreadableItemError):
        Item.from_document(document(**change))


def test_deliveries_are_read_as_they_were_written() -> None:
    [email, *_] = ITEM.plan([], NOON)
    read = Item.from_document(document(deliveries=[email.to_document()], revision=3))
    assert read.deliveries == (Delivery.from_document(email.to_document()),)
    assert read.revision == 3
