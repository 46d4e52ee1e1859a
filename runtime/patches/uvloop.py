"""The event loop: uvloop where there is one, without its fault at connections that were reset.

Nothing comes in, nothing goes out. asyncio's own loop lets a client write to a connection that was reset a moment ago,
and tells it of the end afterwards; uvloop raises a RuntimeError, which no client takes for what it is: those of Kafka
and Redis passed it on, and the worker ended. Here it is the error that it should be.

Uvloop's fault: https://github.com/MagicStack/uvloop/issues/506
"""

import asyncio
import os
from contextlib import suppress

import mode.loop

_write = asyncio.StreamWriter.write
_write_lines = asyncio.StreamWriter.writelines


def apply() -> None:
    """Make every event loop of this process one of these; `FAUST_LOOP` names another."""
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
    """Return what every client knows how to deal with, where that is what happened."""
    return ConnectionResetError("the connection was reset") if writer.transport.is_closing() else error
