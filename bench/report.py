"""Write the results of benchmarks: tables for the terminal and for Markdown, JSON, and a picture.

Everything that a reader needs to judge a figure is beside it: versions, machine, date, and the range of the rounds.
Only ratios mean anything on another machine.
"""

import importlib.metadata
import os
import platform
import re
import statistics
import xml.etree.ElementTree as ElementTree
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, NamedTuple

import orjson
import psutil
from rich.console import Console
from rich.table import Table as RichTable

from runtime.settings import ROOT

DIRECTORY = ROOT / "docs/benchmarks"
PACKAGES = ("inkstream", "aiokafka", "faust-streaming", "orjson", "pydantic", "pymongo", "uvloop")
_WIDTH_OF_A_FILE = 170
_NAMESAKE = re.compile(r"connect-runtime|mongo-kafka-connect")
_KAFKA_JAR = re.compile(r"kafka_2\.13[-:]([0-9.]+[0-9])")


def console() -> Console:
    """Return the terminal; a file gets lines that are long enough for the tables."""
    terminal = Console(highlight=False, soft_wrap=True)
    if not terminal.is_terminal:
        terminal.width = _WIDTH_OF_A_FILE
    return terminal


class Spread(NamedTuple):
    """A figure that was measured several times."""

    median: float
    least: float
    most: float

    @classmethod
    def of(cls, values: Sequence[float]) -> "Spread":
        """Return the spread of the values, of which there is at least one."""
        return cls(statistics.median(values), min(values), max(values))

    def text(self, form: str = ",.0f") -> str:
        """Return the median, and the range where there is one."""
        if self.least == self.most:
            return format(self.median, form)
        return f"{self.median:{form}} ({self.least:{form}} to {self.most:{form}})"


class Table(NamedTuple):
    """A table; its first column is text.

    Attributes:
        title: What it is about.
        columns: The heads.
        rows: The cells, as they are to be read.
        verdicts: Whether the other columns are words too, and not figures.
    """

    title: str
    columns: Sequence[str]
    rows: Sequence[Sequence[str]]
    verdicts: bool = False

    def rich(self) -> RichTable:
        """The table for a terminal."""
        table = RichTable(title=self.title)
        for number, column in enumerate(self.columns):
            table.add_column(column, justify="right" if number and not self.verdicts else "left")
        for row in self.rows:
            table.add_row(*row)
        return table

    def markdown(self) -> str:
        """The table for a page."""
        others = ["---" if self.verdicts else "---:"] * (len(self.columns) - 1)
        lines = [self.columns, ["---", *others], *self.rows]
        return "\n".join("| " + " | ".join(cell.replace("|", "\\|") for cell in line) + " |" for line in lines) + "\n"


class Bar(NamedTuple):
    """One line of the picture.

    Attributes:
        name: What is measured.
        spread: How long the bar is, and from where to where the rounds went.
        ours: Whether it is Inkstream.
        note: A few words after the figure.
    """

    name: str
    spread: Spread
    ours: bool = False
    note: str = ""


_STYLE = """
text { font-size: 13px; font-family: system-ui, Helvetica, Arial, 'DejaVu Sans', sans-serif; fill: #1f2328 }
.title { font-weight: 600 }
.note { fill: #59636e }
.bar { fill: #9aa7b4 }
.ours { fill: #1f6feb }
.range { stroke: #1f2328; stroke-width: 1.5 }
.one { stroke: #59636e; stroke-dasharray: 3 3 }
@media (prefers-color-scheme: dark) {
  text { fill: #e6edf3 }
  .note { fill: #9198a1 }
  .bar { fill: #58636f }
  .ours { fill: #4493f8 }
  .range { stroke: #e6edf3 }
  .one { stroke: #9198a1 }
}
"""
_NAMES_WIDTH, _BARS_WIDTH, _NOTES_WIDTH = 250, 380, 250
_ROW_HEIGHT, _BAR_HEIGHT, _TOP = 28, 16, 44


def svg(title: str, bars: Sequence[Bar]) -> str:
    """Draw bars with the ranges of their rounds and a line at 1, readable on light and on dark pages."""
    width = _NAMES_WIDTH + _BARS_WIDTH + _NOTES_WIDTH
    height = _TOP + _ROW_HEIGHT * len(bars) + 12
    scale = _BARS_WIDTH / max([1.0, *(bar.spread.most for bar in bars)])
    picture = ElementTree.Element(
        "svg", xmlns="http://www.w3.org/2000/svg", viewBox=f"0 0 {width} {height}", width=str(width), role="img"
    )
    ElementTree.SubElement(picture, "title").text = title
    ElementTree.SubElement(picture, "style").text = _STYLE
    _text(picture, 8, 22, title, "title")
    for number, bar in enumerate(bars):
        _draw(picture, bar, _TOP + number * _ROW_HEIGHT, scale)
    one = _NAMES_WIDTH + scale
    _line(picture, "one", one, _TOP - 6, one, height - 6)
    return ElementTree.tostring(picture, encoding="unicode") + "\n"


def _draw(picture: ElementTree.Element, bar: Bar, top: float, scale: float) -> None:
    middle = top + _BAR_HEIGHT / 2
    _text(picture, _NAMES_WIDTH - 10, middle + 4.5, bar.name, "name", anchor="end")
    ElementTree.SubElement(
        picture,
        "rect",
        {
            "class": "bar ours" if bar.ours else "bar",
            "x": str(_NAMES_WIDTH),
            "y": str(top),
            "width": f"{bar.spread.median * scale:.1f}",
            "height": str(_BAR_HEIGHT),
            "rx": "2",
        },
    )
    least, most = (_NAMES_WIDTH + value * scale for value in (bar.spread.least, bar.spread.most))
    if most > least:
        _line(picture, "range", least, middle, most, middle)
        for end in (least, most):
            _line(picture, "range", end, middle - 4, end, middle + 4)
    figure = ", ".join(filter(None, (f"{bar.spread.median:.2f}", bar.note)))
    _text(picture, _NAMES_WIDTH + _BARS_WIDTH + 12, middle + 4.5, figure, "note")


def _text(picture: ElementTree.Element, x: float, y: float, words: str, style: str, anchor: str = "start") -> None:
    attributes = {"class": style, "x": f"{x:.1f}", "y": f"{y:.1f}", "text-anchor": anchor}
    ElementTree.SubElement(picture, "text", attributes).text = words


def _line(picture: ElementTree.Element, style: str, x1: float, y1: float, x2: float, y2: float) -> None:
    ends = {"x1": f"{x1:.1f}", "y1": f"{y1:.1f}", "x2": f"{x2:.1f}", "y2": f"{y2:.1f}"}
    ElementTree.SubElement(picture, "line", {"class": style, **ends})


def circumstances(mongodb: str) -> dict[str, Any]:
    """Return when, on what and with which versions the figures were taken; nothing that names the machine.

    Args:
        mongodb: The server's version, which only the server can tell.
    """
    kafka = _KAFKA_JAR.search((ROOT / "dev/servers/kafka.jars").read_text())
    versions = {package: importlib.metadata.version(package) for package in PACKAGES}
    return {
        "taken": datetime.now(UTC).isoformat(timespec="seconds"),
        "machine": {
            "cores": os.cpu_count(),
            "memory_gib": round(psutil.virtual_memory().total / 2**30, 1),
            "processor": _processor(),
            # Without what a distributor or a provider appends.
            "kernel": f"{platform.system()} {platform.release().partition('-')[0]}",
        },
        "versions": {
            "python": platform.python_version(),
            "kafka": kafka[1] if kafka else None,
            "mongodb": mongodb,
            **versions,
        },
        "peers": _peers(),
    }


def _peers() -> dict[str, list[str]]:
    """Return what each peer is made of: its requirements, or of its jars those that give it its name."""
    versions: dict[str, list[str]] = {}
    for path in sorted([*ROOT.glob("bench/peers/*/requirements.txt"), *ROOT.glob("bench/peers/*/*.jars")]):
        lines = [line.split()[0] for line in path.read_text().splitlines() if line.strip() and line[0] != "#"]
        if path.suffix == ".jars":
            lines = [line for line in lines if _NAMESAKE.search(line)]
        versions.setdefault(path.parent.name, []).extend(lines)
    return versions


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor()
    return next((line.partition(": ")[2] for line in lines if line.startswith("model name")), platform.processor())


def save(name: str, figures: Mapping[str, Any], tables: Sequence[Table], picture: str | None = None) -> list[Path]:
    """Write a benchmark's figures, its tables and its picture into `docs/benchmarks/`; return the files."""
    DIRECTORY.mkdir(parents=True, exist_ok=True)
    contents = {
        "json": orjson.dumps(figures, option=orjson.OPT_INDENT_2).decode() + "\n",
        "md": _page(name, figures, tables, picture),
    }
    if picture is not None:
        contents["svg"] = picture
    written = [DIRECTORY / f"{name}.{ending}" for ending in contents]
    for path, content in zip(written, contents.values(), strict=True):
        path.write_text(content)
    return written


def _page(name: str, figures: Mapping[str, Any], tables: Sequence[Table], picture: str | None) -> str:
    machine, versions = figures["machine"], figures["versions"]
    parts = [f"# {figures['title']}", f"Made by `{figures['command']}`; what it means is in [README.md](README.md)."]
    if picture is not None:
        parts.append(f"![{figures['title']}]({name}.svg)")
    for table in tables:
        parts += [f"## {table.title}", table.markdown().rstrip()]
    parts.append(
        f"Taken {figures['taken'][:10]} on {machine['cores']} cores ({machine['processor']}), "
        f"{machine['memory_gib']:.0f} GiB, {machine['kernel']}; "
        + ", ".join(f"{package} {version}" for package, version in versions.items())
        + f". All figures: [{name}.json]({name}.json)."
    )
    return "\n\n".join(parts) + "\n"
