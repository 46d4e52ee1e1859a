import os
import re
import signal
import threading
import time
from collections.abc import Iterator
from io import StringIO
from pathlib import Path

import psutil
import pytest
from rich.console import Console

from dev.run import Options, run
from dev.stack import Platform

SECONDS = 4.0
OPTIONS = Options(seconds=SECONDS, rate=200, seed=1)


class Told(StringIO):
    """What a run tells, to be read while it runs."""

    def worker(self) -> int | None:
        found = re.search(r"Worker .*process (\d+)", self.getvalue())
        return int(found[1]) if found else None


@pytest.fixture
def stack(platform: Platform, monkeypatch: pytest.MonkeyPatch) -> Iterator[Platform]:
    monkeypatch.setenv("INKSTREAM_NAMESPACE", f"run-{time.time_ns()}.")
    monkeypatch.setenv("INKSTREAM_WEB_PORT", str(platform.ports.worker))
    yield platform
    assert all(server.is_running for server in platform.servers), "servers that were running are left running"


def console(told: Told) -> Console:
    return Console(file=told, width=120, highlight=False)


def test_a_run_accounts_for_every_event_and_leaves_no_worker(stack: Platform, tmp_path: Path) -> None:
    told = Told()
    assert run(stack, OPTIONS, console(told), tmp_path / "worker.log") == 0
    text = told.getvalue()
    assert re.search(r"All \d{3} events are accounted for", text), text
    assert "Top posts" in text
    assert "Error" in text
    worker = told.worker()
    assert worker is not None
    assert not psutil.pid_exists(worker)


def test_a_run_whose_worker_is_killed_still_accounts_for_every_event(stack: Platform, tmp_path: Path) -> None:
    told = Told()

    def kill() -> None:
        while (worker := told.worker()) is None or "sent" not in told.getvalue():
            time.sleep(0.05)
        os.kill(worker, signal.SIGKILL)

    killer = threading.Thread(target=kill, daemon=True)
    killer.start()
    assert run(stack, OPTIONS, console(told), tmp_path / "worker.log") == 0
    killer.join(1)
    text = told.getvalue()
    assert "The worker ended (by SIGKILL) and is started again" in text
    assert re.search(r"All \d{3} events are accounted for", text), text
