"""The type of an option that is a moment: parses what a user typed to an aware moment in UTC."""

from datetime import UTC, datetime

import click

from schemas.declarations import parse_duration


class Moment(click.ParamType):
    """A moment in ISO 8601, in UTC if it has no time zone; or a duration before now, such as `90m`, `12h` or `3d`."""

    name = "moment"

    def convert(self, value: str, param: click.Parameter | None, ctx: click.Context | None) -> datetime:
        """Return the moment that a text means."""
        try:
            ago = parse_duration(value)
            moment = datetime.now(UTC) - ago if ago is not None else datetime.fromisoformat(value)
        except (OverflowError, ValueError):
            self.fail(f"{value!r} should be like 2026-01-31, 2026-01-31T12:00:00Z, 90m, 12h or 3d", param, ctx)
        return moment.replace(tzinfo=UTC) if moment.tzinfo is None else moment.astimezone(UTC)
