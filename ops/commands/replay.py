"""`inkstream replay`: sends dead letters back to their topic, after their cause is fixed.

Input: a topic and a selection of its dead letters. Output: progress, a table by cause, and the exit code.
"""

from dataclasses import replace
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import click
from faust.cli.base import argument, option
from rich.console import Console
from rich.progress import Progress
from rich.table import Table

from ops.commands.command import PROBLEM, InkstreamCommand, declared_topics
from ops.commands.dead_letter_text import lines_of
from ops.commands.dead_letters import FILTERS, selection, topic_named
from runtime.settings import Settings
from schemas.topics import Topic

if TYPE_CHECKING:
    from ops.replay import Plan, Result

_EXCERPT = 20


class Replay(InkstreamCommand):
    """Send a topic's dead letters back to it.

    Each is sent with its original value, key, headers, timestamp and partition. Each dead letter is replayed once;
    --again includes those replayed before, which is safe: an event that is already stored is not stored twice. An event
    that is refused again remains one dead letter, with its latest cause. Discarded dead letters are skipped. TOPIC is
    named as in topics.yaml, for example page-views.

    Exit code 0, or 1 if Kafka refused a record.
    """

    options = [  # noqa: RUF012 - as Faust declares them
        argument("topic", metavar="TOPIC"),
        *FILTERS,
        option("--reason", "reasons", multiple=True, metavar="CODE", help="Same as --cause."),
        option("--limit", type=click.IntRange(min=1), help="How many to send, oldest first."),
        option("--again", is_flag=True, help="Include dead letters that were replayed before."),
        option("--dry-run", is_flag=True, help="Show what would be sent without sending it."),
    ]

    async def run(
        self,
        *args: Any,
        topic: str,
        causes: tuple[str, ...],
        reasons: tuple[str, ...],
        limit: int | None,
        again: bool,
        dry_run: bool,
        **filters: Any,
    ) -> int:
        """Replay; return the exit code."""
        from ops.replay import replay_of

        console = Console(highlight=False)
        settings = Settings()
        chosen = topic_named(declared_topics(settings).all, topic, "TOPIC")
        wanted = replace(selection(causes=causes + reasons, **filters), limit=limit, again=again)
        async with replay_of(settings, chosen) as replay:
            plan = await replay.plan(wanted)
            _warn(console, plan, chosen)
            if dry_run:
                _show_excerpt(console, plan, chosen)
                return 0
            with Progress(console=console, transient=True) as progress:
                task = progress.add_task(f"replaying {chosen.name}", total=len(plan.selected))
                result = await replay.carry_out(plan, lambda more: progress.advance(task, more))
        _show_result(console, plan, result)
        return PROBLEM if result.refused else 0


def _warn(console: Console, plan: "Plan", topic: Topic) -> None:
    if plan.foreign:
        console.print(f"{plan.foreign} records in {topic.dead_letter} were not written by Inkstream; skipped.")
    if plan.discarded:
        console.print(
            f"{plan.discarded:,} discarded, skipped. To include them: `inkstream dead-letters reopen`.", soft_wrap=True
        )
    if plan.refused_again:
        console.print(
            f"{plan.refused_again} of these were replayed before and refused again. Fix the cause, or they will be "
            "refused once more."
        )
    if expired := plan.expired(topic, datetime.now(UTC)):
        console.print(
            f"{expired} records are older than the retention of {topic.name} and keep their timestamp: make sure that "
            "a worker is running, or Kafka deletes them before they are read."
        )


def _show_excerpt(console: Console, plan: "Plan", topic: Topic) -> None:
    """Print the newest records that would be sent, and how many more there are."""
    for letter in list(reversed(plan.selected))[:_EXCERPT]:
        for line in lines_of(letter):
            console.print(line, markup=False, soft_wrap=True)
    if (more := len(plan.selected) - _EXCERPT) > 0:
        console.print(
            f"and {more:,} more: `inkstream dead-letters list --topic {topic.name} --limit {more + _EXCERPT}`"
        )
    console.print(f"{len(plan.selected):,} would be sent.")


def _show_result(console: Console, plan: "Plan", result: "Result") -> None:
    table = Table("reason", "found", "replayed before", "replayed", "skipped", box=None, pad_edge=False)
    rows = []
    for reason, found in sorted(plan.found.items()):
        before, sent = plan.replayed_before[reason], result.sent[reason]
        rows.append((found, before, sent, max(0, found - before - sent)))
        table.add_row(reason, *map(str, rows[-1]))
    table.add_section()
    table.add_row("all", *(str(sum(column)) for column in zip(*rows, strict=True)) if rows else ("0",) * 4)
    console.print(table)
    for letter, refusal in result.refused:
        console.print(f"Kafka refused {letter.origin}: {refusal}", style="red", markup=False, soft_wrap=True)
