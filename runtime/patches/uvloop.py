"""A change to uvloop 0.23: a write to a connection that was reset raises `ConnectionResetError`.

asyncio's own loop lets a client write to a connection that was reset a moment ago, and reports the end afterwards;
uvloop raises a `RuntimeError`, which the clients of Kafka and Redis passed on, so the worker ended.

Upstream: https://github.com/MagicStack/uvloop/issues/506

Remove it when the test in tests/unit/test_patch_uvloop.py says so.
"""

import asyncio
import os
from contextlib import suppress

import mode.loop

_write = asyncio.StreamWriter.write
_write_lines = asyncio.StreamWriter.writelines


def apply() -> None:
    """Use uvloop, with the change, for every event loop of this process; `FAUST_LOOP` names another loop."""
    with suppress(ImportError):  # uvloop is not made for every platform
        mode.loop.use(os.environ.get("FAUST_LOOP", "uvloop"))
    asyncio.StreamWriter.write = _write_or_reset  # type: ignore[assignment, method-assign]
    asyncio.StreamWriter.writelines = _write_lines_or_reset  # type: ignore[assignment, method-assign]


def _write_or_reset(writer: asyncio.StreamWriter, data: bytes) -> None:
    try:
        _write(writer, data)
    except RuntimeError as error:
        raise _meant(error, writer) from error


def _write_lines_or_reset(writer: asyncio.StreamWriter, data: list[bytes]) -> None:
    try:
        _write_lines(writer, data)
    # The last two are asyncio's own since Python 3.12: https://github.com/python/cpython/issues/136234
    except (RuntimeError, AttributeError, TypeError) as error:
        raise _meant(error, writer) from error


def _meant(error: Exception, writer: asyncio.StreamWriter) -> Exception:
    """Return the error that every client handles, if the connection was reset."""
    return ConnectionResetError("the connection was reset") if writer.transport.is_closing() else error
