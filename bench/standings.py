"""Compare the alternatives: tables and a picture of all results.

A rate is compared round by round with that of the baseline, so that what slows down the whole machine for a while
counts for both.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field

from bench.arena import Figures
from bench.behaviour import Behaviour
from bench.latency import Latency
from bench.report import Bar, Spread, Table, svg


@dataclass(slots=True)
class Result:
    """All that was measured of an alternative.

    Attributes:
        name: The alternative.
        safe: Whether its configuration promises no loss and no duplicates.
        note: How it is configured.
        runs: One for each round that it went through.
        latency: At a steady rate; `None` where that was not measured.
        behaviour: In trouble; `None` where that was not looked at.
        problem: Why a figure is missing.
    """

    name: str
    safe: bool
    note: str
    runs: list[Figures] = field(default_factory=list)
    latency: Latency | None = None
    behaviour: Behaviour | None = None
    problem: str | None = None


def ratios(result: Result, baseline: Result | None) -> list[float]:
    """Return an alternative's rate by the baseline's, for each round that both went through."""
    if baseline is None:
        return []
    return [ours.rate / theirs.rate for ours, theirs in zip(result.runs, baseline.runs, strict=False)]


def speed(results: Sequence[Result], baseline: Result | None) -> Table:
    """Return the table of speed and cost."""
    rows = []
    for result in results:
        runs = result.runs
        if not runs:
            rows.append([result.name, f"left out: {result.problem}", *[""] * 8])
            continue
        by_baseline = ratios(result, baseline)
        latency = result.latency
        rows.append(
            [
                result.name,
                Spread.of([run.rate for run in runs]).text(),
                Spread.of(by_baseline).text(".2f") if by_baseline else "",
                Spread.of([run.cpu_us_per_event for run in runs]).text(),
                Spread.of([run.mongod_us_per_event for run in runs]).text(),
                f"{max(run.peak_mebibytes for run in runs):,.0f}",
                Spread.of([run.first_seconds for run in runs]).text(".1f"),
                f"{latency.p50_ms:,.0f}" if latency else "",
                _slowest(latency),
                "yes" if result.safe else "no",
            ]
        )
    columns = [
        "alternative", "events/s", "ratio", "CPU µs/event", "mongod µs/event", "peak MiB", "first document s",
        "p50 ms", "p99 ms", "safe",
    ]  # fmt: skip
    # A figure without measurements has no column.
    shown = [number for number in range(len(columns)) if not rows or any(row[number] for row in rows)]
    return Table(
        "Speed and cost", [columns[number] for number in shown], [[row[number] for number in shown] for row in rows]
    )


def trouble(results: Sequence[Result]) -> Table:
    """Return the table of what each made of trouble."""
    rows = []
    for result in results:
        behaviour = result.behaviour
        if behaviour is None:
            continue
        invalid = behaviour.invalid
        fate = "kept" if invalid.kept else "reported" if invalid.reported else "dropped in silence"
        rows.append(
            [
                result.name,
                f"{fate}; {invalid.verdict}" if not invalid.lost else invalid.verdict,
                behaviour.duplicate.verdict,
                behaviour.killed.verdict,
                behaviour.outage.verdict,
                "yes" if result.safe else "no",
            ]
        )
    columns = ["alternative", "one invalid record", "one event twice", "SIGKILL half-way", "MongoDB away 45 s", "safe"]
    return Table("In trouble", columns, rows, verdicts=True)


def configurations(results: Sequence[Result]) -> Table:
    """Return the table of how each is configured."""
    rows = [[result.name, result.note] for result in results]
    return Table("Configurations", ["alternative", "how"], rows, verdicts=True)


def picture(title: str, results: Sequence[Result], baseline: Result | None, ours: str) -> str:
    """Draw the ratios to the baseline."""
    bars = []
    for result in results:
        by_baseline = ratios(result, baseline)
        if by_baseline:
            note = "" if result.safe else "not safe"
            bars.append(Bar(result.name, Spread.of(by_baseline), ours=result.name == ours, note=note))
    return svg(title, bars)


def _slowest(latency: Latency | None) -> str:
    if latency is None:
        return ""
    return f"{latency.p99_ms:,.0f}" + (f", {latency.missing:,} never" if latency.missing else "")
