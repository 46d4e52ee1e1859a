"""Reports commands that Redis refuses although it answers: no permission, or no memory.

Input: errors of Redis' driver. Output: a log line for each kind of refusal, once per process, a metric, and a state on
the page `/readyz`. An outage is handled elsewhere: each feature continues without Redis, and reports how.
"""

import re
import time

import structlog
from redis.exceptions import (
    AskError,
    AuthenticationError,
    ClusterCrossSlotError,
    ClusterDownError,
    ConnectionError,  # noqa: A004 - Redis' own, of that name
    NoPermissionError,
    OutOfMemoryError,
    ReadOnlyError,
    RedisError,
    ResponseError,
    TryAgainError,
)

from runtime.health import Health
from runtime.metrics import REDIS_REFUSED

log = structlog.get_logger(__name__)

CLEARED_AFTER_SECONDS = 60.0
"""So long after a refusal a command has to succeed before the feature counts as well again."""

_OF_CLASS: tuple[tuple[type[RedisError], str], ...] = (
    (NoPermissionError, "NOPERM"),
    (OutOfMemoryError, "OOM"),
    (ReadOnlyError, "READONLY"),
    (AuthenticationError, "NOAUTH"),
    (AskError, "MOVED"),  # MovedError is one
    (ClusterCrossSlotError, "CROSSSLOT"),
)
_OUTAGES = (ConnectionError, ClusterDownError, TryAgainError)
_KINDS = frozenset({"NOPERM", "OOM", "READONLY", "NOAUTH", "WRONGTYPE", "MISCONF", "MOVED", "CROSSSLOT", "NOREPLICAS"})
_CODE = re.compile(r"\b([A-Z]{3,}) ")
_COMMAND = re.compile(r"run the '([\w|]+)' command")

ADVICE = {
    "NOPERM": "give the role its permissions: docs/recent-views.md has the ACL",
    "OOM": "give Redis more memory (maxmemory), or let it evict keys",
    "READONLY": "let INKSTREAM_REDIS_URL name the primary, not a replica",
    "NOAUTH": "correct user and password in INKSTREAM_REDIS_URL",
    "WRONGTYPE": "somebody else has written a key of ours: delete it",
    "MISCONF": "Redis can't write to its disk: see its log",
    "MOVED": "use one Redis server, not Redis Cluster",
    "CROSSSLOT": "use one Redis server, not Redis Cluster",
    "NOREPLICAS": "Redis has fewer replicas than it needs to take writes (min-replicas-to-write)",
}


def kind_of(error: RedisError) -> str | None:
    """Name what Redis refuses, as `NOPERM`; `None` where the error is an outage. The error's text may hold arguments.

    A refusal that is not known by name is `other`.
    """
    for kind, name in _OF_CLASS:
        if isinstance(error, kind):
            return name
    if isinstance(error, _OUTAGES) or not isinstance(error, ResponseError):
        return None
    text = str(error)
    if "ACL failure in script" in text or "can't run this command" in text:
        return "NOPERM"
    return next((code for code in _CODE.findall(f"{text} ") if code in _KINDS), "other")


def command_of(error: RedisError) -> str | None:
    """Return the command that Redis refuses to run for us, where it says so."""
    found = _COMMAND.search(str(error))
    return found[1].upper().replace("|", " ") if found else None


class RedisRefusals:
    """Tells of refusals.

    Args:
        health: Where to show features that Redis refuses.
    """

    def __init__(self, health: Health | None = None) -> None:
        self._health = health
        self._told: set[tuple[str, str, str | None]] = set()
        self._refused_at: dict[str, float] = {}  # by feature; the monotonic clock

    def note(self, feature: str, error: RedisError) -> None:
        """Take an error that a feature met; nothing happens where it is an outage."""
        kind = kind_of(error)
        if kind is None:
            return
        command = command_of(error)
        REDIS_REFUSED.labels(feature, kind).inc()
        self._refused_at[feature] = time.monotonic()
        if self._health is not None:
            self._health.degraded(feature, f"Redis refuses: {kind}" + (f" ({command})" if command else ""))
        if (feature, kind, command) not in self._told:
            self._told.add((feature, kind, command))
            advice = ADVICE.get(kind, "see Redis' log")
            log.error("redis refuses a command", feature=feature, problem=kind, command=command, advice=advice)

    def succeeded(self, feature: str) -> None:
        """Note that Redis did what the feature asked."""
        refused_at = self._refused_at.get(feature)
        if refused_at is not None and time.monotonic() - refused_at > CLEARED_AFTER_SECONDS:
            del self._refused_at[feature]
            if self._health is not None:
                self._health.degraded(feature, None)
