"""Start worker processes fast: import everything once, and fork a worker on each order.

A worker takes seconds to import what it needs, and here one is killed every second; a forked one works at once.
Input: lines of JSON, each with the environment of a worker, the file for its output, and functions that it calls before
it begins.
Output: lines of JSON: `started` with the id of a process, `ended` with its id and exit code.
When the input ends, all workers are killed. Functions named on the command line are called before anything of the
product is imported.
"""

import gc
import importlib
import json
import os
import random
import select
import signal
import sys
import threading
import traceback
from contextlib import suppress
from typing import Any, NoReturn

from tests.program import import_all

_LOOK_SECONDS = 0.02


def main() -> None:
    """Start workers until the input ends."""
    for prelude in sys.argv[1:]:
        _call(prelude)
    import_all()
    importlib.import_module("uvloop")
    assert threading.active_count() == 1, "a fork would leave the other threads behind"
    gc.freeze()
    _report(ready=True)
    _run_workers()


def _run_workers() -> None:
    workers: set[int] = set()
    unread = b""
    try:
        while True:
            readable, _, _ = select.select([0], [], [], _LOOK_SECONDS)
            for pid, status in _ended(workers):
                workers.discard(pid)
                _report(ended=pid, code=os.waitstatus_to_exitcode(status))
            if not readable:
                continue
            read = os.read(0, 2**20)
            if not read:
                return
            *orders, unread = (unread + read).split(b"\n")
            for order in orders:
                pid = os.fork()
                if pid == 0:
                    _become_worker(**json.loads(order))
                workers.add(pid)
                _report(started=pid)
    finally:
        for pid in workers:
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)


def _ended(workers: set[int]) -> list[tuple[int, int]]:
    found = [os.waitpid(pid, os.WNOHANG) for pid in workers]
    return [(pid, status) for pid, status in found if pid]


def _call(function: str, *arguments: Any) -> None:
    module, _, name = function.partition(":")
    getattr(importlib.import_module(module), name)(*arguments)


def _become_worker(environment: dict[str, str], log: str, calls: list[list[Any]]) -> NoReturn:
    """Run what `inkstream worker` runs in this environment, to its end."""
    code: Any = 1
    try:
        random.seed()
        os.environ.clear()
        os.environ.update(environment)
        output = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
        nothing = os.open(os.devnull, os.O_RDONLY)
        for number, stream in ((0, nothing), (1, output), (2, output)):
            os.dup2(stream, number)
        sys.argv = ["inkstream", "worker"]
        for call in calls:
            _call(*call)
        importlib.import_module("ops.commands").main()
    except SystemExit as end:
        code = end.code if isinstance(end.code, int) else int(end.code is not None)
    except BaseException:
        traceback.print_exc()  # nothing else prints it, as this process ends without returning
    finally:
        sys.stdout.flush()
        os._exit(code)


def _report(**news: Any) -> None:
    os.write(1, json.dumps(news).encode() + b"\n")


if __name__ == "__main__":
    main()
