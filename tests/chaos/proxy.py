"""A network that fails on command: a process of its own that forwards TCP connections, each route in its own way.

Input: routes, and for each of them a fault, as Toxiproxy names them: cut, delayed, silent, slow, in slices; one at a
time, the last one set. Output: the bytes that went in, whole and in order, or a connection that is reset.
When the program that commands it ends, however it does, so does the proxy.
"""

import asyncio
import json
import math
import random
import socket
import struct
import sys
from collections import deque
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Protocol, Self, cast

import uvloop

_ROOT = Path(__file__).parents[2]
_HOST = "127.0.0.1"
_READY_WITHIN_SECONDS = 60.0
_LISTENS_AGAIN_WITHIN_SECONDS = 5.0
_LISTEN_EVERY_SECONDS = 0.01
_RESET_AT_CLOSE = struct.pack("ii", 1, 0)
"""The socket option `SO_LINGER`, on, and no time to say goodbye."""

_HELD_LATE = 16 * 2**20
"""How many bytes of one direction may be on a long way: more than the fastest of our programs sends meanwhile."""
_HELD_BACK = 64 * 2**10
"""How many bytes of one direction wait for a narrow way; the rest waits where it is sent."""
_SENT_AT_ONCE_SECONDS = 0.05
"""How long a slow route takes for what it passes on in one go."""


class ProxyError(RuntimeError):
    """The proxy has ended, or could not do what it was told."""


@dataclass(frozen=True, slots=True)
class Route:
    """From one port on loopback to another.

    Attributes:
        listen: Where clients connect.
        upstream: Where the server listens.
    """

    listen: int
    upstream: int


class Proxy:
    """A proxy process; as an asynchronous context manager it runs inside the block.

    Each trouble takes the place of the one before: that one is healed first. Clients and servers meet it alike, as it
    holds for both directions.

    Args:
        routes: By name.

    Attributes:
        names: Of all routes.
    """

    def __init__(self, routes: Mapping[str, Route]) -> None:
        self._routes = dict(routes)
        self.names = tuple(self._routes)
        self._process: asyncio.subprocess.Process | None = None
        self._reading: asyncio.Task[None] | None = None
        self._unanswered: deque[asyncio.Future[None]] = deque()

    async def __aenter__(self) -> Self:
        """Start the process; return when all routes are open.

        Raises:
            ProxyError: A port is taken, or the process does not start.
        """
        self._process = await asyncio.create_subprocess_exec(
            sys.executable,
            "-m",
            "tests.chaos.proxy",
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            cwd=_ROOT,
            # Ctrl-C is for the program that commands it, which may still heal what it broke.
            start_new_session=True,
        )
        self._reading = asyncio.create_task(self._read())
        try:
            async with asyncio.timeout(_READY_WITHIN_SECONDS):
                for name, route in self._routes.items():
                    await self._tell(name, "open", **asdict(route))
        except BaseException:
            await self._end()
            raise
        return self

    async def __aexit__(self, *_: object) -> None:
        """End the process, and with it all connections."""
        await self._end()

    @property
    def pid(self) -> int | None:
        """The process, while it runs."""
        return None if self._process is None or self._process.returncode is not None else self._process.pid

    async def cut(self, name: str) -> None:
        """Reset a route's connections, and refuse new ones."""
        await self._tell(name, "cut")

    async def reset(self, name: str) -> None:
        """Reset a route's connections, once; new ones are taken, and meet whatever trouble there is."""
        await self._tell(name, "reset")

    async def delay(self, name: str, seconds: float, jitter: float) -> None:
        """Make each direction take some time longer, give or take `jitter`, so an answer comes after twice that."""
        await self._tell(name, "delay", seconds=seconds, jitter=jitter)

    async def black_hole(self, name: str) -> None:
        """Let nothing through, no byte and no end of a connection; new ones are taken, and get no answer either.

        Those that lived through it are reset when it heals.
        """
        await self._tell(name, "black_hole")

    async def slow(self, name: str, bytes_per_second: int) -> None:
        """Let through so much, in each direction of each connection."""
        await self._tell(name, "slow", bytes_per_second=bytes_per_second)

    async def slice(self, name: str, bytes: int, pause: float) -> None:  # noqa: A002 - what it is
        """Let through pieces of so many bytes, with a pause in seconds between them; 1 ms is the shortest."""
        await self._tell(name, "slice", size=bytes, pause=pause)

    async def heal(self, name: str) -> None:
        """Pass on at once what was held, reset what lived through a black hole, listen again where it was cut."""
        await self._tell(name, "heal")

    async def _tell(self, route: str, order: str, **arguments: float) -> None:
        if route not in self._routes:
            raise KeyError(f"no route {route}; there are {', '.join(self.names)}")
        if self._process is None or self._reading is None or self._reading.done():
            raise ProxyError("the proxy does not run")
        assert self._process.stdin is not None
        # An answer is awaited even by those who have left: the next one must not take it for its own.
        answer: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._unanswered.append(answer)
        self._process.stdin.write(json.dumps({"route": route, "order": order, "with": arguments}).encode() + b"\n")
        await answer

    async def _read(self) -> None:
        assert self._process is not None
        assert self._process.stdout is not None
        async for line in self._process.stdout:
            error, answer = json.loads(line)["error"], self._unanswered.popleft()
            if answer.done():
                continue
            if error is None:
                answer.set_result(None)
            else:
                answer.set_exception(ProxyError(error))
        for answer in self._unanswered:
            if not answer.done():
                answer.set_exception(ProxyError("the proxy has ended"))

    async def _end(self) -> None:
        if self._process is None or self._reading is None:
            return
        assert self._process.stdin is not None
        self._process.stdin.close()
        await self._process.wait()
        await self._reading


# From here on: what runs in the process.


class _Trouble(Protocol):
    """What happens to bytes on a route."""

    @property
    def room(self) -> int:
        """How many bytes of one direction are held; what is more is not read."""

    def pieces(self, data: bytes, now: float, after: float) -> Iterator[tuple[float, bytes]]:
        """Yield the parts of `data`, each with its time to be passed on; the piece before has the time `after`."""


@dataclass(frozen=True, slots=True)
class _Delay:
    seconds: float
    jitter: float
    room: int = _HELD_LATE

    def pieces(self, data: bytes, now: float, after: float) -> Iterator[tuple[float, bytes]]:
        lateness = random.uniform(self.seconds - self.jitter, self.seconds + self.jitter)
        # What was sent first arrives first, as TCP has it.
        yield max(after, now + lateness), data


@dataclass(frozen=True, slots=True)
class _Slow:
    bytes_per_second: int
    room: int = _HELD_BACK

    def pieces(self, data: bytes, now: float, after: float) -> Iterator[tuple[float, bytes]]:
        size = max(1, round(self.bytes_per_second * _SENT_AT_ONCE_SECONDS))
        due = max(after, now)
        for start in range(0, len(data), size):
            piece = data[start : start + size]
            due += len(piece) / self.bytes_per_second
            yield due, piece


@dataclass(frozen=True, slots=True)
class _Slice:
    size: int
    pause: float
    room: int = _HELD_BACK

    def pieces(self, data: bytes, now: float, after: float) -> Iterator[tuple[float, bytes]]:
        due = max(after + self.pause, now)
        for start in range(0, len(data), self.size):
            yield due, data[start : start + self.size]
            due += self.pause


@dataclass(frozen=True, slots=True)
class _BlackHole:
    room: int = 0

    def pieces(self, data: bytes, now: float, after: float) -> Iterator[tuple[float, bytes]]:
        yield math.inf, data


class _Door:
    """One route: where it listens, and the connections through it."""

    def __init__(self) -> None:
        self.trouble: _Trouble | None = None
        self.connections: set[_Connection] = set()
        self.upstream = 0
        self._listen = 0
        self._server: asyncio.Server | None = None

    async def open(self, listen: int, upstream: int) -> None:
        self._listen, self.upstream = listen, upstream
        await self._let_in()

    @property
    def is_open(self) -> bool:
        """Whether clients are let in."""
        return self._server is not None

    async def cut(self) -> None:
        if self._server is not None:
            self._server.close()
            self._server = None
        self.trouble = None
        await self.reset()

    async def reset(self) -> None:
        for connection in list(self.connections):
            connection.reset()

    async def delay(self, seconds: float, jitter: float) -> None:
        await self._change(_Delay(seconds, jitter))

    async def black_hole(self) -> None:
        await self._change(_BlackHole())

    async def slow(self, bytes_per_second: int) -> None:
        await self._change(_Slow(bytes_per_second))

    async def slice(self, size: int, pause: float) -> None:
        await self._change(_Slice(size, pause))

    async def heal(self) -> None:
        await self._change(None)

    async def _change(self, trouble: _Trouble | None) -> None:
        was_silent = isinstance(self.trouble, _BlackHole)
        self.trouble = None
        for connection in list(self.connections):
            if was_silent:
                connection.reset()
            else:
                connection.release()
        self.trouble = trouble
        for connection in list(self.connections):
            connection.regulate()
        if not self.is_open:
            await self._let_in_again()

    async def _let_in(self) -> None:
        loop = asyncio.get_running_loop()
        self._server = await loop.create_server(lambda: _Connection(self).near, _HOST, self._listen)

    async def _let_in_again(self) -> None:
        loop = asyncio.get_running_loop()
        deadline = loop.time() + _LISTENS_AGAIN_WITHIN_SECONDS
        while not self.is_open:
            try:
                await self._let_in()
            except OSError:
                # Somebody who looks for a free port has it for a moment.
                if loop.time() > deadline:
                    raise
                await asyncio.sleep(_LISTEN_EVERY_SECONDS)


class _Connection:
    """A client's connection, and ours to the server on its behalf."""

    def __init__(self, door: _Door) -> None:
        self.door = door
        self.near, self.far = _End(self), _End(self)
        self.near.other, self.far.other = self.far, self.near
        self.is_over = False
        self._reaching: asyncio.Task[None] | None = None

    def begin(self) -> None:
        """Reach for the server, as a client is here; not through a black hole."""
        if not self.door.is_open:  # it was cut since the client came in
            self.reset()
            return
        self.door.connections.add(self)
        if not isinstance(self.door.trouble, _BlackHole):
            self._reaching = asyncio.create_task(self._reach())

    async def _reach(self) -> None:
        loop = asyncio.get_running_loop()
        try:
            await loop.create_connection(lambda: self.far, _HOST, self.door.upstream)
        except OSError:
            # We have said yes to the client already, so this is as near to a refusal as it gets.
            self.reset()

    def release(self) -> None:
        """Pass on what is held, now."""
        self.near.release()
        self.far.release()

    def regulate(self) -> None:
        """Read where reading makes sense now."""
        self.near.regulate()
        self.far.regulate()

    def close_if_done(self) -> None:
        """Close both ends when both sides have said all they had to say."""
        if self.near.is_told_the_end and self.far.is_told_the_end:
            self.near.close()
            self.far.close()

    def forget_if_closed(self) -> None:
        """Leave the route when neither end is there any longer."""
        if not self.near.is_there and not self.far.is_there:
            self.door.connections.discard(self)

    def reset(self) -> None:
        """Reset both ends: what is held, or not yet sent, is lost."""
        self.door.connections.discard(self)
        self.is_over = True
        self.near.reset()
        self.far.reset()


class _End(asyncio.Protocol):
    """One end of a connection: what is read here is held for as long as the trouble wants, and written at the other.

    It is not read faster than the other end takes it, or than there is room for it.
    """

    other: "_End"

    def __init__(self, connection: _Connection) -> None:
        self._connection = connection
        self._transport: asyncio.Transport | None = None
        self._held: deque[tuple[float, bytes]] = deque()
        self._held_bytes = 0
        self._last_due = 0.0
        self._timer: asyncio.TimerHandle | None = None
        self._is_choked = False
        self._has_ended = False
        self.is_told_the_end = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)
        if self._connection.is_over:
            self.reset()
            return
        if self is self._connection.near:
            self._connection.begin()
        else:
            self.other.pass_on()
        self.regulate()

    def data_received(self, data: bytes) -> None:
        trouble = self._connection.door.trouble
        if trouble is None and self.other.is_there:
            self.other.write(data)
            return
        if trouble is None:
            self._hold(0.0, data)
        else:
            for due, piece in trouble.pieces(data, asyncio.get_running_loop().time(), self._last_due):
                self._hold(due, piece)
        self.pass_on()

    def _hold(self, due: float, piece: bytes) -> None:
        self._held.append((due, piece))
        self._held_bytes += len(piece)
        self._last_due = due

    def eof_received(self) -> bool:
        self._has_ended = True
        self.pass_on()
        return True  # the other direction may go on

    def connection_lost(self, exc: Exception | None) -> None:
        self._transport = None
        # Through a black hole it stays unnoticed; its end resets the rest.
        if exc is not None and not isinstance(self._connection.door.trouble, _BlackHole):
            self._connection.reset()
        self._connection.forget_if_closed()

    def pause_writing(self) -> None:
        self._is_choked = True
        self.other.regulate()

    def resume_writing(self) -> None:
        self._is_choked = False
        self.other.regulate()

    def write(self, data: bytes) -> None:
        if self._transport is not None and not self._transport.is_closing():
            self._transport.write(data)

    def tell_the_end(self) -> None:
        if self.is_told_the_end:
            return
        self.is_told_the_end = True
        if self._transport is not None and not self._transport.is_closing():
            self._transport.write_eof()
        self._connection.close_if_done()

    def release(self) -> None:
        self._held = deque((0.0, piece) for _, piece in self._held)
        self._last_due = 0.0
        self.pass_on()

    def regulate(self) -> None:
        if self._transport is None or self._transport.is_closing():
            return
        trouble = self._connection.door.trouble
        has_room = trouble is None or self._held_bytes < trouble.room
        should_read = self.other.takes and has_room
        if should_read and not self._transport.is_reading():
            self._transport.resume_reading()
        elif self._transport.is_reading() and not should_read:
            self._transport.pause_reading()

    @property
    def is_there(self) -> bool:
        """Whether it is connected."""
        return self._transport is not None

    @property
    def takes(self) -> bool:
        """Whether more can be written here now."""
        return self.is_there and not self._is_choked

    def close(self) -> None:
        if self._transport is not None:
            self._transport.close()

    def reset(self) -> None:
        self._held.clear()
        self._held_bytes = 0
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if self._transport is not None:
            with suppress(OSError):  # it may have been reset from the other side
                self._transport.get_extra_info("socket").setsockopt(
                    socket.SOL_SOCKET, socket.SO_LINGER, _RESET_AT_CLOSE
                )
            self._transport.abort()

    def pass_on(self) -> None:
        """Write at the other end what is due, and see to the rest when its time comes."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        loop = asyncio.get_running_loop()
        now = loop.time()
        while self.other.is_there and self._held and self._held[0][0] <= now:
            _, piece = self._held.popleft()
            self._held_bytes -= len(piece)
            self.other.write(piece)
        if self._held:
            if self.other.is_there and self._held[0][0] < math.inf:
                self._timer = loop.call_at(self._held[0][0], self.pass_on)
        elif self._has_ended and self.other.is_there and not isinstance(self._connection.door.trouble, _BlackHole):
            self.other.tell_the_end()
        self.regulate()


async def _serve() -> None:
    """Do what the lines of the input say, until it ends."""
    loop = asyncio.get_running_loop()
    orders = asyncio.StreamReader()
    await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(orders), sys.stdin)
    doors: dict[str, _Door] = {}
    async for line in orders:
        order = json.loads(line)
        door = doors.setdefault(order["route"], _Door())
        sys.stdout.write(json.dumps({"error": await _do(door, order["order"], order["with"])}) + "\n")
        sys.stdout.flush()


async def _do(door: _Door, order: str, arguments: Mapping[str, Any]) -> str | None:
    """Return what went wrong, if anything did."""
    try:
        await getattr(door, order)(**arguments)
    except Exception as error:  # the caller decides what to do about it
        return f"{order}: {error!r}"
    return None


if __name__ == "__main__":
    uvloop.run(_serve())
