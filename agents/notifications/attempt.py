"""Hand over: gives one message to a provider, and takes whatever comes of it for an outcome.

In come a route and a message; out goes an outcome, counted, and known to the provider's circuit breaker. It never
raises: a fault of ours in one message counts as its failed attempt, so it neither stops others nor is tried for ever.
"""

import asyncio
import time
from collections.abc import Callable
from datetime import datetime, timedelta

import structlog

from notifications.messages import Email, Push
from notifications.outcome import Failed, Misconfigured, Outcome, Sent
from notifications.replies import OURS
from providers.registry import Route
from runtime.metrics import DELIVERY_ATTEMPTS, REPLIES, SEND_SECONDS

log = structlog.get_logger(__name__)

TIMEOUT = timedelta(seconds=20)
"""How long a provider may take, whatever its client's own time-outs are."""


async def hand_over(
    route: Route[Email] | Route[Push],
    message: Email | Push,
    now: Callable[[], datetime],
    given_back_at: datetime | None = None,
) -> Outcome:
    """Give a message to a provider; return what came of it, within `TIMEOUT`.

    Args:
        route: To the provider.
        message: What it is given.
        now: Tells the time.
        given_back_at: When this message was given back last, as a provider seemed to refuse us; else `None`.
    """
    began = time.monotonic()
    try:
        async with asyncio.timeout(TIMEOUT.total_seconds()):
            outcome = await route.provider.send(message)  # type: ignore[arg-type]  # a route gets what it is for
    except TimeoutError:
        outcome = Failed("timeout", "the provider did not answer in time", may_have_arrived=True)
    except Exception as error:
        log.exception("a message was not sent", provider=route.name, key=message.key)
        outcome = Failed(type(error).__name__, "a fault of our own", may_have_arrived=True, concerns="recipient")
    if route.refusals is not None:
        recipient = message.to if isinstance(message, Email) else message.token
        outcome = route.refusals.judge(outcome, recipient, now(), given_back_at)
    route.breaker.record(outcome, now())
    SEND_SECONDS.labels(route.name).observe(time.monotonic() - began)
    DELIVERY_ATTEMPTS.labels(route.name, type(outcome).__name__.lower()).inc()
    if not isinstance(outcome, Sent):
        REPLIES.labels(route.name, outcome.category).inc()
        known = {"provider": route.name, "category": outcome.category, "code": outcome.code, "problem": outcome.message}
        if isinstance(outcome, Misconfigured):
            log.error("a provider refuses us", **known)
        elif outcome.category in OURS:
            log.warning("a message was refused because of us", **known)
    return outcome
