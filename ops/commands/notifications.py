"""`inkstream notifications`: what became of notifications, another try or an end for them, and a look at their words.

In come ids, selections and types; out come stories, lists and texts, for people or as JSON, and the exit code.
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
"""What may become of one of many: it is done, or need not be."""

_SINCE = "Given up then or later: 2026-01-31T12:00:00Z, 90m, 12h, 3d. By default in the last 24 hours."


@cli.group()
def notifications() -> None:
    """Say what became of notifications, and try them again.

    `show` tells the story of one, `failed` lists what was given up, `retry` and `cancel` change what is in the queue,
    and `preview` shows the words of each type. docs/notifications.md has more.
    """


class Show(InkstreamCommand):
    """Tell the whole story of one notification.

    ID is a notification's, that of its log (emailLogs, pushNotificationLogs), or what a provider calls a message.
    First comes how things stand, then what to do, then all that happened, in order. Addresses and tokens are masked.

    Exit code 0, or 1 where nothing is known of it.
    """

    group = notifications
    options = [  # noqa: RUF012 - as Faust declares them
        argument("name", metavar="ID"),
        option("--full", is_flag=True, help="With addresses, tokens, the title, and links that were clicked."),
        option("--json", "as_json", is_flag=True, help="As JSON, for machines."),
    ]

    async def run(self, *args: Any, name: str, full: bool, as_json: bool) -> int:
        """Tell the story; return the exit code."""
        from ops.notifications.lookup import timeline_of
        from sinks.mongo.notification_admin import SearchTooLongError

        try:
            story = await timeline_of(Settings(), name, datetime.now(UTC), full=full)
        except SearchTooLongError:
            fail(
                [
                    f"{name} is no id of a notification, a log or an e-mail, and there are too many push messages to "
                    "look through: give the notification's id, or the log's."
                ],
                PROBLEM,
            )
        if story is None:
            fail(_nothing_known(name), PROBLEM)
        if as_json:
            _print_json(_story_as_json(story))
        else:
            _show_story(story)
        return 0


class Failed(InkstreamCommand):
    """List what was given up, with reasons.

    First how many messages failed for which reason, by channel and provider; then the latest of them. A notification
    with several devices may be in the list several times. `inkstream notifications show` has the story of each.
    """

    group = notifications
    options = [  # noqa: RUF012 - as Faust declares them
        option("--since", type=Moment(), help=_SINCE),
        option("--type", "type_", metavar="TYPE", help="Only this type of notification, such as comment_reply."),
        option("--reason", metavar="CODE", help="Only what failed with this code, such as bounced."),
        option("--limit", type=click.IntRange(min=0), default=_SHOWN, help="How many to list."),
        option("--json", "as_json", is_flag=True, help="As JSON, for machines."),
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
    """Try again what failed, with all its attempts anew.

    Only the messages that failed are sent again; what arrived by another channel is not. One that a worker has just
    now is left alone. What is past its time is not sent any more, and what goes to a suppressed address is skipped:
    see `inkstream suppressions`.

    Exit code 0 when all that was asked for is to be tried again, else 1.
    """

    group = notifications
    options = [  # noqa: RUF012 - as Faust declares them
        argument("ids", nargs=-1, metavar="[ID]..."),
        option("--failed", "all_failed", is_flag=True, help="Instead of ids: all that failed, or those chosen below."),
        option("--since", type=Moment(), help=f"With --failed: {_SINCE[0].lower()}{_SINCE[1:]}"),
        option("--type", "type_", metavar="TYPE", help="With --failed: only this type of notification."),
        option("--reason", metavar="CODE", help="With --failed: only what failed with this code."),
        option("--dry-run", is_flag=True, help="Change nothing; show what would be tried again."),
        option("--json", "as_json", is_flag=True, help="As JSON, for machines."),
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
            raise click.UsageError("say which: ids of notifications, or --failed")
        if ids and (since or type_ or reason):
            raise click.UsageError("--since, --type and --reason choose among --failed, and go with no ids")
        settings = Settings()
        chosen = _selection(since, type_, reason)
        async with notification_admin(settings) as cases:
            if all_failed and not as_json:
                _show_counts(await cases.failure_counts(chosen), chosen)
            asked = await cases.failed(chosen) if all_failed else list(dict.fromkeys(ids))
            rulings = await _retried(settings, cases, asked, reason, dry_run=dry_run)
        if as_json:
            _print_json([_as_json(ruling) for ruling in rulings])
        else:
            _show_rulings(rulings, "would be tried again" if dry_run else "tried again", "failed", many=all_failed)
        return _code(rulings, _NO_HARM if all_failed else {"changed"})


class Cancel(InkstreamCommand):
    """Give up what waits to be sent.

    What was sent can't be called back, and the notification stays in the application. One that a worker has just now is
    left alone.

    Exit code 0 when all that was asked for is cancelled, else 1.
    """

    group = notifications
    options = [  # noqa: RUF012 - as Faust declares them
        argument("ids", nargs=-1, required=True, metavar="ID..."),
        option("--dry-run", is_flag=True, help="Change nothing; show what would be cancelled."),
        option("--json", "as_json", is_flag=True, help="As JSON, for machines."),
    ]

    async def run(self, *args: Any, ids: tuple[str, ...], dry_run: bool, as_json: bool) -> int:
        """Cancel; return the exit code."""
        from ops.notifications.lookup import notification_admin

        async with notification_admin(Settings()) as cases:
            now = datetime.now(UTC)
            rulings = [await cases.cancel(one, now, dry_run=dry_run) for one in dict.fromkeys(ids)]
        if as_json:
            _print_json([_as_json(ruling) for ruling in rulings])
        else:
            _show_rulings(rulings, "would be cancelled" if dry_run else "cancelled", "waits", many=False)
        return _code(rulings, {"changed"})


class Preview(InkstreamCommand):
    """Show the words of notifications, as people get them.

    TYPE is one of notifications.yaml; without it, all are shown. The words are those of the example of the type's
    event. Needs no server.
    """

    group = notifications
    options = [  # noqa: RUF012 - as Faust declares them
        argument("name", metavar="[TYPE]", required=False),
        option(
            "--html", type=click.Path(dir_okay=False, path_type=Path), help="Write the e-mail's HTML into this file."
        ),
        option("--open", "opened", is_flag=True, help="Open the e-mail's HTML in a browser."),
    ]

    async def run(self, *args: Any, name: str | None, html: Path | None, opened: bool) -> int:
        """Show the words; return the exit code."""
        from notifications.rendering import Renderer
        from ops.notifications.lookup import declared_rules

        settings = Settings()
        rules = declared_rules(settings)
        if name is None and (html or opened):
            raise click.UsageError("--html and --open show one type: name it")
        if (
            name is not None
            and name in rules.by_type
            and (html or opened)
            and "email" not in rules.by_type[name].channels
        ):
            raise click.BadParameter(f"{name} is not told by e-mail", param_hint="TYPE")
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


# Stories


def _nothing_known(name: str) -> list[str]:
    return [
        f"Nothing is known of {name}.",
        "The queue keeps what is done for 7 days, logs are kept for 30 days, and a notification until it expires.",
        "If it never came: `inkstream dead-letters list --topic notifications` lists requests that were refused, and "
        "`inkstream doctor` tells whether a worker is behind.",
    ]


def _show_story(story: "Timeline") -> None:
    console = Console(highlight=False)
    console.print(Text(story.standing, style="bold"), soft_wrap=True)
    for advice in story.advice:
        console.print(f"→ {advice}", markup=False, soft_wrap=True)
    console.print()
    facts = Table(box=None, pad_edge=False, show_header=False)
    for name, value in story.facts:
        facts.add_row(Text(name, style="dim"), Text(value, overflow="fold"))
    console.print(facts)
    console.print()
    entries = Table(box=None, pad_edge=False, show_header=False)
    _add_entries(entries, story.past)
    if story.coming:
        entries.add_row(Text("now", style="bold"), "", "")
        _add_entries(entries, story.coming)
    console.print(entries)


def _add_entries(table: Table, entries: "Iterable[Entry]") -> None:
    for time, about, what in entries:
        table.add_row(f"{time:%Y-%m-%d %H:%M:%S}Z", Text(about, overflow="fold"), Text(what, overflow="fold"))


def _story_as_json(story: "Timeline") -> dict[str, Any]:
    return {
        "id": story.id,
        "standing": story.standing,
        "advice": list(story.advice),
        "facts": dict(story.facts),
        "past": [_as_json(entry) for entry in story.past],
        "coming": [_as_json(entry) for entry in story.coming],
    }


# Failures


def _selection(since: datetime | None, type_: str | None, reason: str | None) -> "Selection":
    from sinks.mongo.notification_admin import Selection

    return Selection(since or datetime.now(UTC) - _DAY, type_, reason)


def _show_counts(counts: "Sequence[FailureCount]", chosen: "Selection") -> None:
    console = Console(highlight=False)
    assert chosen.since is not None
    if not counts:
        console.print(f"Nothing was given up since {chosen.since:%Y-%m-%d %H:%M}Z.")
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
    for name in ("given up", "notification", "type", "way", "reason"):
        # An id is there to be copied: those of events and of rules stay in one piece.
        table.add_column(name, overflow="fold", min_width=_LENGTH_OF_ID if name == "notification" else None)
    for one in failures:
        way = " ".join(part for part in (one.channel, "by" if one.provider else None, one.provider) if part)
        said = f"{one.reason}: {without_addresses(one.message)}" if one.message else one.reason
        table.add_row(f"{one.since:%Y-%m-%d %H:%M:%S}Z", Text(one.id), Text(one.type), Text(way), Text(said))
    console.print(table)
    if all_of_them > len(failures):
        console.print(f"and {all_of_them - len(failures):,} more; --limit lists more of them.")
    console.print(
        "\n→ `inkstream notifications show ID` tells the story of one; `inkstream notifications retry --failed` "
        "tries all again, `--reason CODE` those alone.",
        markup=False,
        soft_wrap=True,
    )


# Changes


async def _retried(
    settings: Settings, cases: "NotificationAdmin", ids: Sequence[str], reason: str | None, *, dry_run: bool
) -> "list[ActionResult]":
    """Retry items, some at once, and wake up those who send them."""
    from sinks.redis.wakeups import WakeUps

    wake_ups = WakeUps(settings.redis_url.get_secret_value(), f"{settings.namespace}inkstream:")
    console = Console(stderr=True)
    rulings: list[ActionResult] = []
    try:
        with Progress(console=console, transient=True, disable=not console.is_terminal) as progress:
            task = progress.add_task("trying again", total=len(ids))
            for first in range(0, len(ids), _AT_ONCE):
                now = datetime.now(UTC)
                part = ids[first : first + _AT_ONCE]
                rulings += await asyncio.gather(
                    *(cases.retry(one, now, reason=reason, dry_run=dry_run) for one in part)
                )
                if not dry_run and any(ruling.verdict == "changed" for ruling in rulings[first:]):
                    await wake_ups.announce([now], now)
                progress.advance(task, len(part))
    finally:
        await wake_ups.close()
    return rulings


def _show_rulings(rulings: "Sequence[ActionResult]", done: str, state: str, *, many: bool) -> None:
    """Print what became of each, or of many: how many are done, and the first of those that are not."""
    console = Console(highlight=False, soft_wrap=True, markup=False)
    changed = sum(ruling.verdict == "changed" for ruling in rulings)
    others = [ruling for ruling in rulings if ruling.verdict != "changed"]
    if many and rulings:
        console.print(f"{changed:,} of {len(rulings):,} {done}.")
    for ruling in others[:_SHOWN] if many else rulings:
        console.print(f"{ruling.id}: {_verdict(ruling, done, state)}.")
    if many and len(others) > _SHOWN:
        console.print(f"and {len(others) - _SHOWN:,} more that were not.")


def _verdict(ruling: "ActionResult", done: str, state: str) -> str:
    match ruling.verdict:
        case "changed":
            return done
        case "unknown":
            return "is not in the queue, which keeps what is done for 7 days"
        case "held" if ruling.until is not None and ruling.until <= datetime.now(UTC):
            return "its worker stopped while it had it; another takes it up within seconds, so ask again then"
        case "held":
            until = f", until {ruling.until:%H:%M:%S}Z at most" if ruling.until else ""
            return f"left alone, as worker {ruling.worker or 'unknown'} has it just now{until}; ask again then"
        case "under way":
            return "left alone, as a worker stopped during an attempt; another takes it up within seconds"
        case "contended":
            return "left alone, as it is changing just now; ask again"
        case "expired":
            return f"is past its time since {ruling.until:%Y-%m-%d %H:%M:%S}Z, and is not sent any more"
        case "unreadable":
            return "no worker of this release can read it; see its document in notificationQueue"
    return f"nothing of it {state}"


def _code(rulings: "Iterable[ActionResult]", well: Iterable[str]) -> int:
    return 0 if all(ruling.verdict in frozenset(well) for ruling in rulings) else PROBLEM


# Words


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
        yield from _part("gathered", [" — ".join(texts) for texts in preview.together])


def _part(name: str, lines: Iterable[str]) -> Iterator[str]:
    yield f"  {name}"
    yield from (f"    {line}".rstrip() for line in lines)


def _show_html(console: Console, html: str, name: str, file: Path | None, *, opened: bool) -> bool:
    """Write an e-mail's HTML, and open it where that is wanted; return whether that went well."""
    try:
        if file is None:
            with tempfile.NamedTemporaryFile("w", prefix=f"{name}-", suffix=".html", delete=False) as temporary:
                file = Path(temporary.name)
        file.write_text(html, encoding="utf-8")
    except OSError as error:
        raise click.BadParameter(f"{file} can't be written: {error.strerror}", param_hint="--html") from error
    console.print(f"The e-mail is in {file}.")
    if opened and not webbrowser.open(file.resolve().as_uri()):
        fail(["No browser could be started; open the file in one, or set BROWSER."], PROBLEM)
    return True


# JSON


def _as_json(record: "Entry | Failure | FailureCount | ActionResult") -> Mapping[str, object]:
    """Return a named tuple as JSON has it, with addresses in its messages masked."""
    from ops.notifications.masking import without_addresses

    found = {name: _iso(value) for name, value in record._asdict().items()}
    return {name: without_addresses(str(value)) if name == "message" else value for name, value in found.items()}


def _iso(value: object) -> object:
    return value.isoformat() if isinstance(value, datetime) else value


def _print_json(value: object) -> None:
    Console(soft_wrap=True, highlight=False).print(json.dumps(value, indent=2, ensure_ascii=False), markup=False)
