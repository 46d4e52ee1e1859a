"""Checks the settings: unknown variables, and values that are meant for development.

Input: settings and environment. Output: findings.
"""

import os
from collections.abc import Iterator
from difflib import get_close_matches
from pathlib import Path

from dotenv import dotenv_values

from agents.configuration import problems_of_providers
from ops.checks.finding import Finding, State
from runtime.settings import DEVELOPMENT_IP_HASH_KEY, NEEDED_ELSEWHERE, Settings

_PREFIX = "INKSTREAM_"
_OF_THE_DEVELOPMENT_STACK = "INKSTREAM_STACK"


def check_settings(settings: Settings) -> Iterator[Finding]:
    """Yield a finding for each setting that has no effect, is unsafe or is missing."""
    known = {_PREFIX + name.upper() for name in Settings.model_fields}
    for name in sorted({name.upper() for name in (*os.environ, *dotenv_values(Path(".env")))}):
        if name.startswith(_PREFIX) and not name.startswith(_OF_THE_DEVELOPMENT_STACK) and name not in known:
            nearest = get_close_matches(name, known, n=1)
            advice = f"did you mean {nearest[0]}?" if nearest else "`inkstream settings` lists all settings"
            yield Finding("settings", State.PROBLEM, f"{name} is not a setting and has no effect", advice)
    for problem in problems_of_providers(settings):
        yield Finding("settings", State.PROBLEM, problem, "correct it: a worker does not start with it")
    if settings.ip_hash_key.get_secret_value() == DEVELOPMENT_IP_HASH_KEY:
        advice = "before production use, set your own: `openssl rand -hex 32`"
        yield Finding("settings", State.NOTE, "INKSTREAM_IP_HASH_KEY is the public development key", advice)
    if settings.environment == "development":
        return
    for name, reason in NEEDED_ELSEWHERE.items():
        if getattr(settings, name) == Settings.model_fields[name].default:
            what = f"{_PREFIX}{name.upper()} has its development default: {reason}"
            yield Finding("settings", State.PROBLEM if name == "postgres_url" else State.NOTE, what, "set your own")
    if settings.email_providers and settings.unsubscribe_url is None:
        what = "INKSTREAM_UNSUBSCRIBE_URL is not set: e-mails have no unsubscribe link"
        yield Finding(
            "settings",
            State.NOTE,
            what,
            "make a worker's page /unsubscribe reachable from outside, and set its address",
        )
    if not settings.email_providers:
        what = "INKSTREAM_EMAIL_PROVIDERS is empty: no e-mail is sent"
        yield Finding("settings", State.NOTE, what, "set a provider, or ignore this if no e-mail should be sent")
