"""README, contributing guide and pages against the project: what they name exists, and their examples are right."""

import ast
import importlib
import json
import re
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

PAGES = sorted([*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md")])
README = (ROOT / "README.md").read_text()
TOPICS = load(ROOT / "topics.yaml", COLLECTIONS).inbound
COMMANDS = {name.replace("_", "-") for name in importlib.import_module("ops.commands").__all__} - {"main"}
SETTINGS = {f"INKSTREAM_{name.upper()}" for name in Settings.model_fields}
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


def block_with(language: str, words: str) -> str:
    blocks: list[str] = re.findall(rf"```{language}\n(.*?)```", README, re.DOTALL)
    return next(block for block in blocks if words in block)


def python_example() -> Record:
    block = block_with("python", "aiokafka")
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


def node_example() -> Record:
    block = block_with("js", "kafkajs")
    payload = re.search(r"const payload = (\{.*?\n\});", block, re.DOTALL)
    topic = re.search(r'topic: "([\w-]+)"', block)
    key = re.search(r"key: payload\.(\w+)", block)
    assert payload is not None
    assert topic is not None
    assert key is not None
    quoted = re.sub(r"^(\s*)(\w+):", r'\1"\2":', payload[1], flags=re.MULTILINE)
    headers = dict(re.findall(r'(ce_\w+): (?:"([^"]*)")?', block))
    return record(topic[1], json.loads(re.sub(r",(\s*\})", r"\1", quoted)), key[1], headers)


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
        text = ((page.parent / link) if link else page).read_text()
        titles = re.findall(r"^#+ (.+)$", text, re.MULTILINE)
        assert section in {re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-") for title in titles}, section


@every_page
def test_every_path_of_ours_that_a_page_names_exists(page: Path) -> None:
    top = "agents|bench|delivery|deploy|dev|docs|enrich|migrations|ops|schemas|sinks|tests|requirements"
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


@pytest.mark.parametrize("example", [python_example(), node_example()], ids=["python", "node"])
def test_the_example_of_the_readme_is_an_event_that_is_stored(example: Record) -> None:
    event = decoded(example)
    payload = json.loads(example.value or b"")
    known = {field.alias or name for name, field in type(event.data).model_fields.items()}
    assert payload.keys() <= known
    assert example.key.decode() == payload[event.type.key]
    assert Enricher(ip_hash_key=b"key of the tests", geo=None).documents(event)


def test_the_node_example_ends_where_the_readme_says() -> None:
    assert decoded(node_example()).type.collections == ("analyticsEvents", "userActivity", "auditLogs")


def test_the_readme_names_every_command() -> None:
    assert {name for name in COMMANDS if f"`inkstream {name}" in README} == COMMANDS


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
