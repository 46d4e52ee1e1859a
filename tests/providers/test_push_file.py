"""Push messages in a file."""

import asyncio
import json
import os
import stat
import subprocess
import sys
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from notifications.messages import Push
from notifications.outcome import Failed, Sent
from providers.base import Provider
from providers.push.file import PushFile
from tests.providers.conftest import KEY, NOW, Clock


def push(**changes: Any) -> Push:
    fields: dict[str, Any] = {
        "key": KEY,
        "token": "dGhpcyBpcyBhIGRldmljZQ",
        "platform": "android",
        "title": "Ada answered",
        "body": "“Schöne Grüße”\nfrom her 👋🏽",
        "url": "https://blog.example/posts/1",
        "data": {"notificationId": "n-1"},
        "expires_at": NOW + timedelta(hours=1),
        "urgent": True,
    }
    return Push(**(fields | changes))


def lines(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


async def test_a_message_is_a_line_of_json(tmp_path: Path, clock: Clock) -> None:
    path = tmp_path / "push.jsonl"
    provider: Provider[Push] = PushFile(path, "fcm", clock)
    assert await provider.send(push()) == Sent(KEY)
    assert lines(path) == [
        {
            "at": "2026-03-01T12:00:00.000+00:00",
            "provider": "fcm",
            "key": KEY,
            "platform": "android",
            "token": "dGhpcyBpcyBhIGRldmljZQ",
            "title": "Ada answered",
            "body": "“Schöne Grüße”\nfrom her 👋🏽",
            "url": "https://blog.example/posts/1",
            "data": {"notificationId": "n-1"},
            "expiresAt": "2026-03-01T13:00:00+00:00",
            "urgent": True,
        }
    ]
    assert "Grüße" in path.read_text()
    await provider.close()


async def test_the_directory_is_made_and_nobody_else_can_read_the_file(tmp_path: Path) -> None:
    path = tmp_path / "sent" / "today" / "push.jsonl"
    await PushFile(path, "apns").send(push(platform="ios"))
    assert stat.S_IMODE(path.stat().st_mode) == 0o600


async def test_a_text_without_utf_8_is_written_all_the_same(tmp_path: Path) -> None:
    path = tmp_path / "push.jsonl"
    assert isinstance(await PushFile(path, "fcm").send(push(title="half \ud83d", url=None, expires_at=None)), Sent)
    [line] = lines(path)
    assert (line["title"], line["url"], line["expiresAt"]) == ("half ?", None, None)


async def test_lines_of_many_at_once_do_not_mix(tmp_path: Path) -> None:
    path = tmp_path / "push.jsonl"
    providers = [PushFile(path, name) for name in ("fcm", "apns", "web-push")]
    await asyncio.gather(
        *(provider.send(push(key=f"{number:032x}", body="x" * 3_000)) for number in range(50) for provider in providers)
    )
    written = lines(path)
    assert len(written) == 150
    assert {(line["provider"], line["key"]) for line in written} == {
        (provider.name, f"{number:032x}") for number in range(50) for provider in providers
    }


async def test_a_message_that_counts_as_sent_is_in_the_file_when_the_process_is_killed(tmp_path: Path) -> None:
    path = tmp_path / "push.jsonl"
    program = (
        "import asyncio, os, signal, sys; from pathlib import Path\n"
        "from providers.push.file import PushFile\n"
        "from tests.providers.test_push_file import push\n"
        "asyncio.run(PushFile(Path(sys.argv[1]), 'fcm').send(push()))\n"
        "os.kill(os.getpid(), signal.SIGKILL)"
    )
    ended = await asyncio.to_thread(subprocess.run, [sys.executable, "-c", program, str(path)], check=False)
    assert ended.returncode == -9
    assert [line["key"] for line in lines(path)] == [KEY]


async def test_what_can_not_be_written_failed_and_may_be_tried_again(tmp_path: Path) -> None:
    outcome = await PushFile(tmp_path, "fcm").send(push())
    assert outcome == Failed("IsADirectoryError", "the file can't be written", may_have_arrived=False)


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="there is no full device")
async def test_a_full_disk_is_a_failure() -> None:
    outcome = await PushFile(Path("/dev/full"), "fcm").send(push())
    assert isinstance(outcome, Failed)
    assert os.strerror(28) not in outcome.message
