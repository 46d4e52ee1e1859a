"""A post whose count PostgreSQL refuses to change is set aside and reported; all others are counted."""

import asyncio
import json
from collections.abc import Sequence
from typing import LiteralString, NamedTuple
from uuid import UUID

import psycopg
import pytest

from enrich.view_windows import Window
from sinks.postgres.platform_posts import SetAside
from sinks.postgres.pool import is_transient
from tests.command_line import inkstream
from tests.integration.their_posts import NOON, POSTS, Theirs


class Refusal(NamedTuple):
    """What the platform did so that one of its posts can't be updated, what it takes back, and the code of it."""

    make: tuple[LiteralString, ...]
    undo: LiteralString
    code: str


def trigger(body: LiteralString, when: LiteralString = "BEFORE") -> tuple[LiteralString, ...]:
    return (
        "CREATE FUNCTION refuse() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN " + body + " RETURN NEW; END $$",
        "CREATE TRIGGER refuse " + when + " UPDATE ON theirs FOR EACH ROW EXECUTE FUNCTION refuse()",
    )


REFUSALS = {
    "a count at the end of its type": Refusal(
        ("UPDATE theirs SET views = 2147483647 WHERE id = 'last'",),
        "ALTER TABLE theirs ALTER COLUMN views TYPE bigint",
        "22003",
    ),
    "a trigger that raises": Refusal(
        trigger("IF NEW.id = 'last' THEN RAISE EXCEPTION 'this post is archived'; END IF;"),
        "DROP TRIGGER refuse ON theirs",
        "P0001",
    ),
    "a trigger that raises with a code of its own": Refusal(
        trigger("IF NEW.id = 'last' THEN RAISE EXCEPTION 'no' USING ERRCODE = 'BL001'; END IF;"),
        "DROP TRIGGER refuse ON theirs",
        "BL001",
    ),
    "a trigger that needs a setting of the session": Refusal(
        trigger("IF NEW.id = 'last' THEN PERFORM current_setting('app.tenant'); END IF;"),
        "DROP TRIGGER refuse ON theirs",
        "42704",
    ),
    "a trigger that reads a table which it may not": Refusal(
        (
            "CREATE TABLE secrets (id int)",
            *trigger("IF NEW.id = 'last' THEN PERFORM * FROM secrets; END IF;"),
        ),
        "DROP TRIGGER refuse ON theirs",
        "42501",
    ),
    "a trigger that names a table which is not there": Refusal(
        trigger("IF NEW.id = 'last' THEN PERFORM * FROM nowhere; END IF;"),
        "DROP TRIGGER refuse ON theirs",
        "42P01",
    ),
    "a trigger that keeps the row as it is": Refusal(
        trigger("IF NEW.id = 'last' THEN RETURN NULL; END IF;"),
        "DROP TRIGGER refuse ON theirs",
        "not-updated",
    ),
    "a check": Refusal(
        ("ALTER TABLE theirs ADD CONSTRAINT few CHECK (id <> 'last' OR views = 0)",),
        "ALTER TABLE theirs DROP CONSTRAINT few",
        "23514",
    ),
    "a constraint that is looked at when the transaction ends": Refusal(
        (
            *trigger("", when="BEFORE")[:1],
            "CREATE OR REPLACE FUNCTION refuse() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN "
            "IF NEW.id = 'last' THEN RAISE EXCEPTION 'late'; END IF; RETURN NULL; END $$",
            "CREATE CONSTRAINT TRIGGER refuse AFTER UPDATE ON theirs DEFERRABLE INITIALLY DEFERRED "
            "FOR EACH ROW EXECUTE FUNCTION refuse()",
        ),
        "DROP TRIGGER refuse ON theirs",
        "P0001",
    ),
    "a policy for some rows": Refusal(
        (
            "ALTER TABLE theirs ENABLE ROW LEVEL SECURITY",
            "CREATE POLICY see ON theirs FOR SELECT USING (true)",
            "CREATE POLICY count ON theirs FOR UPDATE USING (id <> 'last')",
        ),
        "ALTER POLICY count ON theirs USING (true)",
        "not-updated",
    ),
    "a policy on what rows become": Refusal(
        (
            "ALTER TABLE theirs ENABLE ROW LEVEL SECURITY",
            "CREATE POLICY see ON theirs FOR SELECT USING (true)",
            "CREATE POLICY count ON theirs FOR UPDATE USING (true) WITH CHECK (id <> 'last')",
        ),
        "ALTER POLICY count ON theirs WITH CHECK (true)",
        "42501",
    ),
}


@pytest.mark.parametrize("kind", REFUSALS)
async def test_one_post_that_is_refused_holds_up_no_other_and_is_counted_once_it_can_be(
    theirs: Theirs, kind: str
) -> None:
    refusal = REFUSALS[kind]
    await theirs.create()
    await theirs.execute(*refusal.make)
    before = (await theirs.views())["last"]
    await theirs.view(3, *POSTS)
    assert await theirs.views() == {"first": 3, "last": before, "middle": 3}
    assert await theirs.refused() == {refusal.code: 1}
    await theirs.view(5, *POSTS)
    assert await theirs.views() == {"first": 5, "last": before, "middle": 5}
    await theirs.let_wait_end()
    assert await theirs.refused() == {refusal.code: 1}, "it is tried again, and refused again"
    await theirs.execute(refusal.undo)
    await theirs.let_wait_end()
    assert await theirs.refused() == {}
    assert await theirs.views() == {"first": 5, "last": before + 5, "middle": 5}


async def test_a_post_that_is_set_aside_is_not_tried_with_each_batch(theirs: Theirs) -> None:
    await theirs.create()
    await theirs.execute(*REFUSALS["a check"].make)
    for views in range(1, 6):
        await theirs.view(views, *POSTS)
    row = await (
        await theirs.owner.execute(
            theirs.pipeline.with_schema(
                "SELECT refusals, retry_at > now() + interval '5 s' FROM inkstream.counted_posts WHERE post_id = 'last'"
            )
        )
    ).fetchone()
    assert row == (1, True)


async def test_row_level_security_without_a_policy_for_updates_sets_all_aside_and_ends(theirs: Theirs) -> None:
    many = [f"post-{number:03}" for number in range(600)]
    await theirs.create(ids=many)
    await theirs.execute(
        "ALTER TABLE theirs ENABLE ROW LEVEL SECURITY", "CREATE POLICY see ON theirs FOR SELECT USING (true)"
    )
    await theirs.view(2, *many)
    async with asyncio.timeout(60):
        assert await theirs.refused() == {"not-updated": 600}
        await theirs.let_wait_end()
        assert await theirs.refused() == {"not-updated": 600}
    await theirs.execute("CREATE POLICY count ON theirs FOR UPDATE TO inkstream USING (true)")
    await theirs.let_wait_end()
    assert await theirs.refused() == {}
    assert set((await theirs.views()).values()) == {2}


@pytest.mark.parametrize(
    ("id_type", "views_type", "ids"),
    [
        ("uuid", "integer", [UUID(int=7), UUID(int=8)]),
        ("bigint", "bigint", [1, 10**17]),
        ("integer", "bigint", [1, 2**31 - 1]),
        ("smallint", "integer", [1, 2]),
        ("varchar(40)", "bigint", ["one", "two"]),
        ("char(6)", "integer", ["one   ", "two   "]),
    ],
)
async def test_posts_are_found_by_their_id_whatever_its_type(
    theirs: Theirs, id_type: str, views_type: str, ids: Sequence[object]
) -> None:
    await theirs.create(id_type, views_type, ids)
    strangers = ("no-such-post", "0" * 40, "-1", "1e3", " 1", "01", "99999999999999999999", str(UUID(int=9)).upper())
    await theirs.view(4, *(str(one).strip() for one in ids), *strangers)
    assert await theirs.views() == dict.fromkeys(ids, 4)
    waiting = await theirs.counts.maintain()
    assert (waiting.missing, waiting.set_aside) == (len(strangers), [])


async def test_the_type_of_ids_may_change_while_workers_run(theirs: Theirs) -> None:
    first, second = str(UUID(int=7)), str(UUID(int=8))
    await theirs.create("text", ids=[first, second])
    await theirs.view(1, first, second)
    await theirs.execute("ALTER TABLE theirs ALTER COLUMN id TYPE uuid USING id::uuid")
    await theirs.view(2, first, second)
    await theirs.let_wait_end()
    await theirs.counts.maintain()
    assert set((await theirs.views()).values()) == {2}


@pytest.mark.parametrize(
    ("take", "give"),
    [
        ("REVOKE UPDATE (views) ON theirs FROM inkstream", "GRANT UPDATE (views) ON theirs TO inkstream"),
        ("ALTER TABLE theirs RENAME TO gone", "ALTER TABLE gone RENAME TO theirs"),
        ("ALTER TABLE theirs RENAME COLUMN views TO seen", "ALTER TABLE theirs RENAME COLUMN seen TO views"),
    ],
)
async def test_a_missing_right_table_or_column_is_waited_for_and_sets_no_post_aside(
    theirs: Theirs, take: LiteralString, give: LiteralString
) -> None:
    await theirs.create()
    await theirs.execute(take)
    with pytest.raises(psycopg.Error) as raised:
        await theirs.view(3, *POSTS)
    assert is_transient(raised.value)
    await theirs.execute(give)
    await theirs.view(3, *POSTS)
    assert await theirs.views() == dict.fromkeys(POSTS, 3)


async def test_a_repair_that_overrules_sets_aside_what_is_refused_and_sets_the_rest(theirs: Theirs) -> None:
    await theirs.create()
    await theirs.view(3, *POSTS)
    await theirs.execute("UPDATE theirs SET views = 9", *REFUSALS["a trigger that raises"].make)

    async def count(_: object) -> dict[Window, int]:
        return {}

    await theirs.counts.repair(POSTS, [], count, overrule=True)
    assert await theirs.views() == {"first": 3, "last": 9, "middle": 3}
    assert [refused._replace(since=NOON) for refused in (await theirs.counts.maintain()).set_aside] == [
        SetAside("P0001", 1, NOON, "last")
    ]


async def test_doctor_and_verify_report_refused_posts_with_cause_and_fix(theirs: Theirs) -> None:
    await theirs.create()
    await theirs.execute(*REFUSALS["a count at the end of its type"].make)
    await theirs.view(3, *POSTS)
    doctor = await inkstream(theirs.environment, "doctor", "--json")
    findings = [finding for finding in json.loads(doctor.output)["findings"] if finding["subject"] == "view counts"]
    refused, room = sorted(findings, key=lambda finding: str(finding["state"]), reverse=True)
    assert refused["what"].startswith("PostgreSQL refuses to update views of 1 post with 22003, since 20")
    assert refused["what"].endswith("; for example last")
    assert "ALTER TABLE theirs ALTER COLUMN views TYPE bigint" in refused["advice"]
    assert room["what"] == "theirs.views has type integer and reaches 2,147,483,647"
    verify = await inkstream(theirs.environment, "verify", "counts")
    assert verify.code == 1
    assert "PostgreSQL refuses to update 1 post with 22003; `inkstream doctor` suggests a fix." in verify.output


async def test_doctor_names_the_policy_that_is_missing(theirs: Theirs) -> None:
    await theirs.create()
    await theirs.execute(
        "ALTER TABLE theirs ENABLE ROW LEVEL SECURITY", "CREATE POLICY see ON theirs FOR SELECT USING (true)"
    )
    doctor = await inkstream(theirs.environment, "doctor", "--json")
    (finding,) = [found for found in json.loads(doctor.output)["findings"] if found["subject"] == "view counts"]
    assert finding["what"] == "row-level security is enabled for theirs, and no policy allows inkstream to UPDATE"
    assert "CREATE POLICY inkstream_update ON theirs FOR UPDATE TO inkstream USING (true)" in finding["advice"]
