"""`inkstream doctor`: checks the installation and suggests fixes.

Input: servers, declarations and environment. Output: findings, as a table or JSON, and the exit code.
"""

import json
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

from faust.cli.base import option
from rich.console import Console
from rich.table import Table
from rich.text import Text

from ops.commands.command import PROBLEM, InkstreamCommand, check_configuration
from runtime.settings import Settings

if TYPE_CHECKING:
    from ops.checks.finding import Finding

_STYLES = {"well": "green", "note": "yellow", "problem": "bold red"}


class Doctor(InkstreamCommand):
    """Check servers, topics, schema and consumers; suggest fixes.

    Checks the settings, the connection to each server, topics, collections and tables against their declarations, the
    lag of each agent, and open dead letters. Changes nothing.

    Exit code 0 if there are no problems, else 1.
    """

    options = [  # noqa: RUF012 - as Faust declares them
        option("--json", "as_json", is_flag=True, help="Print JSON."),
    ]

    def check_configuration(self) -> None:
        """Check all but the providers, whose problems are findings like any other."""
        check_configuration(with_providers=False)

    async def run(self, *args: Any, as_json: bool) -> int:
        """Run all checks; return the exit code."""
        from agents.topology import load
        from ops.checks.finding import State
        from ops.doctor import examine

        settings = Settings()
        findings = await examine(settings, load(settings))
        problems = sum(finding.state is State.PROBLEM for finding in findings)
        if as_json:
            report = {"well": not problems, "findings": [finding._asdict() for finding in findings]}
            Console(soft_wrap=True, highlight=False).print(json.dumps(report, indent=2), markup=False)
        else:
            _show(findings, problems)
        return PROBLEM if problems else 0


def _show(findings: "Iterable[Finding]", problems: int) -> None:
    console = Console(highlight=False)
    table = Table(box=None, pad_edge=False, show_header=False)
    for subject, state, what, advice in findings:
        found = Text(what)
        if advice:
            found.append(f"\n→ {advice}", style="default not bold")
        table.add_row(Text(state, style=_STYLES[state]), Text(subject), found)
    console.print(table)
    console.print(f"{problems or 'No'} {'problem' if problems == 1 else 'problems'} found.")
