"""`inkstream topics --markdown`: the page for the developers of services."""

from typing import Literal

from pydantic import Field

from ops.commands.topics import fields, page
from runtime.settings import ROOT
from schemas.event import Event
from schemas.fields import Count, Id, Value
from schemas.topics import load
from sinks.collections import NAMES

TOPICS = load(ROOT / "topics.yaml", NAMES)


class Part(Value):
    """A part of it."""

    part_name: Id


class Happened(Event):
    """Something happened."""

    entity_id: Id
    kind: Literal["a", "b"] = "a"
    how_often: Count | None = Field(None, description="How often.")
    part: Part | None = None
    parts: list[Part] = Field(default_factory=list)


def test_every_field_is_listed_with_its_type_and_need() -> None:
    listed = {field.name: field for field in fields(Happened.model_json_schema(by_alias=True))}
    assert list(listed) == ["entityId", "kind", "howOften", "part", "part.partName", "parts", "parts[].partName"]
    assert listed["entityId"].is_required
    assert (listed["kind"].kind, listed["kind"].default) == ('`"a"` or `"b"`', '"a"')
    assert (listed["howOften"].kind, listed["howOften"].limits) == ("whole number", "at least 0")
    assert listed["howOften"].description == "How often."
    assert (listed["part"].kind, listed["part"].description) == ("object", "A part of it.")
    assert listed["parts"].kind == "list of object"
    assert listed["parts[].partName"].is_required


def test_every_event_has_a_section_with_an_example() -> None:
    text = page(TOPICS)
    events = [event for topic in TOPICS.all.values() for event in topic.events.values()]
    for event in events:
        assert f"\n### {event.name}\n" in text
    assert text.count("```json") == sum(len(event.examples) for event in events)


def test_the_page_about_topics_is_up_to_date() -> None:
    written = (ROOT / "docs" / "topics.md").read_text(encoding="utf-8")
    assert written == page(TOPICS), "run `inkstream topics --markdown > docs/topics.md`"
