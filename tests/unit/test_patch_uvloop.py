"""What a client gets when it writes to a connection that was reset, in a process that uses our event loop."""

import subprocess
import sys

import pytest

from runtime.settings import ROOT

WRITE_TO_A_RESET_CONNECTION = """
import asyncio, socket, struct

async def main():
    async def reset(reader, writer):
        # Without a time to linger, a close is a reset.
        writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        writer.transport.abort()
    server = await asyncio.start_server(reset, "127.0.0.1", 0)
    reader, writer = await asyncio.open_connection(*server.sockets[0].getsockname())
    await asyncio.gather(reader.read(), return_exceptions=True)
    for write in (lambda: writer.write(b"data"), lambda: writer.writelines([b"more", b"data"])):
        try:
            write()
        except ConnectionResetError:
            pass
    print("the client knows")

asyncio.run(main())
"""


def ran(prelude: str, loop: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", prelude + WRITE_TO_A_RESET_CONNECTION],
        cwd=ROOT,
        env={"FAUST_LOOP": loop, "PATH": ""},
        capture_output=True,
        text=True,
        check=False,
        timeout=20,
    )


@pytest.mark.parametrize("loop", ["uvloop", "aio"])
def test_a_write_to_a_connection_that_was_reset_raises_that_error(loop: str) -> None:
    ended = ran("from runtime.patches import uvloop; uvloop.apply()", loop)
    assert ended.stdout == "the client knows\n", ended.stderr


def test_uvloop_still_raises_another_error() -> None:
    ended = ran("import uvloop; uvloop.install()", "uvloop")
    assert "RuntimeError: unable to perform operation" in ended.stderr, (
        "remove me: uvloop lets a client write to a connection that was reset, so patches.uvloop can go"
    )
