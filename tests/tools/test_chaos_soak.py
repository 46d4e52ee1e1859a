"""A long run tells what grows from what only moves, and what is slow from what became slow."""

import io
import math
import re
from collections.abc import Callable
from random import Random

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.console import Console

from tests.chaos import growth, soak_report
from tests.chaos.growth import course, quantile
from tests.chaos.soak_history import Look, Soak, findings, latencies, look, together, warm_up_of

MINUTES = 30
BOUNDS = (0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, math.inf)
PAGE = """
# HELP process_resident_memory_bytes Resident memory size in bytes.
# TYPE process_resident_memory_bytes gauge
process_resident_memory_bytes 2.5e+08
# TYPE process_open_fds gauge
process_open_fds 118.0
# TYPE process_cpu_seconds_total counter
process_cpu_seconds_total 11.25
# TYPE inkstream_lag_records gauge
inkstream_lag_records{partition="0",agent="a.page-views"} 30.0
inkstream_lag_records{partition="1",agent="a.page-views"} 12.0
inkstream_lag_records{partition="0",agent="a.searches"} -1.0
# TYPE inkstream_stored_after_seconds histogram
inkstream_stored_after_seconds_bucket{le="0.1",agent="a.page-views"} 5.0
inkstream_stored_after_seconds_bucket{le="+Inf",agent="a.page-views"} 8.0
inkstream_stored_after_seconds_count{agent="a.page-views"} 8.0
inkstream_stored_after_seconds_sum{agent="a.page-views"} 1.0
inkstream_stored_after_seconds_bucket{le="0.1",agent="a.searches"} 2.0
inkstream_stored_after_seconds_bucket{le="+Inf",agent="a.searches"} 2.0
inkstream_stored_after_seconds_bucket{le="0.1",agent="a.notify-domain-events"} 100.0
inkstream_stored_after_seconds_bucket{le="+Inf",agent="a.notify-domain-events"} 100.0
"""

Value = Callable[[float], float]


USUAL: dict[str, Value] = {
    "memory": lambda at: 250.0,
    "descriptors": lambda at: 140,
    "threads": lambda at: 10,
    "lag": lambda at: 100,
    "seconds": lambda at: 0.3,
}


def looks_of(minutes: float, **values: Value) -> dict[str, list[Look]]:
    """Return what is seen of two workers; each stores 400 events between two looks, all within so many `seconds`."""
    of = USUAL | values
    seen: dict[str, list[Look]] = {"worker-1": [], "worker-2": []}
    for own in seen.values():
        counts = dict.fromkeys(BOUNDS, 0.0)
        for at in range(0, int(minutes * 60), 2):
            for bound in BOUNDS:
                counts[bound] += 400 if of["seconds"](at) <= bound else 0
            own.append(
                Look(
                    at=at,
                    memory=of["memory"](at) * 2**20,
                    descriptors=of["descriptors"](at),
                    threads=of["threads"](at),
                    processor=at * 0.2,
                    lag=of["lag"](at),
                    stored=dict(counts),
                )
            )
    return seen


def broken(**values: Value) -> list[str]:
    found = findings(looks_of(MINUTES, **values), rate=400.0, warm_up=warm_up_of(MINUTES * 60))
    return [finding.what for finding in found if not finding.holds]


def warming_up(at: float) -> float:
    return 250.0 - 120.0 * math.exp(-at / 60)


def test_workers_that_stay_as_they_are_hold() -> None:
    chance = Random(1)
    wobbling: Value = lambda at: 250 + chance.uniform(-20, 20)  # noqa: E731
    assert broken() == []
    assert broken(memory=wobbling, lag=lambda at: 100 + chance.uniform(0, 900)) == []


def test_a_warm_up_is_not_growth() -> None:
    assert broken(memory=warming_up, descriptors=lambda at: 140 - 90 * math.exp(-at / 60)) == []


def test_memory_that_leaks_slowly_is_found() -> None:
    assert broken(memory=lambda at: 250 + at / 24) == ["memory of worker-1", "memory of worker-2"]
    assert broken(memory=lambda at: 250 + at / 60) == [], "that is 10 % in the whole run"


def test_memory_that_leaks_in_steps_is_found() -> None:
    assert broken(memory=lambda at: 250 + 60 * (at > 1_000))
    assert broken(memory=lambda at: 250 + 60 * (at > 1_315)), "also late, where the slope between most points is none"


def test_one_worker_that_leaks_is_told_from_one_that_does_not() -> None:
    looks = looks_of(MINUTES) | {"worker-2": looks_of(MINUTES, memory=lambda at: 200 + at / 10)["worker-2"]}
    found = findings(looks, rate=400.0, warm_up=360.0)
    assert [finding.what for finding in found if not finding.holds] == ["memory of worker-2"]


def test_files_and_threads_that_are_not_closed_are_found() -> None:
    assert broken(descriptors=lambda at: 140 + at / 60) == ["open files of worker-1", "open files of worker-2"]
    assert broken(threads=lambda at: 10 + at // 300) == ["threads of worker-1", "threads of worker-2"]
    assert broken(threads=lambda at: 10 + (at > 900)) == [], "a pool has one more"


def test_workers_that_fall_behind_are_found() -> None:
    assert broken(lag=lambda at: 1_100 if at == 1_000 else 0) == ["events not yet committed, all workers"]
    assert broken(lag=lambda at: 5_000 if at < 100 else 10) == [], "in the warm-up it may be"


def test_events_that_are_stored_later_and_later_are_found() -> None:
    what = ["seconds until an event is stored, 99 of 100"]
    assert broken(seconds=lambda at: 0.3 if at < 1_200 else 1.4) == what, "more than twice as long"
    assert broken(seconds=lambda at: 3.0) == what, "longer than ever allowed"
    assert broken(seconds=lambda at: 0.04 if at < 1_200 else 0.2) == [], "both are quick"


def test_a_run_that_is_too_short_says_nothing() -> None:
    with pytest.raises(ValueError, match="less than three"):
        findings(looks_of(0.1), rate=400.0, warm_up=2.0)


def test_a_run_in_which_nothing_was_stored_says_nothing() -> None:
    looks = {name: [Look(at, 2**28, 9, 9, 1.0, 0.0, {}) for at in range(0, 600, 2)] for name in ("one", "other")}
    with pytest.raises(ValueError, match="no event was stored"):
        findings(looks, rate=400.0, warm_up=10.0)


@pytest.mark.parametrize(("minutes", "seconds"), [(1, 24), (3, 72), (10, 180), (30, 360), (60, 720)])
def test_the_warm_up_is_a_fifth_or_three_minutes_and_leaves_enough(minutes: float, seconds: float) -> None:
    assert warm_up_of(minutes * 60) == pytest.approx(seconds)


def test_a_page_of_a_worker_is_read() -> None:
    seen = look(7.0, PAGE, 11, {"a.page-views", "a.searches"})
    assert (seen.at, seen.memory, seen.descriptors, seen.threads, seen.processor) == (7.0, 2.5e8, 118, 11, 11.25)
    assert seen.lag == 41
    assert seen.stored == {0.1: 7.0, math.inf: 10.0}, "of topics that are stored"


def test_a_worker_that_has_done_nothing_yet_has_a_page_too() -> None:
    page = "\n".join(line for line in PAGE.splitlines() if "inkstream" not in line)
    assert (look(0.0, page, 5, {"a.page-views"}).lag, look(0.0, page, 5, {"a.page-views"}).stored) == (0.0, {})


def test_the_slope_is_not_moved_by_a_few_wild_points() -> None:
    points = [(float(at), 100.0 + at / 100) for at in range(0, 3_600, 2)]
    wild = [(at, 10_000.0 if number % 7 == 0 else value) for number, (at, value) in enumerate(points)]
    assert growth.slope(points) == pytest.approx(0.01)
    assert growth.slope(wild) == pytest.approx(0.01, rel=0.1)


@given(st.floats(-5, 5), st.floats(1, 1_000), st.integers(3, 500))
def test_the_slope_of_a_line_is_its_own(slope: float, first: float, count: int) -> None:
    points = [(float(at), first + slope * at) for at in range(count)]
    assert growth.slope(points) == pytest.approx(slope, abs=1e-6)


def test_a_course_has_its_thirds_and_its_growth() -> None:
    seen = course([(float(at), 100.0 + at) for at in range(101)])
    assert (seen.first, seen.last, seen.most) == (116, 184, 200)
    assert seen.growth == pytest.approx(100 / 116, rel=0.05)


def test_something_that_was_nothing_and_is_something_has_grown() -> None:
    assert course([(0, 0), (1, 0), (2, 0), (3, 5), (4, 5), (5, 5)]).growth > 0
    assert course([(0, 0), (1, 0), (2, 0)]).growth == 0


def test_a_quantile_is_between_two_bounds() -> None:
    histogram = {0.1: 50.0, 0.5: 90.0, 1.0: 100.0, math.inf: 100.0}
    assert quantile(histogram, 0.5) == pytest.approx(0.1)
    assert quantile(histogram, 0.7) == pytest.approx(0.3)
    assert quantile(histogram, 0.99) == pytest.approx(0.95)
    assert quantile({0.1: 0.0, math.inf: 10.0}, 0.5) == 0.1, "above the last bound is at it"
    assert quantile({0.1: 0.0, math.inf: 0.0}, 0.5) is None
    assert quantile({}, 0.5) is None


def test_latency_is_of_what_was_stored_in_the_seconds_before() -> None:
    points = latencies(looks_of(2, seconds=lambda at: 0.04 if at < 60 else 2.0), 0.5)
    later = {at: seconds for at, seconds in points if seconds is not None}
    assert later[58.0] <= 0.05
    assert later[72.0] > 1.0, "nothing of what was before counts"


def test_how_far_behind_all_workers_are_is_their_sum() -> None:
    assert together(looks_of(0.1, lag=lambda at: at)) == [(0, 0), (2, 4), (4, 8)]


def soak_of(**values: Value) -> Soak:
    looks = looks_of(3, **values)
    soak = Soak(
        command="make soak MINUTES=3",
        began="2026-11-23T18:23:50+00:00",
        machine="2 cores, 24 GiB",
        rate=400.0,
        seconds=180.0,
        warm_up=72.0,
        looks=looks,
        servers={"kafka": [(0.0, 380.0), (90.0, 460.0)], "mongo": [(0.0, 80.0), (90.0, 170.0)]},
        sent=[(float(at), at * 400) for at in range(0, 180, 2)],
        topics={"page-views": {"sent": 72_000, "stored": 71_000, "duplicate": 900, "dead letter": 100}},
    )
    soak.findings = findings(looks, soak.rate, soak.warm_up)
    return soak


def shown(soak: Soak) -> str:
    console = Console(width=150, record=True, file=io.StringIO())
    soak_report.show(soak, console)
    return console.export_text()


def test_the_verdict_is_one_sentence() -> None:
    assert shown(soak_of()).rstrip().endswith("Nothing grew in 3 min 00 s, and all 72,000 events are accounted for.")
    slow = shown(soak_of(seconds=lambda at: 3.0))
    assert "✗ seconds until an event is stored, 99 of 100" in slow
    assert slow.rstrip().endswith("After 3 min 00 s: 1 of 8 did not stay as they must.")


def test_a_run_with_lost_events_does_not_hold() -> None:
    soak = soak_of()
    soak.problems = [f"page-views: view-{number} [/] at page-views:0:{number} is committed" for number in range(5)]
    assert not soak.holds
    text = shown(soak)
    assert "view-2 [/] at page-views:0:2" in text
    assert "and 2 more" in text
    assert text.rstrip().endswith("After 3 min 00 s: 5 problems.")


def test_a_run_without_findings_does_not_hold() -> None:
    soak = soak_of()
    soak.findings = []
    assert not soak.holds
    assert soak_report.verdict(soak) == "After 3 min 00 s nothing was judged."


def test_a_line_says_how_it_is_now() -> None:
    assert soak_report.line(soak_of(), 178.0) == (
        "2:58 of 3:00  ·  71,200 sent  ·  200 not yet committed  ·  half of all stored within 0.38 s  ·  "
        "99 of 100 stored within 0.50 s  ·  worker-1 250 MiB, 140 files  ·  worker-2 250 MiB, 140 files"
    )
    soak = soak_of()
    soak.looks, soak.sent = {}, []
    assert soak_report.line(soak, 0.0) == "0:00 of 3:00"


def test_json_has_all_of_it() -> None:
    whole = orjson.loads(soak_report.to_json(soak_of()))
    assert whole["holds"] is True
    assert whole["looks"]["worker-2"][-1]["stored"]["inf"] == 90 * 400


def test_the_page_is_one_file_without_scripts() -> None:
    html = soak_report.to_html(soak_of())
    assert not re.search(r"<script|<link|src=|href=|url\(|@import|https?://", html)
    assert html.count('class="row panel"') == 7
    assert "Nothing grew in 3 min 00 s" in html
