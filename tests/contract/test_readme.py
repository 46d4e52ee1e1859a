"""README, contributing guide and pages against the project: what they name exists, and their examples are right."""

import ast
import importlib
import json
import re
import shutil
import subprocess
import tomllib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path

import click
import pytest

from enrich.enricher import Enricher
from ops.commands.command import InkstreamCommand
from runtime.settings import ROOT, Settings
from schemas.cloudevents import Decoder
from schemas.envelope import Envelope
from schemas.event import Event
from schemas.topics import load
from sinks.collections import COLLECTIONS
from tests.program import PROGRAM

PAGES = sorted([*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md")])
README = (ROOT / "README.md").read_text()
TOPICS = load(ROOT / "topics.yaml", COLLECTIONS).inbound
COMMANDS = {name.replace("_", "-") for name in importlib.import_module("ops.commands").__all__} - {"main"}
SETTINGS = {f"INKSTREAM_{name.upper()}" for name in Settings.model_fields}
TEXTS = {".j2", ".md", ".mjs", ".py", ".sh", ".sql", ".yaml", ".yml"}
STACK_SETTINGS = re.compile(r"INKSTREAM_STACK(_[A-Z]+_PORT)?|INKSTREAM_STACK_PYTHON")

every_page = pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))


@dataclass
class Record:
    """A record as an example sends it."""

    topic: str
    key: bytes
    value: bytes | None
    headers: Sequence[tuple[str, bytes]]
    partition: int = 0
    offset: int = 0
    timestamp: int = 1_769_860_800_000


def code(text: str) -> str:
    """Return what a page says in code: its blocks, and what stands between backticks."""
    blocks = re.findall(r"^ *```.*?^ *```", text, re.DOTALL | re.MULTILINE)
    return "\n".join([*blocks, *re.findall(r"`([^`\n]+)`", re.sub(r"^ *```.*?^ *```", "", text, flags=re.S | re.M))])


def block_with(language: str, words: str, page: str = "README.md") -> str:
    blocks: list[str] = re.findall(rf"```{language}\n(.*?)```", (ROOT / page).read_text(), re.DOTALL)
    return next(block for block in blocks if words in block)


def python_example() -> Record:
    block = block_with("python", "aiokafka", "docs/producers.md")
    assigned = {
        node.targets[0].id: node.value
        for node in ast.parse(block).body
        if isinstance(node, ast.Assign) and isinstance(node.targets[0], ast.Name)
    }
    payload = ast.literal_eval(assigned["payload"])
    attributes = assigned["attributes"]
    assert isinstance(attributes, ast.Dict)
    headers = {
        str(ast.literal_eval(name)): str(value.value) if isinstance(value, ast.Constant) else "made by a call"
        for name, value in zip(attributes.keys, attributes.values, strict=True)
        if name is not None
    }
    key = re.search(r'key=payload\["(\w+)"\]', block)
    topic = re.search(r'send_and_wait\(\s*"([\w-]+)"', block)
    assert key is not None
    assert topic is not None
    return record(topic[1], payload, key[1], headers)


STAND_IN = """
export const Partitioners = { DefaultPartitioner: "as in Java" };
export class Kafka {
  producer(options) {
    if (options.idempotent !== true || options.createPartitioner !== "as in Java") throw new Error("unsafe");
    return { connect() {}, disconnect() {}, send(sent) { console.log(JSON.stringify(sent)); } };
  }
}
"""
"""In place of kafkajs: prints what is sent. The real one sends it in `tests/integration/test_readme_examples.py`."""


def node_example(directory: Path) -> Record:
    """Run README's program in Node, and return the record that it sends."""
    package = directory / "node_modules" / "kafkajs"
    package.mkdir(parents=True)
    (package / "package.json").write_text('{"name": "kafkajs", "type": "module", "exports": "./index.js"}')
    (package / "index.js").write_text(STAND_IN)
    (directory / "send.mjs").write_text(block_with("js", "kafkajs"))
    ended = subprocess.run(["node", "send.mjs"], cwd=directory, capture_output=True, text=True, timeout=30, check=True)
    sent = json.loads(ended.stdout)
    assert sent["acks"] == -1
    (message,) = sent["messages"]
    headers = [(name, value.encode()) for name, value in message["headers"].items()]
    return Record(sent["topic"], message["key"].encode(), message["value"].encode(), headers)


def record(topic: str, payload: dict[str, object], key: str, headers: dict[str, str]) -> Record:
    values = {**headers, "ce_time": "2026-01-31T12:00:00.000Z", "ce_id": "0190b3a4-5c6d-7e8f-9a0b-1c2d3e4f5a6b"}
    assert values.keys() == {"ce_specversion", "ce_id", "ce_type", "ce_source", "ce_time"}
    return Record(
        topic,
        str(payload[key]).encode(),
        json.dumps(payload).encode(),
        [(name, value.encode()) for name, value in values.items()],
    )


def decoded(example: Record) -> Envelope[Event]:
    return Decoder(TOPICS[example.topic], timedelta(hours=24)).decode(example)


@every_page
def test_every_make_target_that_a_page_names_exists(page: Path) -> None:
    targets = re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE)
    assert set(re.findall(r"^ *make ([a-z-]+)", code(page.read_text()), re.MULTILINE)) <= set(targets)


@every_page
def test_every_file_that_a_page_links_to_exists(page: Path) -> None:
    links = re.findall(r"\]\(([^)#:]+)(?:#[^)]*)?\)", page.read_text())
    assert [link for link in links if not (page.parent / link).exists()] == []


@every_page
def test_every_section_that_a_page_links_to_exists(page: Path) -> None:
    for link, section in re.findall(r"\]\(([^)#:]*)#([^)]+)\)", page.read_text()):
        assert section in {*anchors_of((page.parent / link) if link else page)}, section


def anchors_of(page: Path) -> Iterator[str]:
    """Yield the anchor of each title of a page, as GitHub makes it."""
    without_code = re.sub(r"^ *```.*?^ *```", "", page.read_text(), flags=re.DOTALL | re.MULTILINE)
    yield from (anchor_of(title) for title in re.findall(r"^#+ (.+)$", without_code, re.MULTILINE))


def anchor_of(title: str) -> str:
    """Return a title's anchor; of a link in it only the text counts."""
    text = re.sub(r"\[([^\]]*)\]\([^)]*\)", r"\1", title)
    return re.sub(r"[^\w\- ]", "", text.lower()).replace(" ", "-")


@every_page
def test_every_path_of_ours_that_a_page_names_exists(page: Path) -> None:
    top = (
        "agents|bench|delivery|deploy|dev|docs|enrich|migrations|notifications|ops|providers|requirements|runtime|schemas|"
        "sinks|tests|web"
    )
    named = re.findall(rf"(?<![\w./-])((?:{top})/[\w./-]*)", code(page.read_text()))
    new = re.findall(r"new file `([\w./-]+)`", page.read_text())
    assert [path for path in named if path not in new and not (ROOT / path.rstrip(".")).exists()] == []


@every_page
def test_every_command_that_a_page_names_exists(page: Path) -> None:
    named = set(re.findall(r"(?:^|[\n`=A-Z]\s*)(?<!SETUSER )inkstream ([a-z]+(?:-[a-z]+)*)\b", code(page.read_text())))
    assert named <= COMMANDS


def options_of(command: click.Command) -> Iterator[str]:
    """Yield the options of a command, or of all commands of a group."""
    for parameter in command.params:
        yield from parameter.opts
    for inner in getattr(command, "commands", {}).values():
        yield from options_of(inner)


@every_page
def test_every_option_of_a_command_that_a_page_names_exists(page: Path) -> None:
    for command, options in re.findall(r"\binkstream ([a-z]+(?:-[a-z]+)*)([^\n`|#]*)", code(page.read_text())):
        if command in COMMANDS:
            known = set(options_of(InkstreamCommand.group.commands[command]))
            assert [option for option in re.findall(r"--[a-z-]+", options) if option not in known] == []


@every_page
def test_every_setting_that_a_page_names_exists(page: Path) -> None:
    named = set(re.findall(r"\bINKSTREAM_[A-Z_]*[A-Z]\b", page.read_text()))
    assert {name for name in named if not STACK_SETTINGS.fullmatch(name)} <= SETTINGS


@every_page
def test_a_page_names_nothing_of_a_machine(page: Path) -> None:
    assert not re.search(r"(?<![\w/])/(?:tmp|work|home|root)/\w", page.read_text())


@pytest.mark.parametrize("language", ["python", "node"])
def test_the_example_of_a_producer_is_an_event_that_is_stored(language: str, tmp_path: Path) -> None:
    if language == "node" and shutil.which("node") is None:
        pytest.skip("there is no node")
    example = python_example() if language == "python" else node_example(tmp_path)
    event = decoded(example)
    payload = json.loads(example.value or b"")
    known = {field.alias or name for name, field in type(event.data).model_fields.items()}
    assert payload.keys() <= known
    assert event.type.key is not None
    assert example.key.decode() == payload[event.type.key]
    assert event.type.collections == ("pageViews",)
    assert Enricher(ip_hash_key=b"key of the tests", geo=None).documents(event)


def test_the_readme_has_at_most_150_lines() -> None:
    assert len(README.splitlines()) <= 150


def test_the_index_names_every_command_and_every_page() -> None:
    index = (ROOT / "docs/README.md").read_text()
    assert {name for name in COMMANDS if f"`inkstream {name}" in index} == COMMANDS - {"main"}
    pages = {path.name for path in (ROOT / "docs").glob("*.md")} - {"README.md"}
    assert set(re.findall(r"^\| \[[\w-]+\.md\]\(([\w-]+\.md)\) \|", index, re.MULTILINE)) == pages


def test_the_index_of_decisions_names_each_with_its_title() -> None:
    directory = ROOT / "docs/decisions"
    rows = re.findall(r"^\| (\d+) \| \[(.+?)\]\((\d{4}-[\w-]+\.md)\) \|", (directory / "README.md").read_text(), re.M)
    pages = sorted(path for path in directory.glob("*.md") if path.name != "README.md")
    assert [(int(number), name) for number, _, name in rows] == [(n, page.name) for n, page in enumerate(pages, 1)]
    assert [f"# {number}. {title}" for number, title, _ in rows] == [page.read_text().splitlines()[0] for page in pages]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_the_titles_of_a_page_have_different_anchors(page: Path) -> None:
    if page.name in {"CHANGELOG.md"}:
        pytest.skip("each release has the same titles")
    anchors = [*anchors_of(page)]
    assert sorted(anchors) == sorted(set(anchors))


def test_every_page_that_the_program_or_an_alert_names_exists() -> None:
    """In strings and comments: `docs/x.md`, `docs/x.md#anchor`, and `docs/x.md, Title`."""
    files = [
        path for package in (*PROGRAM, "deploy", "dev") for path in (ROOT / package).rglob("*") if path.suffix in TEXTS
    ]
    wrong = []
    for file in files:
        for name, anchor, title in re.findall(r"(docs/[\w/-]+\.md)(?:#([\w-]+)|, ([A-Z][\w ]+)\))?", file.read_text()):
            page = ROOT / name
            anchors = set(anchors_of(page)) if page.exists() else set()
            if not page.exists() or (anchor or anchor_of(title)) not in anchors | {""}:
                wrong.append(f"{file.relative_to(ROOT)}: {name} {anchor}{title}")
    assert wrong == []


def test_the_figure_of_the_readme_names_no_topic_and_no_collection_that_is_not_there() -> None:
    figure = block_with("", "dead-letter")
    derived = load(ROOT / "topics.yaml", COLLECTIONS).derived
    topics = set(re.findall(r"\b[a-z]+(?:-[a-z]+)+\b", figure)) - {"dead-letter", "e-mail"}
    assert topics <= {*TOPICS, *derived}
    assert {"page-views", "domain-events"} <= topics
    named = set(re.findall(r"(?<![\w.\"])[a-z]+[A-Z]\w+\b", figure))
    assert named <= {*COLLECTIONS}
    assert {"pageViews", "emailLogs"} <= named


def test_the_changelog_has_the_version_of_the_project() -> None:
    version = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["version"]
    assert version in (ROOT / "CHANGELOG.md").read_text()
