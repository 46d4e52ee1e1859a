"""PostgreSQL behind PgBouncer in transaction mode, where each transaction may be another session's."""

import asyncio
import json
import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from urllib.parse import urlsplit

import psycopg
import pytest

from dev.servers.server import identity
from tests.command_line import inkstream
from tests.integration.pipeline import Pipeline, until
from tests.integration.test_view_counts import TOPICS, view

pytestmark = pytest.mark.skipif(shutil.which("pgbouncer") is None, reason="PgBouncer is not installed")

ROUNDS = 10
"""psycopg would prepare a statement at its sixth use, and then meet it in another session."""


@contextmanager
def pgbouncer(url: str, port: int) -> Iterator[str]:
    """Run PgBouncer before a server; yield the URL at which it answers."""
    server = urlsplit(url)
    user = "nobody" if os.geteuid() == 0 else None  # it refuses to run as root
    with tempfile.TemporaryDirectory(prefix="inkstream-pgbouncer-") as name:
        directory = Path(name)
        users = directory / "users.txt"
        users.write_text(f'"{server.username}" "{server.password}"\n')
        configuration = directory / "pgbouncer.ini"
        configuration.write_text(
            f"[databases]\n* = host={server.hostname} port={server.port}\n"
            f"[pgbouncer]\nlisten_addr = 127.0.0.1\nlisten_port = {port}\nunix_socket_dir =\n"
            f"auth_type = plain\nauth_file = {users}\npool_mode = transaction\ndefault_pool_size = 3\n"
        )
        if user is not None:
            for path in (directory, users, configuration):
                shutil.chown(path, user)
        process = subprocess.Popen(
            ["pgbouncer", "--quiet", str(configuration)],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            **identity(user),
        )
        try:
            yield url.replace(f"{server.hostname}:{server.port}", f"127.0.0.1:{port}")
        finally:
            process.terminate()
            process.wait()


async def answers(url: str) -> bool:
    try:
        async with await psycopg.AsyncConnection.connect(url, connect_timeout=2) as connection:
            await connection.execute("SELECT 1")
    except psycopg.OperationalError:
        return False
    return True


async def test_counts_are_exact_and_no_worker_ends_behind_pgbouncer(counting: Pipeline) -> None:
    counting.add_posts(["one", "two", "three"])
    direct = counting.environment["INKSTREAM_POSTGRES_URL"]
    with pgbouncer(direct, counting.platform.ports.free().postgres) as url:
        await until(lambda: answers(url), "PgBouncer answers")
        counting.environment["INKSTREAM_POSTGRES_URL"] = url
        with counting.worker(count_every=0.1) as one, counting.worker(count_every=0.1) as other:
            for number in range(ROUNDS):
                now = datetime.now(UTC)
                views = [view(10 * number + place, post, now) for place, post in enumerate(("one", "two", "two"))]
                await counting.send("page-views", views)
                await counting.settled(*TOPICS)
            assert [worker.process.poll() for worker in (one, other)] == [None, None]
            assert counting.view_counts() == {"one": ROUNDS, "two": 2 * ROUNDS, "three": 0}
            verified, doctor = await asyncio.gather(
                inkstream(counting.environment, "verify", "counts"),
                inkstream(counting.environment, "doctor", "--json"),
            )
            assert verified.code == 0, verified
            findings = [finding["subject"] for finding in json.loads(doctor.output)["findings"]]
            assert "PostgreSQL" in findings
            assert [worker.terminate() for worker in (one, other)] == [0, 0]
