"""Events written by the CloudEvents SDKs of four languages are read, in both modes (tests/data/cloudevents)."""

import json
from base64 import b64decode
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from tests.unit.test_cloudevents import decode

FILES = Path(__file__).parents[1] / "data" / "cloudevents"
DECLARED = {event["name"]: event for event in json.loads((FILES / "events.json").read_text())}
RECORDS: dict[str, dict[str, Any]] = {
    f"{file.stem}: {record['mode']}: {record['name']}": record
    for file in sorted(FILES.glob("*.json"))
    if file.name != "events.json"
    for record in json.loads(file.read_text())["records"]
}


@pytest.mark.parametrize("record", RECORDS.values(), ids=RECORDS)
def test_an_event_written_by_an_sdk_is_read_as_it_was_meant(record: dict[str, Any]) -> None:
    declared = DECLARED[record["name"]]
    headers = [(name, value.encode()) for name, value in record["headers"]]
    event = decode("domain-events", b64decode(record["value"]), headers)
    assert event.id == declared["id"]
    assert event.type.name == declared["type"]
    # The JavaScript SDK has no more than milliseconds.
    time = datetime.fromisoformat(declared["time"]).astimezone(UTC)
    assert timedelta(0) <= time - event.time < timedelta(milliseconds=1)
    assert event.data == event.type.schema.model_validate(declared["data"])
    assert event.data.model_fields_set


def test_each_sdk_wrote_every_event_in_both_modes() -> None:
    wanted = {(name, mode) for name in DECLARED for mode in ("binary", "structured")}
    for file in ("javascript", "java", "python", "go"):
        written = json.loads((FILES / f"{file}.json").read_text())["records"]
        assert wanted <= {(record["name"], record["mode"]) for record in written}, file


def test_some_of_the_files_have_the_payload_in_base64_and_some_have_no_header_that_says_structured() -> None:
    structured = [record for record in RECORDS.values() if record["mode"].startswith("structured")]
    assert any(b'"data_base64"' in b64decode(record["value"]) for record in structured)
    assert any(["content-type", "application/json"] in record["headers"] for record in structured)
    assert any(not record["headers"] for record in structured)
