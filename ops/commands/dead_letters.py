"""`inkstream dead-letters`: lists dead letters with their causes, and acknowledges, discards or reopens them.

Input: filters and ids. Output: lists as text or JSON lines, decisions in the dead-letter topics, and the exit code.
"""

import getpass
import json
import socket
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import click
from faust.cli.base import argument, cli, option
from rich.console import Console

from ops.commands.command import PROBLEM, InkstreamCommand, declared_topics, fail
from ops.commands.dead_letter_text import (
    LONGEST_NAME,
    LONGEST_REASON,
    as_json_object,
    because,
    lines_of,
    payload_of,
    printable,
)
from ops.commands.moment import Moment
from runtime.settings import Settings
from schemas.nearest import suggestion
from schemas.topics import Topic

if TYPE_CHECKING:
    from delivery.dead_letters.letter import Status
    from ops.dead_letters import Selection
    from ops.refused_events import Found, RefusedEvent

_SHOWN = 20
_STATUSES = ("open", "acknowledged", "discarded", "replayed")

_ADVICE: Mapping[str, str] = {
    "not-json": "send the payload as JSON in UTF-8",
    "schema": "fix the fields that the message names; docs/topics.md lists the fields of each type",
    "unknown-type": "fix the type, or deploy a release of Inkstream that supports it; `inkstream topics` lists all",
    "refused-by-store": "fix what the message names; after an upgrade, run `inkstream bootstrap --check`",
    "too-large": "send less: MongoDB stores documents of up to 16 MB",
}

FILTERS: Sequence[Callable[..., Any]] = (
    option("--id", "ids", multiple=True, metavar="ID", help="Only this event; repeatable."),
    option(
        "--type",
        "types",
        multiple=True,
        metavar="TYPE",
        help="Only this event type, such as post.published; repeatable.",
    ),
    option(
        "--cause",
        "causes",
        multiple=True,
        metavar="CODE",
        help=f"Only dead letters with this cause: {', '.join(_ADVICE)}.",
    ),
    option("--since", type=Moment(), help="Only events refused since then: 2026-01-31T12:00:00Z, or 90m, 12h, 3d ago."),
    option("--until", type=Moment(), help="Only events refused before then."),
)
_TOPIC = option("--topic", "names", multiple=True, metavar="TOPIC", help="Only this topic of topics.yaml; repeatable.")
_JSON = option("--json", "as_json", is_flag=True, help="Print JSON, one object per line.")


@cli.group()
def dead_letters() -> None:
    """List, inspect and resolve refused events.

    A record that can't be stored becomes a dead letter. `list` and `show` explain why. After fixing the cause, send it
    again with `inkstream replay`. `acknowledge` and `discard` remove it from the open ones, with a reason; `reopen`
    undoes that. See docs/refused-events.md.
    """


class List(InkstreamCommand):
    """List dead letters, newest first.

    Shows when each event was refused, where its record is in Kafka (topic:partition:offset), its type and id, the cause
    and what to change. Payloads are not shown. Lists open dead letters; with --id, those of every status.

    Exit code 0, or 1 if an --id was not found.
    """

    group = dead_letters
    options = [  # noqa: RUF012 - as Faust declares them
        _TOPIC,
        *FILTERS,
        option(
            "--status",
            "statuses",
            multiple=True,
            type=click.Choice(_STATUSES),
            help="Only this status; repeatable.",
        ),
        option("--all", "all_statuses", is_flag=True, help="Include every status."),
        option(
            "--limit",
            type=click.IntRange(min=1),
            help=f"How many to list. Default: {_SHOWN}; all with --json.",
        ),
        _JSON,
    ]

    async def run(
        self,
        *args: Any,
        names: tuple[str, ...],
        statuses: tuple[str, ...],
        all_statuses: bool,
        limit: int | None,
        as_json: bool,
        **filters: Any,
    ) -> int:
        """List them; return the exit code."""
        from ops.refused_events import refused_events

        settings = Settings()
        chosen = selection(**filters)
        wanted = statuses or (_STATUSES if all_statuses or chosen.ids else ("open",))
        async with refused_events(settings, _topics(settings, names)) as refused:
            found = await refused.find(chosen, _as_statuses(wanted))
        limit = limit or (len(found.events) if as_json else _SHOWN)
        shown, more = found.events[:limit], len(found.events) - limit
        if as_json:
            _print_json(as_json_object(event) for event in shown)
            if more > 0:
                click.echo(f"and {more:,} more; use --limit to list more.", err=True)
        else:
            _show_list(shown, found, more, wanted)
        return _missing(found)


class Show(InkstreamCommand):
    """Show one refused event and what to do about it.

    ID is the event's id, or its position in Kafka as topic:partition:offset. Use --payload to show key, headers and
    payload, which may contain personal data.

    Exit code 0, or 1 if there is no such dead letter.
    """

    group = dead_letters
    options = [  # noqa: RUF012 - as Faust declares them
        argument("name", metavar="ID"),
        _TOPIC,
        option("--payload", is_flag=True, help="Show key, headers and payload, which may contain personal data."),
        _JSON,
    ]

    async def run(self, *args: Any, name: str, names: tuple[str, ...], payload: bool, as_json: bool) -> int:
        """Show it; return the exit code."""
        from ops.refused_events import refused_events

        settings = Settings()
        async with refused_events(settings, _topics(settings, names)) as refused:
            found = await refused.find(selection(ids=(name,)), _as_statuses(_STATUSES))
            payloads = [payload_of(await refused.record(event)) if payload else {} for event in found.events]
        objects = [{**as_json_object(event), **its} for event, its in zip(found.events, payloads, strict=True)]
        if as_json:
            _print_json(objects)
        else:
            _show_objects((event.topic, one) for event, one in zip(found.events, objects, strict=True))
        return _missing(found)


class _Decide(InkstreamCommand):
    """Change the status of dead letters."""

    abstract = True
    group = dead_letters
    status: str
    done: str

    async def run(
        self,
        *args: Any,
        given: tuple[str, ...],
        names: tuple[str, ...],
        reason: str,
        by: str | None,
        dry_run: bool,
        **filters: Any,
    ) -> int:
        """Decide; return the exit code."""
        from delivery.dead_letters.letter import Decision, Status
        from ops.refused_events import refused_events

        settings = Settings()
        filters["ids"] += given
        if not names and not any(filters.values()):
            raise click.UsageError("Give ids, or filters such as --topic and --cause.")
        status, now = Status(self.status), datetime.now(UTC)
        author = _text(by or _user(), "--by", LONGEST_NAME)
        because = _text(reason, "--reason", LONGEST_REASON)
        async with refused_events(settings, _topics(settings, names)) as refused:
            found = await refused.find(selection(**filters), _as_statuses(_STATUSES))
            chosen = [event for event in found.events if event.status not in (status, Status.REPLAYED)]
            decisions = [(event, Decision(event.letter.origin, status, author, now, because)) for event in chosen]
            if decisions and not dry_run:
                await refused.decide(decisions)
        console = Console(highlight=False, soft_wrap=True, markup=False)
        console.print(f"{len(chosen):,} {'would be ' if dry_run else ''}{self.done}.")
        _show_events(console, chosen[:_SHOWN])
        if len(chosen) > _SHOWN:
            console.print(f"and {len(chosen) - _SHOWN:,} more.")
        for was in (status, Status.REPLAYED):
            if count := sum(event.status is was for event in found.events):
                console.print(f"{count:,} unchanged: already {was}.")
        return _missing(found)


def _decision_options(reason: str) -> list[Callable[..., Any]]:
    return [
        argument("given", nargs=-1, metavar="[ID]..."),
        _TOPIC,
        *FILTERS,
        option("--reason", required=True, metavar="TEXT", help=f"{reason} Stored in Kafka: no personal data."),
        option("--by", metavar="NAME", help="Who decided. Default: the system user and the host name."),
        option("--dry-run", is_flag=True, help="Show the selected dead letters without changing anything."),
    ]


class Acknowledge(_Decide):
    """Mark dead letters as known.

    They no longer count as open: `inkstream doctor` reports them separately, and `inkstream replay` still sends them.
    ID is an event's id, or its position in Kafka as topic:partition:offset; use filters to select many. The reason is
    kept as long as the dead letter.

    Exit code 0, or 1 if an id was not found.
    """

    status, done = "acknowledged", "acknowledged"
    options = _decision_options("Why they can wait.")


class Discard(_Decide):
    """Mark dead letters as never to be replayed.

    They no longer count as open, and `inkstream replay` skips them. Nothing is deleted: Kafka keeps them as long as
    other dead letters, and `reopen` undoes it. ID is an event's id, or its position in Kafka as topic:partition:offset;
    use filters to select many. The reason is kept as long as the dead letter.

    Exit code 0, or 1 if an id was not found.
    """

    status, done = "discarded", "discarded"
    options = _decision_options("Why they are not needed.")


class Reopen(_Decide):
    """Undo `acknowledge` and `discard`.

    Exit code 0, or 1 if an id was not found.
    """

    status, done = "open", "reopened"
    options = _decision_options("Why they are reopened.")


def topic_named(topics: Mapping[str, Topic], name: str, hint: str) -> Topic:
    """Return the topic with this name.

    Raises:
        click.BadParameter: There is no such topic; the message suggests one.
    """
    if name not in topics:
        near = suggestion(name, topics, "`inkstream topics`")
        raise click.BadParameter(f"unknown topic {name}; {near}", param_hint=hint)
    return topics[name]


def selection(
    *,
    ids: Collection[str] = (),
    types: Collection[str] = (),
    causes: Collection[str] = (),
    since: datetime | None = None,
    until: datetime | None = None,
) -> "Selection":
    """Return the selection for the values of `FILTERS`."""
    from ops.dead_letters import Selection

    return Selection(frozenset(causes), since, until, ids=frozenset(ids), types=frozenset(types))


def _topics(settings: Settings, names: Sequence[str]) -> list[Topic]:
    topics = declared_topics(settings).all
    return [topic_named(topics, name, "--topic") for name in dict.fromkeys(names)] or list(topics.values())


def _as_statuses(names: Iterable[str]) -> "list[Status]":
    from delivery.dead_letters.letter import Status

    return [Status(name) for name in names]


def _missing(found: "Found") -> int:
    """Report the ids that were not found; return the exit code."""
    if found.missing:
        fail(
            [
                *(f"No dead letter found with id {printable(name)}." for name in found.missing),
                "The event may be stored, it may not be read yet (see the lag in `inkstream doctor`), or Kafka "
                "deleted its dead letter (after 30 days by default).",
            ],
            PROBLEM,
        )
    return 0


def _show_list(shown: "Sequence[RefusedEvent]", found: "Found", more: int, wanted: Collection[str]) -> None:
    console = Console(highlight=False, soft_wrap=True, markup=False)
    _show_events(console, shown)
    if not shown:
        console.print(f"No {' or '.join(wanted)} dead letters." if found.others else "No dead letters.")
    if more > 0:
        console.print(f"and {more:,} more; use --limit to list more.")
    if others := ", ".join(f"{count:,} {status}" for status, count in sorted(found.others.items())):
        console.print(f"Not listed: {others}; use --all to list them.")
    if shown:
        console.print("→ See what to do: `inkstream dead-letters show ID`. Send them again: `inkstream replay TOPIC`.")


def _show_events(console: Console, events: "Iterable[RefusedEvent]") -> None:
    for event in events:
        for line in lines_of(event.letter):
            console.print(line)
        if event.status != "open":
            decision = event.decision if event.decision and event.decision.status == event.status else None
            console.print(f"    {event.status}{because(decision._asdict()) if decision else ''}")


def _show_objects(objects: Iterable[tuple[Topic, Mapping[str, Any]]]) -> None:
    console = Console(highlight=False, soft_wrap=True, markup=False)
    for number, (topic, one) in enumerate(objects):
        decision, dead_letter = one["decision"], one["deadLetter"]
        where = f"{one['topic']}:{one['partition']}:{one['offset']}"
        copy = f"{dead_letter['topic']}, partition {dead_letter['partition']}, offset {dead_letter['offset']}"
        facts = {
            "event": f"{one['type'] or 'unknown type'}, {one['eventId'] or 'no id'}",
            "record": f"{where}, of {one['kafkaTime'] or 'an unknown time'}",
            "refused": f"{one['refusedAt']} by release {one['release'] or 'unknown'}",
            "cause": one["cause"],
            "message": one["message"],
            "status": one["status"] + (f", replayed {one['replays']} times before" if one["replays"] else ""),
            "decision": decision and decision["status"] + because(decision),
            "dead letter": copy,
            "key": one.get("key"),
            "headers": one.get("headers") and ", ".join(f"{name}: {value}" for name, value in one["headers"]),
            "payload": one.get("value"),
        }
        console.print(*[""] * bool(number), *(f"{name:<12}{fact}" for name, fact in facts.items() if fact), sep="\n")
        if one["status"] in ("open", "acknowledged"):
            console.print(
                f"→ {_ADVICE.get(one['cause'], 'fix the cause')}; then `inkstream replay {topic.name} --id {where}`."
            )


def _text(text: str, hint: str, longest: int) -> str:
    """Return an option's text with white space collapsed.

    Raises:
        click.BadParameter: It is empty or too long.
    """
    text = " ".join(text.split())
    if not 0 < len(text) <= longest:
        raise click.BadParameter(f"should have 1 to {longest} characters", param_hint=hint)
    return text


def _user() -> str:
    try:
        user = getpass.getuser()
    except (KeyError, OSError):  # a container's user may have no name
        user = "unknown"
    return f"{user}@{socket.gethostname()}"


def _print_json(objects: Iterable[Mapping[str, Any]]) -> None:
    for one in objects:
        click.echo(json.dumps(one))
