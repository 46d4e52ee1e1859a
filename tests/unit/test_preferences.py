"""What people want to get: which channels they have turned off, and how that is stored."""

import pytest

from notifications.preferences import DEFAULTS, Preferences, QuietHours
from schemas.notifications import Channel

ALL: tuple[Channel, ...] = ("inApp", "email", "push")


@pytest.mark.parametrize("channel", ALL)
def test_somebody_who_has_said_nothing_gets_everything(channel: Channel) -> None:
    assert not DEFAULTS.turns_off(channel, "post_liked")
    assert not Preferences().turns_off(channel, "post_liked")


def test_a_channel_may_be_off_altogether() -> None:
    preferences = Preferences(channels_off=frozenset({"push"}))
    assert preferences.turns_off("push", "post_liked")
    assert not preferences.turns_off("email", "post_liked")


def test_a_channel_may_be_off_for_a_type() -> None:
    preferences = Preferences(types_off={"post_liked": frozenset({"email"})})
    assert preferences.turns_off("email", "post_liked")
    assert not preferences.turns_off("email", "comment_reply")
    assert not preferences.turns_off("push", "post_liked")


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
    assert preferences.turns_off("push", "comment_reply")
    assert preferences.turns_off("email", "post_liked")
    assert Preferences.model_validate_json(preferences.model_dump_json(by_alias=True)) == preferences


def test_nobody_has_quiet_hours_by_default() -> None:
    assert (DEFAULTS.quiet_hours, DEFAULTS.locale) == (None, "en")
