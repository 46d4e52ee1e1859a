import json
import re
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from unittest.mock import sentinel

import pytest
from hypothesis import given
from hypothesis import strategies as st

from enrich.errors import FINGERPRINT_VERSION, fingerprint, frames, normalised, occurrence, severity
from schemas.envelope import Envelope
from schemas.logs import LogLine

NOON = datetime(2026, 1, 31, 12, tzinfo=UTC)
CASES: dict[str, Any] = json.loads((Path(__file__).parents[1] / "data" / "errors.json").read_text())
"""Messages and frames that are one error, and such that are several; one date in many forms."""
BROWSER_DATES: dict[str, list[list[str]]] = json.loads(
    (Path(__file__).parents[1] / "data" / "browser_dates.json").read_text()
)

NODE = """TypeError: Cannot read properties of undefined (reading 'slug')
    at publishPost (/app/src/posts/publish.ts:42:17)
    at async handle (/app/src/server.ts:118:5)
    at Layer.handle [as handle_request] (/app/node_modules/express/lib/router/layer.js:95:5)
    at process.processTicksAndRejections (node:internal/process/task_queues:95:5)
    at Array.map (<anonymous>)
    at async Promise.all (index 0)"""


def line(*, error: dict[str, str] | None = None, **fields: Any) -> LogLine:
    least = {"level": "error", "message": "It broke", "service": "blogs-api", "environment": "production"}
    return LogLine.model_validate(least | fields | ({"error": error} if error else {}))


def test_an_occurrence_is_the_line_and_a_group_of_one() -> None:
    logged = line(
        error={"name": "TypeError", "message": "no slug", "stack": NODE},
        requestId="request-1",
        userId="user-1",
        endpoint="/api/posts/:id",
        method="POST",
        context={"postId": "post-1"},
    )
    document = {"_id": "line-1"}
    made = occurrence(Envelope("line-1", sentinel.type, NOON, None, logged), document)
    assert made.line is document
    assert made.group == {
        "_id": fingerprint(logged),
        "name": "TypeError",
        "message": "no slug",
        "stack": NODE,
        "severity": "high",
        "service": "blogs-api",
        "environment": "production",
        "requestId": "request-1",
        "userId": "user-1",
        "endpoint": "/api/posts/:id",
        "method": "POST",
        "context": {"postId": "post-1"},
        "resolved": False,
        "firstOccurrence": NOON,
        "lastOccurrence": NOON,
        "occurrenceCount": 1,
        "timestamp": NOON,
        "fingerprintVersion": FINGERPRINT_VERSION,
        "lastEventId": "line-1",
    }


def test_a_line_without_an_error_is_an_error_with_its_message() -> None:
    group = occurrence(Envelope("line-1", sentinel.type, NOON, None, line()), {}).group
    assert (group["name"], group["message"], group["stack"]) == ("Error", "It broke", "")
    assert None not in group.values()
    assert "requestId" not in group


def test_an_error_that_every_version_of_the_rule_reads_alike_keeps_its_group() -> None:
    # The ids of version 1. A change here takes the history of most groups away from them.
    assert (
        fingerprint(line(error={"name": "TypeError", "message": "", "stack": NODE}))
        == "7d227d869a4d852df9c113695b731657"
    )
    assert fingerprint(line(message="User 42 not found")) == "1e509b437326099a053e892ffc7f5e54"
    assert fingerprint(line(fingerprint="checkout")) == "262c845b366d1f810c58ad47e9a2b307"


def test_fingerprints_stay_what_they_were() -> None:
    # A change here is a change of the rule: FINGERPRINT_VERSION has to go up with it.
    assert FINGERPRINT_VERSION == 2
    overdue = "Invoice overdue since Mon Jan 05 2026 14:04:05 GMT+0000 (Coordinated Universal Time)"
    assert fingerprint(line(message=overdue)) == "e211410de764201f16c8e90db697898c"
    assert fingerprint(line(message="Request failed with status code 404")) == "a36ca085dc5e19ff390b57a6baae4a6e"


def test_a_service_and_an_environment_have_groups_of_their_own() -> None:
    lines = [line(), line(service="blogs-auth"), line(environment="staging")]
    assert len({fingerprint(each) for each in lines}) == 3


def test_the_clients_own_fingerprint_counts_before_all_else() -> None:
    first = line(fingerprint="checkout", error={"name": "A", "stack": NODE})
    second = line(fingerprint="checkout", error={"name": "B", "stack": ""}, message="another")
    assert fingerprint(first) == fingerprint(second) != fingerprint(line(fingerprint="payment"))


def test_the_same_stack_is_the_same_error_whatever_the_message_and_the_line_numbers() -> None:
    first = line(error={"name": "TypeError", "message": "a", "stack": NODE})
    moved = line(error={"name": "TypeError", "message": "b", "stack": NODE.replace(":42:17", ":57:3")})
    another_place = line(error={"name": "TypeError", "message": "a", "stack": NODE.replace("publishPost", "draftPost")})
    another_name = line(error={"name": "RangeError", "message": "a", "stack": NODE})
    assert fingerprint(first) == fingerprint(moved)
    assert len({fingerprint(each) for each in (first, another_place, another_name)}) == 3


def test_without_frames_of_its_own_the_message_counts() -> None:
    foreign = "Error: x\n    at run (/app/node_modules/pg/index.js:1:2)\n    at node:net:1:2"
    first = line(error={"name": "Error", "message": "timeout after 5000ms", "stack": foreign})
    second = line(error={"name": "Error", "message": "timeout after 312ms", "stack": ""})
    third = line(error={"name": "Error", "message": "refused", "stack": foreign})
    assert fingerprint(first) == fingerprint(second) != fingerprint(third)


@pytest.mark.parametrize(
    ("stack", "expected"),
    [
        (NODE, ["publishPost src/posts/publish.ts", "handle app/src/server.ts"]),
        ("    at new Foo (file:///srv/app/src/foo.mjs:1:2)", ["Foo app/src/foo.mjs"]),
        ("    at C:\\app\\src\\posts\\x.js:3:4", ["? src/posts/x.js"]),
        ("    at eval (eval at run (/app/src/a.js:1:1), <anonymous>:1:1)", []),
        ("    at t.default (https://cdn.example/assets/index-BxK3_d9a.js?v=3:1:2345)", ["t.default assets/index-#.js"]),
        ("    at Xe (https://cdn.example/chunks/main.4f3a9b2c.chunk.js:1:2345)", ["? chunks/main.#.chunk.js"]),
        ("    at Page (webpack-internal:///(rsc)/./src/app/page.tsx:10:3)", ["Page src/app/page.tsx"]),
        ("save@https://blog.example/js/editor.js:10:3\n@https://blog.example/js/editor.js:1:2",
         ["save js/editor.js", "? js/editor.js"]),
        ("\tat com.example.Posts.publish(Posts.java:42)\n\tat java.lang.Thread.run(Thread.java:833)",
         ["com.example.Posts.publish Posts.java"]),
        ('Traceback (most recent call last):\n  File "/app/worker/run.py", line 3, in <module>\n    main()\n'
         '  File "/app/.venv/lib/python3.11/site-packages/x.py", line 1, in y\nValueError: x',
         ["<module> app/worker/run.py"]),
        ("    at walk (/app/src/tree.ts:5:1)\n" * 2000, ["walk app/src/tree.ts"]),
        ("    at walk (/app/src/tree.ts:5:1)\n" + "    at long (/app/src/tree.ts:5:1)\n" * 2000,
         ["walk app/src/tree.ts", "long app/src/tree.ts"]),
        ("Error: refused\nat position 5 of the input\nlook at (this)", []),
        ("", []),
    ],
)  # fmt: skip
def test_a_stack_is_reduced_to_the_services_own_frames(stack: str, expected: list[str]) -> None:
    assert frames(stack) == expected


@pytest.mark.parametrize(
    ("message", "expected"),
    [
        ("User 42 not found", "User <id> not found"),
        ("User 7f9c not found", "User <id> not found"),
        ("order 507f1f77bcf86cd799439011 is gone", "order <id> is gone"),
        ("Post 7c9e6679-7425-40de-944b-e07fc1f90ae7 is gone", "Post <id> is gone"),
        ("took 1,234.5 ms of 5000ms", "took <id> of <id>"),
        ("connect ECONNREFUSED 10.0.0.1:5432", "connect ECONNREFUSED <ip>"),
        ("connect ECONNREFUSED 2001:db8::1", "connect ECONNREFUSED <ip>"),
        ("mail to jane.doe@example.com failed", "mail to <email> failed"),
        ("GET https://api.example/v1/x?id=7 failed", "GET <url> failed"),
        (
            "Unexpected token '<', \"<!DOCTYPE \"... is not valid JSON",
            "Unexpected token <text>... is not valid JSON",
        ),
        ("Can't read the user's  profile\n", "Can't read the user's profile"),
    ],
)
def test_a_message_loses_what_differs_from_one_time_to_the_next(message: str, expected: str) -> None:
    assert normalised(message) == expected


@pytest.mark.parametrize("messages", CASES["same_messages"], ids=lambda messages: messages[0])
def test_messages_that_differ_in_a_varying_part_are_one_error(messages: list[str]) -> None:
    assert len({normalised(message) for message in messages}) == 1


@pytest.mark.parametrize("messages", CASES["different_messages"], ids=lambda messages: messages[0])
def test_messages_that_say_another_cause_are_errors_of_their_own(messages: list[str]) -> None:
    assert len({normalised(message) for message in messages}) == len(messages)


@pytest.mark.parametrize("lines", CASES["same_frames"], ids=lambda lines: lines[0])
def test_what_a_build_puts_into_a_frame_makes_no_new_error(lines: list[str]) -> None:
    assert frames(lines[0])
    assert len({tuple(frames(line)) for line in lines}) == 1


@pytest.mark.parametrize("lines", CASES["different_frames"], ids=lambda lines: lines[0])
def test_frames_in_other_files_are_errors_of_their_own(lines: list[str]) -> None:
    assert len({tuple(frames(line)) for line in lines}) == len(lines)


@pytest.mark.parametrize("date", CASES["dates"])
def test_a_date_in_any_form_and_language_makes_no_new_error(date: str) -> None:
    assert normalised(f"Invoice overdue since {date} for it") == "Invoice overdue since <id> for it"
    assert normalised(f"Overdue [{date}]: no answer") == "Overdue [<id>]: no answer"


@pytest.mark.parametrize("language", BROWSER_DATES)
def test_dates_as_browsers_write_them_make_one_error(language: str) -> None:
    for dates in BROWSER_DATES[language]:
        assert len({normalised(f"Invoice overdue since {date} for it") for date in dates}) == 1, dates


def test_the_days_of_a_year_in_a_browser_make_one_error() -> None:
    days = [datetime(2026, 1, 1, 14, 4, 5, tzinfo=UTC) + timedelta(days=day) for day in range(365)]
    messages = {normalised(f"Invoice overdue since {day:%a %b %d %Y %H:%M:%S} GMT+0000 (UTC)") for day in days}
    assert messages == {"Invoice overdue since <id>"}


@pytest.mark.parametrize(
    "message",
    [
        "timed out after a set",
        "5 out of 20 failed",
        "do 3 of them",
        "Expected Mon but was Tue",
        "see you Monday",
        "may I",
    ],
)
def test_a_word_that_can_be_a_month_is_none_without_a_date(message: str) -> None:
    assert normalised(message) == re.sub(r"\d+", "<id>", message)


@pytest.mark.parametrize(
    ("expected", "fields"),
    [
        ("critical", {"level": "fatal", "endpoint": "/api"}),
        ("low", {"error": {"name": "ValidationError"}, "endpoint": "/api"}),
        ("low", {"error": {"name": "NotFoundException"}}),
        ("high", {"endpoint": "/api"}),
        ("high", {"requestId": "request-1"}),
        ("high", {"userId": "user-1", "error": {"name": "TypeError"}}),
        ("medium", {}),
    ],
)
def test_severity_goes_by_level_name_and_who_was_hit(expected: str, fields: dict[str, Any]) -> None:
    assert severity(line(**fields)) == expected


@given(st.text(st.characters()), st.text(st.characters(), min_size=1, max_size=256), st.text(st.characters()))
def test_no_text_is_too_strange_to_have_a_fingerprint(message: str, name: str, stack: str) -> None:
    error = {"name": name, "message": message, "stack": stack}
    logged = line().model_copy(update={"error": line(error={"name": "E"}).error, "message": message})
    assert logged.error is not None
    logged = logged.model_copy(update={"error": logged.error.model_copy(update=error)})
    assert len(fingerprint(logged)) == 32
