"""Find unexplained lines in the workers' logs: uncaught exceptions, and errors that no outage causes.

Input: log files of JSON lines (`INKSTREAM_LOG_FORMAT=json`), among them plain lines of an interpreter that dies.
Output: one `Check`, with each different problem once, how often it occurred, and an example. `ORDINARY` lists what
libraries log at level error while a server is unavailable; all else is a problem.
"""

import re
from collections.abc import Collection, Iterable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path
from typing import Any, NamedTuple

import orjson

from runtime.settings import ROOT
from tests.chaos.history import Check

_FRAMES_SHOWN = 6
_EXAMPLE_CHARACTERS = 2_000
_PLAIN = ""
"""The logger of lines that no logger wrote."""

_REDIRECTED = "mode.redirect"
"""The logger that Faust gives to what is printed, each piece of a line as a warning: a worker prints nothing but
tracebacks of what nobody caught, and of these `runtime.logs` leaves out the pieces that were told just before."""

# How aiokafka words that a broker is away, paused, starting up, or has just lost its groups.
_AWAY = (
    r"(KafkaConnectionError: .*|NodeNotReadyError: .*|\[Error \d+\] (RequestTimedOutError|"
    r"GroupCoordinatorNotAvailableError|NotCoordinatorForGroupError|GroupLoadInProgressError))"
)
_TROUBLE = re.compile(
    r"Traceback \(most recent call last\)|\b\w*(Error|Exception|Interrupt|Warning)\b|[Ee]xception ignored|"
    r"\bUnhandled\b|\bUnclosed\b|never (retrieved|awaited)|Fatal Python error|Segmentation fault|Aborted|core dumped"
)
_CHANGING = re.compile(r"0x[0-9a-f]+|\b[0-9a-f]{8,}\b|test-\w+\.|\[\^-*.*?\](?=:)|\d+")
"""Addresses, ids, namespaces, the names of Faust's services, and numbers."""

_ELSEWHERE = re.compile(rf".*/(site-packages|python3\.\d+)/|{re.escape(str(ROOT))}/")


class Ordinary(NamedTuple):
    """A message at level error that an outage brings about, and nothing else does.

    Attributes:
        logger: Who says it.
        message: What it says, all of it.
        reason: Why it is no trouble.
    """

    logger: str
    message: re.Pattern[str]
    reason: str


def ordinary(logger: str, message: str, reason: str) -> Ordinary:
    return Ordinary(logger, re.compile(message, re.DOTALL), reason)


ORDINARY: tuple[Ordinary, ...] = (
    ordinary("aiokafka", r'Unable connect to ".+:\d+": .*', "a new client's broker is away; the caller tries again"),
    ordinary("aiokafka", r"Unable connect to node with id \d+: .*", "the broker is away; it is asked again"),
    ordinary("aiokafka", r"Unable to update metadata from \[\d+\]", "the same, as seen by who keeps the metadata"),
    ordinary("aiokafka.consumer.fetcher", rf"Failed fetch (messages|offsets) from \d+: {_AWAY}", "fetched again"),
    ordinary(
        "aiokafka.consumer.fetcher",
        r"Failed fetch offsets from \d+: \[Error 6\] NotLeaderForPartitionError: .*",
        "a broker that has just started does not know yet what it leads; asked again",
    ),
    ordinary(
        "asyncio",
        r"Unclosed AIOKafkaConnection\nconn: .*",
        "a worker told to stop while it reaches for Kafka: aiokafka drops that connection, and the process ends",
    ),
    ordinary(
        "aiokafka.consumer.group_coordinator",
        rf"Error sending \w+ to node \d+ \[{_AWAY}\] -- marking coordinator dead",
        "the coordinator is looked for again",
    ),
    ordinary(
        "aiokafka.consumer.group_coordinator",
        rf"Group Coordinator Request failed: {_AWAY}",
        "the coordinator is looked for again",
    ),
    ordinary(
        "aiokafka.consumer.group_coordinator",
        rf"Heartbeat send request failed: {_AWAY}\. Will retry\.",
        "what it says",
    ),
    ordinary(
        "aiokafka.consumer.group_coordinator",
        r"Heartbeat session expired - marking coordinator dead",
        "nothing came through for a whole session: the group has gone on without this member, which joins anew",
    ),
    ordinary(
        "aiokafka.consumer.group_coordinator",
        r"OffsetCommit failed for group \S+ due to group error \(\[Error \d+\] "
        r"(UnknownMemberIdError|IllegalGenerationError|RebalanceInProgressError): \S+\), will rejoin",
        "the group has gone on without this member; the batch is read again by whoever owns its partitions now",
    ),
    ordinary(
        "aiokafka.consumer.group_coordinator",
        rf"LeaveGroup request failed: {_AWAY}",
        "a worker that stops while the broker is away can't say so; its session ends by itself",
    ),
    ordinary(_PLAIN, r"waiting for Kafka: .*", "a worker that starts while Kafka is away waits for it"),
)


@dataclass(frozen=True, slots=True)
class Message:
    """One entry of a log, or plain lines that belong together.

    Attributes:
        log: The file's name.
        logger: Who wrote it; nothing where no logger did.
        level: Its level; nothing where it was printed.
        text: What it says.
        exception: The exceptions that came with it, as JSON has them.
    """

    log: str
    logger: str
    level: str
    text: str
    exception: tuple[Mapping[str, Any], ...] = ()

    @property
    def kind(self) -> str:
        """What it has in common with others that say the same of other things."""
        lines = self.text.strip().splitlines() or [""]
        # Of a traceback, its last line says what happened; of another text, its first.
        line = lines[-1] if "Traceback (most recent" in self.text else lines[0]
        raised = [f"{error['exc_type']}: {error['exc_value']}" for error in self.exception[:1]]
        return f"{self.logger} {_CHANGING.sub('0', ' '.join([line, *raised]))}"


def check(logs: Iterable[Path], expected: Collection[Ordinary] = ()) -> Check:
    """Judge logs; empty logs are a problem as well.

    Args:
        logs: The files.
        expected: What the faults of this run alone make a worker log at level error.
    """
    troubles: dict[str, list[Message]] = {}
    count = 0
    for log in logs:
        for message in messages(log):
            count += 1
            if is_trouble(message, expected):
                troubles.setdefault(message.kind, []).append(message)
    problems = [_told(alike) for alike in sorted(troubles.values(), key=len, reverse=True)]
    if not count:
        problems = ["the logs are empty, so they prove nothing"]
    found = count - sum(map(len, troubles.values()))
    return Check("no unhandled exception in any log", count, found, problems)


def messages(log: Path) -> Iterator[Message]:
    """Yield what a log holds, lines that were printed one after another as one."""
    with log.open(encoding="utf-8", errors="replace") as lines:
        entries = (_entry(log.name, line) for line in lines)
        for is_whole, together in groupby(entries, key=lambda entry: bool(entry.level)):
            if is_whole:
                yield from together
            else:
                pieces = list(together)
                logger = max(piece.logger for piece in pieces)
                yield Message(log.name, logger, "", "\n".join(piece.text for piece in pieces))


def is_trouble(message: Message, expected: Collection[Ordinary] = ()) -> bool:
    """Whether a message is a problem that nothing explains."""
    if any(one.logger == message.logger and one.message.fullmatch(message.text) for one in (*ORDINARY, *expected)):
        return bool(message.exception)
    return (
        bool(message.exception)
        or message.level in ("error", "critical")
        or message.logger == _REDIRECTED
        or (message.logger == "asyncio" and message.level == "warning")
        or (message.logger == _PLAIN and _TROUBLE.search(message.text) is not None)
    )


def _entry(log: str, line: str) -> Message:
    """Read a line: an entry, or what was printed, which has no level."""
    read = _object(line)
    if not {"logger", "level", "event"} <= read.keys():
        return Message(log, _PLAIN, "", line.rstrip("\n"))
    logger, level, text = read["logger"], read["level"], str(read["event"])
    if logger == _REDIRECTED:
        return Message(log, _REDIRECTED, "", text.rstrip("\n"))
    return Message(log, logger, level, text, tuple(read.get("exception") or ()))


def _object(line: str) -> dict[str, Any]:
    """Return the JSON object at the end of a line, before which a killed worker may have left half a line."""
    for start in re.finditer(r'\{"', line):
        with suppress(orjson.JSONDecodeError):
            read = orjson.loads(line[start.start() :])
            return read if isinstance(read, dict) else {}
    return {}


def _told(alike: list[Message]) -> str:
    """Return a trouble as a text: how often it was there, where first, and all that the first one says."""
    first = alike[0]
    times = "once" if len(alike) == 1 else f"{len(alike):,} times"
    who = f" by {first.logger} at level {first.level}" if first.level else " as printed"
    text = f"{times}, first in {first.log}{who}: {first.text.strip()}"
    for error in first.exception:
        frames = [
            f"  {_ELSEWHERE.sub('', frame['filename'])}:{frame['lineno']} in {frame['name']}"
            for frame in error["frames"][-_FRAMES_SHOWN:]
        ]
        text = "\n".join([text, *frames, f"  {error['exc_type']}: {error['exc_value']}"])
    return text if len(text) <= _EXAMPLE_CHARACTERS else f"{text[:_EXAMPLE_CHARACTERS]} …"
