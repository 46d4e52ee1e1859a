"""Replaces dates and times in a text by `<date>`, in any common notation and in some 60 languages.

The words are the Unicode CLDR's, in `data/calendar_words.json`, which `dev/calendar_words.py` generates.
"""

import json
import re
from itertools import pairwise
from pathlib import Path
from typing import NamedTuple

PLACEHOLDER = "<date>"

_OFFSET = r"(?:\s?(?:Z\b|[+-]\d{2}:?\d{2}(?::?\d{2})?(?!\d)))"
_TIME = r"\d{1,2}:\d{2}(?::\d{2}(?:[.,]\d{1,9})?)?"

# What can be recognised without words: ISO 8601, Java's ZonedDateTime and Python's `repr`; then days and times alone.
_NUMERIC = re.compile(
    rf"(?<![\w.:-])[+-]?\d{{4}}-[01]\d-[0-3]\d(?:[T ]{_TIME}{_OFFSET}?)?(?:\[[\w/+-]{{1,40}}\])?(?![\w-])"
    rf"|(?<![\w.:-])\d{{8}}T\d{{4}}(?:\d{{2}}(?:[.,]\d{{1,9}})?)?{_OFFSET}?(?![\w-])"
    r"|\bdatetime\.(?:datetime|date|time|timedelta)\([^()]{0,120}(?:\([^()]{0,120}\)[^()]{0,40}){0,2}\)"
    r"|(?<![\w./-])(?:\d{4}([/-])[01]?\d\1[0-3]?\d|[0-3]?\d([./-])[0-3]?\d\2\d{4})(?![\w/-])"
)
# With seconds: `5:10` can be a line and a column.
_CLOCK = re.compile(rf"(?<![A-Za-z_\d.:])\d{{1,2}}:\d{{2}}:\d{{2}}(?:[.,]\d{{1,9}})?{_OFFSET}?(?![\w:])")
_DOTTED_HALF = re.compile(r"(?<=\d)\s?([ap])\.\s?m\.", re.IGNORECASE)
_SEVERAL = re.compile(rf"{PLACEHOLDER}(?:[\s,·-]{{1,3}}{PLACEHOLDER})+")

# A word or a number; what is between two is a gap.
_PIECE = re.compile(
    r"<date>|\d+(?:(?:st|nd|rd|th|er|[ºª])(?![^\W_]))?|(?<=\d)[年月日号時时分秒년월일시분초]|(?:(?!\d)[^\W_]|(?!\d)[\u0300-\u036f\u0591-\u05c7\u064b-\u065f\u0900-\u0dff\u0e31-\u0e4e\u200c])+"
)
_GAP = re.compile(r"[\s.,:/،、+'\u2019\"()\[\]\u200c\u200e\u200f\u05f3-]{0,3}")
_YEAR = re.compile(r"(?:19|20|25)\d\d$")
_ZONE_IN_WORDS = re.compile(
    r"\s?\([^()\n]{1,60}\)"
    r"|[ \u202f](?:[A-Z][A-Za-z.-]{1,20} ){1,4}(?:Standard|Summer|Daylight|Universal|Mean) Time\b"
)
# Short names of months and days in one language that are words in English, or nearly so. Those of English itself count
# with a capital.
_SHORT_IN_ENGLISH = """
ago cum dim die dis do dom dub fan fre gen hun ion led lin lip mac mag man may meh mer mid min mon now off out pay per
pet pop pre pro sad sal sam sat sen set sex sub sul sun tem ter thu tis tue van ven vie wed
"""
_ENGLISH_NAMES = "Jan Feb Mar Apr May Jun Jul Aug Sep Oct Nov Dec Mon Tue Wed Thu Fri Sat Sun"
_AMBIGUOUS = frozenset(_SHORT_IN_ENGLISH.split())
_ENGLISH = frozenset(_ENGLISH_NAMES.split())

_WORDS: dict[str, list[str]] = json.loads(Path(__file__).with_name("data").joinpath("calendar_words.json").read_text())
_NAMES = frozenset(_WORDS["names"])
_HALVES = frozenset(word for word in _WORDS["halves"] if len(word) > 1 or not word.isascii())
_ZONES = frozenset(_WORDS["zones"])
_BETWEEN = frozenset(_WORDS["between"])
_UNITS = frozenset("年月日号時时分秒년월일시분초")


class _Piece(NamedTuple):
    """A word or a number of a text.

    Attributes:
        kind: `number`; `name`, of a month or a day, beyond doubt; `perhaps`, a short one that can be another word
            (`out`, `set`, `do`); `half` of the day; `zone`; `unit`, as in `5日`; `between`; `other`.
        start: Where it begins.
        end: Where it ends.
    """

    kind: str
    start: int
    end: int


def without_dates(text: str) -> str:
    """Put `<date>` in the place of every date and time.

    A date that is written with words needs the name of a month or a day, and a number. A short name that can be another
    word counts where a time stands with it, or two numbers of which one is a year. Dates and times in numbers need a
    form that nothing else has: `2026-01-05`, `5.1.2026`, `14:04:05`.
    """
    text = _DOTTED_HALF.sub(r" \1m", text)
    text = _CLOCK.sub(PLACEHOLDER, _NUMERIC.sub(PLACEHOLDER, text))
    pieces = [
        _Piece(_kind(match[0], text[match.start() - 1 : match.start()]), *match.span())
        for match in _PIECE.finditer(text)
    ]
    if any(piece.kind in ("name", "perhaps", "half", "zone") for piece in pieces):
        text = _without_words(text, pieces)
    return _SEVERAL.sub(PLACEHOLDER, text)


def _kind(word: str, before: str) -> str:
    if word == PLACEHOLDER or word[0].isdigit():
        return "number"
    if word in _UNITS and before.isdigit():
        return "unit"
    lower = word.lower()
    if word in _ENGLISH:
        return "name"
    # Hebrew writes `in` and Thai writes `the` without a space.
    if lower in _NAMES or lower.removeprefix("ב") in _NAMES or lower.removesuffix("ที่") in _NAMES:
        return "name" if len(word) > 1 + word.isascii() and lower not in _AMBIGUOUS else "perhaps"
    if word in _ZONES:
        return "zone"
    if lower in _HALVES:
        return "half"
    return "between" if lower in _BETWEEN else "other"


def _without_words(text: str, pieces: list[_Piece]) -> str:
    kept: list[str] = []
    done = 0
    for run in _runs(text, pieces):
        while run and run[0].kind in ("between", "half", "zone"):
            run = run[1:]
        while run and run[-1].kind == "between":
            run = run[:-1]
        if not run or not _is_date(text, run):
            continue
        kept += text[done : run[0].start], PLACEHOLDER
        done = run[-1].end
        # `GMT+0100 (Central European Standard Time)`; also of a number alone, as `+0000 (UTC)`.
        if run[-1].kind in ("name", "perhaps") and text[done : done + 1] in (".", "\u05f3"):
            done += 1  # Of an abbreviation.
        if text.startswith(")", done) and "(" in text[run[0].start : done]:
            done += 1
        elif (zone := _ZONE_IN_WORDS.match(text, done)) and not any(letter.isdigit() for letter in zone[0]):
            done = zone.end()
    return "".join(kept) + text[done:]


def _runs(text: str, pieces: list[_Piece]) -> list[list[_Piece]]:
    """Split pieces at one that does not belong to a date, or at more than a short gap between two."""
    runs: list[list[_Piece]] = []
    run: list[_Piece] = []
    for before, piece in pairwise([_Piece("other", 0, 0), *pieces]):
        if piece.kind == "other":
            run = []
            continue
        if not run or not _GAP.fullmatch(text, before.end, piece.start):
            runs.append(run := [])
        run.append(piece)
    return runs


def _is_date(text: str, run: list[_Piece]) -> bool:
    kinds = {piece.kind for piece in run}
    if "number" not in kinds:
        return False
    if "name" in kinds:
        return True
    words = [text[piece.start : piece.end] for piece in run if piece.kind == "number"]
    exact = PLACEHOLDER in words or re.search(r"\d:\d\d", text[run[0].start : run[-1].end]) is not None
    if "perhaps" in kinds:
        return exact or (len(words) > 1 and any(_YEAR.match(word) for word in words))
    return exact and bool(kinds & {"half", "zone"})
