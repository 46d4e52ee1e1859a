"""`inkstream bootstrap`: makes topics, collections and tables what is declared, or with `--check` says what is not.

In come the declarations and the servers; out come a line for each change, a summary and the exit code.
"""

from typing import TYPE_CHECKING, Any

from faust.cli.base import option
from rich.console import Console

from ops.commands.command import PROBLEM, InkstreamCommand, declared_topics
from ops.settings import Settings

if TYPE_CHECKING:
    from sinks.convergence import Change


class Bootstrap(InkstreamCommand):
    """Make topics, collections and tables what is declared.

    Safe to repeat: what is as declared stays as it is, and nothing is ever deleted. Ends with exit code 1 when a
    server does not answer or refuses.
    """

    options = [  # noqa: RUF012 - as Faust declares them
        option("--check", is_flag=True, help="Change nothing; list what differs, with exit code 1 if anything does."),
        option("--wait", type=float, default=30.0, metavar="SECONDS", help="How long to wait for servers that start."),
    ]

    async def run(self, *args: Any, check: bool, wait: float) -> int:
        """Converge all servers; return the exit code."""
        from ops.bootstrap import converge, wait_for_servers
        from sinks.mongo import Mongo

        console = Console(highlight=False, soft_wrap=True)
        settings = Settings()
        topics = declared_topics(settings)
        await wait_for_servers(settings, seconds=wait, report=lambda line: console.print(line, markup=False))
        mongo = Mongo.connect(settings.mongo_url.get_secret_value())

        def show(server: str, of_server: "list[Change]") -> None:
            for change in of_server:
                console.print(f"{server}: {change.line}", markup=False)

        changes = await converge(settings, topics.all.values(), mongo, check=check, report=show)
        await mongo.close()
        return _summary(console, changes, check=check)


def _summary(console: Console, changes: "list[Change]", *, check: bool) -> int:
    """Print what it comes to; return the exit code."""
    done = sum(change.done for change in changes)
    different = sum(not change.done and change.action != "report" for change in changes)
    if check:
        console.print(f"{different} not as declared." if different else "All is as declared.")
        return PROBLEM if different else 0
    left = f" {different} left as they are; see above." if different else ""
    console.print((f"{done} changed." if done else "Nothing to do.") + left)
    return 0
