"""`inkstream doctor` on the real servers."""

import json
from typing import Any

from tests.integration.command_line import inkstream
from tests.integration.pipeline import Pipeline, plain

NOWHERE = {
    "INKSTREAM_KAFKA_BROKERS": "127.0.0.1:1",
    "INKSTREAM_MONGO_URL": "mongodb://127.0.0.1:1/x?replicaSet=rs0",
    "INKSTREAM_POSTGRES_URL": "postgresql://127.0.0.1:1/x",
    "INKSTREAM_REDIS_URL": "redis://127.0.0.1:1/0",
}


async def findings(environment: dict[str, str]) -> tuple[int, list[dict[str, Any]]]:
    ended = await inkstream(environment, "doctor", "--json")
    assert "Traceback" not in ended.errors
    report = json.loads(ended.output)
    assert report["well"] == (ended.code == 0)
    return ended.code, report["findings"]


def problems(found: list[dict[str, Any]]) -> dict[str, dict[str, Any]]:
    return {finding["subject"]: finding for finding in found if finding["state"] == "problem"}


async def test_all_is_well_while_a_worker_runs(pipeline: Pipeline) -> None:
    with pipeline.worker() as worker:
        await worker.until_ready()
        code, found = await findings(pipeline.environment)
    assert code == 0, problems(found)
    by_subject = {finding["subject"]: finding["what"] for finding in found}
    assert "replica set rs0" in by_subject["MongoDB"]
    assert "role inkstream" in by_subject["PostgreSQL"]
    assert by_subject["topics"] == by_subject["collections"] == by_subject["tables"] == "as declared"
    assert f"1 reader in group {pipeline.namespace}inkstream.searches" in by_subject[f"{pipeline.namespace}searches"]


async def test_a_topic_that_no_worker_reads_is_a_problem(pipeline: Pipeline) -> None:
    await pipeline.send("searches", [plain(query="x")] * 5)
    code, found = await findings(pipeline.environment)
    assert code == 1
    finding = problems(found)[f"{pipeline.namespace}searches"]
    assert finding["what"].startswith("5 records behind, 0 readers")
    assert "inkstream worker" in finding["advice"]


async def test_dead_letters_that_wait_are_counted_by_reason(pipeline: Pipeline) -> None:
    with pipeline.worker() as worker:
        await worker.until_ready()
        await pipeline.send("page-views", [plain(x=1), plain(x=2), plain(x=3)._replace(value=b"{")])
        await pipeline.settled("page-views")
        code, found = await findings(pipeline.environment)
        assert code == 1
        assert list(problems(found)) == ["page-views.dead-letter"]
        finding = problems(found)["page-views.dead-letter"]
        assert finding["what"].startswith("3 dead letters: ")
        assert "inkstream replay page-views" in finding["advice"]


async def test_each_server_that_does_not_answer_is_named_with_its_setting(pipeline: Pipeline) -> None:
    code, found = await findings({**pipeline.environment, **NOWHERE})
    assert code == 1
    wrong = problems(found)
    assert set(wrong) == {"Kafka", "MongoDB", "PostgreSQL", "Redis"}
    for server, variable in zip(("Kafka", "MongoDB", "PostgreSQL", "Redis"), NOWHERE, strict=True):
        assert wrong[server]["what"].startswith("does not answer: ")
        assert variable in wrong[server]["advice"]


async def test_a_variable_that_is_no_setting_is_told_with_the_nearest(pipeline: Pipeline) -> None:
    _, found = await findings({**pipeline.environment, **NOWHERE, "INKSTREAM_WEB_PROT": "8080"})
    finding = problems(found)["settings"]
    assert "INKSTREAM_WEB_PROT" in finding["what"]
    assert finding["advice"] == "did you mean INKSTREAM_WEB_PORT?"


async def test_drift_is_a_problem_with_its_first_lines(pipeline: Pipeline) -> None:
    await pipeline.collection("pageViews").drop_indexes()
    code, found = await findings(pipeline.environment)
    assert code == 1
    drift = problems(found)["collections"]
    assert drift["what"].splitlines()[0] == "missing index pageViews.postId_1_timestamp_-1"
    assert drift["what"].splitlines()[-1] == "and 3 more"
    assert "inkstream bootstrap" in drift["advice"]


async def test_for_people_there_is_a_line_of_advice_beside_each_problem(pipeline: Pipeline) -> None:
    ended = await inkstream({**pipeline.environment, **NOWHERE}, "doctor")
    assert ended.code == 1
    assert "→ is it running, and is INKSTREAM_REDIS_URL right?" in ended.output
    assert "4 to be mended" in ended.output
