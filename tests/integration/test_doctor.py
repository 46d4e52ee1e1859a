"""`inkstream doctor` on the real servers."""

import json
from pathlib import Path
from typing import Any

from tests.command_line import inkstream
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


async def test_doctor_finds_no_problem_while_a_worker_runs(pipeline: Pipeline) -> None:
    with pipeline.worker() as worker:
        await worker.until_ready()
        code, found = await findings(pipeline.environment)
    assert code == 0, problems(found)
    by_subject = {finding["subject"]: finding["what"] for finding in found}
    assert "replica set rs0" in by_subject["MongoDB"]
    assert "role inkstream" in by_subject["PostgreSQL"]
    assert by_subject["topics"] == by_subject["collections"] == by_subject["tables"] == "as declared"
    assert f"1 reader in group {pipeline.namespace}inkstream.searches" in by_subject[f"{pipeline.namespace}searches"]
    read = [finding["what"] for finding in found if finding["subject"] == f"{pipeline.namespace}domain-events"]
    assert [what.rpartition(".")[2] for what in read] == ["domain-events", "notify-domain-events"]


async def test_a_topic_that_no_worker_reads_is_a_problem(pipeline: Pipeline) -> None:
    await pipeline.send("searches", [plain(query="x")] * 5)
    code, found = await findings(pipeline.environment)
    assert code == 1
    finding = problems(found)[f"{pipeline.namespace}searches"]
    assert finding["what"].startswith("5 records behind, 0 readers")
    assert "inkstream worker" in finding["advice"]


async def test_open_dead_letters_are_counted_by_cause(pipeline: Pipeline) -> None:
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
        # Replayed and refused again they are the same three.
        ended = await inkstream(pipeline.environment, "replay", "page-views")
        assert ended.code == 0, ended.errors
        await pipeline.settled("page-views")
        _, found = await findings(pipeline.environment)
        assert problems(found)["page-views.dead-letter"]["what"].startswith("3 dead letters: ")


async def test_each_server_that_does_not_answer_is_named_with_its_setting(pipeline: Pipeline) -> None:
    code, found = await findings({**pipeline.environment, **NOWHERE})
    assert code == 1
    wrong = problems(found)
    assert set(wrong) == {"Kafka", "MongoDB", "PostgreSQL", "Redis"}
    for server, variable in zip(("Kafka", "MongoDB", "PostgreSQL", "Redis"), NOWHERE, strict=True):
        assert wrong[server]["what"] == "does not answer at 127.0.0.1:1: connection refused"
        assert variable in wrong[server]["advice"]


async def test_an_unknown_variable_is_reported_with_the_nearest_setting(pipeline: Pipeline) -> None:
    _, found = await findings({**pipeline.environment, **NOWHERE, "INKSTREAM_WEB_PROT": "8080"})
    finding = problems(found)["settings"]
    assert "INKSTREAM_WEB_PROT" in finding["what"]
    assert finding["advice"] == "did you mean INKSTREAM_WEB_PORT?"


async def test_a_wrong_key_file_of_a_provider_is_one_finding_beside_all_others(
    pipeline: Pipeline, tmp_path: Path
) -> None:
    account = tmp_path / "firebase.json"
    account.write_text("not an account")
    # The inbox of tests takes push messages by a file in place of providers.
    sending = {"INKSTREAM_AGENTS": "deliver", "INKSTREAM_PUSH_FILE": ""}
    wrong_file = {**sending, "INKSTREAM_FCM_SERVICE_ACCOUNT_FILE": str(account)}
    code, found = await findings({**pipeline.environment, **NOWHERE, **wrong_file})
    assert code == 1
    wrong = problems(found)
    assert set(wrong) == {"settings", "Kafka", "MongoDB", "PostgreSQL", "Redis"}
    assert wrong["settings"]["what"].startswith(f"INKSTREAM_FCM_SERVICE_ACCOUNT_FILE: {account}")


async def test_drift_is_a_problem_with_its_first_lines(pipeline: Pipeline) -> None:
    await pipeline.collection("pageViews").drop_indexes()
    code, found = await findings(pipeline.environment)
    assert code == 1
    drift = problems(found)["collections"]
    assert drift["what"].splitlines()[0] == f"missing index {pipeline.namespace}pageViews.postId_1_timestamp_-1"
    assert drift["what"].splitlines()[-1] == "and 4 more"
    assert "inkstream bootstrap" in drift["advice"]


async def test_the_table_shows_advice_for_each_problem(pipeline: Pipeline) -> None:
    ended = await inkstream({**pipeline.environment, **NOWHERE}, "doctor")
    assert ended.code == 1
    assert "→ Is it running? Check INKSTREAM_REDIS_URL" in ended.output
    assert "4 problems found." in ended.output


async def on_view_counts(environment: dict[str, str]) -> list[tuple[str, str, str]]:
    _, found = await findings(environment)
    return [
        (finding["state"], finding["what"], finding["advice"])
        for finding in found
        if finding["subject"] == "view counts"
    ]


async def test_the_agents_of_derived_topics_are_checked(pipeline: Pipeline) -> None:
    with pipeline.worker() as worker:
        await worker.until_ready()
        code, found = await findings(pipeline.environment)
    assert code == 0, problems(found)
    by_subject = {finding["subject"]: finding["what"] for finding in found}
    for topic in ("view-windows", "post-view-counts"):
        group = f"{pipeline.namespace}inkstream.{topic}"
        assert by_subject[f"{pipeline.namespace}{topic}"] == f"0 records behind, 1 reader in group {group}"


async def test_a_table_in_which_views_can_be_counted_has_no_problem(counting: Pipeline) -> None:
    assert await on_view_counts(counting.environment) == [("well", 'in posts, column "viewCount"', "")]


async def test_a_missing_table_of_posts_is_a_problem(counting: Pipeline) -> None:
    ((state, what, advice),) = await on_view_counts({**counting.environment, "INKSTREAM_POSTS_TABLE": "blog.Article"})
    assert (state, what) == ("problem", 'table blog."Article" does not exist, so no views are counted')
    assert "INKSTREAM_POSTS_TABLE" in advice


async def test_a_missing_column_is_reported_with_the_nearest(counting: Pipeline) -> None:
    environment = {
        **counting.environment,
        "INKSTREAM_VIEW_COUNT_COLUMN": "viewcount",
        "INKSTREAM_POSTS_ID_COLUMN": "nothing like it",
    }
    assert await on_view_counts(environment) == [
        ("problem", 'posts has no column "nothing like it"', "set INKSTREAM_POSTS_ID_COLUMN"),
        ("problem", "posts has no column viewcount", "set INKSTREAM_VIEW_COUNT_COLUMN; did you mean viewCount?"),
    ]


async def test_the_statements_that_doctor_suggests_fix_missing_permissions(counting: Pipeline) -> None:
    counting.rows('CREATE SCHEMA "Blog"')
    counting.rows('CREATE TABLE "Blog"."Post" ("Id" varchar(40) PRIMARY KEY, "order" integer)')
    environment = {
        **counting.environment,
        "INKSTREAM_POSTS_TABLE": "Blog.Post",
        "INKSTREAM_POSTS_ID_COLUMN": "Id",
        "INKSTREAM_VIEW_COUNT_COLUMN": "order",
    }
    assert await on_view_counts(environment) == [
        ("problem", 'no permission to use schema "Blog"', 'as its owner: GRANT USAGE ON SCHEMA "Blog" TO inkstream'),
        (
            "problem",
            'no permission to read "Id" and "order" or write "order" of "Blog"."Post"',
            'as its owner: GRANT SELECT ("Id", "order"), UPDATE ("order") ON "Blog"."Post" TO inkstream',
        ),
    ]
    counting.rows('GRANT USAGE ON SCHEMA "Blog" TO inkstream')
    counting.rows('GRANT SELECT ("Id", "order"), UPDATE ("order") ON "Blog"."Post" TO inkstream')
    assert await on_view_counts(environment) == [("well", 'in "Blog"."Post", column "order"', "")]


async def test_an_id_column_of_an_unusable_type_is_a_problem(counting: Pipeline) -> None:
    counting.rows('CREATE TABLE articles (id jsonb, "viewCount" integer)')
    counting.rows("GRANT SELECT ON articles TO inkstream")
    counting.rows('GRANT UPDATE ("viewCount") ON articles TO inkstream')
    ((state, what, advice),) = await on_view_counts({**counting.environment, "INKSTREAM_POSTS_TABLE": "articles"})
    assert (state, what) == ("problem", "articles.id has type jsonb, which can't hold post ids")
    assert "INKSTREAM_POSTS_ID_COLUMN" in advice


async def test_excess_permissions_are_noted(counting: Pipeline) -> None:
    counting.rows("GRANT UPDATE ON posts TO inkstream")
    assert await on_view_counts(counting.environment) == [
        (
            "note",
            "role inkstream may also write id, slug, title and 9 more of posts",
            'as its owner: REVOKE UPDATE ON posts FROM inkstream; GRANT UPDATE ("viewCount") ON posts TO inkstream',
        )
    ]
    counting.rows("REVOKE UPDATE ON posts FROM inkstream")
    counting.rows('GRANT UPDATE ("viewCount") ON posts TO inkstream')
    assert [state for state, _, _ in await on_view_counts(counting.environment)] == ["well"]


async def test_the_owner_of_the_posts_is_advised_to_use_another_role(counting: Pipeline) -> None:
    ((state, _, advice),) = await on_view_counts(
        {**counting.environment, "INKSTREAM_POSTGRES_URL": counting.tables_url}
    )
    assert state == "note"
    assert advice == 'use a role that does not own posts: only "viewCount" is written'


async def test_views_that_wait_for_their_post_are_noted(counting: Pipeline) -> None:
    counting.rows("INSERT INTO inkstream.counted_posts (post_id, views) VALUES ('a', 3), ('b', 1)")
    counting.add_posts(["b"])
    ((state, what, _),) = await on_view_counts(counting.environment)
    assert (state, what) == ("note", "1 post with views not in posts; the views wait for the post")


async def test_invalid_preferences_are_shown_without_the_users(counting: Pipeline) -> None:
    counting.rows("CREATE TABLE people (user_id text, email text, devices jsonb, preferences jsonb)")
    counting.rows("GRANT SELECT ON people TO inkstream")
    hours = '{"start": "22:00", "end": "07:00", "timeZone": "%s"}'
    counting.rows(
        "INSERT INTO people VALUES "
        f"""('ada', 'ada@example.org', NULL, '{{"quietHours": {hours % "Mars/Olympus"}}}'), """
        f"""('grace', 'grace@example.org', NULL, '{{"quietHours": {hours % "europe/berlin"}}}'), """
        """('alan', 'alan@example.org', NULL, '{"channelsOff": {"a": "alan@example.org"}}')"""
    )
    _, found = await findings({**counting.environment, "INKSTREAM_RECIPIENTS_VIEW": "people"})
    [well, note] = [finding for finding in found if finding["subject"] == "recipients"]
    assert (well["state"], well["what"]) == ("well", "in people")
    assert note["state"] == "note"
    assert note["what"].startswith("invalid preferences of 2 of 3 users")
    assert "quietHours.timeZone: Mars/Olympus" in note["what"]
    assert "docs/recipients.md" in note["advice"]
    assert "@" not in str(note)
