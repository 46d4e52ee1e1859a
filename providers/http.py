"""HTTP requests to providers, and what their failures mean.

Input: a request. Output: the response, or the `Failed` that stands for its absence. Redirects are not followed, and
nothing of a request is logged.
"""

import asyncio
import logging
from datetime import UTC, datetime, timedelta
from email.utils import parsedate_to_datetime
from typing import Any

import httpx

from notifications.outcome import Failed
from notifications.retry_policy import LONGEST_WAIT, bounded
from runtime.patches import httpcore as patch

TIMEOUT = timedelta(seconds=10)
_CONNECTIONS_KEPT = 100
_HEAD_IS_SENT = ".send_request_headers.complete"

# Below this level they log URLs, headers and signed requests, device tokens and keys among them.
for _name in ("httpx", "httpcore", "hpack", "botocore"):
    logging.getLogger(_name).setLevel(logging.WARNING)


def client(*, http2: bool = False, timeout: timedelta = TIMEOUT) -> httpx.AsyncClient:
    """Return a client; the caller closes it."""
    patch.apply()
    # As many as messages are sent at the same time; otherwise most messages would need a TLS handshake.
    limits = httpx.Limits(max_keepalive_connections=_CONNECTIONS_KEPT)
    return httpx.AsyncClient(http2=http2, timeout=timeout.total_seconds(), limits=limits, follow_redirects=False)


async def ask(client: httpx.AsyncClient, request: httpx.Request) -> httpx.Response | Failed:
    """Send a request, and read the whole response; all of it within the client's time-out.

    httpx's own time-outs are for each part, so a provider that answers byte by byte would never exceed them. A request
    may have arrived once its headers were sent (https://www.encode.io/httpcore/extensions/#trace).
    """
    sent = False

    async def notice(event: str, _: dict[str, Any]) -> None:
        nonlocal sent
        sent = sent or event.endswith(_HEAD_IS_SENT)

    request.extensions["trace"] = notice
    try:
        async with asyncio.timeout(client.timeout.read):
            return await client.send(request)
    except (httpx.HTTPError, TimeoutError) as error:
        what = "the provider's response did not arrive" if sent else "the provider can't be reached"
        return Failed(type(error).__name__, what, may_have_arrived=sent)


def answer(response: httpx.Response) -> dict[str, Any]:
    """Read the JSON object of a response; empty if there is none."""
    try:
        content = response.json()
    except (ValueError, RecursionError):
        return {}
    return content if isinstance(content, dict) else {}


def failed(response: httpx.Response, message: str) -> Failed:
    """Return the outcome of a response with 5xx or 408.

    A gateway without a valid or timely response (502, 504: RFC 9110, section 15.6) does not know the result of the
    request; the other statuses mean that it was not carried out.
    """
    return Failed(str(response.status_code), message, may_have_arrived=response.status_code in (502, 504))


def retry_after(response: httpx.Response, now: datetime | None = None) -> timedelta | None:
    """Read the header `Retry-After`: seconds, or a date (RFC 9110, section 10.2.3); a day at most."""
    value = response.headers.get("retry-after", "").strip()
    try:
        if value.isdecimal():
            wait = timedelta(seconds=min(int(value), LONGEST_WAIT.total_seconds()))
        else:
            wait = parsedate_to_datetime(value) - (now or datetime.now(UTC))
    except (TypeError, ValueError):
        return None
    return bounded(wait)
