"""`inkstream verify counts`: compares view counts with stored views; `--repair` fixes differences.

Input: views in MongoDB and counts in PostgreSQL. Output: differences, as tables or JSON, and an exit code.
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
    from agents.view_counts.reconciliation import Comparison
    from agents.view_counts.reconciliation import Progress as Reported
    from sinks.postgres.count_repair import Repaired

_LINES = 50
"""Most lines of a table in the terminal."""


class Verify(InkstreamCommand):
    """Compare view counts with stored views and fix them.

    `inkstream verify counts` compares three things: each window's views in MongoDB with its count in PostgreSQL, for
    windows within INKSTREAM_COUNT_HORIZON; the sum of a post's windows with its total; and that total with what was
    added to the platform's count. Workers may keep running: differences are checked again for about 15 seconds, so that
    views in flight are not reported. Changes that others made to the platform's count, for example by restoring a
    deleted post, are reported but are not differences.

    --repair recounts windows that differ, corrects their posts' totals, and adjusts the platform's counts by the
    difference, up or down. If views were deleted from MongoDB, it lowers the counts. Older windows and others' changes
    to the platform's counts stay as they are.

    --repair --overrule-platform also sets the platform's counts to their value before counting began plus all views.

    Exit code 0 if there are no differences or all are fixed, else 1.
    """

    options = [  # noqa: RUF012 - as Faust declares them
        argument("what", metavar="counts", type=click.Choice(["counts"])),
        option("--post", "posts", multiple=True, metavar="ID", help="Only this post; repeatable."),
        option(
            "--since",
            type=Moment(),
            help="Only windows since then: 2026-01-31T12:00:00Z, or 90m, 12h, 3d ago. Totals include all windows.",
        ),
        option("--repair", is_flag=True, help="Fix differences, then compare again."),
        option(
            "--overrule-platform", "overrule", is_flag=True, help="With --repair: undo others' changes to view counts."
        ),
        option("--json", "as_json", is_flag=True, help="Print JSON."),
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
        from agents.view_counts.reconciliation import reconciliation_of

        if overrule and not repair:
            raise click.UsageError("--overrule-platform needs --repair.")
        settings = Settings()
        repaired: Repaired | None = None
        async with reconciliation_of(settings) as reconciliation:
            oldest = reconciliation.oldest_start
            with _progress() as report:
                found = left = await reconciliation.compare(frozenset(posts) or None, since, report)
                if repair and not (found.is_well and not (overrule and found.changes.posts)):
                    repaired, left = await reconciliation.repair(found, report, overrule=overrule)
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
    """Show progress if standard error is a terminal."""
    console = Console(stderr=True)
    with Progress(console=console, transient=True, disable=not console.is_terminal) as progress:
        task = progress.add_task("")
        yield lambda what, done, of: progress.update(task, description=what, completed=done, total=of)


def _show_differences(console: Console, found: "Comparison", settings: Settings) -> None:
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
    """Print a table if it has rows."""
    if not rows:
        return
    table = Table(box=None, pad_edge=False)
    for number, column in enumerate(columns):
        table.add_column(column, justify="right" if number > 1 else "left", overflow="fold")
    for row in rows[:_LINES]:
        table.add_row(*map(Text, row))
    console.print(table)
    if len(rows) > _LINES:
        console.print(f"and {len(rows) - _LINES:,} more; use --json to list all.")
    console.print()


def _notes(found: "Comparison", asked: int, too_old: datetime | None, settings: Settings) -> Iterator[str]:
    """Yield notes that are not differences."""
    if too_old is not None:
        yield (
            f"Windows before {_minute(too_old)} are outside INKSTREAM_COUNT_HORIZON and are compared only as part of "
            "their post's total."
        )
    if asked > found.posts:
        yield f"{_count(asked - found.posts, 'post')} given by --post {_verb(asked - found.posts)} no counted views."
    if found.missing:
        yield (
            f"{_count(found.missing, 'post')} with views {'is' if found.missing == 1 else 'are'} not in "
            f"{settings.posts_table}; their views are added when the post appears."
        )
    if found.grouped:
        yield (
            f"{_count(found.grouped, 'post')} {_verb(found.grouped)} views waiting for the next update "
            f"(INKSTREAM_POSTS_UPDATE_EVERY is {settings.posts_update_every.total_seconds():g} s)."
        )
    if found.changes.example is not None:
        post_id, others = found.changes.example
        by = [f"{views:+,}" for views in (found.changes.more, -found.changes.fewer) if views]
        yield (
            f"Something else changed {settings.view_count_column} of {_count(found.changes.posts, 'post')} since "
            f"counting began, by {' and '.join(by)} views; for example {post_id}, by {others:+,}. "
            "Such changes are kept; --repair --overrule-platform undoes them."
        )
    for code, posts in found.refused.most_common():
        yield f"PostgreSQL refuses to update {_count(posts, 'post')} with {code}; `inkstream doctor` suggests a fix."
    if found.moving:
        yield f"{_count(found.moving, 'window')} {_verb(found.moving)} views in flight; compare again later."


def _conclusion(left: "Comparison", repaired: "Repaired | None") -> str:
    fixed = (
        f"Fixed {_count(len(repaired.windows), 'window')} and {_count(len(repaired.posts), 'post')}. "
        if repaired is not None
        else ""
    )
    if left.is_well:
        return f"{fixed}No differences in {_count(left.posts, 'post')} and {_count(left.windows, 'window')}."
    posts = len({difference.post_id for difference in left.of_posts})
    differ = f"{_count(len(left.of_windows), 'window')} and {_count(posts, 'post')} differ"
    if repaired is not None:
        return f"{fixed}{differ} again: something else changes these counts or deletes views. Run `inkstream doctor`."
    return (
        f"{differ}.\n"
        "→ Check with `inkstream doctor` whether a worker lags behind; it catches up automatically. Otherwise fix the "
        "counts: `inkstream verify counts --repair`."
    )


def _json(left: "Comparison", repaired: "Repaired | None") -> dict[str, Any]:
    """Return the result for JSON output."""
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
    """Yield the columns of posts that a repair changed: post, column, old value, new value."""
    for was, now in repaired.posts:
        for column, before, after in (
            ("views", was.views, now.views),
            ("applied", was.applied, now.applied),
            ("viewCount", was.view_count, now.view_count),
        ):
            if before is not None and after is not None and before != after:
                yield was.post_id, column, before, after


def _column(column: str, settings: Settings) -> str:
    """Return a column's full name in PostgreSQL."""
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
