"""The option type for a point in time.

Input: text, absolute or relative. Output: an aware datetime in UTC, or an error that shows the accepted formats.
"""

import re
from datetime import UTC, datetime, timedelta

import click

_AGO = re.compile(r"(\d+)(s|m|h|d)")
_UNITS = {"s": "seconds", "m": "minutes", "h": "hours", "d": "days"}


class Moment(click.ParamType):
    """A point in time: ISO 8601, in UTC if it has no time zone; or relative, such as `90m`, `12h` or `3d` ago."""

    name = "moment"

    def convert(self, value: str, param: click.Parameter | None, ctx: click.Context | None) -> datetime:
        """Parse the text."""
        if ago := _AGO.fullmatch(value):
            return datetime.now(UTC) - timedelta(**{_UNITS[ago[2]]: int(ago[1])})
        try:
            moment = datetime.fromisoformat(value)
        except ValueError:
            self.fail(f"{value!r} should be like 2026-01-31, 2026-01-31T12:00:00Z, 90m, 12h or 3d", param, ctx)
        return moment.replace(tzinfo=UTC) if moment.tzinfo is None else moment.astimezone(UTC)
