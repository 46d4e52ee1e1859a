import asyncio
import os
import re
import signal
import threading
import time
import urllib.request
from collections.abc import Iterator
from datetime import UTC, datetime
from io import StringIO
from pathlib import Path
from uuid import uuid4

import psutil
import psycopg
import pytest
from psycopg import sql
from rich.console import Console

from dev.blog import Blog
from dev.posts import PostRow, WrittenPosts, add_blog
from dev.run import Options, run
from dev.stack import Platform
from ops.bootstrap import MIGRATIONS
from sinks.postgres import migrations
from sinks.postgres.pool import schema_of

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
    assert re.search(r"All \d+ posts that were read agree", text), text
    assert re.search(r"Time from Kafka to PostgreSQL: \d+\.\d s \(p50\)", text), text
    with psycopg.connect(stack.owner_url) as connection:
        read = connection.execute('SELECT slug, "viewCount" FROM posts WHERE "viewCount" > 0').fetchall()
        drafts = connection.execute("SELECT count(*) FROM posts WHERE status = 'DRAFT'").fetchone()
    assert len(read) > 10
    slug, view_count = max(read, key=lambda row: (row[1], row[0]))
    assert any(view_count == int(found) for found in re.findall(r"^\s+\S+\s+(\d+)\s+\1\s*$", text, re.MULTILINE))
    assert slug in text
    assert drafts is not None
    assert drafts[0] > 0, "posts that are written during the traffic are in the platform's table"
    notified = re.search(r"(\d+) in the application, (\d+) mails \(read them at (\S+)\), (\d+) push messages", text)
    assert notified is not None, text
    in_app, mails, inbox_url, pushes = int(notified[1]), int(notified[2]), notified[3], int(notified[4])
    assert ", 0 waiting." in " ".join(text.split())
    assert min(in_app, mails, pushes) > 5
    with urllib.request.urlopen(inbox_url, timeout=5) as answer:
        page = answer.read().decode()
    assert "@mail.example" in page, "a newcomer sees a mail arrive"
    worker = told.worker()
    assert worker is not None
    assert not psutil.pid_exists(worker)


def test_a_count_that_is_wrong_is_a_problem_and_the_exit_code_says_so(
    stack: Platform, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("dev.run.COUNTED_WITHIN_SECONDS", 10.0)
    worker_url = stack.environment()["INKSTREAM_POSTGRES_URL"]
    namespace = os.environ["INKSTREAM_NAMESPACE"]
    asyncio.run(migrations.migrate(worker_url, migrations.read(MIGRATIONS), namespace, check=False))
    blog = Blog()
    add_blog(stack.owner_url, blog)
    wrong = blog.posts[-1]
    with psycopg.connect(stack.owner_url) as connection:
        # As if one view had been counted twice.
        connection.execute(
            sql.SQL(
                "INSERT INTO {}.counted_posts (post_id, baseline) VALUES (%s, 0) "
                "ON CONFLICT (post_id) DO UPDATE SET baseline = coalesce(counted_posts.baseline, 0)"
            ).format(sql.Identifier(schema_of(namespace))),
            [wrong.id],
        )
        connection.execute('UPDATE posts SET "viewCount" = "viewCount" + 1 WHERE id = %s', [wrong.id])
    told = Told()
    try:
        assert run(stack, OPTIONS, console(told), tmp_path / "worker.log") == 1
    finally:
        with psycopg.connect(stack.owner_url) as connection:
            connection.execute('UPDATE posts SET "viewCount" = "viewCount" - 1 WHERE id = %s', [wrong.id])
    text = told.getvalue()
    assert re.search(r" 1 of \d+ posts that were read disagree", text), text
    assert f'{wrong.slug}: posts."viewCount" is ' in text
    assert "Not all events are accounted for" in text


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
    assert re.search(r"All \d+ posts that were read agree", text), text
    assert re.search(r"All \d{3} events are accounted for", text), text


async def test_posts_written_while_postgresql_is_down_are_in_its_table_when_it_is_back(platform: Platform) -> None:
    blog, moment = Blog(), datetime.now(UTC)
    add_blog(platform.owner_url, blog)
    add_blog(platform.owner_url, blog)  # again, as every run does
    draft = PostRow(str(uuid4()), f"draft-{uuid4()}", "A Post", blog.posts[0].author.id, None)
    posts = WrittenPosts(platform.owner_url)
    platform.postgres.kill()
    try:
        posts.add(draft)
        await posts.write()
    finally:
        platform.postgres.start()
    posts.add(draft._replace(published_at=moment))
    posts.add(draft)  # the event of the draft comes twice
    await posts.write()
    await posts.write()
    with psycopg.connect(platform.owner_url) as connection:
        found = connection.execute("SELECT status FROM posts WHERE id = %s", [draft.id]).fetchall()
        (blogs,) = connection.execute(
            "SELECT count(*) FROM posts WHERE id = ANY (%s)", [[post.id for post in blog.posts]]
        ).fetchall()
    assert found == [("PUBLISHED",)]
    assert blogs == (len(blog.posts),)
