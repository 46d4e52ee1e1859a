"""Draw curves over time for a page without scripts.

Input: measured points. Output: shapes and labels with their positions.
Shapes are in a square of 1000 by 1000 that the page stretches to its width; labels are beside them, in percent, as text
must not be stretched. Nothing here knows what was measured.
"""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from statistics import fmean
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined

SIDE = 1000
Point = tuple[float, float | None]
"""When, in seconds since the beginning, and how much; `None` where it is not known."""

_COLUMNS = 240
_MOST_TICKS = 9
_MOST_MARKS = 16
_SECONDS = (1, 2, 5, 10, 15, 30, 60, 120, 300, 600, 900, 1_800, 3_600, 7_200, 14_400, 28_800, 86_400)
_STEPS = (1.0, 1.5, 2.0, 2.5, 3.0, 4.0, 5.0, 6.0, 8.0, 10.0)
_TEMPLATES = Environment(
    loader=FileSystemLoader(Path(__file__).with_name("templates")),
    autoescape=True,
    undefined=StrictUndefined,
    trim_blocks=True,
    lstrip_blocks=True,
)


@dataclass(frozen=True, slots=True)
class Line:
    """Something measured again and again.

    Attributes:
        name: What it is.
        points: What was measured, in the order of time.
        colour: The number of its colour.
        filled: Whether what is below it is tinted.
        highest: Whether of points that fall together the highest counts, and not the mean.
    """

    name: str
    points: Sequence[Point]
    colour: int
    filled: bool = False
    highest: bool = True


@dataclass(frozen=True, slots=True)
class Band:
    """A time that stands out.

    Attributes:
        began: When it began.
        ended: When it ended.
        label: What it was.
    """

    began: float
    ended: float
    label: str


@dataclass(frozen=True, slots=True)
class Tick:
    """A label on an axis.

    Attributes:
        percent: Where.
        label: What it says.
        minor: Whether it is left out where there is little room.
    """

    percent: float
    label: str
    minor: bool = False


@dataclass(frozen=True, slots=True)
class Curve:
    """A line, drawn.

    Attributes:
        name: What it is.
        colour: The number of its colour.
        path: The line.
        area: What is below it, or nothing.
    """

    name: str
    colour: int
    path: str
    area: str


@dataclass(frozen=True, slots=True)
class Stretch:
    """A part of the time axis, with what is told where a mouse rests on it.

    Attributes:
        x: Where it begins, of `SIDE`.
        width: How wide it is.
        title: What is told.
    """

    x: float
    width: float
    title: str


@dataclass(frozen=True, slots=True)
class Panel:
    """Curves with a scale of their own.

    Attributes:
        title: What they show.
        unit: In what.
        curves: The curves.
        ticks: The scale, in percent from the top.
        stretches: What was measured when.
    """

    title: str
    unit: str
    curves: Sequence[Curve]
    ticks: Sequence[Tick]
    stretches: Sequence[Stretch]


@dataclass(frozen=True, slots=True)
class Lane:
    """Bands of one name.

    Attributes:
        name: Their name.
        bars: Where they are, in percent of the width, with what is told of each.
    """

    name: str
    bars: Sequence[tuple[float, float, str]]


class Axis:
    """The time that all panels share.

    Args:
        seconds: How long it is.
    """

    def __init__(self, seconds: float) -> None:
        self.seconds = max(seconds, 1.0)

    def percent(self, at: float) -> float:
        """Return where a moment is."""
        return round(100 * min(max(at, 0.0), self.seconds) / self.seconds, 3)

    def x(self, at: float) -> float:
        """Return where a moment is, of `SIDE`."""
        return round(self.percent(at) * SIDE / 100, 2)

    @property
    def ticks(self) -> list[Tick]:
        """The labels of moments."""
        step = next((step for step in _SECONDS if self.seconds / step <= _MOST_TICKS), _SECONDS[-1])
        moments = range(0, int(self.seconds) + 1, step)
        return [Tick(self.percent(at), clock(at), minor=bool(number % 2)) for number, at in enumerate(moments)]

    def marks(self, moments: Sequence[tuple[float, str]]) -> list[Tick]:
        """Return labels of moments of note, as many as there is room for."""
        step = next(step for step in (1, 2, 5, 10, 20, 50, 100, 1_000_000) if len(moments) / step <= _MOST_MARKS)
        chosen = [mark for number, mark in enumerate(moments, 1) if number == 1 or number % step == 0]
        return [Tick(self.percent(at), label, minor=bool(number % 2)) for number, (at, label) in enumerate(chosen)]

    def bands(self, bands: Iterable[Band]) -> list[tuple[float, float]]:
        """Return where bands are, of `SIDE`, those that overlap as one."""
        merged: list[list[float]] = []
        for band in sorted(bands, key=lambda band: band.began):
            if merged and band.began <= merged[-1][1]:
                merged[-1][1] = max(merged[-1][1], band.ended)
            else:
                merged.append([band.began, band.ended])
        return [(self.x(began), round(self.x(ended) - self.x(began), 2)) for began, ended in merged]

    def lane(self, name: str, bands: Iterable[Band]) -> Lane:
        """Return bands of one name in a lane of their own."""
        bars = [
            (self.percent(band.began), round(self.percent(band.ended) - self.percent(band.began), 3), band.label)
            for band in bands
        ]
        return Lane(name, bars)

    def panel(
        self,
        title: str,
        unit: str,
        lines: Sequence[Line],
        told: Callable[[float], str],
        during: Callable[[float, float], str] = lambda began, ended: "",
    ) -> Panel:
        """Draw lines in a panel.

        Args:
            title: What they show.
            unit: In what.
            lines: The lines.
            told: How a value is told.
            during: What else is told of a time.
        """
        reduced = [_reduced(line) for line in lines]
        top = ceiling(max((value for points in reduced for _, value in points if value is not None), default=0.0))
        curves = [
            Curve(line.name, line.colour, *self._drawn(points, top, filled=line.filled))
            for line, points in zip(lines, reduced, strict=True)
        ]
        ticks = [Tick(100 - 100 * share, told(top * share)) for share in (1.0, 0.5, 0.0)]
        return Panel(title, unit, curves, ticks, self._stretches(lines, reduced, told, during))

    def _drawn(self, points: Sequence[Point], top: float, *, filled: bool) -> tuple[str, str]:
        """Return the path of a line, with a gap wherever nothing is known, and that of the area below it."""
        path: list[str] = []
        area: list[str] = []
        for piece in _pieces(points):
            places = [(self.x(at), round(SIDE - SIDE * max(value, 0.0) / top, 1)) for at, value in piece]
            if len(places) == 1:  # a line without a length is not drawn
                places.append((places[0][0] + 0.5, places[0][1]))
            drawn = " ".join(f"{x:g},{y:g}" for x, y in places)
            path.append(f"M{drawn}")
            area.append(f"M{places[0][0]:g},{SIDE} {drawn} {places[-1][0]:g},{SIDE}Z")
        return " ".join(path), " ".join(area) if filled else ""

    def _stretches(
        self,
        lines: Sequence[Line],
        reduced: Sequence[Sequence[Point]],
        told: Callable[[float], str],
        during: Callable[[float, float], str],
    ) -> list[Stretch]:
        values: dict[float, list[str]] = {}
        for line, points in zip(lines, reduced, strict=True):
            for at, value in points:
                known = values.setdefault(at, [])
                if value is not None:
                    known.append(f"{line.name}: {told(value)}")
        moments = sorted(values)
        edges = [0.0, *((one + other) / 2 for one, other in pairwise(moments)), self.seconds]
        stretches = []
        for at, (began, ended) in zip(moments, pairwise(edges), strict=False):
            parts = [clock(at), *values[at], during(began, ended)]
            x = self.x(began)
            stretches.append(Stretch(x, round(self.x(ended) - x, 2), "\n".join(part for part in parts if part)))
        return stretches


def page(template: str, **values: Any) -> str:
    """Return a page made from a template in `templates`."""
    return _TEMPLATES.get_template(template).render(**values)


def clock(seconds: float) -> str:
    """Return a moment as a clock shows it: `4:05`, `1:04:05`."""
    minutes, rest = divmod(int(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"


def duration(seconds: float) -> str:
    """Return how long something took, in words: `0.4 s`, `12 s`, `3 min 05 s`, `1 h 02 min`."""
    if seconds < 9.95:
        return f"{seconds:.1f} s"
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3_600:
        return f"{whole // 60} min {whole % 60:02} s"
    return f"{whole // 3_600} h {whole % 3_600 // 60:02} min"


def number(value: float) -> str:
    """Return a number in words: small ones with a tenth, where they have one."""
    return f"{value:,.0f}" if value >= 100 or value == int(value) else f"{value:.1f}"


def mebibytes(value: float) -> str:
    """Return so many MiB in words."""
    return f"{value:,.0f} MiB"


def ceiling(value: float) -> float:
    """Return a round number that is not below a value: where a scale ends."""
    if value <= 0:
        return 1.0
    power = 1.0
    while power * 10 <= value:
        power *= 10
    while power > value:
        power /= 10
    return next(step * power for step in _STEPS if step * power >= value * 0.999)


def rates(points: Sequence[Point]) -> list[Point]:
    """Return how fast a count grew, each second, up to each point; across a gap, the mean of the gap."""
    found: list[Point] = []
    last: tuple[float, float] | None = None
    for at, count in points:
        if count is None or (last is not None and at <= last[0]):
            found.append((at, None))
            continue
        found.append((at, None if last is None else max(0.0, (count - last[1]) / (at - last[0]))))
        last = at, count
    return found


def _reduced(line: Line) -> list[Point]:
    """Return so many points as can be told apart, each standing for as many as came one after another."""
    together = -(-len(line.points) // _COLUMNS) or 1
    reduced: list[Point] = []
    for first in range(0, len(line.points), together):
        points = line.points[first : first + together]
        known = [value for _, value in points if value is not None]
        value = (max(known) if line.highest else fmean(known)) if known else None
        reduced.append((fmean(at for at, _ in points), value))
    return reduced


def _pieces(points: Sequence[Point]) -> list[list[tuple[float, float]]]:
    pieces: list[list[tuple[float, float]]] = [[]]
    for at, value in points:
        if value is not None:
            pieces[-1].append((at, value))
        elif pieces[-1]:
            pieces.append([])
    return [piece for piece in pieces if piece]
