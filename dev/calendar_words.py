"""Make `enrich/data/calendar_words.json`: the words that dates are written with, in many languages.

    uv run --no-project --with babel python dev/calendar_words.py > enrich/data/calendar_words.json

Input: the Unicode CLDR, as Babel ships it, and the time zone database. Output, in lower case:

- `names`: months, days of the week, and their abbreviations;
- `halves`: halves of the day (`am`), in words of their own;
- `between`: what stands between the parts of a date (`5 de enero de 2026, a las 14:04`);
- `zones`: abbreviations of time zones (`CET`), in capitals.
"""

import json
import re
import sys
import zoneinfo
from collections.abc import Iterator
from datetime import UTC, datetime

from babel import Locale  # type: ignore[import-not-found]

LANGUAGES = (
    "ar bg bn bs ca cs cy da de el en es et eu fa fi fil fr ga gl he hi hr hu hy id is it ja ka kk ko lt lv mk mn ms "
    "nb nl pl pt ro ru sk sl sq sr sr_Latn sv sw ta te th tr uk ur uz vi zh zh_Hant"
)

# Between a date and a time (`5. Januar 2026 um 14:04`): the CLDR has them, Babel has not.
_BETWEEN_TIMES = (
    "a à alle as às at den di klo kl la las lo lúc na o ob om ore pa pukul saat u uhr um v ve "
    "в о р בשעה को बजे พ ศ เวลา ที่"  # noqa: RUF001
)

# Of the Persian calendar, which browsers use in Persian; Babel has the Gregorian one alone.
_PERSIAN = "فروردین اردیبهشت خرداد تیر مرداد شهریور مهر آبان آذر دی بهمن اسفند"

# A word: letters, and the marks that scripts of India, of Thailand and others put on them. No digits.
_WORD = re.compile(r"(?:(?!\d)[^\W_]|(?!\d)[\u0300-\u036f\u0591-\u05c7\u064b-\u065f\u0900-\u0dff\u0e31-\u0e4e\u200c])+")


def names(locale: Locale) -> Iterator[str]:
    """Yield the words of months and of days of the week."""
    for calendar in (locale.months, locale.days):
        for widths in calendar.values():
            for width in ("wide", "abbreviated"):
                for name in widths.get(width, {}).values():
                    yield from words(name)


def halves(locale: Locale) -> Iterator[str]:
    """Yield the words of halves of the day."""
    for forms in locale.day_periods.values():
        for periods in forms.values():
            for period, name in periods.items():
                # `in the morning` is English for many things.
                yield from (word for word in words(name) if period in ("am", "pm") or not word.isascii())


def between(locale: Locale) -> Iterator[str]:
    """Yield the words that stand between the parts of dates and times."""
    formats = [*locale.date_formats.values(), *locale.time_formats.values(), *locale.datetime_formats.values()]
    for one in formats:
        text = getattr(one, "pattern", one)
        for quoted in re.findall(r"'([^']+)'", text):
            yield from words(quoted)
        yield from words(re.sub(r"'[^']*'|\{\d\}|[a-zA-Z]", " ", text))
    yield from words(_BETWEEN_TIMES)


def zones() -> Iterator[str]:
    """Yield the abbreviations of time zones, of winter and of summer, and the letters that stand for UTC."""
    yield from ("UTC", "GMT", "UT", "Z", "MEZ", "MESZ")
    for key in zoneinfo.available_timezones():
        for month in (1, 7):
            name = datetime(2026, month, 1, tzinfo=UTC).astimezone(zoneinfo.ZoneInfo(key)).tzname() or ""
            if name.isalpha():
                yield name


def words(text: str) -> Iterator[str]:
    """Yield the words of a text in lower case."""
    yield from _WORD.findall(text.lower())


if __name__ == "__main__":
    locales = [Locale.parse(language) for language in LANGUAGES.split()]
    of_dates = {word for locale in locales for word in names(locale)} | set(words(_PERSIAN))
    lists = {
        "names": of_dates,
        "halves": {word for locale in locales for word in halves(locale)} - of_dates,
        "between": {word for locale in locales for word in between(locale)} - of_dates,
        "zones": set(zones()),
    }
    json.dump({name: sorted(some) for name, some in lists.items()}, sys.stdout, ensure_ascii=False)
    print()
