import xml.etree.ElementTree as ElementTree
from dataclasses import replace
from pathlib import Path

import orjson
import pytest
from pydantic import TypeAdapter

from bench import report, standings
from bench.arena import Figures
from bench.behaviour import Behaviour, Trial
from bench.latency import Latency
from bench.report import Bar, Spread, Table
from bench.standings import Result

GOOD = Trial(lost=0, ended=False, twice=0, restarted=False, kept=False, reported=False)
SVG = "{http://www.w3.org/2000/svg}"


def figures(rate: float) -> Figures:
    return Figures(
        rate=rate,
        first_seconds=1.5,
        cpu_seconds=9.0,
        mongod_cpu_seconds=12.0,
        cpu_us_per_event=30.0,
        mongod_us_per_event=40.0,
        peak_mebibytes=90.0,
        events=300_000,
    )


def result(name: str, *rates: float, safe: bool = True) -> Result:
    return Result(name, safe, "as its documentation says", [figures(rate) for rate in rates])


def cells(table: Table, name: str) -> dict[str, str]:
    row = next(row for row in table.rows if row[0] == name)
    return dict(zip(table.columns, row, strict=True))


def test_a_spread_is_the_median_and_the_range() -> None:
    assert Spread.of([3.0, 1.0, 2.0]) == Spread(2.0, 1.0, 3.0)
    assert Spread.of([3_000.0, 1_000.0, 2_000.0]).text() == "2,000 (1,000 to 3,000)"
    assert Spread.of([0.912]).text(".2f") == "0.91"


def test_a_ratio_is_taken_round_by_round() -> None:
    # Both were slow in the second round, for which neither is to blame.
    baseline, ours = result("baseline", 40_000, 20_000), result("Inkstream", 36_000, 18_000)
    assert standings.ratios(ours, baseline) == [0.9, 0.9]


def test_an_alternative_that_failed_is_in_the_table_with_its_reason() -> None:
    failed = result("Bytewax")
    failed.problem = "It ended at 0 of 9 documents."
    row = cells(standings.speed([failed], None), "Bytewax")
    assert row["events/s"] == "left out: It ended at 0 of 9 documents."


def test_a_figure_that_was_measured_of_nobody_has_no_column() -> None:
    assert "p99 ms" not in standings.speed([result("Inkstream", 30_000)], None).columns


def test_the_table_of_speed_shows_cost_for_each_event() -> None:
    ours = result("Inkstream", 30_000)
    ours.latency = Latency(p50_ms=40.0, p99_ms=120.0, samples=2_000, missing=0)
    row = cells(standings.speed([ours], ours), "Inkstream")
    assert (row["CPU µs/event"], row["mongod µs/event"], row["ratio"]) == ("30", "40", "1.00")
    assert (row["p50 ms"], row["p99 ms"]) == ("40", "120")


def test_the_table_of_trouble_says_what_became_of_the_record_that_is_no_event() -> None:
    kept, silent, stuck = (
        Result(name, safe=True, note="", behaviour=Behaviour(invalid, GOOD, GOOD, GOOD))
        for name, invalid in {
            "keeps": replace(GOOD, kept=True),
            "silent": GOOD,
            "stuck": replace(GOOD, lost=5_000, ended=True, reported=True),
        }.items()
    )
    table = standings.trouble([kept, silent, stuck])
    assert cells(table, "keeps")["one invalid record"].startswith("kept; nothing lost")
    assert cells(table, "silent")["one invalid record"].startswith("dropped in silence")
    assert cells(table, "stuck")["one invalid record"] == "5,000 not stored, ended"


def test_a_result_comes_back_from_json_and_gives_the_same_tables() -> None:
    ours = result("Inkstream", 30_000, 31_000)
    ours.latency = Latency(p50_ms=40.0, p99_ms=120.0, samples=2_000, missing=0)
    ours.behaviour = Behaviour(GOOD, GOOD, GOOD, GOOD)
    again = TypeAdapter(Result).validate_json(orjson.dumps(ours))
    assert again == ours
    assert standings.speed([again], again) == standings.speed([ours], ours)
    assert standings.trouble([again]) == standings.trouble([ours])


def test_a_markdown_table_has_as_many_cells_in_every_line() -> None:
    lines = Table("t", ["alternative", "events/s"], [["a | b", "1"], ["c", "2"]]).markdown().splitlines()
    assert lines[1] == "| --- | ---: |"
    assert {line.replace("\\|", "").count("|") for line in lines} == {3}


def test_the_picture_is_well_formed_whatever_the_names_are() -> None:
    bars = [Bar("a < b & c", Spread(1.0, 0.9, 1.1)), Bar("Inkstream", Spread(0.95, 0.95, 0.95), ours=True)]
    picture = ElementTree.fromstring(report.svg('Ratio "to" <the> baseline', bars))
    assert picture.tag == f"{SVG}svg"
    drawn = list(picture.iter(f"{SVG}rect"))
    assert [rect.get("class") for rect in drawn] == ["bar", "bar ours"]
    assert float(drawn[1].get("width", "0")) < float(drawn[0].get("width", "0"))
    # The first has a range: a line and its two ends; the last is the line at 1.
    assert [line.get("class") for line in picture.iter(f"{SVG}line")] == ["range", "range", "range", "one"]


def test_the_picture_fits_dark_pages_too() -> None:
    assert "prefers-color-scheme: dark" in report.svg("t", [])


def test_what_is_written_says_when_where_and_with_what(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(report, "DIRECTORY", tmp_path)
    title = {"title": "Page views", "command": "make bench"}
    written = report.save("page-views", title | report.circumstances("7.0.1"), [Table("t", ["a"], [["1"]])], "<svg/>\n")
    assert sorted(path.name for path in written) == ["page-views.json", "page-views.md", "page-views.svg"]
    figures_again = orjson.loads((tmp_path / "page-views.json").read_bytes())
    assert figures_again["versions"]["mongodb"] == "7.0.1"
    assert figures_again["versions"]["kafka"].startswith("4.")
    page = (tmp_path / "page-views.md").read_text()
    assert "make bench" in page
    assert "![Page views](page-views.svg)" in page
