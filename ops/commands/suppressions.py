"""`inkstream suppressions`: addresses and devices that nothing may be sent to any more.

In come addresses; out come a list, or the change, and the exit code.
"""

import json
import re
from typing import TYPE_CHECKING, Any

import click
from faust.cli.base import argument, cli, option
from rich.console import Console
from rich.table import Table
from rich.text import Text

from ops.commands.command import PROBLEM, InkstreamCommand, fail
from runtime.settings import Settings

if TYPE_CHECKING:
    from sinks.postgres.suppressions import Channel, Suppression

_CHANNELS = click.Choice(["email", "push"])
_DEVICE = re.compile(r"device:([0-9a-f]{16})")


@cli.group()
def suppressions() -> None:
    """Say who can't be written to any more, and change it.

    An address that bounced for good, reported spam or unsubscribed is suppressed, and so is a device that has gone.
    What is asked for all the same is skipped, with the reason `suppressed`.
    """


class List(InkstreamCommand):
    """List what is suppressed and why, the latest first."""

    group = suppressions
    options = [  # noqa: RUF012 - as Faust declares them
        option("--channel", type=_CHANNELS, help="Only of this channel."),
        option("--limit", type=click.IntRange(min=1), default=50, help="How many to list."),
        option("--full", is_flag=True, help="With addresses and tokens as they are, which otherwise are masked."),
        option("--json", "as_json", is_flag=True, help="As JSON, for machines."),
    ]

    async def run(self, *args: Any, channel: "Channel | None", limit: int, full: bool, as_json: bool) -> int:
        """List them; return the exit code."""
        from ops.notifications.lookup import suppressions as opened

        async with opened(Settings()) as store:
            found = await store.latest(limit + 1, channel)
        shown = found[:limit]
        if as_json:
            listed = [
                {
                    "channel": one.channel,
                    "address": _shown(one, full=full),
                    "reason": one.reason,
                    "since": one.since.isoformat(),
                }
                for one in shown
            ]
            Console(soft_wrap=True, highlight=False).print(json.dumps(listed, indent=2), markup=False)
            return 0
        console = Console(highlight=False)
        if not shown:
            console.print("Nothing is suppressed.")
            return 0
        table = Table("since", "channel", box=None, pad_edge=False)
        table.add_column("address", overflow="fold")
        table.add_column("reason", overflow="fold")
        for one in shown:
            table.add_row(
                f"{one.since:%Y-%m-%d %H:%M:%S}Z", one.channel, Text(_shown(one, full=full)), Text(one.reason)
            )
        console.print(table)
        if len(found) > limit:
            console.print("and more; --limit lists more of them.")
        return 0


class Add(InkstreamCommand):
    """Let nothing be sent to an address any more.

    ADDRESS is an e-mail address, or a device's token. What is suppressed already keeps its first reason.
    """

    group = suppressions
    options = [  # noqa: RUF012 - as Faust declares them
        argument("channel", type=_CHANNELS, metavar="email|push"),
        argument("address", metavar="ADDRESS"),
        option("--reason", default="by hand", help="Why."),
    ]

    async def run(self, *args: Any, channel: "Channel", address: str, reason: str) -> int:
        """Add it; return the exit code."""
        from ops.notifications.lookup import suppressions as opened

        _check(channel, address)
        if channel == "email":
            _check_readable(address)
        if _DEVICE.fullmatch(address):
            raise click.BadParameter(
                "a device is added by its token, as its name does not tell it", param_hint="ADDRESS"
            )
        async with opened(Settings()) as store:
            is_new = await store.add(channel, address, reason)
        click.echo("Nothing is sent there from now on." if is_new else "It was suppressed already.")
        return 0


class Remove(InkstreamCommand):
    """Let an address be written to again.

    ADDRESS is an e-mail address, a device's token, or its name as lists and stories have it, `device:…`.

    What was skipped meanwhile is not sent; what failed is sent by `inkstream notifications retry`. Exit code 1 where
    the address is not suppressed.
    """

    group = suppressions
    options = [  # noqa: RUF012 - as Faust declares them
        argument("channel", type=_CHANNELS, metavar="email|push"),
        argument("address", metavar="ADDRESS"),
    ]

    async def run(self, *args: Any, channel: "Channel", address: str) -> int:
        """Remove it; return the exit code."""
        from ops.notifications.lookup import suppressions as opened

        _check(channel, address)
        device = _DEVICE.fullmatch(address)
        async with opened(Settings()) as store:
            was_there = await (store.remove_device(device[1]) if device else store.remove(channel, address))
        if not was_there:
            fail(["It is not suppressed; `inkstream suppressions list` shows what is."], PROBLEM)
        click.echo("It may be written to again.")
        return 0


def _check(channel: str, address: str) -> None:
    """Refuse what was certainly not meant.

    Raises:
        click.BadParameter: An e-mail address has no @.
    """
    if channel == "email" and "@" not in address:
        raise click.BadParameter("should be an e-mail address", param_hint="ADDRESS")


def _check_readable(address: str) -> None:
    """Refuse what is no e-mail address.

    Raises:
        click.BadParameter: It can't be read.
    """
    from schemas.email_address import InvalidAddress, read

    try:
        read(address)
    except InvalidAddress as error:
        raise click.BadParameter(f"is no e-mail address: {error}", param_hint="ADDRESS") from None


def _shown(one: "Suppression", *, full: bool) -> str:
    from ops.notifications.masking import masked_address, masked_token

    if full:
        return one.address
    return masked_address(one.address) if one.channel == "email" else masked_token(one.address)
