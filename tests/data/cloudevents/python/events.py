"""Writes the events as the Python SDK does, and as its older interface does: python events.py < ../events.json."""

import json
import sys
from base64 import b64encode
from collections.abc import Iterator
from datetime import datetime
from importlib.metadata import version
from typing import Any

from cloudevents.core.bindings import kafka
from cloudevents.core.v1.event import CloudEvent
from cloudevents.v1 import kafka as kafka_v1
from cloudevents.v1.http import CloudEvent as CloudEventV1


def written(name: str, mode: str, message: Any) -> dict[str, Any]:
    headers = [[header, value.decode()] for header, value in message.headers.items()]
    value = message.value if isinstance(message.value, bytes) else message.value.encode()
    return {"name": name, "mode": mode, "key": message.key, "headers": headers, "value": b64encode(value).decode()}


def records(declared: dict[str, Any]) -> Iterator[dict[str, Any]]:
    name, extensions, is_bytes = declared.pop("name"), declared.pop("extensions", {}), declared.pop("bytes", False)
    data = declared.pop("data")
    payload = json.dumps(data).encode() if is_bytes else data
    attributes = {**declared, **extensions}
    event = CloudEvent({**attributes, "specversion": "1.0", "time": datetime.fromisoformat(declared["time"])}, payload)
    yield written(name, "binary", kafka.to_binary_event(event))
    yield written(name, "structured", kafka.to_structured_event(event))
    marshaller = (lambda value: value) if is_bytes else None
    # The older interface fails in binary mode where this attribute is missing, and in structured mode where it is null.
    for_binary = CloudEventV1({"datacontenttype": None, **attributes}, payload)
    for_structured = CloudEventV1(attributes, payload)
    yield written(name, "binary, older interface", kafka_v1.to_binary(for_binary, data_marshaller=marshaller))
    structured = kafka_v1.to_structured(for_structured, data_marshaller=marshaller)
    yield written(name, "structured, older interface", structured)


all_records = [record for declared in json.load(sys.stdin) for record in records(declared)]
print(json.dumps({"sdk": f"cloudevents {version('cloudevents')} (PyPI)", "records": all_records}, indent=2))
