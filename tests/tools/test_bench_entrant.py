import asyncio
import sys
from collections.abc import Callable
from pathlib import Path

import psutil
import pytest

from bench import programs
from bench.programs import Command, Task, running
from bench.usage import Usage

PARENT = """
import os, subprocess, sys
child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"])
print(child.pid, os.environ["BENCH_TOPIC"], flush=True)
child.wait()
"""
STUBBORN = (
    "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); print('ready', flush=True); time.sleep(600)"
)
BUSY = "while True: pass"


def python(program: str) -> Command:
    return Command((sys.executable, "-c", program), {})


@pytest.fixture
def task(tmp_path: Path) -> Task:
    return Task("127.0.0.1:9", "bench.page-views", "group", "mongodb://127.0.0.1:9/bench", tmp_path / "running_program")


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(20):
        while not condition():  # noqa: ASYNC110 - nobody could set an event: it is another process
            await asyncio.sleep(0.01)


async def output_of(runner: programs.RunningProgram) -> str:
    await until(lambda: runner.output.endswith("\n"))
    return runner.output


def is_gone(pid: int) -> bool:
    try:
        return psutil.Process(pid).status() == psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return True


async def test_a_program_is_told_where_to_read_and_nothing_of_it_is_left(task: Task) -> None:
    async with running(python(PARENT), task) as runner:
        child, topic = (await output_of(runner)).split()
        assert topic == "bench.page-views"
        assert not is_gone(int(child))
    assert is_gone(runner.pid)
    assert is_gone(int(child))


async def test_nothing_is_left_where_the_benchmark_is_broken_off(task: Task) -> None:
    async def broken_off() -> None:
        async with running(python(PARENT), task) as runner:
            child, _ = (await output_of(runner)).split()
            pids.extend((runner.pid, int(child)))
            raise KeyboardInterrupt

    pids: list[int] = []
    with pytest.raises(KeyboardInterrupt):
        await broken_off()
    assert len(pids) == 2
    assert all(map(is_gone, pids))


async def test_a_program_that_does_not_stop_is_killed(task: Task, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(programs, "STOP_WITHIN_SECONDS", 0.2)
    async with running(python(STUBBORN), task) as runner:
        await output_of(runner)
    assert is_gone(runner.pid)


async def test_a_program_that_was_killed_starts_again_with_its_log(task: Task) -> None:
    async with running(python(PARENT), task) as runner:
        first = await output_of(runner)
        runner.kill()
        runner.start()
        await until(lambda: runner.output != first)
        assert runner.output.startswith(first)
        assert not runner.has_ended


async def test_a_program_that_ends_by_itself_is_found_out(task: Task) -> None:
    async with running(python("raise SystemExit('no such topic')"), task) as runner:
        await until(lambda: runner.has_ended)
        assert "no such topic" in runner.last_words


async def test_what_a_child_costs_is_counted(task: Task) -> None:
    busy = f"import subprocess, sys; subprocess.run([sys.executable, '-c', {BUSY!r}])"
    async with running(python(busy), task) as runner:
        usage = Usage(runner.pid)

        def has_cost_something() -> bool:
            usage.look()
            return usage.cpu_seconds > 0.2

        await until(has_cost_something)
        own = psutil.Process(runner.pid).cpu_times()
        assert usage.cpu_seconds > own.user + own.system - 0.1
        assert usage.peak_bytes > psutil.Process(runner.pid).memory_info().rss
