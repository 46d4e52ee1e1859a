"""Requests to providers: one question over HTTP, and what its failure means.

In comes a request; out goes the response, or the `Failed` that stands for its absence. No redirects are followed, and
nothing of a request is logged.
"""

from datetime import UTC, datetime, timedelta
from email.utils import parsedate_to_datetime

import httpx

from notifications.outcome import Failed

TIMEOUT = timedelta(seconds=10)
_LONGEST_WAIT = timedelta(days=1)


def client(*, http2: bool = False, timeout: timedelta = TIMEOUT) -> httpx.AsyncClient:
    """Make a client; whoever makes it closes it."""
    return httpx.AsyncClient(http2=http2, timeout=timeout.total_seconds(), follow_redirects=False)


async def ask(client: httpx.AsyncClient, request: httpx.Request) -> httpx.Response | Failed:
    """Send a request, and read the whole response."""
    try:
        return await client.send(request)
    except (httpx.ConnectError, httpx.ConnectTimeout, httpx.PoolTimeout) as error:
        return Failed(type(error).__name__, "the provider can't be reached", may_have_arrived=False)
    except httpx.HTTPError as error:
        return Failed(type(error).__name__, "the provider's answer did not come", may_have_arrived=True)


def retry_after(response: httpx.Response, now: datetime | None = None) -> timedelta | None:
    """Read the header `Retry-After`: seconds, or a date (RFC 9110, section 10.2.3); a day at most."""
    value = response.headers.get("retry-after", "").strip()
    if value.isdecimal():
        wait = timedelta(seconds=min(int(value), _LONGEST_WAIT.total_seconds()))
    else:
        try:
            wait = parsedate_to_datetime(value) - (now or datetime.now(UTC))
        except (TypeError, ValueError):
            return None
    return min(max(wait, timedelta(0)), _LONGEST_WAIT)
