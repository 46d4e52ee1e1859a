"""A provider that accepts everything after 50 ms: by SendGrid's contract, and by FCM's.

Input: requests by HTTP/1.1.
Output: the replies of `POST /v3/mail/send`, of `POST /v1/projects/…/messages:send` and of the endpoint for access
tokens; and for `GET /taken/<number>`, what was accepted since that number: when, and of which notification. It checks
nothing, as it must cost little beside the workers that it serves.

Started as a program, it prints its port, and ends when its input ends.
"""

import asyncio
import sys
import time
from typing import Any

import orjson
import uvloop

DELAY_SECONDS = 0.05
_END_OF_HEAD = b"\r\n\r\n"
_REASONS = {200: "OK", 202: "Accepted"}


class Ledger:
    """What was taken: pairs of the moment, in seconds since 1970, and the notification's id."""

    def __init__(self) -> None:
        self.taken: list[tuple[float, str]] = []


class Conversation(asyncio.Protocol):
    """One connection; requests come one after another.

    Args:
        ledger: Where to note what was taken.
    """

    def __init__(self, ledger: Ledger) -> None:
        self._ledger = ledger
        self._transport: Any = None
        self._unread = b""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Begin."""
        self._transport = transport

    def data_received(self, data: bytes) -> None:
        """Answer what has come whole."""
        self._unread += data
        while (request := self._next()) is not None:
            self._answer(*request)

    def _next(self) -> tuple[str, bytes] | None:
        head, found, rest = self._unread.partition(_END_OF_HEAD)
        if not found:
            return None
        first, *lines = head.split(b"\r\n")
        length = 0
        for line in lines:
            name, _, value = line.partition(b":")
            if name.lower() == b"content-length":
                length = int(value)
        if len(rest) < length:
            return None
        self._unread = rest[length:]
        return first.split(b" ")[1].decode(), rest[:length]

    def _answer(self, path: str, body: bytes) -> None:
        taken = self._ledger.taken
        if path.startswith("/taken/"):
            self._reply(200, orjson.dumps(taken[int(path.removeprefix("/taken/")) :]))
        elif path == "/token":
            self._reply(200, orjson.dumps({"access_token": "token", "expires_in": 3599, "token_type": "Bearer"}))
        elif path.endswith(":send"):
            message = orjson.loads(body)["message"]
            taken.append((time.time(), message["data"]["notificationId"]))
            name = orjson.dumps({"name": f"projects/bench/messages/{len(taken)}"})
            asyncio.get_running_loop().call_later(DELAY_SECONDS, self._reply, 200, name)
        else:
            arguments = orjson.loads(body)["custom_args"]
            taken.append((time.time(), arguments["notificationId"]))
            header = f"X-Message-Id: {len(taken)}\r\n"
            asyncio.get_running_loop().call_later(DELAY_SECONDS, self._reply, 202, b"", header)

    def _reply(self, status: int, body: bytes, header: str = "") -> None:
        head = f"HTTP/1.1 {status} {_REASONS[status]}\r\nContent-Length: {len(body)}\r\n{header}\r\n"
        self._transport.write(head.encode() + body)


async def serve() -> None:
    """Serve until the input ends."""
    ledger = Ledger()
    loop = asyncio.get_running_loop()
    server = await loop.create_server(lambda: Conversation(ledger), "127.0.0.1", 0, backlog=1_000)
    print(server.sockets[0].getsockname()[1], flush=True)
    await loop.run_in_executor(None, sys.stdin.read)
    server.close()


if __name__ == "__main__":
    uvloop.run(serve())
