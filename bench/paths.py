"""Measure how fast every other topic gets into MongoDB: its agent, beside the baseline's writes of the same operations.

The program starts a platform of its own, fills each topic with the scenarios of the sample traffic, and runs the
baseline's writes and Inkstream in turn, each into a fresh database with all indexes.
Output: a table and, in `docs/benchmarks/`, the figures.
"""

import argparse
import asyncio
import sys
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field

from bench import baseline_writes, report, traffic
from bench.arena import Arena, Figures, arena
from bench.programs import Command
from bench.worker import WORKER
from enrich.documents import Document, Occurrence, PartialUpdate
from runtime.settings import ROOT, Settings
from schemas.topics import load
from sinks.collections import ERROR_LOGS, NAMES, SYSTEM_LOGS

PARTITIONS = 4
NAMESPACE = "paths."
TOPICS = tuple(
    name
    for name, topic in load(ROOT / "topics.yaml", NAMES).inbound.items()
    if topic.collections and name != traffic.PAGE_VIEWS
)
console = report.console()


BASELINE_WRITES = Command((sys.executable, "-m", "bench.baseline_writes"), {})


@dataclass(slots=True)
class Path:
    """What was measured of one topic's path.

    Attributes:
        topic: The topic.
        documents: How many documents its events become, by collection.
        baseline: The runs of baseline writes.
        inkstream: The runs of the agent, in the same rounds.
    """

    topic: str
    documents: Mapping[str, int]
    baseline: list[Figures] = field(default_factory=list)
    inkstream: list[Figures] = field(default_factory=list)


def main() -> None:
    """Run the benchmark."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n\n")[0])
    parser.add_argument("--events", type=int, default=60_000, help="events in each topic (default %(default)s)")
    parser.add_argument("--rounds", type=int, default=3, help="rounds of both (default %(default)s)")
    parser.add_argument("--only", nargs="+", choices=TOPICS, metavar="TOPIC", help="run some topics; write no files")
    arguments = parser.parse_args()
    try:
        with arena(console.print) as place:
            topics, whole = arguments.only or TOPICS, arguments.only is None
            asyncio.run(run(place, topics, arguments.events, arguments.rounds, whole=whole))
    except KeyboardInterrupt:
        sys.exit(130)


async def run(place: Arena, topics: Sequence[str], events: int, rounds: int, *, whole: bool) -> None:
    """Measure all paths, and tell of it; write the figures where this was the `whole` of it."""
    console.print(f"making scenarios, and filling {len(topics)} topics with {events:,} events each")
    scenarios = traffic.Scenarios(load(ROOT / "topics.yaml", NAMES).inbound.values())
    await traffic.create(place.brokers, NAMESPACE, PARTITIONS, topics)
    paths = []
    for topic in topics:
        await traffic.fill(place.brokers, NAMESPACE + topic, scenarios.records(topic, events))
        paths.append(Path(topic, await documents(place.brokers, topic)))
    for number in range(1, rounds + 1):
        for path in paths:
            for program, runs in ((BASELINE_WRITES, path.baseline), (WORKER, path.inkstream)):
                # As for page views, the collections' validators are a part of what is measured of Inkstream.
                validated = program is WORKER
                topic = NAMESPACE + path.topic
                runs.append(await place.race(program, topic, events, path.documents, validated=validated))
            rates = f"baseline {path.baseline[-1].rate:,.0f}, Inkstream {path.inkstream[-1].rate:,.0f} events/s"
            console.print(f"round {number}: {path.topic}: {rates}")
    console.print(table(paths).rich())
    if whole:
        figures = {
            "title": "Every other topic, beside baseline writes",
            "command": "make bench-paths",
            **report.circumstances(await place.mongodb_version()),
            "events": events,
            "partitions": PARTITIONS,
            "paths": [asdict(path) for path in paths],
        }
        report.save("paths", figures, [table(paths)])


async def documents(brokers: str, topic: str) -> dict[str, int]:
    """Return how many documents a topic's events become, by collection."""
    settings = Settings()
    preparation = baseline_writes.Preparation(topic, settings)
    ids: defaultdict[str, set[str]] = defaultdict(set)
    async for records in baseline_writes.read(brokers, NAMESPACE + topic, settings.batch_records):
        for record in records:
            for write in preparation.writes(record):
                if isinstance(write, Occurrence):
                    ids[SYSTEM_LOGS.name].add(write.line["_id"])
                    ids[ERROR_LOGS.name].add(write.group["_id"])
                elif isinstance(write, Document):
                    ids[write.collection].add(write.body["_id"])
                elif isinstance(write, PartialUpdate):
                    ids[write.collection].add(write.id)
    return {name: len(distinct) for name, distinct in ids.items()}


def table(paths: Sequence[Path]) -> report.Table:
    """Return the table of all paths."""
    rows = []
    for path in paths:
        ratios = [ours.rate / baseline.rate for ours, baseline in zip(path.inkstream, path.baseline, strict=True)]
        rows.append(
            [
                path.topic,
                ", ".join(f"{name} {count:,}" for name, count in path.documents.items()),
                report.Spread.of([run.rate for run in path.baseline]).text(),
                report.Spread.of([run.rate for run in path.inkstream]).text(),
                report.Spread.of(ratios).text(".2f"),
                f"{max(run.peak_mebibytes for run in path.inkstream):,.0f}",
            ]
        )
    columns = ["topic", "documents", "baseline writes events/s", "Inkstream events/s", "ratio", "Inkstream peak MiB"]
    return report.Table("Other topics", columns, rows)


if __name__ == "__main__":
    main()
