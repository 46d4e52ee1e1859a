"""`inkstream dead-letters`: why events were refused, and what is decided about them.

Input: filters and ids. Output: lists for people or JSON lines, notes in the dead-letter topics, and the exit code.
"""

import getpass
import json
import socket
from base64 import b64encode
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import click
from faust.cli.base import argument, cli, option
from rich.console import Console

from delivery.dead_letters.letter import SUFFIX
from ops.commands.command import PROBLEM, InkstreamCommand, declared_topics, fail
from ops.commands.moment import Moment
from runtime.settings import Settings
from schemas.nearest import suggestion
from schemas.topics import Topic

if TYPE_CHECKING:
    from aiokafka import ConsumerRecord

    from delivery.dead_letters.letter import Status
    from ops.dead_letters import Letter, Selection
    from ops.refused_events import Found, RefusedEvent

_SHOWN = 20
_LONGEST_MESSAGE = 160
"""Characters of a message in a list; `show` and `--json` have all of it."""
_LONGEST_NAME = 100
_LONGEST_REASON = 500
_STATUSES = ("open", "acknowledged", "discarded", "replayed")

_ADVICE: Mapping[str, str] = {
    "not-json": "send the payload as JSON in UTF-8",
    "schema": "correct the fields that the message names; docs/topics.md lists the fields of each type",
    "unknown-type": "correct the type, or deploy the release of Inkstream that knows it; `inkstream topics` lists all",
    "refused-by-store": "correct what the message names; after an upgrade, `inkstream bootstrap --check`",
    "too-large": "send less: MongoDB stores documents of up to 16 MB",
}

FILTERS: Sequence[Callable[..., Any]] = (
    option("--id", "ids", multiple=True, metavar="ID", help="Only this event; may be given twice."),
    option("--type", "types", multiple=True, metavar="TYPE", help="Only events of this type, such as post.published."),
    option(
        "--cause",
        "causes",
        multiple=True,
        metavar="CODE",
        help=f"Only those refused for this cause: {', '.join(_ADVICE)}.",
    ),
    option("--since", type=Moment(), help="Only those refused then or later: 2026-01-31T12:00:00Z, 90m, 12h, 3d."),
    option("--until", type=Moment(), help="Only those refused before then."),
)
_TOPIC = option("--topic", "names", multiple=True, metavar="TOPIC", help="Only this topic, as in topics.yaml.")
_JSON = option("--json", "as_json", is_flag=True, help="As JSON, one object a line.")


@cli.group()
def dead_letters() -> None:
    """Find refused events, and decide about them.

    A record that can't be stored becomes a dead letter. `list` and `show` say why; after the cause is fixed, `inkstream
    replay` sends it again. `acknowledge` and `discard` take it off the open ones with a reason; `reopen` undoes that.
    docs/refused-events.md has more.
    """


class List(InkstreamCommand):
    """List dead letters, newest first.

    Each has when it was refused, where the record is in Kafka (topic:partition:offset), the event's type and id, the
    cause, and what to change. Payloads are not shown. Without --status or --all, those that are open; with --id, all.

    Exit code 0, or 1 where an --id is not among them.
    """

    group = dead_letters
    options = [  # noqa: RUF012 - as Faust declares them
        _TOPIC,
        *FILTERS,
        option("--status", "statuses", multiple=True, type=click.Choice(_STATUSES), help="Only those of this status."),
        option("--all", "all_statuses", is_flag=True, help="Those of every status."),
        option("--limit", type=click.IntRange(min=1), help=f"The newest so many: {_SHOWN}; all with --json."),
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
                click.echo(f"and {more:,} more; --limit lists more of them.", err=True)
        else:
            _show_list(shown, found, more, wanted)
        return _missing(found)


class Show(InkstreamCommand):
    """Show all that is known of one refused event, and what to do.

    ID is the event's id, or where its record is in Kafka, as topic:partition:offset. The payload, the key and the
    headers may hold personal data: --payload shows them.

    Exit code 0, or 1 where there is no such dead letter.
    """

    group = dead_letters
    options = [  # noqa: RUF012 - as Faust declares them
        argument("name", metavar="ID"),
        _TOPIC,
        option("--payload", is_flag=True, help="With key, headers and payload, which may hold personal data."),
        _JSON,
    ]

    async def run(self, *args: Any, name: str, names: tuple[str, ...], payload: bool, as_json: bool) -> int:
        """Show it; return the exit code."""
        from ops.refused_events import refused_events

        settings = Settings()
        async with refused_events(settings, _topics(settings, names)) as refused:
            found = await refused.find(selection(ids=(name,)), _as_statuses(_STATUSES))
            payloads = [_payload(await refused.record(event)) if payload else {} for event in found.events]
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
            raise click.UsageError("say which: ids, or filters such as --topic and --cause")
        status, now = Status(self.status), datetime.now(UTC)
        author = _text(by or _user(), "--by", _LONGEST_NAME)
        because = _text(reason, "--reason", _LONGEST_REASON)
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
                console.print(f"{count:,} left as they are: {was} already.")
        return _missing(found)


def _decision_options(reason: str) -> list[Callable[..., Any]]:
    return [
        argument("given", nargs=-1, metavar="[ID]..."),
        _TOPIC,
        *FILTERS,
        option("--reason", required=True, metavar="TEXT", help=f"{reason} Kept in Kafka: no personal data."),
        option("--by", metavar="NAME", help="Who decides; by default the user of the system and its host."),
        option("--dry-run", is_flag=True, help="Change nothing; show which are meant."),
    ]


class Acknowledge(_Decide):
    """Mark dead letters as known, so that they no longer count as open.

    `inkstream doctor` reports them apart, and `inkstream replay` still sends them. ID is an event's id, or where its
    record is, as topic:partition:offset; filters choose many. The reason is kept for as long as the dead letter.

    Exit code 0, or 1 where an id is not among them.
    """

    status, done = "acknowledged", "acknowledged"
    options = _decision_options("Why that is enough for now.")


class Discard(_Decide):
    """Mark dead letters as never to be replayed.

    They no longer count as open, and `inkstream replay` leaves them out. Nothing is deleted: Kafka keeps them for as
    long as the other dead letters, and `reopen` undoes it. ID is an event's id, or where its record is, as
    topic:partition:offset; filters choose many. The reason is kept for as long as the dead letter.

    Exit code 0, or 1 where an id is not among them.
    """

    status, done = "discarded", "discarded"
    options = _decision_options("Why they are not needed.")


class Reopen(_Decide):
    """Undo `acknowledge` and `discard`.

    Exit code 0, or 1 where an id is not among them.
    """

    status, done = "open", "reopened"
    options = _decision_options("Why it is undone.")


def topic_named(topics: Mapping[str, Topic], name: str, hint: str) -> Topic:
    """Return the topic of a name.

    Raises:
        click.BadParameter: There is none; the message suggests one.
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
    """Return the selection that the options of `FILTERS` make."""
    from ops.dead_letters import Selection

    return Selection(frozenset(causes), since, until, ids=frozenset(ids), types=frozenset(types))


def as_json_object(event: "RefusedEvent") -> dict[str, Any]:
    """Return a refused event as JSON has it; the page docs/refused-events.md describes the fields."""
    letter, decision = event.letter, event.decision
    topic, partition, offset = letter.place.rsplit(":", 2)
    return {
        "refusedAt": _iso(letter.time),
        "topic": topic,
        "partition": int(partition),
        "offset": int(offset),
        "eventId": _printable(letter.event_id) or None,
        "type": _printable(letter.event_type) or None,
        "cause": letter.reason,
        "message": _printable(letter.message, len(letter.message)),
        "status": str(event.status),
        "decision": decision
        and {
            "status": str(decision.status),
            "by": decision.by,
            "at": _iso(decision.time),
            "reason": decision.reason,
        },
        "replays": letter.attempts,
        "kafkaTime": _iso(datetime.fromtimestamp(letter.timestamp / 1000, UTC)) if letter.timestamp >= 0 else None,
        "release": letter.release or None,
        "deadLetter": {"topic": f"{topic}{SUFFIX}", "partition": letter.partition, "offset": letter.offset},
    }


def lines_of(letter: "Letter") -> Iterator[str]:
    """Yield the lines that a list has for a dead letter; none holds a payload."""
    names = (_printable(letter.event_type) or "unknown type", _printable(letter.event_id) or "no id")
    replays = f"  replayed {letter.attempts} times" if letter.attempts else ""
    yield f"{letter.time:%Y-%m-%d %H:%M:%S}Z  {letter.place}  {names[0]}  {names[1]}  {letter.reason}{replays}"
    message = _printable(letter.message, len(letter.message))
    yield "    " + (message if len(message) <= _LONGEST_MESSAGE else f"{message[: _LONGEST_MESSAGE - 1]}…")


def _topics(settings: Settings, names: Sequence[str]) -> list[Topic]:
    topics = declared_topics(settings).all
    return [topic_named(topics, name, "--topic") for name in dict.fromkeys(names)] or list(topics.values())


def _as_statuses(names: Iterable[str]) -> "list[Status]":
    from delivery.dead_letters.letter import Status

    return [Status(name) for name in names]


def _missing(found: "Found") -> int:
    """Tell the ids that no dead letter has; return the exit code."""
    if found.missing:
        fail(
            [
                *(f"No dead letter has the id {_printable(name)}." for name in found.missing),
                "The event may be stored, or not read yet (`inkstream doctor` says how far each agent is), or Kafka "
                "has deleted its dead letter, after 30 days by default.",
            ],
            PROBLEM,
        )
    return 0


def _show_list(shown: "Sequence[RefusedEvent]", found: "Found", more: int, wanted: Collection[str]) -> None:
    console = Console(highlight=False, soft_wrap=True, markup=False)
    _show_events(console, shown)
    if not shown:
        console.print(f"No dead letters are {' or '.join(wanted)}." if found.others else "No dead letters.")
    if more > 0:
        console.print(f"and {more:,} more; --limit lists more of them.")
    if others := ", ".join(f"{count:,} {status}" for status, count in sorted(found.others.items())):
        console.print(f"Not listed: {others}; --all lists them.")
    if shown:
        console.print("→ `inkstream dead-letters show ID` says what to do; `inkstream replay TOPIC` sends them again.")


def _show_events(console: Console, events: "Iterable[RefusedEvent]") -> None:
    for event in events:
        for line in lines_of(event.letter):
            console.print(line)
        if event.status != "open":
            decision = event.decision if event.decision and event.decision.status == event.status else None
            console.print(f"    {event.status}{_because(decision._asdict()) if decision else ''}")


def _because(decision: Mapping[str, Any]) -> str:
    at = decision.get("at") or _iso(decision["time"])
    return f" by {_printable(decision['by'])} at {at}: {_printable(decision['reason'], _LONGEST_REASON)}"


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
            "decision": decision and decision["status"] + _because(decision),
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


def _payload(record: "ConsumerRecord[Any, Any]") -> dict[str, Any]:
    from delivery.dead_letters.letter import headers_before

    return {
        "key": _readable(record.key),
        "headers": [[name, _readable(value)] for name, value in headers_before(record.headers)],
        "value": _readable(record.value),
    }


def _readable(value: bytes | None) -> str | None:
    """Return bytes as text where they are some that a terminal can show, else in base64 after `base64:`."""
    if value is None:
        return None
    text = value.decode(errors="replace")
    is_text = "\ufffd" not in text and all(one.isprintable() or one in "\n\t" for one in text)
    return text if is_text else f"base64:{b64encode(value).decode()}"


def _printable(text: str, longest: int = _LONGEST_NAME) -> str:
    """Return a text of others as one line that does nothing to a terminal, with addresses masked."""
    from ops.notifications.masking import without_addresses

    cut = text if len(text) <= longest else f"{text[: longest - 1]}…"
    return "".join(one if one.isprintable() else f"\\u{ord(one):04x}" for one in without_addresses(cut))


def _text(text: str, hint: str, longest: int) -> str:
    """Return what somebody wrote to be kept.

    Raises:
        click.BadParameter: It is empty, or too long.
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


def _iso(moment: datetime) -> str:
    return moment.isoformat(timespec="seconds").replace("+00:00", "Z")


def _print_json(objects: Iterable[Mapping[str, Any]]) -> None:
    for one in objects:
        click.echo(json.dumps(one))
