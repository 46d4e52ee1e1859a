"""`inkstream suppressions`: lists and edits the addresses and devices to which no messages are sent.

Input: addresses and tokens. Output: a list or the change, and the exit code.
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
    """List and edit suppressed addresses.

    An address is suppressed after a permanent bounce, a spam report or an unsubscribe request; a device when its push
    token is no longer valid. Messages to them are skipped with the reason `suppressed`.
    """


class List(InkstreamCommand):
    """List suppressed addresses and devices with reasons, newest first."""

    group = suppressions
    options = [  # noqa: RUF012 - as Faust declares them
        option("--channel", type=_CHANNELS, help="Only this channel."),
        option("--limit", type=click.IntRange(min=1), default=50, help="How many to list."),
        option("--full", is_flag=True, help="Show addresses and tokens unmasked."),
        option("--json", "as_json", is_flag=True, help="Print JSON."),
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
            console.print("No suppressed addresses.")
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
            console.print("and more; use --limit to list more.")
        return 0


class Add(InkstreamCommand):
    """Add an address to the suppressed ones.

    No messages are sent to it. ADDRESS is an e-mail address or a device's token. An address that is already suppressed
    keeps its first reason.
    """

    group = suppressions
    options = [  # noqa: RUF012 - as Faust declares them
        argument("channel", type=_CHANNELS, metavar="email|push"),
        argument("address", metavar="ADDRESS"),
        option("--reason", default="by hand", help="Why it is suppressed."),
    ]

    async def run(self, *args: Any, channel: "Channel", address: str, reason: str) -> int:
        """Add it; return the exit code."""
        from ops.notifications.lookup import suppressions as opened

        _check(channel, address)
        if channel == "email":
            _check_readable(address)
        if _DEVICE.fullmatch(address):
            raise click.BadParameter(
                "add a device by its token; it cannot be derived from the device's name", param_hint="ADDRESS"
            )
        async with opened(Settings()) as store:
            is_new = await store.add(channel, address, reason)
        click.echo("Suppressed." if is_new else "Already suppressed.")
        return 0


class Remove(InkstreamCommand):
    """Remove an address from the suppressed ones.

    ADDRESS is an e-mail address, a device's token, or a device's name as shown in lists, `device:…`.

    Messages skipped in the meantime are not sent. To send failed ones, use `inkstream notifications retry`.

    Exit code 0, or 1 if the address is not suppressed.
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
            fail(["Not suppressed. List all: `inkstream suppressions list`."], PROBLEM)
        click.echo("Removed. Messages are sent to it again.")
        return 0


def _check(channel: str, address: str) -> None:
    """Refuse an obvious mistake.

    Raises:
        click.BadParameter: An e-mail address has no @.
    """
    if channel == "email" and "@" not in address:
        raise click.BadParameter("should be an e-mail address", param_hint="ADDRESS")


def _check_readable(address: str) -> None:
    """Refuse an invalid e-mail address.

    Raises:
        click.BadParameter: It is invalid; the message says why.
    """
    from schemas.email_address import InvalidAddress, read

    try:
        read(address)
    except InvalidAddress as error:
        raise click.BadParameter(f"not a valid e-mail address: {error}", param_hint="ADDRESS") from None


def _shown(one: "Suppression", *, full: bool) -> str:
    from ops.notifications.masking import masked_address, masked_token

    if full:
        return one.address
    return masked_address(one.address) if one.channel == "email" else masked_token(one.address)
