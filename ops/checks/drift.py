"""Compares a server with the declarations.

Input: a function that returns the differences. Output: findings.
"""

from collections.abc import Awaitable, Callable, Iterable, Iterator
from dataclasses import replace

from ops.checks.finding import Finding, State, listed, shortened
from sinks.changes import Change


async def check_drift(subject: str, look: Callable[[], Awaitable[list[Change]]]) -> list[Finding]:
    """Return what differs from the declarations, and what is not declared."""
    changes = await look()
    different = [change.line for change in changes if change.action not in ("report", "blocked")]
    unexpected = [change.line for change in changes if change.action == "report"]
    findings = [Finding(subject, State.PROBLEM, line) for line in _blocked(changes)]
    if different:
        advice = "run `inkstream bootstrap`; `inkstream bootstrap --check` lists all differences"
        findings.append(Finding(subject, State.PROBLEM, shortened(different), advice))
    if unexpected:
        advice = "remove it if nobody needs it: an index slows down every write"
        findings.append(Finding(subject, State.NOTE, shortened(unexpected), advice))
    return findings or [Finding(subject, State.WELL, "as declared")]


def _blocked(changes: Iterable[Change]) -> Iterator[str]:
    """Yield a line for each change that needs manual action; changes with the same detail share a line."""
    alike: dict[str, list[Change]] = {}
    for change in changes:
        if change.action == "blocked":
            alike.setdefault(change.detail, []).append(change)
    for first, *others in alike.values():
        yield replace(first, what=listed([first.what, *(other.what for other in others)])).line
