"""Makes a worker hurry, and say who it is: called before the worker's own modules are imported.

In comes nothing; out go the policies of retries, circuits and leases, with shorter times, so that what takes minutes
takes seconds, and clients that tell providers the process they are of. What follows what is not touched. A name that
the product no longer has ends the program, so that nobody waits for minutes unawares.
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


def hurry() -> None:
    """Replace what takes long, module by module: each before those that import it."""
    policies = importlib.import_module("notifications.retry_policy")
    policy = policies.RetryPolicy(base=timedelta(seconds=0.5), factor=2, cap=LONGEST_WAIT)
    _replace("notifications.retry_policy", "POLICIES", {"email": policy, "push": policy})
    _replace("notifications.retry_policy", "UNSAID", timedelta(seconds=1))
    circuit = importlib.import_module("notifications.circuit_breaker").CircuitPolicy
    seconds = {"pause": 1, "longest": 4, "probe": 5}
    shorter = partial(circuit, **{name: timedelta(seconds=value) for name, value in seconds.items()})
    _replace("notifications.circuit_breaker", "CircuitPolicy", shorter)
    _replace("sinks.notification_queue", "LEASE", LEASE)
    _replace("notifications.notice", "SENT_AFTER", SENT_AFTER)
    _replace("agents.hand_over", "TIMEOUT", PROVIDER_TIMEOUT)


def introduce() -> None:
    """Have each message say which process gives it: `User-Agent` by HTTP, the client's name by SMTP."""
    make = importlib.import_module("sinks.http").client

    def client(**options: Any) -> Any:
        http = make(**options)
        http.headers["user-agent"] = NAME.format(os.getpid())
        return http

    _replace("sinks.http", "client", client)
    # By which aiosmtplib learns what to say.
    _replace("socket", "getfqdn", lambda: NAME.format(os.getpid()))


def _replace(module: str, name: str, value: Any) -> None:
    imported = importlib.import_module(module)
    if not hasattr(imported, name):
        raise SystemExit(f"{module} has no {name} any more: see {__name__}")
    setattr(imported, name, value)
