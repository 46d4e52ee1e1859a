"""`inkstream replay`: sends dead letters back to their topic, after what was wrong with them, or with us, is mended.

In come a topic and a choice of its dead letters; out come their progress, a table by reason, and the exit code.
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
from ops.commands.dead_letters import FILTERS, lines_of, selection, topic_named
from runtime.settings import Settings
from schemas.topics import Topic

if TYPE_CHECKING:
    from ops.replay import Plan, Result

_EXCERPT = 20


class Replay(InkstreamCommand):
    """Send a topic's dead letters back to it.

    Each goes back as it was: value, key, headers, timestamp and partition. A letter is sent once; `--again` sends also
    what was sent before, which does no harm, as an event that is stored already is not stored twice. One that is
    refused again is the same letter, with its newest reason. Discarded ones are left out. TOPIC is the name as in
    topics.yaml, such as page-views.
    """

    options = [  # noqa: RUF012 - as Faust declares them
        argument("topic", metavar="TOPIC"),
        *FILTERS,
        option("--reason", "reasons", multiple=True, metavar="CODE", help="The same as --cause."),
        option("--limit", type=click.IntRange(min=1), help="Only the oldest so many."),
        option("--again", is_flag=True, help="Also those that were replayed before."),
        option("--dry-run", is_flag=True, help="Send nothing; show what would be sent."),
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
        console.print(f"{plan.foreign} records in {topic.dead_letter} are no dead letters of ours, and are left alone.")
    if plan.discarded:
        console.print(
            f"{plan.discarded:,} discarded are left out; `inkstream dead-letters reopen` undoes that.", soft_wrap=True
        )
    if plan.refused_again:
        console.print(
            f"{plan.refused_again} of these were replayed before and refused again: they come back until the cause is "
            "mended."
        )
    if expired := plan.expired(topic, datetime.now(UTC)):
        console.print(
            f"{expired} records are older than {topic.name} keeps records, and go back with their old timestamp: "
            "have a worker running, before Kafka deletes them again."
        )


def _show_excerpt(console: Console, plan: "Plan", topic: Topic) -> None:
    """Print the newest of what would be sent, and how many more there are."""
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
        console.print(f"not taken by Kafka: {letter.origin}: {refusal}", style="red", markup=False, soft_wrap=True)
