"""How a dead letter is shown: as lines of a list, or as JSON.

Input: a dead letter and its decision. Output: text that is safe for a terminal, with addresses masked and no payload
unless it is asked for.
"""

from base64 import b64encode
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from delivery.dead_letters.letter import SUFFIX

if TYPE_CHECKING:
    from aiokafka import ConsumerRecord

    from ops.dead_letters import Letter
    from ops.refused_events import RefusedEvent

LONGEST_REASON = 500
LONGEST_NAME = 100
_LONGEST_MESSAGE = 160
"""Characters of a message in a list; `show` and `--json` have all of it."""


def as_json_object(event: "RefusedEvent") -> dict[str, Any]:
    """Return a refused event for JSON output; docs/refused-events.md describes the fields."""
    letter, decision = event.letter, event.decision
    topic, partition, offset = letter.place.rsplit(":", 2)
    return {
        "refusedAt": iso(letter.time),
        "topic": topic,
        "partition": int(partition),
        "offset": int(offset),
        "eventId": printable(letter.event_id) or None,
        "type": printable(letter.event_type) or None,
        "cause": letter.reason,
        "message": printable(letter.message, len(letter.message)),
        "status": str(event.status),
        "decision": decision
        and {
            "status": str(decision.status),
            "by": decision.by,
            "at": iso(decision.time),
            "reason": decision.reason,
        },
        "replays": letter.attempts,
        "kafkaTime": iso(datetime.fromtimestamp(letter.timestamp / 1000, UTC)) if letter.timestamp >= 0 else None,
        "release": letter.release or None,
        "deadLetter": {"topic": f"{topic}{SUFFIX}", "partition": letter.partition, "offset": letter.offset},
    }


def lines_of(letter: "Letter") -> Iterator[str]:
    """Yield a dead letter's lines in a list; they never contain its payload."""
    names = (printable(letter.event_type) or "unknown type", printable(letter.event_id) or "no id")
    replays = f"  replayed {letter.attempts} times" if letter.attempts else ""
    yield f"{letter.time:%Y-%m-%d %H:%M:%S}Z  {letter.place}  {names[0]}  {names[1]}  {letter.reason}{replays}"
    message = printable(letter.message, len(letter.message))
    yield "    " + (message if len(message) <= _LONGEST_MESSAGE else f"{message[: _LONGEST_MESSAGE - 1]}…")


def because(decision: Mapping[str, Any]) -> str:
    """Return who decided, when and why."""
    at = decision.get("at") or iso(decision["time"])
    return f" by {printable(decision['by'])} at {at}: {printable(decision['reason'], LONGEST_REASON)}"


def payload_of(record: "ConsumerRecord[Any, Any]") -> dict[str, Any]:
    """Return key, headers and value of a record for JSON output."""
    from delivery.dead_letters.letter import headers_before

    return {
        "key": _readable(record.key),
        "headers": [[name, _readable(value)] for name, value in headers_before(record.headers)],
        "value": _readable(record.value),
    }


def _readable(value: bytes | None) -> str | None:
    """Return bytes as text if a terminal can show them, otherwise as base64 after `base64:`."""
    if value is None:
        return None
    text = value.decode(errors="replace")
    is_text = "\ufffd" not in text and all(one.isprintable() or one in "\n\t" for one in text)
    return text if is_text else f"base64:{b64encode(value).decode()}"


def printable(text: str, longest: int = LONGEST_NAME) -> str:
    """Return foreign text as one line without control characters, with addresses masked."""
    from ops.notifications.masking import without_addresses

    cut = text if len(text) <= longest else f"{text[: longest - 1]}…"
    return "".join(one if one.isprintable() else f"\\u{ord(one):04x}" for one in without_addresses(cut))


def iso(moment: datetime) -> str:
    """Return a time as ISO 8601 in seconds, with `Z` for UTC."""
    return moment.isoformat(timespec="seconds").replace("+00:00", "Z")
