"""Checks the platform's view of recipients.

Input: PostgreSQL's URL, the namespace, and the view's name. Output: findings.
"""

from ops.checks.finding import LINES_SHOWN, Finding, State
from sinks.postgres import pool
from sinks.postgres.recipients import problem_of_view, survey_preferences

_RECIPIENTS = "recipients"


async def check_recipients(url: str, namespace: str, view: str | None) -> list[Finding]:
    """Return whether users' addresses can be read from the platform's view."""
    if view is None:
        what = "INKSTREAM_RECIPIENTS_VIEW is empty: only requests with an address or a device are sent"
        return [Finding(_RECIPIENTS, State.NOTE, what)]
    problem = await problem_of_view(url, view)
    if problem is None:
        return [Finding(_RECIPIENTS, State.WELL, f"in {view}"), *await _preferences(url, view)]
    advice = "create it: see docs/recipients.md. Without it, only requests that contain an address or a device are sent"
    if problem.startswith("no right"):
        advice = f"as its owner: GRANT SELECT ON {view} TO {(await pool.describe(url, namespace)).role}"
    return [Finding(_RECIPIENTS, State.NOTE if problem.startswith("there is no") else State.PROBLEM, problem, advice)]


async def _preferences(url: str, view: str) -> list[Finding]:
    """Return a note if some users' preferences are invalid."""
    survey = await survey_preferences(url, view)
    if survey is None:
        advice = "see docs/recipients.md for how fast it should be"
        return [Finding(_RECIPIENTS, State.NOTE, f"{view} is too slow to check preferences", advice)]
    people, unreadable, examples = survey
    if not unreadable:
        return []
    shown = "; ".join(f"{part}: {value}" for part, value in examples[:LINES_SHOWN])
    what = f"invalid preferences of {unreadable:,} of {people:,} users, who are sent less: {shown}"
    advice = "correct them where the platform stores them; see docs/recipients.md for valid values"
    return [Finding(_RECIPIENTS, State.NOTE, what, advice)]
