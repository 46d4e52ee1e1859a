"""An HTTP/2 connection whose first request is cancelled while the connection begins."""

import asyncio

import hpack
import hyperframe.frame
import pytest
from httpcore import AsyncHTTP2Connection, AsyncMockStream, Origin
from httpcore._async import http2
from httpcore._synchronization import AsyncSemaphore

from runtime.patches import httpcore as patch

URL = "https://push.example.com/3/device/1"
ORIGIN = Origin(b"https", b"push.example.com", 443)
MAX_CONCURRENT_STREAMS = 3


def answers() -> list[bytes]:
    """Return the frames of a server that allows 100 streams and accepts the request of the first."""
    headers = hpack.Encoder().encode([(b":status", b"200")])
    frames = (
        hyperframe.frame.SettingsFrame(settings={MAX_CONCURRENT_STREAMS: 100}),
        hyperframe.frame.HeadersFrame(stream_id=1, data=headers, flags=["END_HEADERS", "END_STREAM"]),
    )
    return [frame.serialize() for frame in frames]


async def status_after_a_cancelled_request() -> int:
    async with AsyncHTTP2Connection(
        origin=ORIGIN, stream=AsyncMockStream(answers()), keepalive_expiry=5.0
    ) as connection:
        first = asyncio.create_task(connection.request("POST", URL))
        while not connection._sent_connection_init:  # noqa: ASYNC110 - httpcore has no event for it
            await asyncio.sleep(0)
        first.cancel()
        await asyncio.gather(first, return_exceptions=True)
        return (await connection.request("POST", URL)).status


async def test_after_a_cancelled_first_request_the_next_one_gets_its_answer(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(http2, "AsyncSemaphore", AsyncSemaphore)
    patch.apply()
    assert await status_after_a_cancelled_request() == 200


async def test_httpcore_still_returns_more_permits_than_were_taken(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(http2, "AsyncSemaphore", AsyncSemaphore)
    (outcome,) = await asyncio.gather(status_after_a_cancelled_request(), return_exceptions=True)
    assert isinstance(outcome, ValueError), "remove me: httpcore counts permits right, so patches.httpcore can go"
