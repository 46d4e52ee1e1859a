"""Report a soak: a line while it runs, tables for the terminal, JSON, and a page, all from its history.

The page is one file that needs no network and no scripts.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from datetime import datetime
from typing import Any

import orjson
from rich import box
from rich.console import Console
from rich.rule import Rule
from rich.table import Table
from rich.text import Text

from tests.chaos import chart, growth
from tests.chaos.chart import SIDE, Axis, Band, Line, Panel, clock, duration
from tests.chaos.soak_history import Look, Soak, latencies, moments, stored, together

_SHARES = {"half of all": 0.5, "99 of 100": 0.99}
_PROBLEMS_ON_A_TERMINAL = 3
_PROBLEMS_ON_A_PAGE = 10
_LATEST = 10
"""So many looks are enough to say how it is now."""


def line(soak: Soak, at: float) -> str:
    """Return how it is now, in one line, while the run goes on."""
    looks = {name: seen[-_LATEST:] for name, seen in soak.looks.items()}
    parts = [f"{clock(at)} of {clock(soak.seconds)}"]
    if soak.sent:
        parts.append(f"{soak.sent[-1][1]:,} sent")
    if behind := together(looks):
        parts.append(f"{behind[-1][1]:,.0f} not yet committed")
    for words, share in _SHARES.items():
        if (points := latencies(looks, share)) and (seconds := points[-1][1]) is not None:
            parts.append(f"{words} stored within {seconds:.2f} s")
    parts += [
        f"{name} {seen[-1].memory / 2**20:.0f} MiB, {seen[-1].descriptors:.0f} files" for name, seen in looks.items()
    ]
    return "  ·  ".join(parts)


def verdict(soak: Soak) -> str:
    """Return in one sentence whether all is as it must be."""
    sent = sum(topic["sent"] for topic in soak.topics.values())
    if soak.holds:
        return f"Nothing grew in {duration(soak.seconds)}, and all {sent:,} events are accounted for."
    if not soak.findings:
        return f"After {duration(soak.seconds)} nothing was judged."
    moved = sum(not one.holds for one in soak.findings)
    wrong = [f"{moved} of {len(soak.findings)} did not stay as they must"] if moved else []
    if soak.problems:
        wrong.append("1 problem" if len(soak.problems) == 1 else f"{len(soak.problems):,} problems")
    return f"After {duration(soak.seconds)}: {', and '.join(wrong)}."


def show(soak: Soak, console: Console) -> None:
    """Print what must stay as it is, and whether it did."""
    console.print(Rule("What must stay as it is", style="cyan", align="left"))
    table = Table(box=box.SIMPLE, padding=(0, 1), header_style="dim")
    for heading in ("", "first third", "last third", "allowed"):
        table.add_column(heading, justify="left" if heading in ("", "allowed") else "right")
    for one in soak.findings:
        what = Text.assemble(("✓ ", "green") if one.holds else ("✗ ", "bold red"), one.what)
        table.add_row(what, one.first, one.last, one.allowed, style="" if one.holds else "bold red")
    console.print(table)
    for problem in soak.problems[:_PROBLEMS_ON_A_TERMINAL]:
        console.print(Text(problem, "red"))
    if len(soak.problems) > _PROBLEMS_ON_A_TERMINAL:
        console.print(Text(f"and {len(soak.problems) - _PROBLEMS_ON_A_TERMINAL:,} more", "red"))
    console.print(Text(verdict(soak), "bold green" if soak.holds else "bold red"))


def to_json(soak: Soak) -> bytes:
    """Return the whole run as JSON that a person can read."""
    whole: dict[str, Any] = {"holds": soak.holds, **asdict(soak)}
    for seen in whole["looks"].values():
        for one in seen:  # JSON has no infinity
            one["stored"] = {str(bound): count for bound, count in one["stored"].items()}
    return orjson.dumps(whole, option=orjson.OPT_INDENT_2 | orjson.OPT_APPEND_NEWLINE)


def to_html(soak: Soak) -> str:
    """Return a page with all that was measured, over time."""
    axis = Axis(max([at for at, _ in soak.sent] + [soak.seconds]))
    began = datetime.fromisoformat(soak.began)
    return chart.page(
        "soak.html.j2",
        soak=soak,
        verdict=verdict(soak).rstrip("."),
        summary=f"{began:%d %B %Y, %H:%M} {began.tzname() or ''} · {soak.rate:,.0f} events a second for "
        f"{duration(soak.seconds)} · {soak.machine}",
        figures=_figures(soak),
        problems_shown=_PROBLEMS_ON_A_PAGE,
        bands=axis.bands([Band(0.0, soak.warm_up, "warm-up")]),
        ticks=axis.ticks,
        side=SIDE,
        panels=_panels(axis, soak),
        topics=[(name, *(f"{count:,}" for count in topic.values())) for name, topic in soak.topics.items()],
    )


def _figures(soak: Soak) -> list[tuple[str, str]]:
    seen = moments(soak.looks)
    figures = [("events acknowledged by Kafka", f"{sum(topic['sent'] for topic in soak.topics.values()):,}")]
    if len(seen) > 1:
        first, last = seen[0], seen[-1]
        for words, share in _SHARES.items():
            seconds = growth.quantile(stored(first, last), share)
            figures.append((f"until {words} were stored", "" if seconds is None else f"{seconds:.2f} s"))
        most = max(one.memory for moment in seen for one in moment)
        used = sum(two.processor - one.processor for one, two in zip(first, last, strict=True))
        figures.append(("most memory of a worker", chart.mebibytes(most / 2**20)))
        figures.append(("of a core in use by all workers", f"{used / (last[0].at - first[0].at):.0%}"))
    return figures


def _panels(axis: Axis, soak: Soak) -> list[Panel]:
    looks = soak.looks
    done = [(moment[0].at, sum(max(one.stored.values(), default=0.0) for one in moment)) for moment in moments(looks)]
    flow = [
        Line("documents stored", chart.rates(done), 2, filled=True, highest=False),
        Line("events acknowledged", chart.rates(soak.sent), 1, highest=False),
    ]
    waits = [
        Line(words, latencies(looks, share), colour, highest=False)
        for colour, (words, share) in enumerate(_SHARES.items(), 2)
    ]
    return [
        axis.panel("Throughput", "a second; an event may have several documents", flow, chart.number),
        axis.panel("Lag", "records not yet committed", [Line("lag", together(looks), 4, filled=True)], chart.number),
        axis.panel("Latency", "seconds until an event is stored", waits, lambda value: f"{value:.2f} s"),
        axis.panel(
            "Memory", "of each worker, resident", _of_each(looks, lambda one: one.memory / 2**20), chart.mebibytes
        ),
        axis.panel(
            "Open files", "of each worker, sockets too", _of_each(looks, lambda one: one.descriptors), chart.number
        ),
        axis.panel("Threads", "of each worker", _of_each(looks, lambda one: one.threads), chart.number),
        axis.panel(
            "Servers",
            "memory, for information",
            [Line(name, points, colour) for colour, (name, points) in enumerate(soak.servers.items(), 1)],
            chart.mebibytes,
        ),
    ]


def _of_each(looks: Mapping[str, Sequence[Look]], value: Callable[[Look], float]) -> list[Line]:
    """Return a line for each worker."""
    return [
        Line(name, [(one.at, value(one)) for one in seen], colour)
        for colour, (name, seen) in enumerate(looks.items(), 1)
    ]
