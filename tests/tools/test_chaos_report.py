"""What a run comes to is told without leaving anything out, and what did not hold can't be overlooked."""

import io
import re
from collections import Counter
from html.parser import HTMLParser
from random import Random

import orjson
import pytest
from rich.console import Console

from tests.chaos import chart, report
from tests.chaos.chart import Axis, Band, Line
from tests.chaos.history import Check, Cycle, History, Injection, Moment, Recovery

FAULTS = {
    "connections-cut-mongo": (0.1, 6.0, "all connections to MongoDB reset, none accepted"),
    "kafka-black-hole": (4.0, 12.0, "nothing passes between workers and Kafka"),
    "kafka-killed": (6.0, 11.0, "SIGKILL, started again after 2 s"),
    "kafka-paused": (3.0, 15.0, "SIGSTOP"),
    "mongo-killed": (3.0, 9.0, "SIGKILL, started again at once"),
    "mongo-stepped-down": (1.0, 4.0, "for 1 s"),
    "poison-storm": (1.0, 3.0, "300 records that can't be read on page-views"),
    "postgres-restarted": (1.0, 3.0, "stopped and started"),
    "redis-flushed": (0.0, 0.1, "FLUSHALL"),
    "worker-frozen": (7.0, 20.0, "SIGSTOP, longer than its session"),
    "worker-killed": (0.0, 0.1, "SIGKILL to worker-2"),
    "worker-killed-at-a-point": (0.2, 5.0, "between write and commit, the 3rd time"),
}
TOPICS = ("page-views", "domain-events", "searches", "log-lines", "notifications")


def history_of(cycles: int, seed: int = 1, rate: float = 550.0) -> History:
    """Return a run as there may be one: work that stops, backlogs that are worked off, workers that are killed."""
    chance = Random(seed)
    history = History(
        command=f"make chaos SEED={seed} CYCLES={cycles}",
        seed=seed,
        began="2026-11-23T17:58:02+00:00",
        machine="2 cores, 23 GiB",
        settings={"workers": "3", "events a second": "550", "defect": "none"},
    )
    at, kills = 8.0, Counter[str]()
    for number in range(1, cycles + 1):
        injections = []
        names = chance.sample(sorted(FAULTS), chance.choice((1, 1, 2)))
        for name in dict.fromkeys([*names, "worker-killed"]):
            least, most, detail = FAULTS[name]
            began = at + chance.uniform(0, 2.5)
            injections.append(Injection(name, detail, began, began + chance.uniform(least, most)))
        healed = max(one.healed for one in injections)
        first = chance.expovariate(1 / 2.5)
        recovery = Recovery(names[0], first, first + chance.expovariate(1 / 4.0))
        kills.update(["at any moment"] if number % 3 else ["between write and commit", "before the first batch"])
        at = healed + recovery.last + chance.uniform(0, 1)
        sent = int(at * rate)
        history.cycles.append(
            Cycle(number, tuple(injections), 1 + (number % 3 == 0), (recovery,), sent, chance.randrange(900))
        )
    history.moments = moments_of(history, at + 60, rate, chance)
    total = history.moments[-1].sent
    history.topics = {name: total // 2 ** (number + 1) for number, name in enumerate(TOPICS)}
    history.kills = dict(kills)
    history.seconds = {"chaos": at, "calm": 60.0, "settling": 11.2, "judging": 24.0}
    history.checks = [
        Check("everything is at its end in time", 1, 1),
        Check("no unhandled exception in any log", 38_211, 38_211),
        *(Check(f"{name}: each once, as computed without faults", total // 9, total // 9) for name in TOPICS),
    ]
    return history


def moments_of(history: History, seconds: float, rate: float, chance: Random) -> list[Moment]:
    moments = []
    sent = committed = 0.0
    memory = {f"worker-{number}": 96.0 for number in (1, 2, 3)}
    injections = [one for cycle in history.cycles for one in cycle.injections]
    for second in range(int(seconds)):
        here = {one.fault for one in injections if one.began <= second <= one.healed}
        kafka_is_away = any(fault.startswith("kafka") for fault in here)
        sent += 0 if kafka_is_away else rate * chance.uniform(0.9, 1.1)
        if not kafka_is_away and not any("mongo" in fault for fault in here):
            committed = min(sent - chance.uniform(0, 300), committed + rate * chance.uniform(1.5, 3.5))
        for name in memory:
            memory[name] += (chance.uniform(170, 190) - memory[name]) * 0.08
        if any(fault.startswith("worker-killed") for fault in here):
            memory[chance.choice(list(memory))] = 96.0
        moments.append(
            Moment(
                second + chance.uniform(0, 0.05),
                int(sent),
                None if kafka_is_away else max(0, int(committed)),
                {name: int(value * 2**20) for name, value in memory.items()},
            )
        )
    return moments


def broken_history() -> History:
    history = history_of(5)
    problems = [f"page-views:1:{number}: view-{number} is not in pageViews" for number in range(14)]
    problems[2] = 'Traceback (most recent call last):\n  File "x.py", line 1\nValueError: <script>alert(1)</script>'
    history.checks.insert(3, Check("pageViews: each once", 1_000, 986, problems))
    return history


def shown(history: History, width: int = 150) -> str:
    console = Console(width=width, record=True, file=io.StringIO())
    report.show(history, console)
    return console.export_text()


class Page(HTMLParser):
    """What a page consists of; every element must be closed."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.elements: Counter[str] = Counter()
        self.attributes: dict[str, list[str]] = {}
        self.text = ""
        self._open: list[str] = []
        self.feed(html)
        assert not self._open

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.handle_startendtag(tag, attrs)
        if tag not in ("meta", "br"):
            self._open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements[tag] += 1
        for name, value in attrs:
            self.attributes.setdefault(name, []).append(value or "")

    def handle_endtag(self, tag: str) -> None:
        assert self._open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.text += data if "style" not in self._open else ""


def test_a_cycle_is_one_line_with_all_that_matters() -> None:
    cycle = Cycle(
        number=7,
        injections=(
            Injection("mongo-killed", "SIGKILL", 100.0, 106.14),
            Injection("worker-killed", "SIGKILL to worker-2", 101.0, 101.0),
        ),
        kills=2,
        recoveries=(Recovery("mongo-killed", 0.84, 3.1), Recovery("mongo-killed", 1.2, 2.9)),
        sent=48_210,
        lag=1_204,
    )
    assert report.line(cycle, 100) == (
        "  7/100  mongo-killed 6.1 s, worker-killed · 2 workers killed · 48,210 sent, 1,204 behind · "
        "resumed after 1.2 s, all partitions after 3.1 s"
    )


def test_a_cycle_without_kills_and_recoveries_says_nothing_of_them() -> None:
    cycle = Cycle(1, (Injection("redis-flushed", "", 1.0, 1.0),), kills=0, recoveries=(), sent=10, lag=0)
    assert report.line(cycle, 9) == "1/9  redis-flushed · 10 sent, 0 behind"


def test_the_terminal_gets_the_verdict_and_the_command_that_repeats_it() -> None:
    text = shown(history_of(5))
    assert text.rstrip().splitlines()[-1].startswith("Every promise held: 7 of 7. Over ")
    assert text.rstrip().endswith("killed workers. To repeat: make chaos SEED=1 CYCLES=5")
    assert "✗" not in text
    assert text.count("✓") == 7


def test_what_did_not_hold_is_told_with_its_first_problems() -> None:
    text = shown(broken_history())
    assert "✗ pageViews: each once" in text
    assert "page-views:1:1: view-1 is not in pageViews" in text
    assert "view-3 is not" not in text
    assert "and 11 more" in text
    assert "1 of 8 promises did not hold." in text


def test_how_long_work_stood_is_told_by_fault() -> None:
    history = history_of(0)
    recoveries = [Recovery("kafka-killed", first, last) for first, last in ((1.0, 4.0), (2.0, 9.0), (6.0, 7.0))]
    history.cycles = [
        Cycle(number, (Injection("kafka-killed", "", number, number + 2.5),), 0, (recovery,), 0, 0)
        for number, recovery in enumerate(recoveries, 1)
    ]
    text = shown(history)
    assert re.search(r"kafka-killed +3 +7.5 s +2.5 s", text), "how often, in all, longest"
    assert re.search(r"kafka-killed +3 +2.0 +6.0 +7.0 +9.0", text), "median and longest, of both"


def test_a_problem_that_looks_like_markup_is_shown_as_it_is() -> None:
    history = history_of(1)
    history.checks = [Check("[red]nothing[/]", 1, 0, ["view [/bold] is missing"])]
    text = shown(history)
    assert "[red]nothing[/]" in text
    assert "view [/bold] is missing" in text


def test_a_run_that_was_not_judged_shows_nothing() -> None:
    history = history_of(1)
    history.checks = []
    assert not history.holds
    assert "Nothing was checked, so nothing is proven." in shown(history)
    assert "Nothing was checked" in report.to_html(history)


def test_json_has_all_of_it() -> None:
    history = broken_history()
    whole = orjson.loads(report.to_json(history))
    assert whole["holds"] is False
    assert whole["seed"] == 1
    assert len(whole["moments"]) == len(history.moments)
    assert whole["cycles"][0]["injections"][0]["fault"] == history.cycles[0].injections[0].fault
    assert len(whole["checks"][3]["problems"]) == 14


@pytest.mark.parametrize("cycles", [0, 1, 5, 100])
def test_the_page_is_one_file_without_scripts(cycles: int) -> None:
    html = report.to_html(history_of(cycles))
    page = Page(html)
    assert page.elements["script"] == 0
    assert page.elements["link"] == 0
    assert "src" not in page.attributes
    assert "href" not in page.attributes
    assert not re.search(r"url\(|@import|https?://", html)
    assert "prefers-color-scheme: dark" in html
    assert len(html) < 500_000


def test_the_page_escapes_what_was_found() -> None:
    html = report.to_html(broken_history())
    assert "<script>alert" not in html
    assert "&lt;script&gt;alert(1)&lt;/script&gt;" in html


def test_the_page_has_each_fault_with_what_exactly_was_done() -> None:
    history = history_of(5)
    told = Page(report.to_html(history)).attributes["title"]
    for cycle in history.cycles:
        for injection in cycle.injections:
            assert any(title.startswith(f"{injection.fault}\n{injection.detail}\n") for title in told)


def test_the_page_begins_with_what_did_not_hold() -> None:
    text = Page(report.to_html(broken_history())).text
    assert text.index("1 of 8 promises did not hold") < text.index("Broken promises") < text.index("Timeline")
    assert "and 4 more" in text
    assert "Broken promises" not in Page(report.to_html(history_of(5))).text


def test_a_worker_that_is_dead_for_a_moment_leaves_a_gap() -> None:
    history = history_of(0)
    sizes = [100, 110, 0, 90, 95]
    history.moments = [Moment(at, at, at, {"worker-1": size * 2**20}) for at, size in enumerate(sizes)]
    html = report.to_html(history)
    (path,) = re.findall(r'curve k1" d="([^"]*)"', html.rpartition("<b>Memory</b>")[2])
    assert path.count("M") == 2


def test_what_is_committed_before_it_is_known_to_be_sent_is_no_negative_lag() -> None:
    history = history_of(0)
    history.moments = [Moment(0.0, 90, 100, {}), Moment(1.0, 100, 90, {})]
    told = report.to_html(history)
    assert "lag: 0" in told
    assert "lag: 10" in told


def test_what_kafka_did_not_say_is_not_drawn() -> None:
    rates = chart.rates([(0.0, 100), (1.0, 150), (2.0, None), (3.0, None), (4.0, 450), (5.0, 460)])
    assert rates == [(0.0, None), (1.0, 50.0), (2.0, None), (3.0, None), (4.0, 100.0), (5.0, 10.0)]


def test_a_count_that_goes_back_is_no_negative_rate() -> None:
    assert chart.rates([(0.0, 100), (1.0, 90), (2.0, 95)]) == [(0.0, None), (1.0, 0.0), (2.0, 5.0)]


@pytest.mark.parametrize(
    ("value", "top"),
    [(0, 1), (0.07, 0.08), (0.9, 1), (1, 1), (7.3, 8), (21, 25), (101, 150), (999, 1_000), (1_234, 1_500)],
)
def test_a_scale_ends_at_a_round_number(value: float, top: float) -> None:
    assert chart.ceiling(value) == pytest.approx(top)


@pytest.mark.parametrize(
    ("seconds", "words"),
    [
        (0.04, "0.0 s"),
        (9.94, "9.9 s"),
        (9.96, "10 s"),
        (59.4, "59 s"),
        (59.6, "1 min 00 s"),
        (3_599, "59 min 59 s"),
        (3_720, "1 h 02 min"),
    ],
)
def test_how_long_something_took_in_words(seconds: float, words: str) -> None:
    assert chart.duration(seconds) == words


@pytest.mark.parametrize("seconds", [0, 1, 59, 600, 5_000, 90_000])
def test_an_axis_has_a_few_labels_within_its_length(seconds: float) -> None:
    ticks = Axis(seconds).ticks
    assert 1 <= len(ticks) <= 11
    assert all(0 <= tick.percent <= 100 for tick in ticks)


def test_bands_that_overlap_are_drawn_once() -> None:
    bands = [Band(5, 10, "b"), Band(0, 6, "a"), Band(50, 60, "c")]
    assert Axis(100).bands(bands) == [(0, 100), (500, 100)]


def test_a_long_line_is_reduced_without_losing_its_peak() -> None:
    points: list[chart.Point] = [(at, 1_000.0 if at == 4_321 else 1.0) for at in range(10_000)]
    panel = Axis(10_000).panel("Lag", "", [Line("lag", points, 1)], chart.number)
    assert len(panel.stretches) < 300
    assert panel.ticks[0].label == "1,000"
    assert ",0 " in panel.curves[0].path, "the peak touches the top"


def test_a_stretch_says_what_was_measured_and_what_was_wrong_meanwhile() -> None:
    panel = Axis(10).panel(
        "Lag",
        "",
        [Line("lag", [(0, 3.0), (5, None), (10, 7.0)], 1)],
        chart.number,
        lambda began, ended: f"{began}-{ended}",
    )
    assert [stretch.title for stretch in panel.stretches] == [
        "0:00\nlag: 3\n0.0-2.5",
        "0:05\n2.5-7.5",
        "0:10\nlag: 7\n7.5-10",
    ]
