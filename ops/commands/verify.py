"""`inkstream verify counts`: whether the view counts are what is stored; with `--repair`, makes them so.

In come the views in MongoDB and the counts in PostgreSQL; out come differences, as tables or as JSON, and an exit code.
"""

import json
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import datetime
from typing import TYPE_CHECKING, Any

import click
from faust.cli.base import argument, option
from rich.console import Console
from rich.progress import Progress
from rich.table import Table
from rich.text import Text

from ops.commands.command import PROBLEM, InkstreamCommand
from ops.commands.moment import Moment
from runtime.settings import Settings

if TYPE_CHECKING:
    from agents.view_counts.reconciliation import Progress as Reported
    from agents.view_counts.reconciliation import Report
    from sinks.postgres.count_repair import Repaired

_LINES = 50
"""Most lines of a table; a terminal is no place for more."""


class Verify(InkstreamCommand):
    """Compare the view counts with what is stored, and mend what differs.

    `inkstream verify counts` compares three things: the views of each window in MongoDB with those in PostgreSQL, for
    as long as a window is counted (INKSTREAM_COUNT_HORIZON); the sum of a post's windows with its total; and that total
    with what was added to the platform's count. Workers may go on meanwhile: views in flight are no difference, so what
    differs is looked at again for some 15 seconds. Nothing is changed. What others did to the platform's count, as when
    a deleted post is restored with another count, is reported and is no difference.

    --repair counts the windows that differ anew, up or down, corrects totals by them, and moves the platform's counts
    by what that changes. So where somebody has deleted views from MongoDB it lowers the counts. Windows that are no
    longer counted stay as they are, and so does what others did to the platform's counts.

    --repair --overrule-platform also sets these counts to what they were before counting began, and all views.

    Exit code 0 when all is well or has been mended, else 1.
    """

    options = [  # noqa: RUF012 - as Faust declares them
        argument("what", metavar="counts", type=click.Choice(["counts"])),
        option("--post", "posts", multiple=True, metavar="ID", help="Only this post; may be given twice."),
        option(
            "--since",
            type=Moment(),
            help="Only windows that start then or later: 2026-01-31T12:00:00Z, 90m, 12h, 3d. Totals are always whole.",
        ),
        option("--repair", is_flag=True, help="Mend what differs, and look again."),
        option(
            "--overrule-platform", "overrule", is_flag=True, help="With --repair: undo what others did to view counts."
        ),
        option("--json", "as_json", is_flag=True, help="As JSON, for machines."),
    ]

    async def run(
        self,
        *args: Any,
        what: str,
        posts: tuple[str, ...],
        since: datetime | None,
        repair: bool,
        overrule: bool,
        as_json: bool,
    ) -> int:
        """Verify; return the exit code."""
        from agents.view_counts.reconciliation import verification_of

        if overrule and not repair:
            raise click.UsageError("--overrule-platform goes with --repair.")
        settings = Settings()
        repaired: Repaired | None = None
        async with verification_of(settings) as verification:
            oldest = verification.oldest_start
            with _progress() as report:
                found = left = await verification.verify(frozenset(posts) or None, since, report)
                if repair and not (found.is_well and not (overrule and found.changes.posts)):
                    repaired, left = await verification.repair(found, report, overrule=overrule)
        if as_json:
            Console(soft_wrap=True, highlight=False).print(json.dumps(_json(left, repaired), indent=2), markup=False)
            return 0 if left.is_well else PROBLEM
        console = Console(highlight=False)
        if repaired is not None:
            _show_repaired(console, repaired, settings)
        _show_differences(console, left, settings)
        for note in _notes(left, len(posts), oldest if since is not None and since < oldest else None, settings):
            console.print(note, markup=False, soft_wrap=True)
        console.print(_conclusion(left, repaired), markup=False, soft_wrap=True)
        return 0 if left.is_well else PROBLEM


@contextmanager
def _progress() -> Iterator["Reported"]:
    """Show the progress where a terminal sees it."""
    console = Console(stderr=True)
    with Progress(console=console, transient=True, disable=not console.is_terminal) as progress:
        task = progress.add_task("")
        yield lambda what, done, of: progress.update(task, description=what, completed=done, total=of)


def _show_differences(console: Console, found: "Report", settings: Settings) -> None:
    _show(
        console,
        ("post", "window", "stored", "counted", "difference"),
        [
            (window.post_id, _minute(window.start), str(stored), str(counted), f"{counted - stored:+}")
            for window, stored, counted in found.of_windows
        ],
    )
    _show(
        console,
        ("post", "column", "is", "should be", "difference"),
        [
            (post_id, _column(column, settings), str(is_now), str(expected), f"{is_now - expected:+}")
            for post_id, column, is_now, expected in found.of_posts
        ],
    )


def _show_repaired(console: Console, repaired: "Repaired", settings: Settings) -> None:
    _show(
        console,
        ("post", "window", "was", "is", "difference"),
        [
            (window.post_id, _minute(window.start), str(before), str(views), f"{views - before:+}")
            for window, before, views in repaired.windows
        ],
    )
    _show(
        console,
        ("post", "column", "was", "is", "difference"),
        [
            (post_id, _column(column, settings), str(was), str(now), f"{now - was:+}")
            for post_id, column, was, now in _changes(repaired)
        ],
    )


def _show(console: Console, columns: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    """Print a table, where it has any rows."""
    if not rows:
        return
    table = Table(box=None, pad_edge=False)
    for number, column in enumerate(columns):
        table.add_column(column, justify="right" if number > 1 else "left", overflow="fold")
    for row in rows[:_LINES]:
        table.add_row(*map(Text, row))
    console.print(table)
    if len(rows) > _LINES:
        console.print(f"and {len(rows) - _LINES:,} more; --json has all.")
    console.print()


def _notes(found: "Report", asked: int, too_old: datetime | None, settings: Settings) -> Iterator[str]:
    """Yield what a reader may want to know besides what is wrong."""
    if too_old is not None:
        yield (
            f"Windows before {_minute(too_old)} are not counted any more and are not compared one by one, "
            "only as part of their post."
        )
    if asked > found.posts:
        yield f"{_count(asked - found.posts, 'post')} of those asked for {_verb(asked - found.posts)} no counted views."
    if found.missing:
        yield (
            f"{_count(found.missing, 'post')} with views {'is' if found.missing == 1 else 'are'} not in "
            f"{settings.posts_table}; the views wait until then."
        )
    if found.grouped:
        yield (
            f"{_count(found.grouped, 'post')} {_verb(found.grouped)} views that wait, as INKSTREAM_POSTS_UPDATE_EVERY "
            f"is {settings.posts_update_every.total_seconds():g} s."
        )
    if found.changes.example is not None:
        post_id, others = found.changes.example
        by = [f"{views:+,}" for views in (found.changes.more, -found.changes.fewer) if views]
        yield (
            f"Something else changed {settings.view_count_column} of {_count(found.changes.posts, 'post')} since "
            f"counting began, by {' and '.join(by)} views; "
            f"one is {post_id}, by {others:+,}. "
            "Such changes stay; --repair --overrule-platform undoes them."
        )
    for code, posts in found.refused.most_common():
        yield f"PostgreSQL refuses to update {_count(posts, 'post')} with {code}; `inkstream doctor` says what to do."
    if found.moving:
        yield f"{_count(found.moving, 'window')} {_verb(found.moving)} views in flight, and may be compared later."


def _conclusion(left: "Report", repaired: "Repaired | None") -> str:
    mended = (
        f"Mended {_count(len(repaired.windows), 'window')} and {_count(len(repaired.posts), 'post')}. "
        if repaired is not None
        else ""
    )
    if left.is_well:
        return f"{mended}All {_count(left.posts, 'post')} and {_count(left.windows, 'window')} are as stored."
    posts = len({difference.post_id for difference in left.of_posts})
    differ = f"{_count(len(left.of_windows), 'window')} and {_count(posts, 'post')} differ"
    if repaired is not None:
        return f"{mended}{differ} again: something else writes these counts, or deletes views. `inkstream doctor`?"
    return (
        f"{differ}.\n"
        "→ `inkstream doctor` says whether a worker is behind, which catches up by itself; "
        "if none is, `inkstream verify counts --repair` mends it."
    )


def _json(left: "Report", repaired: "Repaired | None") -> dict[str, Any]:
    """Return all that was found, as JSON has it."""
    return {
        "well": left.is_well,
        "windows": left.windows,
        "posts": left.posts,
        "posts_missing": left.missing,
        "posts_refused": dict(left.refused),
        "posts_grouped": left.grouped,
        "changed_by_others": {"posts": left.changes.posts, "more": left.changes.more, "fewer": left.changes.fewer},
        "windows_in_flight": left.moving,
        "drift": left.drift,
        "window_differences": [
            {"post": window.post_id, "window": window.start.isoformat(), "stored": stored, "counted": counted}
            for window, stored, counted in left.of_windows
        ],
        "post_differences": [
            {"post": post_id, "column": column, "is": is_now, "should_be": expected}
            for post_id, column, is_now, expected in left.of_posts
        ],
        "repaired_windows": [
            {"post": window.post_id, "window": window.start.isoformat(), "was": before, "is": views}
            for window, before, views in (repaired.windows if repaired is not None else ())
        ],
        "repaired_posts": [
            {"post": post_id, "column": column, "was": was, "is": now}
            for post_id, column, was, now in (_changes(repaired) if repaired is not None else ())
        ],
    }


def _changes(repaired: "Repaired") -> Iterator[tuple[str, str, int, int]]:
    """Yield the columns of posts that a repair changed: post, column, what it was, what it is."""
    for was, now in repaired.posts:
        for column, before, after in (
            ("views", was.views, now.views),
            ("applied", was.applied, now.applied),
            ("viewCount", was.view_count, now.view_count),
        ):
            if before is not None and after is not None and before != after:
                yield was.post_id, column, before, after


def _column(column: str, settings: Settings) -> str:
    """Return a column with its table, as one finds it in PostgreSQL."""
    if column == "viewCount":
        return f"{settings.posts_table}.{settings.view_count_column}"
    from sinks.postgres.pool import schema_of

    return f"{schema_of(settings.namespace)}.counted_posts.{column}"


def _minute(moment: datetime) -> str:
    return f"{moment:%Y-%m-%dT%H:%MZ}"


def _count(number: int, noun: str) -> str:
    return f"{number:,} {noun}" + ("" if number == 1 else "s")


def _verb(number: int) -> str:
    return "has" if number == 1 else "have"
