"""The command line `inkstream`: Faust's own, for this application, with our commands beside Faust's `worker`.

Input: a command and its options. Output: its effects and an exit code: 0 success, 1 a problem was found, 2 wrong usage
or settings. `--help` needs neither settings nor servers.
"""

from importlib.metadata import version
from typing import NoReturn

import click
from faust.cli.faust import cli

from ops.commands import (
    bootstrap,
    dead_letters,
    doctor,
    notifications,
    replay,
    settings,
    suppressions,
    topics,
    verify,
    worker,
)
from ops.commands.command import reported_errors
from runtime.patches import uvloop

__all__ = [
    "bootstrap",
    "dead_letters",
    "doctor",
    "main",
    "notifications",
    "replay",
    "settings",
    "suppressions",
    "topics",
    "verify",
    "worker",
]

_APPLICATION = "agents.app:app"
_HELP = """Process a blog platform's events from Kafka: store them, count views, send notifications.

Configure Inkstream with environment variables or the file .env; `inkstream settings` shows all settings. To start, run
`inkstream bootstrap`, then `inkstream worker`. To find problems, run `inkstream doctor`.
"""


def main() -> NoReturn:
    """Run the command line, and exit."""
    _adapt_command_line()
    uvloop.apply()
    # A command that needs the application loads it itself, so wrong settings or topics show up here.
    with reported_errors():
        cli(prog_name="inkstream")
    raise AssertionError("the command line exits by itself")


def _adapt_command_line() -> None:
    """Adapt Faust's command line: use this application by default, and hide unrelated commands and options."""
    for name, command in cli.commands.items():
        command.hidden = name.replace("-", "_") not in __all__
    cli.params = [option for option in cli.params if option.name != "version"]
    for option in (*cli.params, *cli.commands["worker"].params):
        if isinstance(option, click.Option):
            option.hidden = True
            if option.name == "app":
                option.default = _APPLICATION
    click.version_option(version("inkstream"), prog_name="inkstream")(cli)
    cli.help = _HELP
