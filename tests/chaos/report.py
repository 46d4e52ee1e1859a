"""Report a run: tables for the terminal, a line for each cycle, JSON, and a page, all from its history.

The page is one file that needs no network and no scripts. Nothing here judges: a broken promise says so in its check.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, fields
from datetime import datetime
from statistics import median
from typing import Any

import orjson
from rich import box
from rich.columns import Columns
from rich.console import Console
from rich.padding import Padding
from rich.rule import Rule
from rich.table import Table
from rich.text import Text

from tests.chaos import chart
from tests.chaos.chart import SIDE, Axis, Band, Lane, Line, Panel, Point, Tick, ceiling, clock, duration
from tests.chaos.history import Check, Cycle, History, Injection, Moment

_PROBLEMS_ON_A_TERMINAL = 3
_PROBLEMS_ON_A_PAGE = 10
_AT_ONCE_SECONDS = 0.1
_OWN_COLOUR = 6
"""So many workers have a curve of their own."""


@dataclass(frozen=True, slots=True)
class Waits:
    """How long it took after a fault until work resumed, each time.

    Attributes:
        fault: The fault's name.
        firsts: Seconds to the first event stored.
        lasts: Seconds until events of each partition were stored.
    """

    fault: str
    firsts: Sequence[float]
    lasts: Sequence[float]

    @property
    def count(self) -> int:
        """How often that was seen."""
        return len(self.firsts)

    @property
    def seconds(self) -> tuple[float, float, float, float]:
        """The median and the longest, of the first event and of each partition."""
        return median(self.firsts), max(self.firsts), median(self.lasts), max(self.lasts)


@dataclass(frozen=True, slots=True)
class Done:
    """How often a fault was injected, and for how long.

    Attributes:
        fault: The fault's name.
        seconds: From its beginning until it was healed, each time.
    """

    fault: str
    seconds: Sequence[float]

    @property
    def cells(self) -> tuple[str, str, str, str]:
        """The row of a table."""
        return self.fault, f"{len(self.seconds):,}", duration(sum(self.seconds)), duration(max(self.seconds))


def line(cycle: Cycle, total: int) -> str:
    """Return one line on a cycle, while the run goes on."""
    parts = [", ".join(_in_short(one) for one in cycle.injections) or "no faults"]
    if cycle.kills:
        parts.append("1 worker killed" if cycle.kills == 1 else f"{cycle.kills} workers killed")
    parts.append(f"{cycle.sent:,} sent, {cycle.lag:,} behind")
    if cycle.recoveries:
        first = max(recovery.first for recovery in cycle.recoveries)
        last = max(recovery.last for recovery in cycle.recoveries)
        parts.append(f"resumed after {duration(first)}, all partitions after {duration(last)}")
    return f"{cycle.number:>{len(str(total))}}/{total}  {' · '.join(parts)}"


def verdict(history: History) -> str:
    """Return in one sentence whether every promise held."""
    if not history.checks:
        return "Nothing was checked, so nothing is proven."
    if history.holds:
        return f"Every promise held: {len(history.checks):,} of {len(history.checks):,}."
    broken = len(_broken(history))
    return f"{broken:,} of {len(history.checks):,} promises did not hold."


def show(history: History, console: Console) -> None:
    """Print faults and events, how long it took until work resumed, each promise, and what was wrong."""
    _show_what_was_done(history, console)
    if waits := _waits(history):
        console.print(Rule("Seconds until work resumed", style="cyan", align="left"))
        table = _table("after", "times", "first event: median", "longest", "each partition: median", "longest")
        for one in waits:
            table.add_row(one.fault, f"{one.count:,}", *(f"{seconds:.1f}" for seconds in one.seconds))
        console.print(table)
    console.print(Rule("Promises", style="cyan", align="left"))
    table = _table("promise", "expected", "found")
    for check in history.checks:
        holds = not check.problems
        promise = Text.assemble(("✓ ", "green") if holds else ("✗ ", "bold red"), check.promise)
        table.add_row(promise, f"{check.expected:,}", f"{check.found:,}", style="" if holds else "bold red")
    console.print(table)
    _show_problems(history, console)
    console.print(_last_line(history), soft_wrap=True)


def to_json(history: History) -> bytes:
    """Return the whole history as JSON that a person can read."""
    whole = {"holds": history.holds} | {field.name: getattr(history, field.name) for field in fields(history)}
    return orjson.dumps(whole, option=orjson.OPT_INDENT_2 | orjson.OPT_APPEND_NEWLINE)


def to_html(history: History) -> str:
    """Return the page: a timeline of what happened and what it did, and all tables."""
    injections = _injections(history)
    axis = Axis(max([moment.at for moment in history.moments] + [one.healed for one in injections], default=0.0))
    bands = [Band(one.began, one.healed, _told(one)) for one in injections]
    waits = _waits(history)
    longest = ceiling(max((max(one.lasts) for one in waits), default=0.0))
    return chart.page(
        "report.html.j2",
        history=history,
        verdict=verdict(history).rstrip("."),
        summary=_summary(history),
        figures=_figures(history, waits),
        broken=_broken(history),
        problems_shown=_PROBLEMS_ON_A_PAGE,
        cycles=axis.marks([(_began(cycle), str(cycle.number)) for cycle in history.cycles if cycle.injections]),
        ticks=axis.ticks,
        fault_lanes=_lanes(axis, injections),
        bands=axis.bands(bands),
        side=SIDE,
        panels=_panels(axis, history, injections),
        recoveries=[_recovery_row(one, longest) for one in waits],
        recovery_ticks=[Tick(100 * share, f"{longest * share:g} s") for share in (0.0, 0.5, 1.0)],
        checks=sorted(history.checks, key=lambda check: not check.problems),
        faults=[done.cells for done in _done(history)],
        kills=_counted(history.kills),
        topics=_counted(history.topics),
        counted=[(heading.capitalize(), _counted(counts)) for heading, counts in history.counts.items()],
        phases=[(phase, duration(seconds)) for phase, seconds in history.seconds.items()],
        settings=list(history.settings.items()),
        rows=[_cycle_row(cycle) for cycle in history.cycles],
    )


def _show_what_was_done(history: History, console: Console) -> None:
    console.print(Rule("Faults and events", style="cyan", align="left"))
    faults = _table("fault", "times", "total", "longest")
    for done in _done(history):
        faults.add_row(*done.cells)
    kills = _table("workers killed", "times")
    for how, count in _counted(history.kills):
        kills.add_row(how, count)
    topics = _table("events acknowledged", "")
    for topic, count in _counted(history.topics):
        topics.add_row(topic, count)
    tables = [faults, kills, topics]
    for heading, counts in history.counts.items():
        table = _table(heading, "times")
        for name, count in _counted(counts):
            table.add_row(name, count)
        tables.append(table)
    console.print(Columns(tables, padding=(0, 2)))
    took = ", ".join(f"{phase} {duration(seconds)}" for phase, seconds in history.seconds.items())
    for told in (_summary(history), took):
        console.print(Padding(Text(told, "dim"), (0, 1)))
    console.print()


def _show_problems(history: History, console: Console) -> None:
    for check in _broken(history):
        console.print(Text(check.promise, "bold red"))
        for problem in check.problems[:_PROBLEMS_ON_A_TERMINAL]:
            console.print(Padding(Text(problem, "red"), (0, 0, 0, 2)))
        if (more := len(check.problems) - _PROBLEMS_ON_A_TERMINAL) > 0:
            console.print(Text(f"  and {more:,} more", "dim red"))
    if _broken(history):
        console.print()


def _last_line(history: History) -> Text:
    over = (
        f" Over {sum(history.topics.values()):,} events, {len(_injections(history)):,} faults "
        f"and {sum(history.kills.values()):,} killed workers."
    )
    style = "bold green" if history.holds else "bold red"
    return Text.assemble((verdict(history), style), over if history.checks else "", f" To repeat: {history.command}")


def _table(first: str, *others: str) -> Table:
    table = Table(box=box.SIMPLE, padding=(0, 1), header_style="dim")
    table.add_column(first, min_width=24)
    for heading in others:
        table.add_column(heading, justify="right", min_width=8)
    return table


# Summaries of the history -------------------------------------------------------------------------------------


def _broken(history: History) -> list[Check]:
    return [check for check in history.checks if check.problems]


def _injections(history: History) -> list[Injection]:
    return [injection for cycle in history.cycles for injection in cycle.injections]


def _began(cycle: Cycle) -> float:
    return min(injection.began for injection in cycle.injections)


def _done(history: History) -> list[Done]:
    seconds: dict[str, list[float]] = {}
    for one in _injections(history):
        seconds.setdefault(one.fault, []).append(one.healed - one.began)
    return [Done(fault, took) for fault, took in sorted(seconds.items())]


def _waits(history: History) -> list[Waits]:
    waits: dict[str, Waits] = {}
    recoveries = [recovery for cycle in history.cycles for recovery in cycle.recoveries]
    for fault in sorted({recovery.fault for recovery in recoveries}):
        own = [recovery for recovery in recoveries if recovery.fault == fault]
        waits[fault] = Waits(fault, [one.first for one in own], [one.last for one in own])
    return sorted(waits.values(), key=lambda one: -one.seconds[2])


def _counted(counts: dict[str, int]) -> list[tuple[str, str]]:
    """Return names with their counts, the most first."""
    return [(name, f"{count:,}") for name, count in sorted(counts.items(), key=lambda pair: (-pair[1], pair[0]))]


def _summary(history: History) -> str:
    began = datetime.fromisoformat(history.began)
    took = duration(sum(history.seconds.values()))
    cycles = "1 cycle" if len(history.cycles) == 1 else f"{len(history.cycles):,} cycles"
    return (
        f"{began:%d %B %Y, %H:%M} {began.tzname() or ''} · {cycles} in {took} · seed {history.seed} · {history.machine}"
    )


def _figures(history: History, waits: Sequence[Waits]) -> list[tuple[str, str]]:
    injections = _injections(history)
    held = len(history.checks) - len(_broken(history))
    figures = [
        ("events acknowledged by Kafka", f"{sum(history.topics.values()):,}"),
        (f"faults, of {len({one.fault for one in injections})} kinds", f"{len(injections):,}"),
        ("workers killed", f"{sum(history.kills.values()):,}"),
        ("promises held", f"{held:,} of {len(history.checks):,}"),
    ]
    if waits:
        lasts = [seconds for one in waits for seconds in one.lasts]
        figures.append(("median time until every partition resumed", duration(median(lasts))))
        figures.append(("longest time until every partition resumed", duration(max(lasts))))
    return figures


def _told(injection: Injection) -> str:
    """Return the tooltip of a fault."""
    span = f"{clock(injection.began)}, for {duration(injection.healed - injection.began)}"
    return f"{injection.fault}\n{injection.detail}\n{span}" if injection.detail else f"{injection.fault}\n{span}"


def _in_short(injection: Injection) -> str:
    """Return a fault's name, and for how long it was there, where it was not over at once."""
    seconds = injection.healed - injection.began
    return f"{injection.fault} {duration(seconds)}" if seconds >= _AT_ONCE_SECONDS else injection.fault


def _lanes(axis: Axis, injections: Iterable[Injection]) -> list[Lane]:
    bands: dict[str, list[Band]] = {}
    for one in injections:
        bands.setdefault(one.fault, []).append(Band(one.began, one.healed, _told(one)))
    return [axis.lane(fault, bands[fault]) for fault in sorted(bands)]


def _panels(axis: Axis, history: History, injections: Sequence[Injection]) -> list[Panel]:
    def during(began: float, ended: float) -> str:
        names = dict.fromkeys(one.fault for one in injections if one.began <= ended and one.healed >= began)
        return ", ".join(names)

    moments = history.moments
    sent: list[Point] = [(moment.at, moment.sent) for moment in moments]
    committed: list[Point] = [(moment.at, moment.committed) for moment in moments]
    lag: list[Point] = [(moment.at, _lag(moment)) for moment in moments]
    flow = [
        Line("committed", chart.rates(committed), 2, filled=True, highest=False),
        Line("acknowledged", chart.rates(sent), 1, highest=False),
    ]
    return [
        axis.panel("Throughput", "events a second", flow, chart.number, during),
        axis.panel(
            "Lag", "acknowledged, and not yet committed", [Line("lag", lag, 4, filled=True)], chart.number, during
        ),
        axis.panel("Memory", "of each worker, resident", _memory(moments), chart.mebibytes, during),
    ]


def _lag(moment: Moment) -> float | None:
    return None if moment.committed is None else max(0, moment.sent - moment.committed)


def _memory(moments: Sequence[Moment]) -> list[Line]:
    """Return a line for each worker; for those beyond the first few one together, of the largest."""
    names = list(dict.fromkeys(name for moment in moments for name in moment.memory))
    own, others = names[:_OWN_COLOUR], names[_OWN_COLOUR:]
    lines = [
        Line(name, [(moment.at, _of_some(moment, [name])) for moment in moments], colour)
        for colour, name in enumerate(own, 1)
    ]
    if others:
        lines.append(Line("the largest other", [(moment.at, _of_some(moment, others)) for moment in moments], 0))
    return lines


def _of_some(moment: Moment, names: Sequence[str]) -> float | None:
    """Return the most memory that one of some workers has, in MiB; nothing where none of them is there."""
    largest = max((moment.memory.get(name, 0) for name in names), default=0)
    return largest / 2**20 if largest else None


def _recovery_row(waits: Waits, longest: float) -> dict[str, Any]:
    def dots(kind: str, seconds: Iterable[float], what: str) -> list[tuple[str, float, str]]:
        return [(kind, round(100 * one / longest, 2), f"{what} after {duration(one)}") for one in seconds]

    return {
        "fault": waits.fault,
        "count": waits.count,
        "seconds": waits.seconds,
        "dots": dots("last", waits.lasts, "each partition") + dots("first", waits.firsts, "first event"),
    }


def _cycle_row(cycle: Cycle) -> dict[str, Any]:
    waits = cycle.recoveries
    return {
        "number": cycle.number,
        "faults": [(one.fault, duration(one.healed - one.began), one.detail) for one in cycle.injections],
        "kills": cycle.kills or "",
        "sent": f"{cycle.sent:,}",
        "lag": f"{cycle.lag:,}",
        "first": duration(max(one.first for one in waits)) if waits else "",
        "last": duration(max(one.last for one in waits)) if waits else "",
    }
