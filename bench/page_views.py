"""Measure how fast page views get from Kafka to MongoDB: Inkstream and its alternatives, in one run.

The program starts a platform of its own, fills one topic, and runs all alternatives in turn, each over the whole topic
into a fresh database with the same indexes and write concern.
Output: tables, and in `docs/benchmarks/` the figures and a picture; exit code 1 if Inkstream gave no figures, or is
slower than `--least` times the baseline.
"""

import argparse
import asyncio
import statistics
import sys
from collections.abc import Sequence
from dataclasses import asdict

from bench import behaviour, latency, report, standings, traffic
from bench.alternatives import ALTERNATIVES, BASELINE, INKSTREAM, Alternative
from bench.arena import Arena, arena
from bench.peers.install import InstallError
from bench.programs import ProgramError
from bench.standings import Result

PARTITIONS = 4
NAMESPACE = "bench."
TOPIC = NAMESPACE + traffic.PAGE_VIEWS
QUICK_EVENTS = 50_000
SLOW_AFTER_SECONDS = 60.0
"""An alternative that takes longer is stopped then; its rate is that of what it has stored."""
console = report.console()


def main() -> None:
    """Run the benchmark."""
    arguments = _parser().parse_args()
    chosen = _chosen(arguments.only, quick=arguments.quick)
    events = arguments.events or (QUICK_EVENTS if arguments.quick else 300_000)
    rounds = arguments.rounds or (1 if arguments.quick else 3)
    try:
        with arena(console.print) as place:
            benchmark = Benchmark(place, chosen, events)
            asyncio.run(benchmark.run(rounds, quick=arguments.quick, whole=not (arguments.only or arguments.quick)))
    except KeyboardInterrupt:
        sys.exit(130)
    sys.exit(benchmark.verdict(arguments.least))


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n\n")[0])
    parser.add_argument("--events", type=int, help=f"page views in the topic (default 300000; quick: {QUICK_EVENTS})")
    parser.add_argument("--rounds", type=int, help="run so many rounds (default 3; quick: 1)")
    parser.add_argument(
        "--only", nargs="+", metavar="NAME", help="run only alternatives with NAME in their names; write no files"
    )
    parser.add_argument(
        "--quick", action="store_true", help="measure only the speed of the baseline and Inkstream; write no files"
    )
    parser.add_argument("--least", type=float, help="fail below this ratio to the baseline (default: never)")
    return parser


def _chosen(only: Sequence[str] | None, *, quick: bool) -> list[Alternative]:
    """Return the alternatives that are to run.

    Raises:
        SystemExit: No alternative has such a name.
    """
    if only:
        chosen = [each for each in ALTERNATIVES if any(part.lower() in each.name.lower() for part in only)]
        if not chosen:
            sys.exit(f"there is no such alternative; there are: {', '.join(each.name for each in ALTERNATIVES)}")
        return chosen
    return [each for each in ALTERNATIVES if not quick or each.name in (BASELINE, INKSTREAM)]


class Benchmark:
    """All alternatives over one topic.

    Args:
        arena: Where they run.
        alternatives: Who runs.
        events: How many page views the topic gets.
    """

    def __init__(self, arena: Arena, alternatives: Sequence[Alternative], events: int) -> None:
        self._arena = arena
        self._alternatives = alternatives
        self._events = events
        self._results = {each.name: Result(each.name, each.safe, each.note) for each in alternatives}

    async def run(self, rounds: int, *, quick: bool, whole: bool) -> None:
        """Run all rounds, then what is measured once, and tell of it.

        Args:
            rounds: How many times each alternative goes over the topic.
            quick: Whether speed is all that is measured.
            whole: Whether this is worth keeping: figures are written after each part.
        """
        self._install()
        console.print(f"filling {TOPIC} with {self._events:,} page views")
        await traffic.create(self._arena.brokers, NAMESPACE, PARTITIONS)
        await traffic.fill(self._arena.brokers, TOPIC, traffic.page_views(self._events))
        for number in range(rounds):
            # Whoever ran after whom is another one in each round.
            turn = number % max(len(self._alternatives), 1)
            for alternative in [*self._alternatives[turn:], *self._alternatives[:turn]]:
                await self._race(alternative, number + 1)
        await self._keep(whole=whole)
        if not quick:
            await behaviour.prepare(self._arena.brokers)
            for number, alternative in enumerate(self._alternatives):
                await self._look_closer(alternative, number)
                await self._keep(whole=whole)
        for table in self._tables():
            console.print(table.rich())

    def verdict(self, least: float | None) -> int:
        """Print the ratio that counts; return the exit code, 1 where it is below the bound that was asked for."""
        if not {INKSTREAM, BASELINE} <= self._results.keys():
            return 0
        compared = standings.ratios(self._results[INKSTREAM], self._results[BASELINE])
        if not compared:
            return 1
        ratio = statistics.median(compared)
        bound = "" if least is None else f" (at least {least})"
        console.print(f"Inkstream reaches {ratio:.2f} of the {BASELINE}{bound}")
        return 0 if least is None or ratio >= least else 1

    def _install(self) -> None:
        for alternative in self._alternatives:
            if alternative.install is None:
                continue
            console.print(f"installing {alternative.name}")
            try:
                alternative.install()
            except InstallError as error:
                self._leave_out(alternative, str(error))

    def _leave_out(self, alternative: Alternative, problem: str) -> None:
        # The rest is the end of its output, which names files of this machine.
        self._results[alternative.name].problem = problem.partition(" Its log is")[0]
        console.print(f"{alternative.name}: {problem}", style="red", markup=False)

    def _runs(self, alternative: Alternative) -> bool:
        return self._results[alternative.name].problem is None

    async def _race(self, alternative: Alternative, number: int) -> None:
        if not self._runs(alternative):
            return
        try:
            figures = await self._arena.race(
                alternative,
                TOPIC,
                self._events,
                {"pageViews": self._events},
                validated=alternative.name == INKSTREAM,
                within=SLOW_AFTER_SECONDS,
            )
        except ProgramError as failure:
            self._leave_out(alternative, str(failure))
            return
        self._results[alternative.name].runs.append(figures)
        console.print(f"round {number}: {alternative.name}: {figures.rate:,.0f} events/s")

    async def _look_closer(self, alternative: Alternative, number: int) -> None:
        """Measure what is measured once."""
        if not self._runs(alternative):
            return
        result, validated = self._results[alternative.name], alternative.name == INKSTREAM
        console.print(f"{alternative.name}:")
        try:
            result.latency = await latency.measure(self._arena, alternative, validated=validated, number=number)
            console.print(f"  p50 {result.latency.p50_ms:,.0f} ms, p99 {result.latency.p99_ms:,.0f} ms")
        except ProgramError as failure:
            console.print(f"  no latency: {failure}", style="red", markup=False)
        try:
            result.behaviour = await behaviour.observe(
                self._arena, alternative, validated=validated, report=console.print
            )
        except ProgramError as failure:
            console.print(f"  no trials: {failure}", style="red", markup=False)

    def _tables(self) -> list[report.Table]:
        results = list(self._results.values())
        tables = [standings.speed(results, self._results.get(BASELINE)), standings.trouble(results)]
        return [table for table in tables if table.rows]

    async def _keep(self, *, whole: bool) -> None:
        """Write what is known by now, where it is worth keeping."""
        if not whole:
            return
        results = list(self._results.values())
        title = f"Page views from Kafka to MongoDB, as a ratio to the {BASELINE}"
        figures = {
            "title": "Page views, side by side",
            "command": "make bench",
            **report.circumstances(await self._arena.mongodb_version()),
            "events": self._events,
            "partitions": PARTITIONS,
            "baseline": BASELINE,
            "alternatives": [asdict(result) for result in results],
        }
        drawn = standings.picture(title, results, self._results.get(BASELINE), INKSTREAM)
        tables = [*self._tables(), standings.configurations(results)]
        report.save("page-views", figures, tables, drawn)


if __name__ == "__main__":
    main()
