"""`inkstream dead-letters` on the real servers: list, show, acknowledge, discard and reopen."""

import json
from datetime import UTC, datetime, timedelta
from typing import Any

from ops.dead_letters import Selection
from tests.command_line import Ended, inkstream
from tests.integration.pipeline import Message, Pipeline
from tests.integration.test_doctor import findings
from tests.integration.test_replay import TIME, letter, offsets_replayed, records, replay, set_aside

FIELDS = {
    "refusedAt",
    "topic",
    "partition",
    "offset",
    "eventId",
    "type",
    "cause",
    "message",
    "status",
    "decision",
    "replays",
    "kafkaTime",
    "release",
    "deadLetter",
}


async def dead_letters(pipeline: Pipeline, *arguments: str) -> Ended:
    return await inkstream(pipeline.environment, "dead-letters", *arguments)


async def listed(pipeline: Pipeline, *arguments: str) -> list[dict[str, Any]]:
    """Return the objects of a list."""
    ended = await dead_letters(pipeline, "list", "--json", *arguments)
    assert ended.code == 0, ended.errors
    return [json.loads(line) for line in ended.output.splitlines()]


async def ids(pipeline: Pipeline, *arguments: str) -> list[str]:
    return [one["eventId"] for one in await listed(pipeline, *arguments)]


def refused(pipeline: Pipeline, offset: int, **options: Any) -> Message:
    """Return a dead letter of the event `e-OFFSET`, refused OFFSET hours after `TIME`."""
    headers = [("ce_id", f"e-{offset}".encode()), ("ce_type", b"search.performed")]
    return letter(pipeline, **{"offset": offset, "time": TIME + timedelta(hours=offset), "headers": headers, **options})


async def open_problem(pipeline: Pipeline) -> dict[str, Any] | None:
    """Return what doctor finds about the dead letters of searches."""
    _, found = await findings(pipeline.environment)
    return next((one for one in found if one["subject"] == "searches.dead-letter"), None)


async def test_the_newest_are_listed_first_with_place_type_id_and_cause(pipeline: Pipeline) -> None:
    await set_aside(pipeline, *(refused(pipeline, number) for number in (1, 3, 2)))
    newest, *others = await listed(pipeline)
    assert [one["eventId"] for one in others] == ["e-2", "e-1"]
    assert set(newest) == FIELDS
    assert newest["refusedAt"] == "2026-01-31T15:00:00Z"
    assert (newest["topic"], newest["partition"], newest["offset"]) == (f"{pipeline.namespace}searches", 2, 3)
    assert (newest["eventId"], newest["type"], newest["cause"]) == ("e-3", "search.performed", "schema")
    assert (newest["message"], newest["status"], newest["decision"]) == ("message 3", "open", None)
    assert newest["deadLetter"]["topic"] == f"{pipeline.namespace}searches.dead-letter"


async def test_a_list_says_how_many_more_there_are(pipeline: Pipeline) -> None:
    await set_aside(pipeline, *(refused(pipeline, number) for number in range(25)))
    ended = await dead_letters(pipeline, "list")
    assert "e-24" in ended.output.splitlines()[0]
    assert "e-4 " not in ended.output
    assert "and 5 more" in ended.output
    ended = await dead_letters(pipeline, "list", "--json", "--limit", "2")
    assert [json.loads(line)["eventId"] for line in ended.output.splitlines()] == ["e-24", "e-23"]
    assert "and 23 more" in ended.errors
    assert len(await listed(pipeline)) == 25
    ended = await inkstream(pipeline.environment, "replay", "searches", "--dry-run")
    assert "e-24" in ended.output.splitlines()[0]
    assert "and 5 more" in ended.output


async def test_filters_choose_by_id_type_cause_time_and_topic(pipeline: Pipeline) -> None:
    other = [("ce_id", b"e-9"), ("ce_type", b"search.opened")]
    await set_aside(
        pipeline,
        refused(pipeline, 1, reason="not-json", value=b"{"),
        refused(pipeline, 2),
        letter(pipeline, offset=9, headers=other, reason="unknown-type", time=TIME),
    )
    await pipeline.send("page-views.dead-letter", [refused(pipeline, 4, topic="page-views")])
    assert await ids(pipeline, "--id", "e-2") == ["e-2"]
    assert await ids(pipeline, "--id", f"{pipeline.namespace}searches:2:9") == ["e-9"]
    assert await ids(pipeline, "--type", "search.opened") == ["e-9"]
    assert await ids(pipeline, "--cause", "not-json", "--cause", "unknown-type") == ["e-1", "e-9"]
    assert await ids(pipeline, "--since", "2026-01-31T14:00:00Z") == ["e-4", "e-2"]
    assert await ids(pipeline, "--until", "2026-01-31T13:00:00Z") == ["e-9"]
    assert await ids(pipeline, "--topic", "page-views") == ["e-4"]


async def test_an_event_is_found_by_its_id_in_every_form_and_without_an_id_by_its_place(pipeline: Pipeline) -> None:
    await pipeline.send(
        "searches",
        [
            Message(b"{", [("ce_id", b"binary"), ("ce_type", b"search.performed")]),
            Message(b'{"eventId": "plain"}'),
            Message(
                b'{"specversion": "1.0", "id": "structured", "source": "/x", "type": "search.performed", "data": 1}'
            ),
            Message(b"no id at all"),
        ],
        partition=1,
    )
    with pipeline.worker(agents="searches") as worker:
        await worker.until_ready()
        await pipeline.settled("searches")
    names = ("binary", "plain", "structured", f"{pipeline.namespace}searches:1:3")
    for offset, (name, type_) in enumerate(zip(names, ("search.performed", None) * 2, strict=True)):
        (found,) = await listed(pipeline, "--id", name)
        assert (found["offset"], found["type"]) == (offset, type_), name
        shown = await dead_letters(pipeline, "show", name)
        assert shown.code == 0
        assert f"{pipeline.namespace}searches:1:{offset}" in shown.output


async def test_unknown_topics_types_and_causes_are_reported_with_the_nearest(pipeline: Pipeline) -> None:
    for arguments, near in (
        (("--topic", "search"), "unknown topic search; did you mean searches?"),
        (("--type", "post.publishd"), "unknown type post.publishd; did you mean post.published?"),
        (("--cause", "json"), "unknown cause json; did you mean not-json?"),
        (("--type", "zzz"), "unknown type zzz; `inkstream topics` lists all"),
    ):
        for command in (("list",), ("discard", "--reason", "x"), ("acknowledge", "--reason", "x")):
            ended = await dead_letters(pipeline, *command, *arguments)
            assert ended.code == 2
            assert near in ended.errors
            assert len(ended.errors.splitlines()) <= 4
    ended = await inkstream(pipeline.environment, "replay", "searches", "--reason", "shema")
    assert (ended.code, ended.errors) == (2, "unknown cause shema; did you mean schema?\n")
    ended = await dead_letters(pipeline, "list", "--status", "opne")
    assert ended.code == 2


async def test_an_unknown_id_is_reported(pipeline: Pipeline) -> None:
    await set_aside(pipeline, refused(pipeline, 1))
    for command in (("list", "--id"), ("show",), ("discard", "--reason", "x")):
        ended = await dead_letters(pipeline, *command, "e-7")
        assert ended.code == 1
        assert ended.errors.startswith("No dead letter found with id e-7.")


async def test_no_list_shows_payloads_addresses_or_control_characters(pipeline: Pipeline) -> None:
    headers = [("ce_id", b"of-ada@example.org"), ("ce_type", b"search\x1b[2Jperformed"), ("trace", b"secret-trace")]
    await set_aside(
        pipeline, letter(pipeline, offset=1, headers=headers, value=b'{"a": "personal"}', key=b"key-of-ada")
    )
    outputs = [
        await dead_letters(pipeline, "list"),
        await dead_letters(pipeline, "list", "--json"),
        await dead_letters(pipeline, "show", "of-ada@example.org"),
        await dead_letters(pipeline, "discard", "of-ada@example.org", "--reason", "x", "--dry-run"),
        await inkstream(pipeline.environment, "replay", "searches", "--dry-run"),
    ]
    for ended in outputs:
        assert ended.code == 0, ended.errors
        for hidden in ("personal", "key-of-ada", "ada@example", "secret-trace", "\x1b[2J"):
            assert hidden not in ended.output
    shown = await dead_letters(pipeline, "show", "of-ada@example.org", "--payload")
    for asked_for in ('{"a": "personal"}', "key-of-ada", "secret-trace"):
        assert asked_for in shown.output


async def test_a_binary_payload_is_shown_in_base64(pipeline: Pipeline) -> None:
    await set_aside(pipeline, refused(pipeline, 1, value=b"\x00\x1b\xff"))
    ended = await dead_letters(pipeline, "show", "e-1", "--payload", "--json")
    assert json.loads(ended.output)["value"] == "base64:ABv/"


async def test_an_acknowledged_dead_letter_keeps_doctor_green_and_is_still_replayed(pipeline: Pipeline) -> None:
    await set_aside(
        pipeline, refused(pipeline, 1, time=datetime.now(UTC)), refused(pipeline, 2, time=datetime.now(UTC))
    )
    assert (await open_problem(pipeline) or {})["state"] == "problem"
    ended = await dead_letters(pipeline, "acknowledge", "e-1", "--reason", "fixed in web 4.2", "--by", "ada")
    assert (ended.code, ended.output.splitlines()[0]) == (0, "1 acknowledged.")
    finding = await open_problem(pipeline) or {}
    assert finding["state"] == "problem"
    assert finding["what"].startswith("1 dead letter: schema 1; 1 more acknowledged; ")
    await dead_letters(pipeline, "acknowledge", "e-2", "--reason", "fixed in web 4.2", "--by", "ada")
    finding = await open_problem(pipeline) or {}
    assert (finding["state"], finding["what"]) == ("note", "no open dead letters; 2 acknowledged")
    assert await ids(pipeline) == []
    one, other = await listed(pipeline, "--status", "acknowledged")
    assert one["decision"]["by"] == other["decision"]["by"] == "ada"
    assert one["decision"]["reason"] == "fixed in web 4.2"
    _, result = await replay(pipeline)
    assert result.sent == {"schema": 2}
    assert await open_problem(pipeline) is None
    assert {one["status"] for one in await listed(pipeline, "--all")} == {"replayed"}


async def test_a_discarded_dead_letter_is_skipped_by_replays_until_it_is_reopened(pipeline: Pipeline) -> None:
    await set_aside(pipeline, refused(pipeline, 1), refused(pipeline, 2))
    await dead_letters(pipeline, "discard", "e-1", "--reason", "a load test's", "--by", "ada")
    ended = await inkstream(pipeline.environment, "replay", "searches", "--dry-run")
    assert "1 discarded, skipped." in ended.output
    assert "1 would be sent." in ended.output
    await replay(pipeline)
    await replay(pipeline, Selection(again=True))
    assert await offsets_replayed(pipeline) == ["2", "2"]
    shown = await dead_letters(pipeline, "show", "e-1")
    assert "discarded by ada at " in shown.output
    assert "a load test's" in shown.output
    await dead_letters(pipeline, "reopen", "e-1", "--reason", "needed after all")
    assert await ids(pipeline) == ["e-1"]
    await replay(pipeline)
    assert await offsets_replayed(pipeline) == ["1", "2", "2"]


async def test_deciding_twice_changes_nothing_and_keeps_the_first_reason(pipeline: Pipeline) -> None:
    await set_aside(pipeline, refused(pipeline, 1))
    await dead_letters(pipeline, "discard", "e-1", "--reason", "first")
    ended = await dead_letters(pipeline, "discard", "e-1", "--reason", "second")
    assert ended.code == 0
    assert ended.output.splitlines() == ["0 discarded.", "1 unchanged: already discarded."]
    (one,) = await listed(pipeline, "--all")
    assert one["decision"]["reason"] == "first"
    assert len(await pipeline.read("searches.dead-letter")) == 2


async def test_a_batch_that_is_read_again_does_not_reopen_what_was_discarded(pipeline: Pipeline) -> None:
    await set_aside(pipeline, refused(pipeline, 1))
    await dead_letters(pipeline, "discard", "e-1", "--reason", "x")
    await set_aside(pipeline, refused(pipeline, 1, time=datetime.now(UTC)))
    assert await open_problem(pipeline) is None
    plan, _ = await replay(pipeline)
    assert (plan.selected, plan.discarded) == ([], 1)


async def test_many_are_discarded_by_filters_and_a_dry_run_changes_nothing(pipeline: Pipeline) -> None:
    await set_aside(
        pipeline, *(refused(pipeline, number, reason="not-json") for number in range(30)), refused(pipeline, 99)
    )
    arguments = ("--topic", "searches", "--cause", "not-json", "--reason", "x")
    ended = await dead_letters(pipeline, "discard", *arguments, "--dry-run")
    assert "30 would be discarded." in ended.output
    assert "and 10 more." in ended.output
    assert len(await listed(pipeline)) == 31
    await dead_letters(pipeline, "discard", *arguments)
    assert await ids(pipeline) == ["e-99"]


async def test_one_event_is_replayed_by_its_id(pipeline: Pipeline) -> None:
    await set_aside(pipeline, refused(pipeline, 1), refused(pipeline, 2))
    ended = await inkstream(pipeline.environment, "replay", "searches", "--id", "e-2")
    assert ended.code == 0, ended.errors
    assert await offsets_replayed(pipeline) == ["2"]
    assert await ids(pipeline) == ["e-1"]


async def test_decisions_need_a_selection_and_a_reason(pipeline: Pipeline) -> None:
    for arguments in (("--reason", "x"), ("e-1",), ("e-1", "--reason", "  "), ("e-1", "--reason", "x" * 501)):
        ended = await dead_letters(pipeline, "discard", *arguments)
        assert ended.code == 2
        assert "Traceback" not in ended.errors


async def test_a_producers_headers_that_imitate_a_decision_decide_nothing(pipeline: Pipeline) -> None:
    origin = f"{pipeline.namespace}searches:2:2".encode()
    imitated = [("dl_decided", origin), ("dl_status", b"discarded"), ("dl_by", b"x"), ("dl_because", b"x")]
    headers = [*imitated, ("dl_at", b"2026-01-31T12:00:00+00:00"), ("ce_id", b"e-1")]
    await set_aside(pipeline, refused(pipeline, 1, headers=headers), refused(pipeline, 2))
    assert await ids(pipeline) == ["e-2", "e-1"]
    await replay(pipeline)
    assert len(await records(pipeline)) == 2
