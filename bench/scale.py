"""Measure how page views scale: with worker processes, with partitions, and with the backlog.

The program starts a platform of its own, fills a topic for each case, and runs Inkstream over it.
Output: a table and, in `docs/benchmarks/`, the figures. If an event costs as much in a long backlog as in a short one,
the cost is flat.
"""

import argparse
import asyncio
import sys
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field

from bench import report, traffic
from bench.arena import Arena, Figures, arena
from bench.worker import WORKER

PARTITIONS = (1, 4, 12, 24)
PROCESSES = (1, 2)
USUAL_PARTITIONS = 4
BACKLOGS = (100_000, 300_000, 1_000_000)
LONGEST_BACKLOG = 3_000_000
WITHIN_SECONDS = 900.0
console = report.console()


@dataclass(slots=True)
class Case:
    """One way to run.

    Attributes:
        partitions: Of the topic.
        processes: Workers that share them.
        backlog: Events that wait when the workers start.
        runs: One for each round.
    """

    partitions: int
    processes: int
    backlog: int
    runs: list[Figures] = field(default_factory=list)

    @property
    def namespace(self) -> str:
        """The namespace of its topic, which it shares with the cases that need the same one."""
        return f"scale-{self.partitions}-{self.backlog}."


def cases(events: int, *, full: bool) -> list[Case]:
    """Return all cases: partitions and processes with so many events, then backlogs of growing length."""
    spread = [
        Case(partitions, processes, events)
        for partitions in PARTITIONS
        for processes in PROCESSES
        if processes <= partitions
    ]
    backlogs = (*BACKLOGS, LONGEST_BACKLOG) if full else BACKLOGS
    covered = {(case.partitions, case.processes, case.backlog) for case in spread}
    return spread + [
        Case(USUAL_PARTITIONS, 1, backlog) for backlog in backlogs if (USUAL_PARTITIONS, 1, backlog) not in covered
    ]


def main() -> None:
    """Run the benchmark."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n\n")[0])
    parser.add_argument("--events", type=int, default=300_000, help="for each number of partitions (%(default)s)")
    parser.add_argument("--rounds", type=int, default=3, help="rounds of all cases (default %(default)s)")
    parser.add_argument("--full", action="store_true", help=f"also a backlog of {LONGEST_BACKLOG:,}")
    arguments = parser.parse_args()
    try:
        with arena(console.print) as place:
            asyncio.run(run(place, cases(arguments.events, full=arguments.full), arguments.rounds))
    except KeyboardInterrupt:
        sys.exit(130)


async def run(place: Arena, every: Sequence[Case], rounds: int) -> None:
    """Measure all cases, write the figures, and tell of it."""
    for namespace, (partitions, events) in {case.namespace: (case.partitions, case.backlog) for case in every}.items():
        console.print(f"filling a topic with {events:,} page views, partitions {partitions}")
        await traffic.create(place.brokers, namespace, partitions)
        await traffic.fill(place.brokers, namespace + traffic.PAGE_VIEWS, traffic.page_views(events))
    for number in range(1, rounds + 1):
        for case in every:
            figures = await place.race(
                WORKER,
                case.namespace + traffic.PAGE_VIEWS,
                case.backlog,
                {"pageViews": case.backlog},
                validated=True,
                processes=case.processes,
                within=WITHIN_SECONDS,
            )
            case.runs.append(figures)
            console.print(
                f"round {number}: partitions {case.partitions}, processes {case.processes}, backlog {case.backlog:,}: "
                f"{figures.rate:,.0f} events/s"
            )
    console.print(table(every).rich())
    figures_of_all = {
        "title": "How page views scale",
        "command": "make bench-scale",
        **report.circumstances(await place.mongodb_version()),
        "cases": [asdict(case) for case in every],
    }
    report.save("scale", figures_of_all, [table(every)])


def table(every: Sequence[Case]) -> report.Table:
    """Return the table of all cases."""
    rows = []
    for case in every:
        spread = report.Spread.of
        rows.append(
            [
                f"{case.partitions}",
                f"{case.processes}",
                f"{case.backlog:,}",
                spread([run.rate for run in case.runs]).text(),
                spread([run.cpu_us_per_event for run in case.runs]).text(),
                spread([run.mongod_us_per_event for run in case.runs]).text(),
                spread([run.first_seconds for run in case.runs]).text(".1f"),
                f"{max(run.peak_mebibytes for run in case.runs):,.0f}",
            ]
        )
    columns = [
        "partitions", "processes", "backlog", "events/s", "worker µs/event", "mongod µs/event", "first document s",
        "peak MiB",
    ]  # fmt: skip
    return report.Table("Partitions, processes, backlog", columns, rows)


if __name__ == "__main__":
    main()
