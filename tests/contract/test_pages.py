"""The pages of docs/ against what they describe; where one is out of date, the difference shows what it should say."""

import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from delivery.retry import BACKOFF
from dev import pages
from runtime import metrics
from runtime.settings import Settings
from schemas.topics import load
from sinks.collections import COLLECTIONS
from tests.program import PROGRAM

ROOT = Path(__file__).parents[2]
TOPICS = load(ROOT / "topics.yaml", COLLECTIONS).inbound
COLLECTIONS_PAGE = (ROOT / "docs/collections.md").read_text()
OPERATIONS_PAGE = (ROOT / "docs/operations.md").read_text()
_LOG_CALL = re.compile(r'\blog\.(?:info|warning|error|exception)\(\s*"([^"]+)"')


def labels_of(metric: object) -> tuple[str, ...]:
    return (metric._label,) if isinstance(metric, metrics.BatchHistogram) else tuple(metric._labelnames)  # type: ignore[attr-defined]


def families() -> Iterator[tuple[str, tuple[str, ...], str]]:
    """Yield the name as `/metrics` has it, the labels, and the meaning of every metric of ours."""
    for metric in vars(metrics).values():
        if hasattr(metric, "collect") and not isinstance(metric, type) and hasattr(metric, "_name"):
            [family] = metric.collect()
            name = f"{family.name}_total" if family.type == "counter" else family.name
            yield name, labels_of(metric), family.documentation


@pytest.mark.parametrize("name", COLLECTIONS)
def test_the_page_of_the_collections_says_what_is_declared(name: str) -> None:
    found = re.search(rf"<!-- declared: {name} -->(.*?)<!-- end -->", COLLECTIONS_PAGE, re.DOTALL)
    assert found is not None, "run `make docs`"
    declared = pages.declared(COLLECTIONS[name], TOPICS)
    assert found[1].split() == declared.split(), f"run `make docs`; it should be:\n{declared}"


def test_the_page_of_the_collections_has_no_others() -> None:
    assert re.findall(r"<!-- declared: (\w+) -->", COLLECTIONS_PAGE) == list(COLLECTIONS)


def test_a_mistake_in_the_topics_ends_make_docs_with_its_line_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "topics.yaml").write_text("topics: {}")
    monkeypatch.setattr(pages, "ROOT", tmp_path)
    with pytest.raises(SystemExit):
        pages.main()
    assert capsys.readouterr().err == "topics.yaml:1: defaults is missing\n"


def test_the_runbook_explains_every_metric() -> None:
    rows = [
        f"| `{name}` | {', '.join(f'`{label}`' for label in labels)} | {meaning} |"
        for name, labels, meaning in families()
    ]
    assert re.findall(r"^\| `inkstream_.*$", OPERATIONS_PAGE, re.MULTILINE) == rows


def test_the_runbook_explains_every_line_of_the_log() -> None:
    said = {
        line
        for package in PROGRAM
        for path in (ROOT / package).rglob("*.py")
        for line in _LOG_CALL.findall(path.read_text())
    }
    assert set(re.findall(r"^\| `([a-z][a-z, ]+)` \|", OPERATIONS_PAGE, re.MULTILINE)) == said


def test_the_longest_wait_between_retries_is_as_the_pages_say() -> None:
    for page in ("docs/guarantee.md", "docs/troubleshooting.md"):
        assert f"up to {BACKOFF.max:.0f} s" in (ROOT / page).read_text(), page


def test_every_default_is_judged_for_production() -> None:
    judged = re.findall(
        r"`(INKSTREAM_[A-Z_]+)(?:=\w+)?`", (ROOT / "docs/decisions/0022-production-defaults.md").read_text()
    )
    assert set(judged) == {f"INKSTREAM_{name.upper()}" for name in Settings.model_fields}


def test_all_tests_that_the_pages_name_exist() -> None:
    named = [
        (path, test)
        for page in (ROOT / "docs").rglob("*.md")
        for path, test in re.findall(r"`(tests/[\w/]+\.py)::(\w+)`", page.read_text())
    ]
    assert named
    assert not [f"{path}::{test}" for path, test in named if f"def {test}(" not in (ROOT / path).read_text()]


def test_an_alert_asks_for_no_label_that_its_metric_has_not() -> None:
    known = {name: labels for name, labels, _ in families()}
    for name, used in re.findall(r"\b(inkstream_\w+?)(?:_bucket|_sum|_count)?\{([^}]*)\}", OPERATIONS_PAGE):
        assert name in known, name
        assert set(re.findall(r"(\w+)[=!]", used)) <= {*known[name], "le"}, name
