"""The workers of a run: started, killed, and each started again at once.

In come the settings of each post that is to be manned; out go processes, and how each of them ended. A worker that ends
by itself is a failure of the run. Where this program ends, so do all workers.
"""

import asyncio
import json
import os
import signal
import sys
import time
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ops.settings import ROOT

_READY_WITHIN_SECONDS = 60.0
_STOP_WITHIN_SECONDS = 30.0


@dataclass(frozen=True, slots=True)
class Death:
    """How a worker was killed.

    Attributes:
        at: When, in seconds since 1970.
        how: In a few words.
    """

    at: float
    how: str


@dataclass(slots=True)
class Post:
    """A place that always has a worker.

    Attributes:
        name: Of the place, and of its log.
        environment: The worker's settings.
        log: The output of all workers that were here.
        calls: What each worker calls before it begins: `module:function` and arguments that JSON can carry.
        pid: The worker that is here now; `None` while there is none.
        began: When it was started, by the monotonic clock.
        is_wanted: Whether there is to be another worker when this one has ended.
    """

    name: str
    environment: Mapping[str, str]
    log: Path
    calls: Sequence[Sequence[Any]] = ()
    pid: int | None = None
    began: float = 0.0
    is_wanted: bool = True


class Workers:
    """All workers.

    Args:
        posts: Where workers are wanted.
        preludes: What to call before anything of the product is imported: `module:function`.

    Attributes:
        deaths: Who was killed, by process id.
        dismissed: Who was told to stop, by process id, and for what reason.
        ended: Who ended by itself, and with which exit code: by post.
        started: How many workers there have been.
    """

    def __init__(self, posts: Iterable[Post], *preludes: str) -> None:
        self.posts = list(posts)
        self._preludes = preludes
        self.deaths: dict[int, Death] = {}
        self.dismissed: dict[int, str] = {}
        self.ended: list[tuple[str, int]] = []
        self.started = 0
        self._processes: asyncio.subprocess.Process | None = None
        self._unborn: list[Post] = []
        self._reading: asyncio.Task[None] | None = None
        self._is_wanted = True
        self._all_ended = asyncio.Event()

    async def start(self) -> None:
        """Start a worker at each post; return once they are born, not yet at work."""
        self._processes = await asyncio.create_subprocess_exec(
            sys.executable,
            "-m",
            "tests.chaos.processes",
            *self._preludes,
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            cwd=ROOT,
            start_new_session=True,
        )
        async with asyncio.timeout(_READY_WITHIN_SECONDS):
            assert self._processes.stdout is not None
            if not await self._processes.stdout.readline():
                raise RuntimeError("no worker can be raised: its modules can't be imported")
        self._reading = asyncio.create_task(self._read())
        for post in self.posts:
            self._man(post)

    async def stop(self) -> None:
        """End all workers in their orderly way, those that take too long by force."""
        self._is_wanted = False
        for post in self.posts:
            if post.pid is not None:
                send_signal(post.pid, signal.SIGTERM)
        with suppress(TimeoutError):
            async with asyncio.timeout(_STOP_WITHIN_SECONDS):
                while any(post.pid is not None for post in self.posts):
                    self._all_ended.clear()
                    await self._all_ended.wait()
        await self.close()

    async def close(self) -> None:
        """End the nursery, which kills all workers that are left."""
        self._is_wanted = False
        if self._processes is not None and self._processes.stdin is not None:
            self._processes.stdin.close()
            await self._processes.wait()
        if self._reading is not None:
            await self._reading

    def kill(self, pid: int, how: str) -> bool:
        """SIGKILL; return whether there was such a worker."""
        if not self.has(pid):
            return False
        self.deaths[pid] = Death(time.time(), how)
        return send_signal(pid, signal.SIGKILL)

    def has(self, pid: int) -> bool:
        """Return whether a worker is alive."""
        return pid not in self.deaths and any(post.pid == pid for post in self.posts)

    def doom(self, pid: int, how: str) -> None:
        """Take note that a worker is about to kill itself, because it was told to."""
        self.deaths[pid] = Death(time.time(), how)

    def dismiss(self, pid: int, why: str) -> bool:
        """SIGTERM; return whether there was such a worker. It must end with exit code 0."""
        if not self.has(pid):
            return False
        self.dismissed[pid] = why
        return send_signal(pid, signal.SIGTERM)

    def hire(self, post: Post) -> None:
        """Have a worker at one more post."""
        self.posts.append(post)
        self._man(post)

    def close_post(self, post: Post, why: str) -> None:
        """Dismiss the worker of a post, and have no other there."""
        post.is_wanted = False
        if post.pid is not None:
            self.dismiss(post.pid, why)

    def _man(self, post: Post) -> None:
        assert self._processes is not None
        assert self._processes.stdin is not None
        self._unborn.append(post)
        order = {"environment": {**os.environ, **post.environment}, "log": str(post.log), "calls": post.calls}
        self._processes.stdin.write(json.dumps(order).encode() + b"\n")

    async def _read(self) -> None:
        assert self._processes is not None
        assert self._processes.stdout is not None
        async for line in self._processes.stdout:
            self._take_note(json.loads(line))

    def _take_note(self, news: Mapping[str, Any]) -> None:
        if "born" in news:
            post = self._unborn.pop(0)
            post.pid, post.began = news["born"], time.monotonic()
            self.started += 1
            if not post.is_wanted:
                self.dismiss(news["born"], "wanted no longer")
            return
        post = next(post for post in self.posts if post.pid == news["ended"])
        post.pid = None
        self._all_ended.set()
        was_killed = news["ended"] in self.deaths and news["code"] == -signal.SIGKILL
        may_stop = news["ended"] in self.dismissed or not self._is_wanted
        if not was_killed and (news["code"] != 0 or not may_stop):
            self.ended.append((post.name, news["code"]))
        if self._is_wanted and post.is_wanted:
            self._man(post)


def send_signal(pid: int, number: signal.Signals) -> bool:
    """Return whether there was such a process: it may have ended a moment ago, and nobody has been told."""
    try:
        os.kill(pid, number)
    except ProcessLookupError:
        return False
    return True
