"""`inkstream bootstrap`: prints a plan, then creates or updates topics, collections and tables."""

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any

from faust.cli.base import option
from rich.console import Console

from ops.commands.command import PROBLEM, InkstreamCommand, declared_topics
from runtime.settings import Settings
from sinks.changes import Risk

if TYPE_CHECKING:
    from sinks.changes import Change

WAITING = 3
"""The exit code if changes need a flag and nothing else is wrong."""


_ALLOWING: Mapping[Risk, str] = {
    Risk.EXPIRY: "Apply retention that deletes existing documents or records, now or later.",
    Risk.REFUSALS: "Apply validators that reject documents still being written, or replace others' validators; "
    "make Kafka reject writes while fewer than two replicas are in sync.",
    Risk.REBUILDS: "Drop and rebuild indexes that differ.",
    Risk.MOVE: "Rename an earlier release's data to names with the namespace. Stop all workers first.",
    Risk.REPARTITIONING: "Add partitions to topics that contain records. Keys move to other partitions.",
}


class Bootstrap(InkstreamCommand):
    """Create or update topics, collections and tables.

    Prints a plan, then applies the changes that cannot harm existing data. A change that would delete documents or
    records, reject writes, drop an index, move keys to other partitions or rename an earlier release's data needs its
    flag below. Safe to run repeatedly.

    Exit codes: 0 everything is up to date, 1 a server does not answer or a change is blocked, 3 a change needs a flag.
    """

    options = [  # noqa: RUF012 - as Faust declares them
        option("--check", is_flag=True, help="Print the plan, change nothing. Exit code 1 if anything differs."),
        *(option(risk.flag, is_flag=True, help=text) for risk, text in _ALLOWING.items()),
        option(
            "--wait",
            type=float,
            default=30.0,
            metavar="SECONDS",
            help="How long to wait for servers.",
        ),
    ]

    async def run(self, *args: Any, check: bool, wait: float, **flags: bool) -> int:
        """Print the plan and apply it; return the exit code."""
        from ops.bootstrap import converge, move, wait_for_servers
        from sinks.mongo.client import Mongo

        console = Console(highlight=False, soft_wrap=True)
        settings = Settings()
        topics = declared_topics(settings).all.values()
        risks = [risk for risk in Risk if flags[f"allow_{risk}"]]
        await wait_for_servers(settings, seconds=wait, report=lambda line: console.print(line, markup=False))
        mongo = Mongo.connect(settings.mongo_url.get_secret_value(), settings.namespace)

        def show(server: str, changes: "list[Change]") -> None:
            for change in changes:
                console.print(f"{server}: {change.line}", markup=False)

        def show_done(server: str, changes: "list[Change]") -> None:
            if done := sum(change.done for change in changes):
                console.print(f"{server}: {done} applied.")

        try:
            moves = await move(settings, mongo, check=True)
            show("Namespace", moves)
            if moves and not check:
                moves = await move(settings, mongo, check=False, allowed=risks)
                show_done("Namespace", moves)
            changes = await converge(settings, topics, mongo, check=True, allowed=risks, report=show)
            if not check and _different(changes):
                changes = await converge(settings, topics, mongo, check=False, allowed=risks, report=show_done)
        finally:
            await mongo.close()
        return _summary(console, [*moves, *changes], check=check)


def _different(changes: "Iterable[Change]") -> "list[Change]":
    return [change for change in changes if not change.done and change.action != "report"]


def _summary(console: Console, changes: "list[Change]", *, check: bool) -> int:
    """Print the result; return the exit code."""
    left = _different(changes)
    done = sum(change.done for change in changes)
    waiting = [change for change in left if change.flags]
    blocked = [change for change in left if change.action == "blocked"]
    if check and left:
        console.print(f"{len(left)} {'difference' if len(left) == 1 else 'differences'} found.")
    elif check:
        console.print("Everything is up to date.")
    else:
        others = len(left) - len(waiting) - len(blocked)
        kept = f" {others} left unchanged; see above." if others else ""
        console.print((f"{done} changed." if done else "Nothing to do.") + kept)
    if blocked:
        console.print(f"{len(blocked)} blocked; see above for what to do.")
    if waiting:
        flags = " ".join(sorted({flag for change in waiting for flag in change.flags}))
        console.print(
            f"{len(waiting)} not applied: they can harm existing data. To apply: `inkstream bootstrap {flags}`"
        )
    if blocked or (check and len(left) > len(waiting)):
        return PROBLEM
    return WAITING if waiting else 0
