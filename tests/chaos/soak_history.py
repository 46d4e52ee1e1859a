"""Decide whether workers stayed the same over a long time, from what was measured.

Input: the workers' own pages, `/metrics`.
Output: findings on memory, open files, threads, records not yet committed, and the time until an event is stored. The
bounds are defined here. A run is plain data; nothing here connects to anything.
"""

from collections.abc import Container, Mapping, Sequence
from dataclasses import dataclass, field

from prometheus_client.parser import text_string_to_metric_families

from tests.chaos import growth
from tests.chaos.growth import Course

WARM_UP = 0.2
WARM_UP_SECONDS = 180.0
MOST_WARM_UP = 0.4
WINDOW_SECONDS = 10.0
"""Latency is told over so long, as a quantile of a few events says nothing."""

GROWTH = 0.2
MORE = 0.1
FEW = 2
"""One or two threads or files more are always allowed: a pool of threads grows when two are needed at once."""

LAG_SECONDS = 5.0
SLOWER = 2.0
SLOWEST_SECONDS = 2.5
QUICK_SECONDS = 0.25
"""What is quicker than that is not said to be slower than before: the histogram's bounds are too far apart."""


@dataclass(frozen=True, slots=True)
class Look:
    """What one worker said at one moment.

    Attributes:
        at: When, in seconds since traffic began.
        memory: Its resident memory in bytes.
        descriptors: How many files it has open.
        threads: How many threads it has.
        processor: How many seconds of a core it has used.
        lag: How many records it has still to commit.
        stored: How many documents it has stored within how many seconds of their events, up to each bound.
    """

    at: float
    memory: float
    descriptors: float
    threads: float
    processor: float
    lag: float
    stored: dict[float, float]


@dataclass(frozen=True, slots=True)
class Finding:
    """Something that must stay as it is, and whether it did.

    Attributes:
        what: What it is.
        first: How it was in the first third after the warm-up.
        last: How it was in the last third.
        allowed: What is allowed.
        holds: Whether that was kept.
    """

    what: str
    first: str
    last: str
    allowed: str
    holds: bool


@dataclass(slots=True)
class Soak:
    """A whole run, as plain data.

    Attributes:
        command: How it was started.
        began: When it began, in ISO 8601.
        machine: What it ran on, in a few words.
        rate: How many events were sent each second.
        seconds: For how long.
        warm_up: How many of them are the warm-up, which is not checked.
        looks: What was seen of each worker.
        servers: The memory of each server in MiB, with the moments.
        sent: How many events Kafka had acknowledged, with the moments.
        findings: What must stay as it is.
        topics: How many events of each topic were sent, stored, duplicates and dead letters.
        problems: What else is wrong.
    """

    command: str
    began: str
    machine: str
    rate: float
    seconds: float
    warm_up: float
    looks: dict[str, list[Look]] = field(default_factory=dict)
    servers: dict[str, list[tuple[float, float]]] = field(default_factory=dict)
    sent: list[tuple[float, int]] = field(default_factory=list)
    findings: list[Finding] = field(default_factory=list)
    topics: dict[str, dict[str, int]] = field(default_factory=dict)
    problems: list[str] = field(default_factory=list)

    @property
    def holds(self) -> bool:
        """Whether all is as it must be."""
        return bool(self.findings) and all(one.holds for one in self.findings) and not self.problems


def look(at: float, page: str, threads: int, agents: Container[str]) -> Look:
    """Read what a worker says of itself on `/metrics`.

    Args:
        at: When that was.
        page: The page.
        threads: How many threads the worker has, which it does not say.
        agents: The agents that store a topic; an event may be used for other things as well.
    """
    totals: dict[str, float] = {}
    stored: list[dict[float, float]] = []
    for family in text_string_to_metric_families(page):
        for sample in family.samples:
            if sample.name == "inkstream_stored_after_seconds_bucket":
                if sample.labels["agent"] in agents:
                    stored.append({float(sample.labels["le"]): sample.value})
            else:
                totals[sample.name] = totals.get(sample.name, 0.0) + sample.value
    return Look(
        at=at,
        memory=totals["process_resident_memory_bytes"],
        descriptors=totals["process_open_fds"],
        threads=threads,
        processor=totals["process_cpu_seconds_total"],
        lag=max(0.0, totals.get("inkstream_lag_records", 0.0)),
        stored=growth.added(stored),
    )


def findings(looks: Mapping[str, Sequence[Look]], rate: float, warm_up: float) -> list[Finding]:
    """Judge what was seen after the warm-up.

    Raises:
        ValueError: There is too little of it to say anything.
    """
    warm = {name: [one for one in seen if one.at >= warm_up] for name, seen in looks.items()}
    found = []
    for name, seen in warm.items():
        memory = growth.course([(one.at, one.memory / 2**20) for one in seen])
        found.append(_stays(f"memory of {name}", memory, GROWTH, "MiB"))
    for name, seen in warm.items():
        for what, values in (
            ("open files", [(one.at, one.descriptors) for one in seen]),
            ("threads", [(one.at, one.threads) for one in seen]),
        ):
            found.append(_as_many(f"{what} of {name}", growth.course(values)))
    found.append(_bounded_lag(growth.course(together(warm)), rate))
    found.append(_bounded_latency(warm))
    return found


def together(looks: Mapping[str, Sequence[Look]]) -> list[tuple[float, float]]:
    """Return how far behind all workers are, at each moment."""
    return [(moment[0].at, sum(one.lag for one in moment)) for moment in moments(looks)]


def latencies(looks: Mapping[str, Sequence[Look]], share: float) -> list[tuple[float, float | None]]:
    """Return within how many seconds such a share of events was stored, each time of those in the seconds before."""
    seen = moments(looks)
    points: list[tuple[float, float | None]] = []
    first = 0
    for moment in seen[1:]:
        while seen[first + 1][0].at <= moment[0].at - WINDOW_SECONDS:
            first += 1
        points.append((moment[0].at, growth.quantile(stored(seen[first], moment), share)))
    return points


def moments(looks: Mapping[str, Sequence[Look]]) -> list[tuple[Look, ...]]:
    """Return what was seen of all workers at each moment."""
    return list(zip(*looks.values(), strict=True))


def stored(earlier: Sequence[Look], later: Sequence[Look]) -> dict[float, float]:
    """Return the histogram of what all workers have stored between two moments."""
    return growth.added(growth.since(two.stored, one.stored) for one, two in zip(earlier, later, strict=True))


def _stays(what: str, course: Course, growth: float, unit: str) -> Finding:
    return Finding(
        what,
        f"{course.first:,.0f} {unit}",
        f"{course.last:,.0f} {unit} ({course.growth:+.1%})",
        f"less than {growth:+.0%} over the run",
        course.growth < growth,
    )


def _as_many(what: str, course: Course) -> Finding:
    allowed = max(FEW, MORE * course.first)
    holds = abs(course.last - course.first) <= allowed
    return Finding(what, f"{course.first:,.0f}", f"{course.last:,.0f}", f"{allowed:,.0f} more or less", holds)


def _bounded_lag(course: Course, rate: float) -> Finding:
    most = rate * LAG_SECONDS
    return Finding(
        "events not yet committed, all workers",
        f"{course.first:,.0f}",
        f"{course.last:,.0f} (most {course.most:,.0f})",
        f"never more than {most:,.0f}: {LAG_SECONDS:.0f} s of traffic",
        course.most <= most,
    )


def _bounded_latency(looks: Mapping[str, Sequence[Look]]) -> Finding:
    seen = moments(looks)
    third = len(seen) // 3
    first = growth.quantile(stored(seen[0], seen[third]), 0.99)
    last = growth.quantile(stored(seen[-1 - third], seen[-1]), 0.99)
    if first is None or last is None:
        raise ValueError("no event was stored")
    allowed = min(SLOWEST_SECONDS, max(SLOWER * first, QUICK_SECONDS))
    return Finding(
        "seconds until an event is stored, 99 of 100",
        f"{first:.2f} s",
        f"{last:.2f} s",
        f"up to {allowed:.2f} s: {SLOWER:.0f} times as long as at first, and {SLOWEST_SECONDS:.1f} s",
        last <= allowed,
    )


def warm_up_of(seconds: float) -> float:
    """Return how much of a run is its warm-up: a fifth, three minutes where that is more and leaves enough."""
    return min(max(WARM_UP * seconds, WARM_UP_SECONDS), MOST_WARM_UP * seconds)
