"""Posts that the platform deletes, restores, resets or edits: the count stays theirs, and later views are added."""

import asyncio
from datetime import timedelta
from typing import LiteralString

import pytest

from agents.view_counts.reconciliation import Changes, differences
from dev.counts import PostRecord, StoredWindow, compare
from enrich.view_windows import LENGTH, Window
from runtime.metrics import POSTS_CHANGED_BY_OTHERS
from sinks.postgres import pool
from sinks.postgres.post_counts import PostCounts
from sinks.postgres.view_windows import WindowCount
from tests.chaos.defects import DEFECTS
from tests.chaos.oracle_counts import tables_checks
from tests.command_line import Ended, inkstream
from tests.integration.their_posts import NOON, Theirs

COUNTED = 101
DELETE = "DELETE FROM theirs WHERE id = 'first'"

CHANGES: dict[str, tuple[tuple[LiteralString, ...], int]] = {
    "is deleted and restored with its own count": ((DELETE, "INSERT INTO theirs VALUES ('first', 100)"), 100),
    "is deleted and restored with a higher count": ((DELETE, "INSERT INTO theirs VALUES ('first', 5000)"), 5_000),
    "is deleted and restored with no count": ((DELETE, "INSERT INTO theirs VALUES ('first', NULL)"), 0),
    "is deleted and made again by default": ((DELETE, "INSERT INTO theirs (id) VALUES ('first')"), 0),
    "is reset to 0": (("UPDATE theirs SET views = 0 WHERE id = 'first'",), 0),
    "is edited": (("UPDATE theirs SET views = 77 WHERE id = 'first'",), 77),
    "is counted by something else too": (("UPDATE theirs SET views = views + 1 WHERE id = 'first'",), 102),
    "is changed twice": (("UPDATE theirs SET views = 0", "UPDATE theirs SET views = views + 9"), 9),
    "is restored to exactly what it was": ((DELETE, "INSERT INTO theirs VALUES ('first', 101)"), 101),
}


async def counts_of(theirs: Theirs, post_id: str = "first") -> PostCounts:
    (post,) = [post async for page in theirs.counts.posts([post_id]) for post in page]
    return post


async def nothing(_: object) -> dict[Window, int]:
    return {}


async def prepare(theirs: Theirs) -> None:
    await theirs.create(ids=("first",))
    await theirs.execute("ALTER TABLE theirs ALTER COLUMN views DROP NOT NULL")
    await theirs.view(COUNTED, "first")
    assert await theirs.views() == {"first": COUNTED}


@pytest.mark.parametrize("kind", CHANGES)
async def test_a_post_whose_count_others_changed_is_well_before_and_after_the_next_view(
    theirs: Theirs, kind: str
) -> None:
    statements, count = CHANGES[kind]
    await prepare(theirs)
    await theirs.execute(*statements)
    post = await counts_of(theirs)
    assert (differences(post), post.others) == ([], count - COUNTED), "it is known before the next view"
    noticed = POSTS_CHANGED_BY_OTHERS._value.get()
    await theirs.view(COUNTED + 1, "first")
    assert await theirs.views() == {"first": count + 1}
    post = await counts_of(theirs)
    assert (differences(post), post.others, post.changed_by_others) == ([], count - COUNTED, count - COUNTED)
    assert POSTS_CHANGED_BY_OTHERS._value.get() == noticed + (count != COUNTED)
    await theirs.view(COUNTED + 2, "first")
    assert POSTS_CHANGED_BY_OTHERS._value.get() == noticed + (count != COUNTED), "what is known is not told again"
    await theirs.counts.repair(["first"], [], nothing)
    assert await theirs.views() == {"first": count + 2}, "a repair leaves it"
    await theirs.counts.repair(["first"], [], nothing, overrule=True)
    assert await theirs.views() == {"first": COUNTED + 2}
    assert (await counts_of(theirs)).others == 0


@pytest.mark.parametrize(("restored", "count"), [("100", 100), ("0", 0), ("NULL", 0), ("9000", 9_000)])
async def test_views_of_a_deleted_post_wait_for_hours_and_are_added_to_the_count_that_it_comes_back_with(
    theirs: Theirs, restored: str, count: int
) -> None:
    await prepare(theirs)
    await theirs.execute(DELETE)
    for views in (COUNTED + 1, COUNTED + 4):
        await theirs.view(views, "first")
    assert (await theirs.counts.maintain()).missing == 1
    assert differences(await counts_of(theirs)) == []
    await theirs.execute("UPDATE inkstream.counted_posts SET moved_at = moved_at - interval '5 hours'")
    await theirs.owner.execute(f"INSERT INTO theirs VALUES ('first', {restored})".encode())
    assert (await theirs.counts.maintain()).missing == 0
    assert await theirs.views() == {"first": count + 4}
    post = await counts_of(theirs)
    assert (differences(post), post.others) == ([], count - COUNTED)


async def test_a_post_that_is_deleted_for_good_is_missing_only_where_views_wait(theirs: Theirs) -> None:
    await prepare(theirs)
    await theirs.execute(DELETE)
    assert (await theirs.counts.maintain()).missing == 0
    await theirs.view(COUNTED + 1, "first")
    assert (await theirs.counts.maintain()).missing == 1
    assert Changes().and_of([await counts_of(theirs)]) == Changes()
    await theirs.counts.repair(["first"], [], nothing, overrule=True)
    assert await theirs.views() == {}


async def test_a_post_that_is_set_aside_and_then_restored_gets_what_waits(theirs: Theirs) -> None:
    await prepare(theirs)
    await theirs.execute("ALTER TABLE theirs ADD CONSTRAINT full_up CHECK (views <= 101)")
    await theirs.view(COUNTED + 3, "first")
    assert await theirs.refused() == {"23514": 1}
    await theirs.execute(DELETE)
    assert await theirs.refused() == {}, "nobody refuses a post that is not there"
    await theirs.execute("INSERT INTO theirs VALUES ('first', 50)")
    await theirs.let_wait_end()
    assert await theirs.refused() == {}
    assert await theirs.views() == {"first": 53}
    post = await counts_of(theirs)
    assert (differences(post), post.others) == ([], 50 - COUNTED)


async def test_two_workers_and_a_repair_beside_a_platform_that_changes_counts_add_each_view_once(
    theirs: Theirs,
) -> None:
    await theirs.create()
    others = theirs.worker()
    await theirs.view(1, "first", "last", "middle")
    for views in range(1, 25):
        counts = [WindowCount(Window(post_id, NOON), views, NOON) for post_id in ("first", "last", "middle")]
        await asyncio.gather(
            theirs.counts.apply(counts),
            others.apply(counts[::-1]),
            others.maintain(),
            theirs.counts.repair(["first", "last"], [], nothing),
            theirs.execute("UPDATE theirs SET views = views + 10"),
        )
    await theirs.let_wait_end()
    await theirs.counts.maintain()
    assert set((await theirs.views()).values()) == {24 + 240}
    for post_id in ("first", "last", "middle"):
        post = await counts_of(theirs, post_id)
        assert (post.applied, post.others, differences(post)) == (24, 240, [])


async def test_a_count_that_a_repair_lowers_after_a_reset_does_not_fall_below_0(theirs: Theirs) -> None:
    await prepare(theirs)
    await theirs.execute("UPDATE theirs SET views = 3")
    window = Window("first", NOON)

    async def fewer(_: object) -> dict[Window, int]:
        return {window: COUNTED - 10}

    await theirs.counts.repair([], [window], fewer)
    assert await theirs.views() == {"first": 0}
    assert differences(await counts_of(theirs)) == []


async def verified(theirs: Theirs, *arguments: str) -> Ended:
    prelude = "from datetime import timedelta\nfrom agents.view_counts.reconciliation import Reconciliation\n"
    prelude += "Reconciliation.LEAST_PAUSE = timedelta(seconds=0.1)\n"
    # The windows of these tests have no views in MongoDB, and are too old to be compared.
    return await inkstream(theirs.environment, "verify", "counts", *arguments, prelude=prelude)


async def test_verify_finds_nothing_wrong_with_a_restored_post_and_tells_of_it(theirs: Theirs) -> None:
    await prepare(theirs)
    await theirs.execute(DELETE, "INSERT INTO theirs VALUES ('first', 100)")
    note = (
        "Something else changed views of 1 post since counting began, by -1 views; for example first, by -1. "
        "Such changes are kept; --repair --overrule-platform undoes them."
    )
    for views in (COUNTED, COUNTED + 1):
        await theirs.view(views, "first")
        ended = await verified(theirs)
        assert (ended.code, note in ended.output) == (0, True), ended
    assert await theirs.views() == {"first": 101}


@pytest.mark.parametrize(
    ("defect", "column"),
    [
        # In one transaction our tables and the platform's count move together; these are what a defect would leave.
        ("UPDATE inkstream.counted_posts SET views = views + 1", "views"),
        ("UPDATE inkstream.counted_posts SET applied = applied - 1", "applied"),
        ("UPDATE inkstream.counted_posts SET applied = applied + 1", "applied"),
        (
            "WITH lost AS (UPDATE theirs SET views = views - 1) "
            "UPDATE inkstream.counted_posts SET applied = applied - 1",
            "viewCount",
        ),
    ],
)
async def test_what_is_wrong_in_our_tables_is_still_found(theirs: Theirs, defect: LiteralString, column: str) -> None:
    await prepare(theirs)
    await theirs.execute(DELETE, "INSERT INTO theirs VALUES ('first', 100)")
    await theirs.view(COUNTED + 1, "first")
    await theirs.execute(defect)
    post = await counts_of(theirs)
    assert [difference.column for difference in differences(post)] == [column]
    await theirs.counts.repair(["first"], [], nothing)
    assert differences(await counts_of(theirs)) == []
    assert await theirs.views() == {"first": 101}


@pytest.mark.parametrize(("defect", "found"), [("moved-twice", 6), ("move-lost", 0)])
async def test_a_move_that_is_made_twice_or_lost_is_noticed_by_those_who_know_the_views(
    theirs: Theirs, defect: str, found: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    await theirs.create(ids=("first",))
    monkeypatch.setattr(pool, "_queries", pool._queries)  # so that it is set back
    DEFECTS[defect]()
    try:
        await theirs.view(3, "first")
    finally:
        monkeypatch.undo()
        pool.query.cache_clear()
    assert await theirs.views() == {"first": found}
    table = {"posts_table": "theirs", "posts_id_column": "id", "view_count_column": "views"}
    settings = theirs.pipeline.settings.model_copy(update=table)
    checks = await tables_checks(theirs.pipeline.platform.postgres.owner_url, settings, {Window("first", NOON): 3}, {})
    assert [problem for check in checks for problem in check.problems] == [
        f"post first has {found} views, and should have 3"
    ]
    post = await counts_of(theirs)
    # As `make run` compares them: the count before, and the views that are stored.
    assert post.baseline is not None
    record = PostRecord("first", "first", found, post.baseline, old_views=0)
    (compared,) = compare([record], {Window("first", NOON)}, [StoredWindow(Window("first", NOON), 3, NOON)], NOON)
    assert not compared.agrees
    assert post.others == found - 3, "and a reconciliation reports it as a change by others"


# Updates that are grouped


async def test_a_post_is_updated_once_in_the_time_that_is_set_and_exact_at_its_end(theirs: Theirs) -> None:
    await theirs.create(ids=("first", "last"))
    await theirs.execute(
        "ALTER TABLE theirs ADD COLUMN updates int NOT NULL DEFAULT 0",
        "CREATE FUNCTION note() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN NEW.updates = OLD.updates + 1; "
        "RETURN NEW; END $$",
        "CREATE TRIGGER note BEFORE UPDATE ON theirs FOR EACH ROW EXECUTE FUNCTION note()",
    )
    one, other = theirs.worker(timedelta(minutes=1)), theirs.worker(timedelta(minutes=1))
    for views in range(1, 8):
        counts = [WindowCount(Window("first", NOON), views, NOON), WindowCount(Window("first", NOON + LENGTH), 1, NOON)]
        await asyncio.gather(one.apply(counts), other.apply(counts))
        waiting = await one.maintain()
        assert (waiting.missing, waiting.set_aside) == (0, [])
    assert await theirs.rows("SELECT id, views, updates FROM theirs ORDER BY id") == [("first", 2, 1), ("last", 0, 0)]
    await other.apply([WindowCount(Window("last", NOON), 5, NOON)])
    assert (await theirs.views())["last"] == 5, "each post has a time of its own"
    (post,) = [post async for page in one.posts(["first"]) for post in page]
    assert (post.is_grouped, differences(post)) == (True, [])
    # No further view comes.
    await theirs.execute("UPDATE inkstream.counted_posts SET moved_at = moved_at - interval '1 minute'")
    (post,) = [post async for page in one.posts(["first"]) for post in page]
    assert not post.is_grouped
    assert differences(post), "nobody has settled what is due"
    await one.maintain()
    assert await theirs.rows("SELECT id, views, updates FROM theirs ORDER BY id") == [("first", 8, 2), ("last", 5, 1)]


async def test_a_clock_that_is_set_back_holds_up_no_count(theirs: Theirs) -> None:
    await prepare(theirs)
    await theirs.execute("UPDATE inkstream.counted_posts SET moved_at = now() + interval '1 hour'")
    await theirs.view(COUNTED + 1, "first")
    assert await theirs.views() == {"first": COUNTED + 1}


async def test_verify_says_that_views_wait_for_their_turn_and_doctor_misses_no_post(theirs: Theirs) -> None:
    await prepare(theirs)
    await theirs.worker(timedelta(minutes=10)).apply([WindowCount(Window("first", NOON), COUNTED + 1, NOON)])
    assert await theirs.views() == {"first": COUNTED}
    theirs.environment["INKSTREAM_POSTS_UPDATE_EVERY"] = "600"
    ended = await verified(theirs)
    assert ended.code == 0, ended
    assert "1 post has views waiting for the next update (INKSTREAM_POSTS_UPDATE_EVERY is 600 s)." in ended.output
    doctor = await inkstream(theirs.environment, "doctor")
    assert "not in theirs" not in doctor.output


async def test_a_trigger_that_names_its_columns_ignores_view_counts(theirs: Theirs) -> None:
    """The two forms of docs/view-counts.md."""
    await theirs.create(ids=("first",))
    await theirs.execute(
        "ALTER TABLE theirs ADD COLUMN title text, ADD COLUMN \"updatedAt\" timestamptz NOT NULL DEFAULT 'epoch'",
        "CREATE FUNCTION set_updated_at() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN "
        'NEW."updatedAt" = now(); RETURN NEW; END $$',
    )
    for trigger in (
        "CREATE TRIGGER set_updated_at BEFORE UPDATE OF title ON theirs FOR EACH ROW EXECUTE FUNCTION set_updated_at()",
        "CREATE TRIGGER set_updated_at BEFORE UPDATE ON theirs FOR EACH ROW "
        "WHEN (to_jsonb(OLD) - 'views' IS DISTINCT FROM to_jsonb(NEW) - 'views') EXECUTE FUNCTION set_updated_at()",
    ):
        await theirs.execute(trigger)
        await theirs.view((await theirs.views())["first"] + 1, "first")
        assert await theirs.rows('SELECT extract(epoch FROM "updatedAt")::int FROM theirs') == [(0,)]
        await theirs.execute("UPDATE theirs SET title = coalesce(title, '') || 'x'")
        assert await theirs.rows("SELECT \"updatedAt\" > 'epoch' FROM theirs") == [(True,)]
        await theirs.execute("DROP TRIGGER set_updated_at ON theirs", "UPDATE theirs SET \"updatedAt\" = 'epoch'")
