"""Shorten the product's waits, and have each message name the process that sends it.

Input: nothing; a worker calls `apply` and `identify` before its own modules are imported.
Output: the policies of retries, circuits and leases with shorter times, so that minutes become seconds. Their effects
are not changed.
A name that the product no longer has ends the worker, so that nobody waits for minutes by mistake.
"""

import importlib
import os
from datetime import timedelta
from functools import partial
from typing import Any

LEASE = timedelta(seconds=12)
PROVIDER_TIMEOUT = timedelta(seconds=4)
LONGEST_WAIT = timedelta(seconds=5)
SENT_AFTER = timedelta(seconds=3)
NAME = "worker-{}"
"""What a worker calls itself, with its process id."""


def apply() -> None:
    """Shorten the times, module by module: each before those that import it."""
    policies = importlib.import_module("notifications.retry_policy")
    policy = policies.RetryPolicy(base=timedelta(seconds=0.5), factor=2, cap=LONGEST_WAIT)
    _replace("notifications.retry_policy", "POLICIES", {"email": policy, "push": policy})
    _replace("notifications.retry_policy", "UNSAID", timedelta(seconds=1))
    circuit = importlib.import_module("notifications.circuit_breaker").CircuitPolicy
    seconds = {"pause": 1, "longest": 4, "probe": 5}
    shorter = partial(circuit, **{name: timedelta(seconds=value) for name, value in seconds.items()})
    _replace("notifications.circuit_breaker", "CircuitPolicy", shorter)
    _replace("sinks.mongo.notification_queue", "LEASE", LEASE)
    _replace("notifications.notice", "SENT_AFTER", SENT_AFTER)
    _replace("agents.notifications.attempt", "TIMEOUT", PROVIDER_TIMEOUT)


def identify() -> None:
    """Have each message name its process: `User-Agent` by HTTP, the client's name by SMTP."""
    make = importlib.import_module("providers.http").client

    def client(**options: Any) -> Any:
        http = make(**options)
        http.headers["user-agent"] = NAME.format(os.getpid())
        return http

    _replace("providers.http", "client", client)
    # aiosmtplib takes the client's name from here.
    _replace("socket", "getfqdn", lambda: NAME.format(os.getpid()))


def _replace(module: str, name: str, value: Any) -> None:
    imported = importlib.import_module(module)
    if not hasattr(imported, name):
        raise SystemExit(f"{module} has no {name} any more: see {__name__}")
    setattr(imported, name, value)
