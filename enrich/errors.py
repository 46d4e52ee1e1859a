"""Groups errors: decides which log lines of level `error` or `fatal` are the same error.

Input: a log line. Output: an `Occurrence`: the line's document, and the group's document as it is if this is its only
occurrence. The store merges groups.

The fields of a group are the specification's, and two of our own:

- `fingerprintVersion`: the version of the rule that read its latest occurrence.
- `lastEventId`: the event of `lastOccurrence`; it decides the order of two at the same moment.
"""

import hashlib
import json
import re
from itertools import groupby
from typing import Any, Literal

from enrich.documents import Occurrence
from enrich.written_dates import without_dates
from schemas.envelope import Envelope
from schemas.logs import LogLine

FINGERPRINT_VERSION = 2
"""Goes up whenever a rule below changes what it leaves of a stack or a message.

It is not part of the fingerprint: an error of which both versions leave the same stays in its group, with all that
people wrote there. Any other begins a new group, and its old one is counted no further.
"""

_STACK_READ = 64 * 1024
_LINE_READ = 1024
_MESSAGE_READ = 2048
_FRAMES_KEPT = 30

_EXPECTED = re.compile(
    r"(Validation|BadRequest|Unauthorized|Unauthenticated|Forbidden|NotFound|MethodNotAllowed|Conflict|Gone"
    r"|PayloadTooLarge|UnprocessableEntity|TooManyRequests|RateLimit|Throttler?|Abort)\w*$"
)


def occurrence(event: Envelope[LogLine], line: dict[str, Any]) -> Occurrence:
    """Make the group that a line is an occurrence of.

    A line without an `error` is an `Error` with the line's message and no stack.

    Args:
        event: The line, of level `error` or `fatal`.
        line: Its document for `systemLogs`, which goes along unchanged.
    """
    logged = event.data
    name, message, stack = _error(logged)
    group: dict[str, Any] = {
        "_id": fingerprint(logged),
        "name": name,
        "message": message,
        "stack": stack,
        "severity": severity(logged),
        "service": logged.service,
        "environment": logged.environment,
        "resolved": False,
        "firstOccurrence": event.time,
        "lastOccurrence": event.time,
        "occurrenceCount": 1,
        "timestamp": event.time,
        "fingerprintVersion": FINGERPRINT_VERSION,
        "lastEventId": event.id,
    }
    request = {
        "requestId": logged.request_id,
        "userId": logged.user_id,
        "endpoint": logged.endpoint,
        "method": logged.method,
        "context": logged.context,
    }
    group.update((field, value) for field, value in request.items() if value not in (None, {}))
    return Occurrence(line, group)


def severity(line: LogLine) -> Literal["low", "medium", "high", "critical"]:
    """Say how bad an error is, by the first of these that holds.

    - `critical`: the level is `fatal`; the service could not go on.
    - `low`: the error's name says that the caller was at fault (`ValidationError`, `NotFoundException`, ...).
    - `high`: it broke somebody's request; the line names an endpoint, a request or a user.
    - `medium`: any other.
    """
    if line.level == "fatal":
        return "critical"
    if line.error and _EXPECTED.search(line.error.name):
        return "low"
    if line.endpoint or line.request_id or line.user_id:
        return "high"
    return "medium"


def fingerprint(line: LogLine) -> str:
    """Return the name of an error's group: equal for errors with the same cause, as far as it can be recognised.

    It is taken over the service, the environment and the first of these that there is:

    1. the `fingerprint` that the service itself gave;
    2. the error's name and the frames of its stack that are the service's own (see `frames`);
    3. the error's name and its message without what differs from one time to the next (see `normalised`).

    Returns:
        32 hexadecimal digits: the first half of a SHA-256.
    """
    name, message, stack = _error(line)
    what: list[str | list[str]]
    if line.fingerprint:
        what = ["given", line.fingerprint]
    elif own := frames(stack):
        what = ["stack", name, own]
    else:
        what = ["message", name, normalised(message)]
    # JSON keeps the parts apart: no text in one of them can pass for a border.
    # The number keeps the ids that groups have had since the first version.
    text = json.dumps([1, line.service, line.environment, *what])
    return hashlib.sha256(text.encode()).hexdigest()[:32]


def _error(line: LogLine) -> tuple[str, str, str]:
    if line.error is None:
        return "Error", line.message, ""
    return line.error.name, line.error.message or line.message, line.error.stack


# Frames ---------------------------------------------------------------------------------------------------

_FOREIGN = re.compile(
    r"(?:^|/)(?:node_modules|site-packages|dist-packages|lib/python\d)"
    r"|^(?:node:|internal/|<|eval at |chrome-extension:|moz-extension:|$)"
)
_FOREIGN_FUNCTION = re.compile(r"^(?:java|javax|jdk|sun)\.")
_POSITION = re.compile(r"(?::\d+){1,2}$")
_ORIGIN = re.compile(r"^[a-z][a-z0-9+.-]{1,30}:/{2,3}(?:[^/]*(?=/))?", re.IGNORECASE)
_PYTHON_FRAME = re.compile(r'^File "([^"]+)", line \d+(?:, in (.+))?')
# Bundlers put 6 or more hexadecimal digits, or 8 characters of base 64, before the extension; webpack also the number
# of a chunk instead of a name.
_BUNDLE_HASH = re.compile(
    r"(?:(?<=[.-])(?:(?=[a-f]{0,9}\d)[0-9a-f]{6,64}|(?=[a-z_-]{0,7}[A-Z0-9])[\w-]{8})|(?<=_)(?=[a-f]{0,9}\d)[0-9a-f]{6,64}"
    r"|(?<![^.-])\d+)(?=(?:\.[a-z_]{1,10})+$|[.-](?:#|[0-9a-f]{6,64}|[\w-]{8})(?:\.[a-z]{1,10})+$)"
)
# What a build or a deployment puts into the name of a directory: versions, numbers of releases, times, hashes, ids.
# `v2` and `oauth2` are names.
_BUILD = re.compile(
    r"^(?:(?:build|deploy|deployment|release|rev|revision|version|job|run)[._-]?)?v?\d+(?:[._T-]\d+)+\w*(?:[-+][\w.+-]+)?$"
    r"|^(?:(?:build|deploy|deployment|release|rev|revision|version|job|run)[._-]?v?)?\d+$"
    # After a name, `app-1.2.3`: with two dots, as `python3.11` is a name.
    r"|(?<=[A-Za-z][_-])v?\d+(?:\.\d+){2}[\w.+-]*$"
    r"|[0-9a-fA-F]{8}-[0-9a-fA-F]{4}-[0-9a-fA-F]{4}-[0-9a-fA-F]{4}-[0-9a-fA-F]{12}"
    r"|(?<![A-Za-z])(?=[a-f]{0,40}\d)[0-9a-f]{6,64}(?![A-Za-z])|\d{4,}[\d_T-]*Z?"
    r"|(?<=@)\d+(?:\.\d+)+[\w.+_@-]*|^(?=[a-z]*\d)[a-z0-9]{32}-.+$"
    # Next.js: 21 characters of base 64. They have a digit and both cases, nearly always.
    r"|^(?=[\w-]{0,21}?\d)(?=[\w-]{0,21}?[A-Z])(?=[\w-]{0,21}?[a-z])[\w-]{20,22}$"
)
_HOLDS_BUILDS = frozenset({"T", "Temp", "builds", "deployments", "releases", "revisions", "temp", "tmp", "versions"})
# Classes and numbers that a JVM, a minifier or webpack assigns again with each build.
_GENERATED = re.compile(
    r"\$\$Lambda[$/]\S*|\$\$\w{1,60}\$\$[0-9a-f]+|\$Proxy\d+|Accessor\d+|(?<=[$.])\d+\b|^\d+$|\b0x[0-9a-f]+"
)


def frames(stack: str) -> list[str]:
    """Read the frames of a stack trace that are the service's own, in the form `function file`.

    Understands V8's traces (Node, Chrome), Firefox's and Safari's, Python's and the JVM's. Left out are frames of
    libraries (`node_modules`, `site-packages`, ...) and of the runtime (`node:`, ...); of what stays, line and column
    numbers, all of the path but its last three parts, what a build puts into them (hashes in the names of bundles and
    numbers of chunks; versions, times and ids in those of directories; directories under `tmp`), numbers of generated
    classes, and names of one or two letters, which minifiers assign again with every build. A frame that follows
    itself, as in a recursion, counts once.
    """
    lines = stack[:_STACK_READ].splitlines()
    if len(stack) > _STACK_READ:
        lines.pop()  # The cut may have gone through it.
    own = [frame for line in lines if (frame := _frame(line[:_LINE_READ].strip()))]
    return [frame for frame, _ in groupby(own)][:_FRAMES_KEPT]


def _frame(line: str) -> str | None:
    """Read a line of a stack trace; `None` where it is no frame, or none of the service's own."""
    if match := _PYTHON_FRAME.match(line):
        function, location = match[2] or "", match[1]
    elif not _POSITION.search(line.removesuffix(")")):
        # A line of a message can begin with `at`, too; a frame always ends with a position.
        return None
    elif line.startswith("at "):
        function, location = _v8_frame(line.removeprefix("at ").removeprefix("async "))
    elif "@" in line:
        function, _, location = line.partition("@")
    else:
        return None
    location = _POSITION.sub("", location).replace("\\", "/")
    if _FOREIGN.search(location) or _FOREIGN_FUNCTION.match(function):
        return None
    return f"{_function(function)} {_file(location)}"


def _v8_frame(frame: str) -> tuple[str, str]:
    if frame.endswith(")"):
        function, border, location = frame[:-1].partition(" (")
        if border:
            return function, location
        # The JVM writes no space: `com.example.Posts.publish(Posts.java:42)`.
        function, _, location = frame[:-1].partition("(")
        return function, location
    return "", frame


def _function(name: str) -> str:
    name = name.partition(" [as ")[0].removeprefix("new ").removeprefix("Object.").strip()
    name = _GENERATED.sub("#", name)
    return name if len(name) > 2 else "?"


def _file(location: str) -> str:
    path = _ORIGIN.sub("", location).partition("?")[0]
    parts = [part for part in path.split("/") if part not in ("", ".", "..")]
    if not parts:
        return ""
    *directories, file = parts
    above = ["", *directories]
    kept = [
        "#" if before in _HOLDS_BUILDS else _BUILD.sub("#", part)
        for before, part in zip(above, directories, strict=False)
    ]
    # Twice: before a hash there can be the number of a chunk.
    return "/".join([*kept[-2:], _BUNDLE_HASH.sub("#", _BUNDLE_HASH.sub("#", file))])


# Messages -------------------------------------------------------------------------------------------------

_ID = "<id>"
_QUOTED = r"(?<!\w)'[^'\n]*'(?!\w)|\"[^\"\n]*\"|`[^`\n]*`|“[^”\n]*”|„[^“”\n]*[“”]|«[^»\n]*»|「[^」\n]*」"
# In front of one of these words a number is an amount of it, and its plural goes along: `1 second`, `2 seconds`.
_UNIT = (
    r"(?:[nµmk]?s(?:ecs?)?|(?:nano|micro|milli)?seconds?|mins?|minutes?|h(?:rs?|ours?)?|days?|weeks?|months?|years?"
    r"|(?:[KMGT]i?)?B|[kmgt]b|bytes?|(?:kilo|mega|giga)bytes?|times?|attempts?|retries|%)"
)
# Which error it is, and not which case of it: `status code 404`, `exit code 137`, `code: 'P2002'`, `SQLSTATE[23505]`.
_CODE = re.compile(
    r"(?<![A-Za-z])((?:status|exit|error|err|http|response|close|return|signal|code|errno|sqlstate)"
    r"(?: ?code)?(?: is| of| was)?[\s:=#(\[]{0,3})[\"']?"
    r"(-?\d{1,3}|-32\d\d\d|1[01]\d\d|[A-Z]{1,5}-?\d{2,6}|(?<=errno[ :=])\d{4}|(?<=SQLSTATE[\[: (])\w{5})"
    r"(?![\w.,:/-]{0,40}\d)(?!\w)[\"']?",
    re.IGNORECASE,
)
_SAYS_CODE = re.compile(r"code|status|errno|sqlstate", re.IGNORECASE)
# What follows the number where it is an amount: `response 512 bytes`, `error 5 of 10`, `error: 17 files`.
_AMOUNT = re.compile(rf"[\u00a0\u202f ]?{_UNIT}(?!\w)")
_OF_SOMETHING = re.compile(r" (?:out )?of \d| (?!(?:does|has|is|its|means|this|was)\b)[a-z]{2,30}s\b")
_SET_ASIDE = str.maketrans("0123456789", "\ue000\ue001\ue002\ue003\ue004\ue005\ue006\ue007\ue008\ue009")

_VARYING = (
    (re.compile(r"\b[a-z][a-z0-9+.-]{1,20}://[^\s'\"<>)]+", re.IGNORECASE), "<url>"),
    # Before e-mail addresses: pnpm writes `.pnpm/name@1.2.3_hash`.
    (re.compile(r"/\.pnpm/[^/\s]+"), f"/.pnpm/{_ID}"),
    (re.compile(r"(?<=/tmp/)[^/\s'\":]+|(?<=/(?:home|node)/)[^/\s'\":]+|(?<=/Users/)[^/\s'\":]+"), _ID),
    (re.compile(r"(?<=\\Users\\)[^\\\s'\":]+|(?<=\\Temp\\)[^\\\s'\":]+"), _ID),
    (re.compile(r"[\w.+-]{1,64}@[\w-]{1,63}(?:\.[\w-]{1,63})+"), "<email>"),
    # Of a query in a path its names may vary as well.
    (re.compile(r"(?<=[\w/])\?[\w.~%+\[\]-]{1,80}=[^\s'\")\]}>]*"), ""),
    (re.compile(r"\beyJ[\w-]{8,}\.[\w-]{8,}\.[\w-]*|(?<=Bearer )[\w.~+/-]+=*|\bsha(?:1|256|384|512)-[\w+/]+=*"), _ID),
    (re.compile(_QUOTED), "<text>"),
    # With a digit, and with `::` or all eight parts: `Fee::add()` is not an address.
    (
        re.compile(
            r"(?<![\w:])\[?(?=[0-9a-f:]{0,39}?\d)(?=[0-9a-f:]{0,39}?::|(?:[0-9a-f]{1,4}:){7})"
            r"[0-9a-f:]{2,45}(?:(?:\.\d{1,3}){3})?(?:%\w{1,15})?(?:\]:\d{1,5}|\])?(?![\w:])",
            re.IGNORECASE,
        ),
        "<ip>",
    ),
    (re.compile(r"(?<![\w.])\d{1,3}(?:\.\d{1,3}){3}(?::\d{1,5})?(?![\w.])"), "<ip>"),
    (re.compile(r"(?<==)(?:true|false)\b", re.IGNORECASE), "<text>"),
)
_NUMBERS = (
    # Grouped as in French, Russian or Swiss: `1 234 567,89`, `1'234.50`.
    (re.compile(r"(?<![\w-])\d{1,3}(?:[\u00a0\u202f\u2009'\u2019 ]\d{3})+(?![\w])"), _ID),
    # A word with a digit in it: numbers, amounts (`5000ms`), UUIDs, hashes, ids. All get one placeholder, because the
    # next id may be the one without letters.
    (re.compile(r"(?<![\w-])[\w-]*\d[\w-]*(?:[.,]\d[\w-]*)*(?:\+[\w.-]+)?"), _ID),
    # Hexadecimal, and by chance all letters.
    (re.compile(r"\b(?:[a-f]{8,64}|[A-F]{8,64})\b"), _ID),
    (re.compile(r"\b0x[0-9a-f]+\b", re.IGNORECASE), _ID),
    (re.compile(rf"{_ID}[\u00a0\u202f ]?{_UNIT}(?!\w)"), _ID),
    # Amounts of money: the sign is on either side.
    (re.compile(rf"[$€£¥₹₽₩]\s?{_ID}|{_ID}\s?[$€£¥₹₽₩]"), _ID),
    (re.compile(rf"(?<![\w>])[+-]{_ID}"), _ID),
    (re.compile(r"\s+"), " "),
    # Lists of ids, and what is written as several numbers: how many there are varies as well.
    (re.compile(rf"{_ID}(?:[\s,;:/.·-]{{1,3}}{_ID})+"), _ID),
    (re.compile(r"(<(?:text|email|url|ip)>)(?:(?:, ?| )\1)+"), r"\1"),
)


def _code(match: re.Match[str]) -> str:
    """Set a code aside, so that it stays; leave an amount as it is."""
    if _AMOUNT.match(match.string, match.end()):
        return match[0]
    if not _SAYS_CODE.search(match[1]) and _OF_SOMETHING.match(match.string, match.end()):
        return match[0]
    return match[1] + match[2].translate(_SET_ASIDE)


def normalised(message: str) -> str:
    """Take out of a message what differs from one occurrence to the next.

    URLs, e-mail addresses, quoted strings and IP addresses become `<url>`, `<email>`, `<text>` and `<ip>`; dates and
    times in any language, numbers with their unit, and all words with a digit in them, `<id>`; several of a kind in a
    row, one; white space becomes single spaces. A code that says which error it is stays: `status code 404`. Of a long
    message the beginning counts.
    """
    message = message[:_MESSAGE_READ].replace("\x00", " ")
    message = _CODE.sub(_code, message)
    for pattern, placeholder in _VARYING:
        message = pattern.sub(placeholder, message)
    message = without_dates(message).replace("<date>", _ID)
    for pattern, placeholder in _NUMBERS:
        message = pattern.sub(placeholder, message)
    return message.strip()
