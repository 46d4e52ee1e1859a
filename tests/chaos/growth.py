"""Find out whether something that is measured for a long time grows.

Input: measured points. Output: how they change.
Robust to what happens on a shared machine: medians and the slope of Theil and Sen, which a fifth of wild points do not
move. Nothing here knows what was measured.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from statistics import median

Point = tuple[float, float]
"""When, in seconds, and how much."""

_BUCKETS = 60


@dataclass(frozen=True, slots=True)
class Course:
    """How something went on over time.

    Attributes:
        first: The median of the first third.
        last: The median of the last third.
        most: The highest.
        drift: By how much it goes up over the whole time, by its slope.
    """

    first: float
    last: float
    most: float
    drift: float

    @property
    def growth(self) -> float:
        """By which share of the first third it grows: by its slope or from third to third, whichever is more."""
        grown = max(self.drift, self.last - self.first)
        return grown / self.first if self.first else float(grown > 0)


def course(points: Sequence[Point]) -> Course:
    """Return how something went on.

    Raises:
        ValueError: There are less than three points.
    """
    if len(points) < 3:
        raise ValueError("nothing can be said of less than three points")
    first, last = thirds(points)
    seconds = points[-1][0] - points[0][0]
    return Course(
        first=median(value for _, value in first),
        last=median(value for _, value in last),
        most=max(value for _, value in points),
        drift=slope(points) * seconds,
    )


def thirds(points: Sequence[Point]) -> tuple[Sequence[Point], Sequence[Point]]:
    """Return the first and the last third of points."""
    third = max(1, len(points) // 3)
    return points[:third], points[-third:]


def slope(points: Sequence[Point]) -> float:
    """Return by how much something goes up each second: the median of the slopes between any two points.

    Of many points, those that came one after another are taken together, by their medians.
    """
    together = -(-len(points) // _BUCKETS)
    groups = [points[first : first + together] for first in range(0, len(points), together)]
    middles = [(median(at for at, _ in group), median(value for _, value in group)) for group in groups]
    slopes = [(later - earlier) / (then - at) for (at, earlier), (then, later) in combinations(middles, 2) if then > at]
    return median(slopes) if slopes else 0.0


def added(histograms: Iterable[Mapping[float, float]]) -> dict[float, float]:
    """Return histograms as one: how many were up to each bound."""
    total: dict[float, float] = {}
    for histogram in histograms:
        for bound, count in histogram.items():
            total[bound] = total.get(bound, 0.0) + count
    return total


def since(later: Mapping[float, float], earlier: Mapping[float, float]) -> dict[float, float]:
    """Return what came into a histogram between two moments."""
    return {bound: count - earlier.get(bound, 0.0) for bound, count in later.items()}


def quantile(histogram: Mapping[float, float], share: float) -> float | None:
    """Return the value that such a share is not above, interpolated between two bounds; `None` of nothing.

    As Prometheus does, what is above the last bound is said to be at it.
    """
    total = max(histogram.values(), default=0.0)
    if total <= 0:
        return None
    lower = below = 0.0
    for bound, count in sorted(histogram.items()):
        if count >= share * total and count > below:
            return (
                lower if bound == float("inf") else lower + (bound - lower) * (share * total - below) / (count - below)
            )
        lower, below = bound, count
    return lower
