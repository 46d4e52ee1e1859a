"""`inkstream replay`: sends dead letters back to their topic, after what was wrong with them, or with us, is mended.

In come a topic and a choice of its dead letters; out come their progress, a table by reason, and the exit code.
"""

from datetime import UTC, datetime
from difflib import get_close_matches
from typing import TYPE_CHECKING, Any

import click
from faust.cli.base import argument, option
from rich.console import Console
from rich.progress import Progress
from rich.table import Table

from ops.commands.command import PROBLEM, InkstreamCommand, declared_topics
from ops.commands.moment import Moment
from ops.settings import Settings
from schemas.topics import Topic

if TYPE_CHECKING:
    from ops.replay import Plan, Result

_EXCERPT = 20


class Replay(InkstreamCommand):
    """Send a topic's dead letters back to it.

    Each goes back as it was: value, key, headers, timestamp and partition. A letter is sent once; `--again` sends also
    what was sent before, which does no harm, as an event that is stored already is not stored twice. One that is
    refused again is the same letter, with its newest reason. TOPIC is the name as in topics.yaml, such as page-views.
    """

    options = [  # noqa: RUF012 - as Faust declares them
        argument("topic", metavar="TOPIC"),
        option("--reason", "reasons", multiple=True, help="Only those refused for this reason; may be given twice."),
        option("--since", type=Moment(), help="Only those refused then or later: 2026-01-31T12:00:00Z, 90m, 12h, 3d."),
        option("--until", type=Moment(), help="Only those refused before then."),
        option("--limit", type=click.IntRange(min=1), help="Only the oldest so many."),
        option("--again", is_flag=True, help="Also those that were replayed before."),
        option("--dry-run", is_flag=True, help="Send nothing; show what would be sent."),
    ]

    async def run(
        self,
        *args: Any,
        topic: str,
        reasons: tuple[str, ...],
        since: datetime | None,
        until: datetime | None,
        limit: int | None,
        again: bool,
        dry_run: bool,
    ) -> int:
        """Replay; return the exit code."""
        from ops.replay import Selection, replay_of

        console = Console(highlight=False)
        settings = Settings()
        chosen = _topic(declared_topics(settings).all, topic)
        async with replay_of(settings, chosen) as replay:
            plan = await replay.plan(Selection(frozenset(reasons), since, until, limit, again))
            _warn(console, plan, chosen)
            if dry_run:
                _show_excerpt(console, plan)
                return 0
            with Progress(console=console, transient=True) as progress:
                task = progress.add_task(f"replaying {chosen.name}", total=len(plan.selected))
                result = await replay.carry_out(plan, lambda more: progress.advance(task, more))
        _show_result(console, plan, result)
        return PROBLEM if result.refused else 0


def _topic(topics: dict[str, Topic], name: str) -> Topic:
    """Return the topic of the name.

    Raises:
        click.BadParameter: There is none.
    """
    if name not in topics:
        nearest = get_close_matches(name, topics, n=1)
        known = f"did you mean {nearest[0]}?" if nearest else f"there are {', '.join(topics)}"
        raise click.BadParameter(f"unknown topic {name}; {known}", param_hint="TOPIC")
    return topics[name]


def _warn(console: Console, plan: "Plan", topic: Topic) -> None:
    if plan.foreign:
        console.print(f"{plan.foreign} records in {topic.dead_letter} are no dead letters of ours, and are left alone.")
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


def _show_excerpt(console: Console, plan: "Plan") -> None:
    table = Table("refused at", "position", "replays", "reason", "message", box=None, pad_edge=False)
    for letter in plan.selected[:_EXCERPT]:
        refused_at, first = f"{letter.time:%Y-%m-%d %H:%M:%S}", letter.first or letter.origin
        table.add_row(refused_at, first, str(letter.attempts), letter.reason, letter.message)
    console.print(table)
    more = len(plan.selected) - _EXCERPT
    console.print(*([f"and {more} more."] if more > 0 else []), f"{len(plan.selected)} would be sent.")


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
