"""What people want to get: which channels they have turned off, and how that is stored."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from notifications.preferences import ALL_OFF, DEFAULTS, Preferences, QuietHours, read
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


MAIL, PUSH, NONE = frozenset({"email"}), frozenset({"push"}), frozenset[str]()


def parts(preferences: Preferences) -> list[str]:
    return [part for part, _ in preferences.unreadable]


@pytest.mark.parametrize(
    ("stored", "off"),
    [
        (["Email"], MAIL),
        (["EMAIL", " push "], ALL_OFF),
        (["e-mail"], MAIL),
        (["E_MAIL"], MAIL),
        (["mail"], MAIL),
        (["emails"], MAIL),
        (["emial"], MAIL),
        (["web-push"], PUSH),
        (["pushNotifications"], PUSH),
        (["all"], ALL_OFF),
        ("email", MAIL),
        ("email, push", ALL_OFF),
        ({"email": True, "push": False}, MAIL),
        ({"Email": 1, "push": 0}, MAIL),
        ({"email": "true", "push": "false"}, MAIL),
        ({"email": "yes", "push": "no"}, MAIL),
        ({"email": "off", "push": "0"}, MAIL),
        ("true", ALL_OFF),
        ("off", ALL_OFF),
        (["yes"], ALL_OFF),
        (True, ALL_OFF),
        (False, NONE),
        (None, NONE),
        ([], NONE),
        ({}, NONE),
        ("", NONE),
        ([None], NONE),
    ],
)
def test_channels_are_read_as_they_can_be_meant(stored: Any, off: frozenset[str]) -> None:
    assert read({"channelsOff": stored}) == Preferences(channels_off=off)


@pytest.mark.parametrize("stored", [7, [7], ["push", {}], [["email"]], 1.5])
def test_unreadable_channels_are_off_and_reported(stored: Any) -> None:
    preferences = read({"channelsOff": stored})
    assert preferences.channels_off == ALL_OFF
    assert parts(preferences) == ["channelsOff"]


def test_an_unknown_channel_turns_none_off_and_is_reported() -> None:
    preferences = read({"channelsOff": ["sms", "push"]})
    assert preferences.channels_off == PUSH
    assert preferences.unreadable == (("channelsOff", "sms"),)


@pytest.mark.parametrize(
    ("stored", "off"),
    [
        ({"post_liked": ["Email"]}, MAIL),
        ({"Post_Liked": "email"}, MAIL),
        ({"postLiked": ["email"]}, MAIL),
        ({"post-liked": {"email": True}}, MAIL),
        ({"post_liked": True}, ALL_OFF),
        (["post_liked"], ALL_OFF),
        ("post_liked", ALL_OFF),
        ("comment_reply,post_liked", ALL_OFF),
        ({"all": ["email"]}, MAIL),
        ({"post_liked": "true"}, ALL_OFF),
        ({"post_liked": "off"}, ALL_OFF),
        ({"post_liked": {"email": "yes", "push": "false"}}, MAIL),
        ("true", ALL_OFF),
        (True, ALL_OFF),
        ({"post_liked": False}, NONE),
        ({"post_liked": None}, NONE),
        (None, NONE),
    ],
)
def test_types_are_read_as_they_can_be_meant(stored: Any, off: frozenset[str]) -> None:
    preferences = read({"typesOff": stored})
    assert {channel for channel in ALL if preferences.turns_off(channel, "post_liked")} == off
    assert preferences.unreadable == ()


@pytest.mark.parametrize("stored", [7, [7], [{"type": "post_liked"}], {"post_liked": 7}, {"post_liked": [7]}])
def test_unreadable_types_are_off_and_reported(stored: Any) -> None:
    preferences = read({"typesOff": stored})
    assert preferences.turns_off("email", "post_liked")
    assert parts(preferences) == ["typesOff"]


@pytest.mark.parametrize("stored", [None, "", " ", "null", {}, [], "{}", "[]", '""'])
def test_who_has_said_nothing_in_whatever_shape_gets_everything(stored: Any) -> None:
    assert read(stored) == DEFAULTS


@pytest.mark.parametrize("no", [False, "false", "No", 0, "0"])
def test_hours_that_are_turned_off_are_none(no: Any) -> None:
    hours = {"enabled": no, "start": "22:00", "end": "07:00", "timeZone": "UTC"}
    assert read({"quietHours": hours}) == DEFAULTS


@pytest.mark.parametrize("other", [True, "true", 1, None, "?"])
def test_hours_are_on_unless_it_is_said_that_they_are_not(other: Any) -> None:
    hours = {"enabled": other, "start": "22:00", "end": "07:00", "timeZone": "UTC"}
    assert read({"quietHours": hours}).quiet_hours == QuietHours(start="22:00", end="07:00", time_zone="UTC")


@pytest.mark.parametrize("stored", ["off", "{", 7, True, [1], '"off"', "[" * 100_000])
def test_unreadable_preferences_turn_all_off_and_are_reported(stored: Any) -> None:
    preferences = read(stored)
    assert preferences.channels_off == ALL_OFF
    assert parts(preferences) == ["preferences"]


def test_preferences_that_were_made_json_twice_are_read() -> None:
    assert read('{"channelsOff": ["email"]}').channels_off == MAIL


@pytest.mark.parametrize("name", ["channelsOff", "channels_off", "ChannelsOff", "channelsoff", "CHANNELS-OFF"])
def test_a_name_may_be_written_in_any_case(name: str) -> None:
    assert read({name: ["email"]}).channels_off == MAIL


@pytest.mark.parametrize(
    "stored", [None, {}, False, "", {"start": None, "end": None, "timeZone": "UTC"}, {"timeZone": "Europe/Berlin"}]
)
def test_who_names_no_hours_has_none(stored: Any) -> None:
    assert read({"quietHours": stored}) == DEFAULTS


@pytest.mark.parametrize(
    ("stored", "unreadable"),
    [
        ({"start": "22:00", "end": "07:00", "timeZone": "Mars/Olympus"}, [("quietHours.timeZone", "Mars/Olympus")]),
        ({"start": "22:00", "end": "07:00"}, [("quietHours.timeZone", "nothing")]),
        ({"start": "25:00", "end": "07:00", "timeZone": "UTC"}, [("quietHours.start", "25:00")]),
        ({"start": "22:00", "end": [7], "timeZone": "UTC"}, [("quietHours.end", "a list")]),
        (
            {"start": "when Ada sleeps", "end": "ada@example.org", "timeZone": "UTC"},
            [("quietHours.start", "a text of 15 characters"), ("quietHours.end", "a text of 15 characters")],
        ),
        ("22:00-07:00", [("quietHours", "22:00-07:00")]),
        (True, [("quietHours", "true")]),
        (
            {"start": 1320, "end": 420, "timeZone": "UTC"},
            [("quietHours.start", "a number"), ("quietHours.end", "a number")],
        ),
        (["22:00", "07:00"], [("quietHours", "a list")]),
    ],
)
def test_unreadable_hours_count_as_hours_and_are_reported_without_personal_data(
    stored: Any, unreadable: list[tuple[str, str]]
) -> None:
    preferences = read({"quietHours": stored})
    assert preferences.quiet_hours is not None
    assert list(preferences.unreadable) == unreadable


@pytest.mark.parametrize(
    "stored",
    [
        {"start": "24:00", "end": "7:00", "timeZone": "europe/berlin"},
        {"start": 22, "end": 7, "timezone": "UTC"},
        {"start": 0, "end": 7, "timezone": "UTC"},
        {"Start": "22:00:00", "END": "07:00:00", "time_zone": "UTC+2"},
    ],
)
def test_hours_are_read_as_they_can_be_meant(stored: Any) -> None:
    preferences = read({"quietHours": stored})
    assert preferences.quiet_hours is not None
    assert preferences.unreadable == ()


@pytest.mark.parametrize(
    ("stored", "locale"), [("de", "de"), (" pt-BR ", "pt-BR"), (None, "en"), ("", "en"), (7, "en")]
)
def test_a_language_is_a_text_or_the_default(stored: Any, locale: str) -> None:
    assert read({"locale": stored}).locale == locale


JSON: st.SearchStrategy[Any] = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=9),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=9), inner, max_size=3),
    max_leaves=8,
)
FIELDS = st.sampled_from(["channelsOff", "typesOff", "quietHours", "locale", "theme"])


@given(st.dictionaries(FIELDS, JSON) | JSON)
def test_anything_can_be_read_and_kept(stored: Any) -> None:
    preferences = read(stored)
    assert Preferences.model_validate_json(preferences.model_dump_json(by_alias=True)) == preferences
