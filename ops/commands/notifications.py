"""`inkstream notifications`: shows, lists, retries, cancels and previews notifications.

Input: ids, filters and types. Output: timelines, lists and previews, as text or JSON, and the exit code.
"""

import asyncio
import json
import tempfile
import webbrowser
from collections.abc import Iterable, Iterator, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
from faust.cli.base import argument, cli, option
from rich.console import Console
from rich.progress import Progress
from rich.table import Table
from rich.text import Text

from ops.commands.command import PROBLEM, InkstreamCommand, fail
from ops.commands.moment import Moment
from runtime.settings import Settings

if TYPE_CHECKING:
    from notifications.rendering import Preview as Previewed
    from notifications.rules import Rule
    from ops.notifications.timeline import Entry, Timeline
    from sinks.mongo.notification_admin import ActionResult, Failure, FailureCount, NotificationAdmin, Selection

_DAY = timedelta(days=1)
_SHOWN = 20
_AT_ONCE = 20
_LENGTH_OF_ID = 36
_NO_HARM = frozenset({"changed", "nothing to do", "expired", "unknown"})
"""Results that are not a problem when many are retried: done, or nothing to be done."""

_SINCE = "Only failures since then: 2026-01-31T12:00:00Z, or 90m, 12h, 3d ago. Default: the last 24 hours."


@cli.group()
def notifications() -> None:
    """Inspect and retry notifications.

    `show` prints the timeline of one notification, `failed` lists failures, `retry` and `cancel` change what is in the
    queue, and `preview` shows the text of each type. See docs/notifications.md.
    """


class Show(InkstreamCommand):
    """Show the status and timeline of one notification.

    ID is the id of a notification, of its log entry (emailLogs, pushNotificationLogs), or a provider's message id.
    Prints the status, what to do, and all events in order. Addresses and tokens are masked.

    Exit code 0, or 1 if it was not found.
    """

    group = notifications
    options = [  # noqa: RUF012 - as Faust declares them
        argument("name", metavar="ID"),
        option("--full", is_flag=True, help="Show addresses, tokens, the title and clicked links."),
        option("--json", "as_json", is_flag=True, help="Print JSON."),
    ]

    async def run(self, *args: Any, name: str, full: bool, as_json: bool) -> int:
        """Show it; return the exit code."""
        from ops.notifications.lookup import timeline_of
        from sinks.mongo.notification_admin import SearchTooLongError

        try:
            timeline = await timeline_of(Settings(), name, datetime.now(UTC), full=full)
        except SearchTooLongError:
            fail(
                [
                    f"No notification, log entry or e-mail has the id {name}, and there are too many push messages to "
                    "search. Give the id of the notification or of its log entry."
                ],
                PROBLEM,
            )
        if timeline is None:
            fail(_nothing_known(name), PROBLEM)
        if as_json:
            _print_json(_timeline_as_json(timeline))
        else:
            _show_timeline(timeline)
        return 0


class Failed(InkstreamCommand):
    """List failed notifications with reasons.

    Prints the number of failed messages by reason, channel and provider, then the latest ones. A notification for
    several devices may be listed several times. For details, use `inkstream notifications show`.
    """

    group = notifications
    options = [  # noqa: RUF012 - as Faust declares them
        option("--since", type=Moment(), help=_SINCE),
        option("--type", "type_", metavar="TYPE", help="Only this notification type, for example comment_reply."),
        option("--reason", metavar="CODE", help="Only failures with this code, for example bounced."),
        option("--limit", type=click.IntRange(min=0), default=_SHOWN, help="How many to list."),
        option("--json", "as_json", is_flag=True, help="Print JSON."),
    ]

    async def run(
        self, *args: Any, since: datetime | None, type_: str | None, reason: str | None, limit: int, as_json: bool
    ) -> int:
        """List the failures; return the exit code."""
        from ops.notifications.lookup import notification_admin

        chosen = _selection(since, type_, reason)
        async with notification_admin(Settings()) as cases:
            counts = await cases.failure_counts(chosen)
            failures = await cases.failures(chosen, limit) if limit else []
        if as_json:
            _print_json(
                {
                    "since": _iso(chosen.since),
                    "counts": [_as_json(count) for count in counts],
                    "failures": [_as_json(failure) for failure in failures],
                }
            )
            return 0
        _show_counts(counts, chosen)
        _show_failures(failures, sum(count.failures for count in counts))
        return 0


class Retry(InkstreamCommand):
    """Retry failed notifications, with a new set of attempts.

    Sends only the messages that failed, not those that succeeded on another channel. A notification that a worker is
    processing is left alone. Expired notifications are not sent, and messages to suppressed addresses are skipped: see
    `inkstream suppressions`.

    Exit code 0 if all the given notifications will be retried, else 1.
    """

    group = notifications
    options = [  # noqa: RUF012 - as Faust declares them
        argument("ids", nargs=-1, metavar="[ID]..."),
        option(
            "--failed",
            "all_failed",
            is_flag=True,
            help="All failed notifications, or those selected below.",
        ),
        option("--since", type=Moment(), help=f"With --failed: {_SINCE[0].lower()}{_SINCE[1:]}"),
        option("--type", "type_", metavar="TYPE", help="With --failed: only this notification type."),
        option("--reason", metavar="CODE", help="With --failed: only failures with this code."),
        option("--dry-run", is_flag=True, help="Show what would be retried without changing anything."),
        option("--json", "as_json", is_flag=True, help="Print JSON."),
    ]

    async def run(
        self,
        *args: Any,
        ids: tuple[str, ...],
        all_failed: bool,
        since: datetime | None,
        type_: str | None,
        reason: str | None,
        dry_run: bool,
        as_json: bool,
    ) -> int:
        """Retry; return the exit code."""
        from ops.notifications.lookup import notification_admin

        if bool(ids) == all_failed:
            raise click.UsageError("Give ids of notifications, or --failed.")
        if ids and (since or type_ or reason):
            raise click.UsageError("--since, --type and --reason need --failed and cannot be combined with ids.")
        settings = Settings()
        chosen = _selection(since, type_, reason)
        async with notification_admin(settings) as cases:
            if all_failed and not as_json:
                _show_counts(await cases.failure_counts(chosen), chosen)
            asked = await cases.failed(chosen) if all_failed else list(dict.fromkeys(ids))
            results = await _retried(settings, cases, asked, reason, dry_run=dry_run)
        if as_json:
            _print_json([_as_json(result) for result in results])
        else:
            _show_results(results, "would be retried" if dry_run else "will be retried", "has failed", many=all_failed)
        return _code(results, _NO_HARM if all_failed else {"changed"})


class Cancel(InkstreamCommand):
    """Cancel notifications that wait to be sent.

    Messages that were sent can't be recalled, and the notification stays in the application. A notification that a
    worker is processing is left alone.

    Exit code 0 if all the given notifications are cancelled, else 1.
    """

    group = notifications
    options = [  # noqa: RUF012 - as Faust declares them
        argument("ids", nargs=-1, required=True, metavar="ID..."),
        option("--dry-run", is_flag=True, help="Show what would be cancelled without changing anything."),
        option("--json", "as_json", is_flag=True, help="Print JSON."),
    ]

    async def run(self, *args: Any, ids: tuple[str, ...], dry_run: bool, as_json: bool) -> int:
        """Cancel; return the exit code."""
        from ops.notifications.lookup import notification_admin

        async with notification_admin(Settings()) as cases:
            now = datetime.now(UTC)
            results = [await cases.cancel(one, now, dry_run=dry_run) for one in dict.fromkeys(ids)]
        if as_json:
            _print_json([_as_json(result) for result in results])
        else:
            _show_results(results, "would be cancelled" if dry_run else "cancelled", "is waiting", many=False)
        return _code(results, {"changed"})


class Preview(InkstreamCommand):
    """Show the text of notifications as recipients get it.

    TYPE is a type in notifications.yaml; without it, all types are shown. The text is rendered from the example of the
    type's event. Needs no server.
    """

    group = notifications
    options = [  # noqa: RUF012 - as Faust declares them
        argument("name", metavar="[TYPE]", required=False),
        option("--html", type=click.Path(dir_okay=False, path_type=Path), help="Write the e-mail's HTML to this file."),
        option("--open", "opened", is_flag=True, help="Open the e-mail's HTML in a browser."),
    ]

    async def run(self, *args: Any, name: str | None, html: Path | None, opened: bool) -> int:
        """Show the text; return the exit code."""
        from notifications.rendering import Renderer
        from ops.notifications.lookup import declared_rules

        settings = Settings()
        rules = declared_rules(settings)
        if name is None and (html or opened):
            raise click.UsageError("--html and --open need a TYPE.")
        if (
            name is not None
            and name in rules.by_type
            and (html or opened)
            and "email" not in rules.by_type[name].channels
        ):
            raise click.BadParameter(f"{name} is not sent by e-mail", param_hint="TYPE")
        renderer = Renderer(settings.site_name, settings.site_url, settings.link_hosts)
        console = Console(highlight=False, soft_wrap=True, markup=False)
        for number, type_ in enumerate([name] if name else rules.by_type):
            try:
                notice = rules.example(type_)
            except KeyError as error:
                raise click.BadParameter(error.args[0], param_hint="TYPE") from error
            preview = renderer.preview(notice)
            if name is None or not (html or opened):
                console.print(*[""] * bool(number), *_preview_lines(rules.by_type[type_], preview), sep="\n")
            elif not _show_html(console, preview.email.html, type_, html, opened=opened):
                return PROBLEM
        return 0


# Timelines


def _nothing_known(name: str) -> list[str]:
    return [
        f"No notification found with id {name}.",
        "The queue keeps finished items for 7 days, logs are kept for 30 days, and a notification until it expires.",
        "If it was never created, list refused requests with `inkstream dead-letters list --topic notifications`, and "
        "check with `inkstream doctor` whether a worker lags behind.",
    ]


def _show_timeline(timeline: "Timeline") -> None:
    console = Console(highlight=False)
    console.print(Text(timeline.standing, style="bold"), soft_wrap=True)
    for advice in timeline.advice:
        console.print(f"→ {advice}", markup=False, soft_wrap=True)
    console.print()
    facts = Table(box=None, pad_edge=False, show_header=False)
    for name, value in timeline.facts:
        facts.add_row(Text(name, style="dim"), Text(value, overflow="fold"))
    console.print(facts)
    console.print()
    entries = Table(box=None, pad_edge=False, show_header=False)
    _add_entries(entries, timeline.past)
    if timeline.coming:
        entries.add_row(Text("now", style="bold"), "", "")
        _add_entries(entries, timeline.coming)
    console.print(entries)


def _add_entries(table: Table, entries: "Iterable[Entry]") -> None:
    for time, about, what in entries:
        table.add_row(f"{time:%Y-%m-%d %H:%M:%S}Z", Text(about, overflow="fold"), Text(what, overflow="fold"))


def _timeline_as_json(timeline: "Timeline") -> dict[str, Any]:
    return {
        "id": timeline.id,
        "standing": timeline.standing,
        "advice": list(timeline.advice),
        "facts": dict(timeline.facts),
        "past": [_as_json(entry) for entry in timeline.past],
        "coming": [_as_json(entry) for entry in timeline.coming],
    }


# Failures


def _selection(since: datetime | None, type_: str | None, reason: str | None) -> "Selection":
    from sinks.mongo.notification_admin import Selection

    return Selection(since or datetime.now(UTC) - _DAY, type_, reason)


def _show_counts(counts: "Sequence[FailureCount]", chosen: "Selection") -> None:
    console = Console(highlight=False)
    assert chosen.since is not None
    if not counts:
        console.print(f"No failures since {chosen.since:%Y-%m-%d %H:%M}Z.")
        return
    table = Table(box=None, pad_edge=False)
    for name, justify in (("reason", "left"), ("channel", "left"), ("provider", "left"), ("failed", "right")):
        table.add_column(name, justify="right" if justify == "right" else "left", overflow="fold")
    table.add_column("latest")
    for count in counts:
        table.add_row(
            Text(count.reason),
            count.channel,
            count.provider,
            f"{count.failures:,}",
            f"{count.latest:%Y-%m-%d %H:%M:%S}Z",
        )
    console.print(table)
    console.print()


def _show_failures(failures: "Sequence[Failure]", all_of_them: int) -> None:
    from ops.notifications.masking import without_addresses

    if not failures:
        return
    console = Console(highlight=False)
    table = Table(box=None, pad_edge=False)
    for name in ("failed", "notification", "type", "channel", "reason"):
        # Ids are meant to be copied: keep them on one line.
        table.add_column(name, overflow="fold", min_width=_LENGTH_OF_ID if name == "notification" else None)
    for one in failures:
        way = " ".join(part for part in (one.channel, "by" if one.provider else None, one.provider) if part)
        said = f"{one.reason}: {without_addresses(one.message)}" if one.message else one.reason
        table.add_row(f"{one.since:%Y-%m-%d %H:%M:%S}Z", Text(one.id), Text(one.type), Text(way), Text(said))
    console.print(table)
    if all_of_them > len(failures):
        console.print(f"and {all_of_them - len(failures):,} more; use --limit to list more.")
    console.print(
        "\n→ See details: `inkstream notifications show ID`. Retry all: `inkstream notifications retry --failed`; only "
        "one reason: add `--reason CODE`.",
        markup=False,
        soft_wrap=True,
    )


# Changes


async def _retried(
    settings: Settings, cases: "NotificationAdmin", ids: Sequence[str], reason: str | None, *, dry_run: bool
) -> "list[ActionResult]":
    """Retry items, several at a time, and wake up the dispatchers."""
    from sinks.redis.wakeups import WakeUps

    wake_ups = WakeUps(settings.redis_url.get_secret_value(), f"{settings.namespace}inkstream:")
    console = Console(stderr=True)
    results: list[ActionResult] = []
    try:
        with Progress(console=console, transient=True, disable=not console.is_terminal) as progress:
            task = progress.add_task("retrying", total=len(ids))
            for first in range(0, len(ids), _AT_ONCE):
                now = datetime.now(UTC)
                part = ids[first : first + _AT_ONCE]
                results += await asyncio.gather(
                    *(cases.retry(one, now, reason=reason, dry_run=dry_run) for one in part)
                )
                if not dry_run and any(result.verdict == "changed" for result in results[first:]):
                    await wake_ups.announce([now], now)
                progress.advance(task, len(part))
    finally:
        await wake_ups.close()
    return results


def _show_results(results: "Sequence[ActionResult]", done: str, state: str, *, many: bool) -> None:
    """Print each result; of many, the number that are done and the first of those that are not."""
    console = Console(highlight=False, soft_wrap=True, markup=False)
    changed = sum(result.verdict == "changed" for result in results)
    others = [result for result in results if result.verdict != "changed"]
    if many and results:
        console.print(f"{changed:,} of {len(results):,} {done}.")
    for result in others[:_SHOWN] if many else results:
        console.print(f"{result.id}: {_verdict(result, done, state)}.")
    if many and len(others) > _SHOWN:
        console.print(f"and {len(others) - _SHOWN:,} more.")


def _verdict(result: "ActionResult", done: str, state: str) -> str:
    match result.verdict:
        case "changed":
            return done
        case "unknown":
            return "not in the queue, which keeps finished items for 7 days"
        case "held" if result.until is not None and result.until <= datetime.now(UTC):
            return "its worker stopped while processing it; another worker takes over within seconds, try again then"
        case "held":
            until = f", until {result.until:%H:%M:%S}Z at most" if result.until else ""
            return f"unchanged: worker {result.worker or 'unknown'} is processing it{until}; try again then"
        case "under way":
            return "unchanged: a worker stopped during an attempt; another worker takes over within seconds"
        case "contended":
            return "unchanged: it is being changed; try again"
        case "expired":
            return f"expired at {result.until:%Y-%m-%d %H:%M:%S}Z, and will not be sent"
        case "unreadable":
            return "unreadable for this release; see its document in notificationQueue"
    return f"no message of it {state}"


def _code(results: "Iterable[ActionResult]", well: Iterable[str]) -> int:
    return 0 if all(result.verdict in frozenset(well) for result in results) else PROBLEM


# Previews


def _preview_lines(rule: "Rule", preview: "Previewed") -> Iterator[str]:
    from ops.notifications.timeline import NAMES

    ways = ", ".join(NAMES[channel] for channel in rule.channels)
    yield f"{rule.type}: on {rule.event.name}, {rule.priority}, {ways}"
    words = preview.words
    button = f"[{words.action_text}] {words.action_url}" if words.action_url else None
    yield from _part(NAMES["inApp"], [words.title, *words.message.splitlines(), *([button] if button else [])])
    if "email" in rule.channels:
        yield from _part(NAMES["email"], [f"Subject: {preview.email.subject}", "", *preview.email.text.splitlines()])
    if "push" in rule.channels:
        push = preview.push
        yield from _part(NAMES["push"], [push.title, push.body, *([push.url] if push.url else [])])
    if preview.together:
        yield from _part("grouped", [" — ".join(texts) for texts in preview.together])


def _part(name: str, lines: Iterable[str]) -> Iterator[str]:
    yield f"  {name}"
    yield from (f"    {line}".rstrip() for line in lines)


def _show_html(console: Console, html: str, name: str, file: Path | None, *, opened: bool) -> bool:
    """Write an e-mail's HTML, and open it if asked to; return whether that succeeded."""
    try:
        if file is None:
            with tempfile.NamedTemporaryFile("w", prefix=f"{name}-", suffix=".html", delete=False) as temporary:
                file = Path(temporary.name)
        file.write_text(html, encoding="utf-8")
    except OSError as error:
        raise click.BadParameter(f"{file} can't be written: {error.strerror}", param_hint="--html") from error
    console.print(f"Wrote {file}.")
    if opened and not webbrowser.open(file.resolve().as_uri()):
        fail(["Could not start a browser. Open the file yourself, or set BROWSER."], PROBLEM)
    return True


# JSON


def _as_json(record: "Entry | Failure | FailureCount | ActionResult") -> Mapping[str, object]:
    """Return a named tuple for JSON output, with addresses in its messages masked."""
    from ops.notifications.masking import without_addresses

    found = {name: _iso(value) for name, value in record._asdict().items()}
    return {name: without_addresses(str(value)) if name == "message" else value for name, value in found.items()}


def _iso(value: object) -> object:
    return value.isoformat() if isinstance(value, datetime) else value


def _print_json(value: object) -> None:
    Console(soft_wrap=True, highlight=False).print(json.dumps(value, indent=2, ensure_ascii=False), markup=False)
