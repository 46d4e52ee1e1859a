from datetime import UTC, datetime, time, timedelta
from zoneinfo import ZoneInfo

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from notifications.quiet_hours import QuietHours, UnknownZoneError, time_of_day, understand, zone_named

BERLIN = ZoneInfo("Europe/Berlin")
NIGHT = QuietHours(time(22), time(7), BERLIN)
NOON_REST = QuietHours(time(12, 30), time(14), BERLIN)
MINUTE = timedelta(minutes=1)
minutes = st.builds(time, st.integers(0, 23), st.integers(0, 59))

# Berlin put its clock forward at 2026-03-29 02:00 (01:00 UTC), and back at 2026-10-25 03:00 (01:00 UTC).


def berlin(text: str, fold: int = 0) -> datetime:
    return datetime.fromisoformat(text).replace(tzinfo=BERLIN, fold=fold).astimezone(UTC)


def utc(text: str) -> datetime:
    return datetime.fromisoformat(text).replace(tzinfo=UTC)


@pytest.mark.parametrize(
    ("hours", "now", "allowed"),
    [
        pytest.param(NIGHT, "2026-01-10 21:59:59", None, id="before the night"),
        pytest.param(NIGHT, "2026-01-10 22:00", "2026-01-11 07:00", id="as the night begins"),
        pytest.param(NIGHT, "2026-01-10 23:30", "2026-01-11 07:00", id="before midnight"),
        pytest.param(NIGHT, "2026-01-11 00:00", "2026-01-11 07:00", id="at midnight"),
        pytest.param(NIGHT, "2026-01-11 06:59:59", "2026-01-11 07:00", id="at the end of the night"),
        pytest.param(NIGHT, "2026-01-11 07:00", None, id="as the night ends"),
        pytest.param(NIGHT, "2026-12-31 23:00", "2027-01-01 07:00", id="at the end of the year"),
        pytest.param(NOON_REST, "2026-01-10 12:29", None, id="before noon"),
        pytest.param(NOON_REST, "2026-01-10 13:00", "2026-01-10 14:00", id="at noon"),
        pytest.param(NOON_REST, "2026-01-10 23:00", None, id="in the night, with rest at noon"),
        pytest.param(
            QuietHours(time(20), time(0), BERLIN), "2026-01-10 21:00", "2026-01-11 00:00", id="until midnight"
        ),
        pytest.param(QuietHours(time(0), time(6), BERLIN), "2026-01-10 23:59", None, id="before a night from midnight"),
    ],
)
def test_a_message_waits_for_the_end_of_the_quiet_hours(hours: QuietHours, now: str, allowed: str | None) -> None:
    assert hours.allowed_at(berlin(now)) == berlin(allowed or now)


@pytest.mark.parametrize(("now", "hours"), [("2026-03-28 23:00", 7), ("2026-10-24 23:00", 9), ("2026-06-01 23:00", 8)])
def test_a_night_in_which_the_clock_is_changed_ends_by_the_clock(now: str, hours: int) -> None:
    began = berlin(now)
    assert NIGHT.allowed_at(began) == began + timedelta(hours=hours)


@pytest.mark.parametrize("end", [time(2), time(2, 30), time(2, 59), time(3)])
@pytest.mark.parametrize("now", ["2026-03-28 23:00", "2026-03-29 01:59"])
def test_quiet_that_ends_in_the_hour_left_out_ends_as_the_clock_leaps(end: time, now: str) -> None:
    assert QuietHours(time(22), end, BERLIN).allowed_at(berlin(now)) == utc("2026-03-29 01:00")


def test_quiet_that_begins_in_the_hour_left_out_begins_as_the_clock_leaps() -> None:
    hours = QuietHours(time(2, 30), time(7), BERLIN)
    assert hours.allowed_at(utc("2026-03-29 00:59")) == utc("2026-03-29 00:59")
    assert hours.allowed_at(utc("2026-03-29 01:00")) == utc("2026-03-29 05:00")


def test_quiet_hours_that_the_clock_leaps_over_are_not() -> None:
    hours = QuietHours(time(2, 15), time(2, 45), BERLIN)
    assert hours.allowed_at(utc("2026-03-29 00:59:59")) == utc("2026-03-29 00:59:59")
    assert hours.allowed_at(utc("2026-03-29 01:00")) == utc("2026-03-29 01:00")


def test_a_pause_in_the_quiet_hours_that_the_clock_leaps_over_is_the_next_days() -> None:
    hours = QuietHours(time(3), time(2, 30), BERLIN)
    assert hours.allowed_at(berlin("2026-03-28 23:00")) == berlin("2026-03-30 02:30")


def test_a_quiet_time_that_the_clock_shows_twice_is_quiet_twice() -> None:
    hours = QuietHours(time(22), time(2, 30), BERLIN)
    assert hours.allowed_at(berlin("2026-10-25 02:10")) == berlin("2026-10-25 02:30")
    assert hours.allowed_at(berlin("2026-10-25 02:40")) == berlin("2026-10-25 02:40")
    assert hours.allowed_at(berlin("2026-10-25 02:10", fold=1)) == berlin("2026-10-25 02:30", fold=1)


def test_a_clock_put_back_to_before_the_quiet_hours_lets_messages_through() -> None:
    hours = QuietHours(time(2, 30), time(7), BERLIN)
    assert hours.allowed_at(berlin("2026-10-25 02:45")) == utc("2026-10-25 01:00")
    assert hours.allowed_at(berlin("2026-10-25 02:45", fold=1)) == berlin("2026-10-25 07:00")


@pytest.mark.parametrize("zone", ["Asia/Tokyo", "Europe/Berlin", "UTC"])
@pytest.mark.parametrize(
    ("hours", "now", "allowed"),
    [
        (NIGHT, "2026-03-28 22:30", "2026-03-29 05:00"),
        (NIGHT, "2026-10-25 11:00", "2026-10-25 11:00"),
        (QuietHours(time(22), time(2, 30), BERLIN), "2026-03-28 22:30", "2026-03-29 01:00"),
        (QuietHours(time(2, 30), time(7), BERLIN), "2026-10-25 00:45", "2026-10-25 01:00"),
    ],
)
def test_a_moment_in_any_zone_is_understood(hours: QuietHours, now: str, allowed: str, zone: str) -> None:
    answer = hours.allowed_at(utc(now).astimezone(ZoneInfo(zone)))
    assert (answer, answer.tzinfo) == (utc(allowed), UTC)


@pytest.mark.parametrize(
    "name",
    [
        "",
        ".",
        "Europe",
        "Europe/Nowhere",
        "CEST+2",
        "UTC+15",
        "Mars/Olympus",
        "localtime",
        "Factory",
        "../etc/passwd",
        "/etc/passwd",
        "zone.tab",
        "a\0b",
        "x" * 5000,
    ],
)
def test_a_zone_that_does_not_exist_is_refused(name: str) -> None:
    with pytest.raises(UnknownZoneError, match="no time zone named"):
        zone_named(name)


@pytest.mark.parametrize(
    "name", ["Europe/Berlin", "europe/berlin", "EUROPE/BERLIN", " Europe/Berlin\n", "\u00a0europe/Berlin"]
)
def test_a_zone_is_found_by_its_name_in_whatever_case(name: str) -> None:
    assert zone_named(name) == BERLIN


@pytest.mark.parametrize(
    "name",
    ["UTC", "utc", "GMT", "Z", "CET", "EST5EDT", "est5edt", "US/Pacific", "Asia/Calcutta", "america/new york"],
)
def test_names_of_old_that_browsers_and_databases_still_give_are_found(name: str) -> None:
    assert zone_named(name) is not None


@pytest.mark.parametrize(
    ("name", "offset"),
    [
        ("UTC+2", 120),
        ("GMT-5", -300),
        ("utc+05:30", 330),
        ("+02:00", 120),
        ("-0330", -210),
        ("UTC\u22123", -180),
        ("+14:00", 840),
        ("Etc/GMT-2", 120),
    ],
)
def test_an_offset_is_a_zone(name: str, offset: int) -> None:
    assert utc("2026-01-10 12:00").astimezone(zone_named(name)).utcoffset() == timedelta(minutes=offset)


@pytest.mark.parametrize(
    ("text", "hours"),
    [
        ("9", 9),
        ("09", 9),
        ("9:00", 9),
        ("09:00", 9),
        ("09:00:00", 9),
        ("09:00:00.000", 9),
        ("9.00", 9),
        ("9h", 9),
        ("9h00", 9),
        ("0900", 9),
        ("900", 9),
        (" 9:00 ", 9),
        ("9 AM", 9),
        ("9:00am", 9),
        ("9:00 a.m.", 9),
        ("9 PM", 21),
        ("9:30 pm", 21.5),
        ("21:00 PM", 21),
        ("12 AM", 0),
        ("12:00 pm", 12),
        ("00:00", 0),
        ("24:00", 24),
        ("24:00:00", 24),
        ("1970-01-01T09:00:00.000Z", 9),
    ],
)
def test_a_time_is_read_as_people_and_databases_write_it(text: str, hours: float) -> None:
    assert time_of_day(text) == timedelta(hours=hours)


@pytest.mark.parametrize(
    "text",
    ["", "late", "25:00", "24:01", "9:60", "9:0", "-1", "9:00:61", "13 AM", "0 PM", "2026-01-31T09:00:00Z", "9" * 500],
)
def test_what_is_no_time_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="should be a time"):
        time_of_day(text)


@pytest.mark.parametrize(
    ("stored", "read", "unreadable"),
    [
        (("22:00", "07:00", "Europe/Berlin"), (time(22), time(7)), ()),
        (("22:00", "24:00", "Europe/Berlin"), (time(22), time(0)), ()),
        (("22:00", "23:59", "Europe/Berlin"), (time(22), time(0)), ()),
        (("24:00", "07:00", "Europe/Berlin"), (time(0), time(7)), ()),
        (("00:00", "24:00", "Europe/Berlin"), (time(0), time(0)), ()),
        (("00:00", "23:59:59", "Europe/Berlin"), (time(0), time(0)), ()),
        (("late", "early", "Europe/Berlin"), (time(22), time(8)), ("start", "end")),
        ((None, None, "Europe/Berlin"), (time(22), time(8)), ("start", "end")),
        (("9:00", "soon", "Europe/Berlin"), (time(9), time(8)), ("end",)),
        (("23:00", "soon", "Europe/Berlin"), (time(22), time(8)), ("end",)),
        (("08:00", "soon", "Europe/Berlin"), (time(22), time(8)), ("end",)),
        (("late", "12:00", "Europe/Berlin"), (time(22), time(12)), ("start",)),
        (("late", "06:00", "Europe/Berlin"), (time(22), time(8)), ("start",)),
        (("22:00", "22:00", "Europe/Berlin"), (time(22), time(8)), ("start", "end")),
        (("00:00", "00:00", "Europe/Berlin"), (time(22), time(8)), ("start", "end")),
        (("24:00", "00:00", "Europe/Berlin"), (time(22), time(8)), ("start", "end")),
        (("22:00", "07:00", "Mars/Olympus"), (time(14), time(12)), ("timeZone",)),
        (("22:00", "07:00", None), (time(14), time(12)), ("timeZone",)),
        ((None, None, None), (time(14), time(13)), ("start", "end", "timeZone")),
        (("00:00", "24:00", "Mars/Olympus"), (time(0), time(0)), ("timeZone",)),
    ],
)
def test_hours_have_their_safest_reading(
    stored: tuple[str | None, str | None, str | None], read: tuple[time, time], unreadable: tuple[str, ...]
) -> None:
    understood = understand(*stored)
    assert (understood.hours.start, understood.hours.end) == read
    assert understood.unreadable == unreadable


WRITTEN = st.one_of(
    st.none(),
    st.text(max_size=9),
    st.sampled_from(["24:00", "9:00", "23:59", "late"]),
    st.times().map(lambda at: f"{at:%H:%M}"),
)


@settings(deadline=None)
@given(WRITTEN, WRITTEN, st.one_of(st.none(), st.text(max_size=9), st.sampled_from(["UTC", "Mars/Olympus", "+9"])))
def test_hours_that_can_not_be_read_hold_a_message_up_for_a_day_at_most(
    start: str | None, end: str | None, zone: str | None
) -> None:
    hours, unreadable = understand(start, end, zone)
    now = utc("2026-01-10 23:30")
    allowed = hours.allowed_at(now)
    assert now <= allowed <= now + timedelta(days=1)
    # All of the day is quiet for those alone who say so.
    assert hours.start != hours.end or not {"start", "end"} & {*unreadable}


@settings(deadline=None)
@given(minutes, minutes, st.integers(-5, 8), st.integers(0, 24 * 60))
def test_in_a_zone_that_is_not_known_it_is_quiet_whenever_it_may_be_quiet_there(
    start: time, end: time, offset: int, minute: int
) -> None:
    length = (end.hour * 60 + end.minute - start.hour * 60 - start.minute) % (24 * 60)
    assume(0 < length <= 10 * 60 and end != time(23, 59))
    now = utc("2026-01-10 00:00") + minute * MINUTE
    stored = f"{start:%H:%M}", f"{end:%H:%M}"
    there = understand(*stored, f"UTC{offset:+d}").hours
    somewhere = understand(*stored, "Mars/Olympus").hours
    assert there.allowed_at(now) == now or somewhere.allowed_at(now) > now


def test_hours_with_a_zone_of_their_own_are_refused() -> None:
    with pytest.raises(ValueError, match="one zone"):
        QuietHours(time(22, tzinfo=UTC), time(7), BERLIN)


def test_a_time_without_a_zone_is_no_moment() -> None:
    with pytest.raises(ValueError, match="needs a zone"):
        NIGHT.allowed_at(datetime(2026, 1, 10, 23))  # noqa: DTZ001


# Days on which clocks were changed: by an hour, by half an hour, by two hours, at midnight, and over the date line.
CHANGES = [
    ("Europe/Berlin", "2026-03-29"),
    ("Europe/Berlin", "2026-10-25"),
    ("America/New_York", "2026-03-08"),
    ("America/New_York", "2026-11-01"),
    ("Australia/Lord_Howe", "2026-04-05"),
    ("Australia/Lord_Howe", "2026-10-04"),
    ("Antarctica/Troll", "2026-03-29"),
    ("Antarctica/Troll", "2026-10-25"),
    ("America/Sao_Paulo", "2018-11-04"),
    ("America/Sao_Paulo", "2018-02-18"),
    ("Africa/Casablanca", "2026-02-15"),
    ("Africa/Casablanca", "2026-03-22"),
    ("Pacific/Apia", "2011-12-30"),
    ("Asia/Kathmandu", "2026-06-01"),
]


@settings(deadline=None)
@given(st.sampled_from(CHANGES), minutes, minutes, st.integers(-24 * 60, 48 * 60))
def test_the_answer_is_the_first_minute_that_is_not_quiet(
    change: tuple[str, str], start: time, end: time, offset: int
) -> None:
    assume(start != end)
    zone = ZoneInfo(change[0])
    now = utc(change[1]) + offset * MINUTE

    def is_quiet(moment: datetime) -> bool:
        clock = moment.astimezone(zone).time()
        return start <= clock < end if start < end else not end <= clock < start

    expected = now
    while is_quiet(expected):
        expected += MINUTE
    assert QuietHours(start, end, zone).allowed_at(now) == expected
