"""How fast page views get from Kafka to MongoDB: Inkstream beside what a user would pick instead, in one run.

In comes nothing: the program brings up a platform of its own, fills one topic, and runs all contenders in turn, each
over the whole topic into a fresh database with the same indexes and write concern. Out come tables, and in
`docs/benchmarks/` the figures and a picture; exit code 1 where Inkstream gave no figures, or is slower than `--least`
times the bare loop.
"""

import argparse
import asyncio
import statistics
import sys
from collections.abc import Sequence
from dataclasses import asdict

from bench import behaviour, latency, report, standings, traffic
from bench.arena import Arena, arena
from bench.contenders import CONTENDERS, INKSTREAM, YARDSTICK, Contender
from bench.entrant import ContenderError
from bench.peers.install import InstallError
from bench.standings import Result

PARTITIONS = 4
NAMESPACE = "bench."
TOPIC = NAMESPACE + traffic.PAGE_VIEWS
QUICK_EVENTS = 50_000
SLOW_AFTER_SECONDS = 60.0
"""A contender that takes longer is stopped then; its rate is that of what it has stored."""
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
    parser.add_argument("--rounds", type=int, help="rounds of all contenders (default 3; quick: 1)")
    parser.add_argument(
        "--only", nargs="+", metavar="NAME", help="the contenders whose names have this in them; writes no files"
    )
    parser.add_argument(
        "--quick", action="store_true", help="the bare loop and Inkstream, for their speed alone; writes no files"
    )
    parser.add_argument("--least", type=float, help="lowest accepted ratio to the bare loop (default: any)")
    return parser


def _chosen(only: Sequence[str] | None, *, quick: bool) -> list[Contender]:
    """Return the contenders that are to run.

    Raises:
        SystemExit: There is none of such a name.
    """
    if only:
        chosen = [each for each in CONTENDERS if any(part.lower() in each.name.lower() for part in only)]
        if not chosen:
            sys.exit(f"there is no such contender; there are: {', '.join(each.name for each in CONTENDERS)}")
        return chosen
    return [each for each in CONTENDERS if not quick or each.name in (YARDSTICK, INKSTREAM)]


class Benchmark:
    """All contenders over one topic.

    Args:
        arena: Where they run.
        contenders: Who runs.
        events: How many page views the topic gets.
    """

    def __init__(self, arena: Arena, contenders: Sequence[Contender], events: int) -> None:
        self._arena = arena
        self._contenders = contenders
        self._events = events
        self._results = {each.name: Result(each.name, each.safe, each.note) for each in contenders}

    async def run(self, rounds: int, *, quick: bool, whole: bool) -> None:
        """Run all rounds, then what is measured once, and tell of it.

        Args:
            rounds: How many times each contender goes over the topic.
            quick: Whether speed is all that is measured.
            whole: Whether this is worth keeping: figures are written after each part.
        """
        self._install()
        console.print(f"filling {TOPIC} with {self._events:,} page views")
        await traffic.create(self._arena.brokers, NAMESPACE, PARTITIONS)
        await traffic.fill(self._arena.brokers, TOPIC, traffic.page_views(self._events))
        for number in range(rounds):
            # Whoever ran after whom is another one in each round.
            turn = number % max(len(self._contenders), 1)
            for contender in [*self._contenders[turn:], *self._contenders[:turn]]:
                await self._race(contender, number + 1)
        await self._keep(whole=whole)
        if not quick:
            await behaviour.prepare(self._arena.brokers)
            for number, contender in enumerate(self._contenders):
                await self._look_closer(contender, number)
                await self._keep(whole=whole)
        for table in self._tables():
            console.print(table.rich())

    def verdict(self, least: float | None) -> int:
        """Print the ratio that counts; return the exit code, 1 where it is below the bound that was asked for."""
        if not {INKSTREAM, YARDSTICK} <= self._results.keys():
            return 0
        compared = standings.ratios(self._results[INKSTREAM], self._results[YARDSTICK])
        if not compared:
            return 1
        ratio = statistics.median(compared)
        bound = "" if least is None else f" (at least {least})"
        console.print(f"Inkstream reaches {ratio:.2f} of the {YARDSTICK}{bound}")
        return 0 if least is None or ratio >= least else 1

    def _install(self) -> None:
        for contender in self._contenders:
            if contender.install is None:
                continue
            console.print(f"installing {contender.name}")
            try:
                contender.install()
            except InstallError as error:
                self._leave_out(contender, str(error))

    def _leave_out(self, contender: Contender, problem: str) -> None:
        # The rest is the end of its output, which names files of this machine.
        self._results[contender.name].problem = problem.partition(" Its log is")[0]
        console.print(f"{contender.name}: {problem}", style="red", markup=False)

    def _runs(self, contender: Contender) -> bool:
        return self._results[contender.name].problem is None

    async def _race(self, contender: Contender, number: int) -> None:
        if not self._runs(contender):
            return
        try:
            figures = await self._arena.race(
                contender,
                TOPIC,
                self._events,
                {"pageViews": self._events},
                validated=contender.name == INKSTREAM,
                within=SLOW_AFTER_SECONDS,
            )
        except ContenderError as failure:
            self._leave_out(contender, str(failure))
            return
        self._results[contender.name].runs.append(figures)
        console.print(f"round {number}: {contender.name}: {figures.rate:,.0f} events/s")

    async def _look_closer(self, contender: Contender, number: int) -> None:
        """Measure what is measured once."""
        if not self._runs(contender):
            return
        result, validated = self._results[contender.name], contender.name == INKSTREAM
        console.print(f"{contender.name}:")
        try:
            result.latency = await latency.measure(self._arena, contender, validated=validated, number=number)
            console.print(f"  p50 {result.latency.p50_ms:,.0f} ms, p99 {result.latency.p99_ms:,.0f} ms")
        except ContenderError as failure:
            console.print(f"  no latency: {failure}", style="red", markup=False)
        try:
            result.behaviour = await behaviour.observe(
                self._arena, contender, validated=validated, report=console.print
            )
        except ContenderError as failure:
            console.print(f"  no trials: {failure}", style="red", markup=False)

    def _tables(self) -> list[report.Table]:
        results = list(self._results.values())
        tables = [standings.speed(results, self._results.get(YARDSTICK)), standings.trouble(results)]
        return [table for table in tables if table.rows]

    async def _keep(self, *, whole: bool) -> None:
        """Write what is known by now, where it is worth keeping."""
        if not whole:
            return
        results = list(self._results.values())
        title = f"Page views from Kafka to MongoDB, as a ratio to the {YARDSTICK}"
        figures = {
            "title": "Page views, side by side",
            "command": "make bench",
            **report.circumstances(await self._arena.mongodb_version()),
            "events": self._events,
            "partitions": PARTITIONS,
            "yardstick": YARDSTICK,
            "contenders": [asdict(result) for result in results],
        }
        drawn = standings.picture(title, results, self._results.get(YARDSTICK), INKSTREAM)
        tables = [*self._tables(), standings.configurations(results)]
        report.save("page-views", figures, tables, drawn)


if __name__ == "__main__":
    main()
