"""A change to httpcore 1.0: a cancelled first request does not break the HTTP/2 connection for those after it.

The first request of a connection takes 99 of 100 permits for streams, one after another, until the server says how many
it allows. If that request is cancelled meanwhile, as by a time-out, fewer are taken. The server's answer then returns
more than were taken, which raises `ValueError: semaphore released too many times` in another request that the server
may have accepted already: the message was sent twice.

Upstream: no issue describes it; https://github.com/encode/httpcore/issues/1022 is about another way in which permits
and streams differ.

Remove it when the test in tests/unit/test_patch_httpcore.py says so.
"""

from contextlib import suppress

from httpcore._async import http2
from httpcore._synchronization import AsyncSemaphore


def apply() -> None:
    """Let HTTP/2 connections of this process return a permit that was never taken."""
    http2.AsyncSemaphore = _Permits  # type: ignore[attr-defined]


class _Permits(AsyncSemaphore):
    """Permits for streams, of which there are never more than at the beginning."""

    async def release(self) -> None:
        with suppress(ValueError):
            await super().release()
