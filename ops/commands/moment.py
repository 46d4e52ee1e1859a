"""The type of an option that is a moment.

In comes what a user typed; out comes an aware moment in UTC, or a message on how to write one.
"""

import re
from datetime import UTC, datetime, timedelta

import click

_AGO = re.compile(r"(\d+)(s|m|h|d)")
_UNITS = {"s": "seconds", "m": "minutes", "h": "hours", "d": "days"}


class Moment(click.ParamType):
    """A moment: ISO 8601, in UTC where it has no zone; or so long ago, as `90m`, `12h` or `3d`."""

    name = "moment"

    def convert(self, value: str, param: click.Parameter | None, ctx: click.Context | None) -> datetime:
        """Return the moment that a text means."""
        if ago := _AGO.fullmatch(value):
            return datetime.now(UTC) - timedelta(**{_UNITS[ago[2]]: int(ago[1])})
        try:
            moment = datetime.fromisoformat(value)
        except ValueError:
            self.fail(f"{value!r} should be like 2026-01-31, 2026-01-31T12:00:00Z, 90m, 12h or 3d", param, ctx)
        return moment.replace(tzinfo=UTC) if moment.tzinfo is None else moment.astimezone(UTC)
