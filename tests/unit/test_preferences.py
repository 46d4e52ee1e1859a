from datetime import UTC, datetime

import pytest

from notifications.notice import Notice, expiry
from notifications.preferences import DEFAULTS, Preferences, QuietHours, channels_for
from schemas.notifications import Channel

TIME = datetime(2026, 1, 31, 12, tzinfo=UTC)
ALL: tuple[Channel, ...] = ("inApp", "email", "push")


def notice(*channels: Channel, transactional: bool = False) -> Notice:
    return Notice(
        id="notice-1",
        user_id="ada",
        type="post_liked",
        title="Grace liked your post",
        message="“Types”",
        action_url=None,
        action_text=None,
        related_entity=None,
        actor_id="grace",
        actor_name="Grace",
        actor_avatar=None,
        channels=channels or ALL,
        priority="low",
        created_at=TIME,
        expires_at=expiry(TIME),
        transactional=transactional,
    )


@pytest.mark.parametrize("preferences", [None, DEFAULTS, Preferences()])
def test_somebody_who_has_said_nothing_gets_everything(preferences: Preferences | None) -> None:
    choice = channels_for(notice(), preferences)
    assert (choice.channels, dict(choice.left_out)) == (ALL, {})


def test_a_channel_may_be_off_altogether() -> None:
    choice = channels_for(notice(), Preferences(channels_off=frozenset({"push"})))
    assert (choice.channels, dict(choice.left_out)) == (("inApp", "email"), {"push": "turned off"})


def test_a_channel_may_be_off_for_a_type() -> None:
    preferences = Preferences(
        types_off={"post_liked": frozenset({"email"}), "comment_reply": frozenset({"push"})},
    )
    choice = channels_for(notice(), preferences)
    assert (choice.channels, dict(choice.left_out)) == (("inApp", "push"), {"email": "turned off for this type"})


def test_what_is_in_the_application_is_always_there() -> None:
    preferences = Preferences(channels_off=frozenset(ALL), types_off={"post_liked": frozenset(ALL)})
    choice = channels_for(notice(), preferences, suppressed=ALL)
    assert choice.channels == ("inApp",)
    assert dict(choice.left_out) == {"email": "suppressed", "push": "suppressed"}


def test_what_was_not_asked_for_is_not_added_and_not_explained() -> None:
    choice = channels_for(notice("email"), Preferences(channels_off=frozenset(ALL)))
    assert (choice.channels, dict(choice.left_out)) == ((), {"email": "turned off"})


def test_a_suppressed_address_gets_nothing_more() -> None:
    choice = channels_for(notice(), suppressed={"email"})
    assert (choice.channels, dict(choice.left_out)) == (("inApp", "push"), {"email": "suppressed"})


def test_what_is_transactional_passes_preferences_and_no_suppressed_address() -> None:
    preferences = Preferences(channels_off=frozenset({"email"}), types_off={"post_liked": frozenset({"push"})})
    assert channels_for(notice(transactional=True), preferences).channels == ALL
    choice = channels_for(notice(transactional=True), preferences, suppressed={"email"})
    assert (choice.channels, dict(choice.left_out)) == (("inApp", "push"), {"email": "suppressed"})


def test_the_order_of_the_channels_stays() -> None:
    assert channels_for(notice("push", "inApp", "email")).channels == ("push", "inApp", "email")


STORED = """{
    "channelsOff": ["push", "carrier-pigeon"],
    "typesOff": {"post_liked": ["email"]},
    "quietHours": {"start": "22:00", "end": "07:30", "timeZone": "Europe/Berlin"},
    "locale": "pt-BR",
    "theme": "dark"
}"""


def test_preferences_are_read_as_they_are_stored_also_from_a_later_release() -> None:
    preferences = Preferences.model_validate_json(STORED)
    assert preferences.quiet_hours == QuietHours(start="22:00", end="07:30", time_zone="Europe/Berlin")
    assert preferences.locale == "pt-BR"
    assert dict(channels_for(notice(), preferences).left_out) == {
        "email": "turned off for this type",
        "push": "turned off",
    }
    assert Preferences.model_validate_json(preferences.model_dump_json(by_alias=True)) == preferences


def test_nobody_has_quiet_hours_by_default() -> None:
    assert (DEFAULTS.quiet_hours, DEFAULTS.locale) == (None, "en")
