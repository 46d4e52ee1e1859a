"""The pages of docs/ against what they describe; where one is out of date, the difference shows what it should say."""

import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from delivery.retry import BACKOFF
from ops import metrics
from schemas.topics import load
from sinks.collections import COLLECTIONS, Collection, FieldType, Index

ROOT = Path(__file__).parents[2]
TOPICS = load(ROOT / "topics.yaml", COLLECTIONS).inbound
COLLECTIONS_PAGE = (ROOT / "docs/collections.md").read_text()
OPERATIONS_PAGE = (ROOT / "docs/operations.md").read_text()
_LOG_CALL = re.compile(r'\blog\.(?:info|warning|error|exception)\(\s*"([^"]+)"')


def block(collection: Collection) -> str:
    fields = "\n".join(f"{name}: {type_text(field_type)}" for name, field_type in collection.fields.items())
    indexes = ", ".join(index_text(index) for index in collection.indexes)
    return f"{sources(collection)} {retention(collection)}\n\n```\n{fields}\n```\n\nIndexes: {indexes}."


def type_text(field_type: FieldType) -> str:
    match field_type:
        case str():
            return field_type
        case tuple():
            return " | ".join(field_type)
        case list():
            return f"list of {type_text(field_type[0])}"
        case dict():
            return "{ " + ", ".join(f"{name}: {type_text(inner)}" for name, inner in field_type.items()) + " }"


def index_text(index: Index) -> str:
    keys = ", ".join(f"{name}: {direction}" for name, direction in index.keys.items())
    where = "".join(f" where there is a `{name}`" for name in index.only_where)
    return f"`{{ {keys} }}`{where}"


def sources(collection: Collection) -> str:
    found, updated = [], []
    for topic in TOPICS.values():
        here = sum(collection.name in event.collections for event in topic.events.values())
        if here:
            all_of_it = here == len(topic.events)
            found.append(f"`{topic.name}`" if all_of_it else f"`{topic.name}` ({here} of {len(topic.events)} events)")
        if any(collection.name in event.updates for event in topic.events.values()):
            updated.append(f"`{topic.name}`")
    updates = f" Updated from {', '.join(updated)}." if updated else ""
    return (f"From {', '.join(found)}." if found else "From no topic.") + updates


def retention(collection: Collection) -> str:
    kept = collection.retention
    if kept is None:
        return "Kept for ever."
    where = ", ".join(f"`{name}` is `{str(value).lower()}`" for name, value in kept.only_where.items())
    until = f"{kept.keep.days} days after `{kept.since}`" if kept.keep else f"at `{kept.since}`"
    return f"Deleted {until}{f', where {where}' if where else ''}."


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
    assert found is not None
    assert found[1].split() == block(COLLECTIONS[name]).split(), block(COLLECTIONS[name])


def test_the_page_of_the_collections_has_no_others() -> None:
    assert re.findall(r"<!-- declared: (\w+) -->", COLLECTIONS_PAGE) == list(COLLECTIONS)


def test_the_runbook_explains_every_metric() -> None:
    rows = [
        f"| `{name}` | {', '.join(f'`{label}`' for label in labels)} | {meaning} |"
        for name, labels, meaning in families()
    ]
    assert re.findall(r"^\| `inkstream_.*$", OPERATIONS_PAGE, re.MULTILINE) == rows


def test_the_runbook_explains_every_line_of_the_log() -> None:
    said = {
        line
        for part in ("agents", "delivery", "enrich", "ops", "schemas", "sinks")
        for path in (ROOT / part).rglob("*.py")
        for line in _LOG_CALL.findall(path.read_text())
    }
    assert set(re.findall(r"^\| `([a-z][a-z, ]+)` \|", OPERATIONS_PAGE, re.MULTILINE)) == said


def test_the_longest_wait_between_retries_is_as_the_pages_say() -> None:
    for page in ("docs/guarantee.md", "docs/operations.md"):
        assert f"up to {BACKOFF.max:.0f} s" in (ROOT / page).read_text(), page


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
