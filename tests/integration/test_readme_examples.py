"""README and the guides for producers and analysts, step by step: their programs and commands as they stand.

Only the addresses of the servers are others here.
"""

import asyncio
import json
import re
import shutil
import subprocess
import sys
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from pymongo import MongoClient

from dev.stack import LOCAL, Platform
from runtime.settings import ROOT
from sinks.mongo.database import NamespacedDatabase
from tests import mongosh
from tests.command_line import inkstream
from tests.integration.pipeline import Message, Pipeline, until

MODULES = LOCAL / "node"
KAFKAJS = "kafkajs@2.2.4"


def block(page: str, language: str, words: str) -> str:
    """Return the block of a page that has these words."""
    blocks: list[str] = re.findall(rf"```{language}\n(.*?)```", (ROOT / page).read_text(), re.DOTALL)
    (found,) = [text for text in blocks if words in text]
    return found


@pytest.fixture
async def installed(platform: Platform) -> AsyncIterator[Pipeline]:
    """An installation without a namespace, as on the pages."""
    pipeline = Pipeline(platform)
    pipeline.own_tables()
    pipeline.namespace = pipeline.environment["INKSTREAM_NAMESPACE"] = ""
    pipeline.database = NamespacedDatabase(pipeline.database.client, "")
    await pipeline.prepare()
    yield pipeline
    await pipeline.forget()


async def run(pipeline: Pipeline, program: str, *command: str, directory: Path = ROOT) -> None:
    """Run a program of a page on the servers of the test."""
    program = program.replace("127.0.0.1:19092", pipeline.platform.kafka.brokers)
    (directory / command[-1]).write_text(program)
    process = await asyncio.create_subprocess_exec(
        *command, cwd=directory, env=environment(pipeline), stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )
    _, errors = await asyncio.wait_for(process.communicate(), 120)
    assert process.returncode == 0, errors.decode()[-4000:]


def environment(pipeline: Pipeline) -> dict[str, str]:
    return {**pipeline.environment, "PATH": "/usr/local/bin:/usr/bin:/bin", "PYTHONPATH": str(ROOT)}


def with_kafkajs(directory: Path) -> None:
    """Give a directory kafkajs; skip the test where there is no Node or no package."""
    if shutil.which("node") is None or shutil.which("npm") is None:
        pytest.skip("there is no node")
    if not (MODULES / "node_modules" / "kafkajs").exists():
        MODULES.mkdir(parents=True, exist_ok=True)
        install = ["npm", "install", "--no-audit", "--no-fund", "--prefix", str(MODULES), KAFKAJS]
        if subprocess.run(install, capture_output=True, timeout=120, check=False).returncode != 0:
            pytest.skip("kafkajs can't be installed")
    (directory / "node_modules").symlink_to(MODULES / "node_modules")


async def test_a_reader_of_the_readme_sees_the_event_that_node_sent(installed: Pipeline, tmp_path: Path) -> None:
    with_kafkajs(tmp_path)
    with installed.worker() as worker:
        await worker.until_ready()
        await run(installed, block("README.md", "js", "kafkajs"), "node", "send.mjs", directory=tmp_path)
        await until_stored(installed, 1)
        python = block("docs/producers.md", "python", "aiokafka")
        await run(installed, python, sys.executable, "send.py", directory=tmp_path)
        await until_stored(installed, 2)
    with MongoClient[dict[str, Any]](installed.environment["INKSTREAM_MONGO_URL"], tz_aware=True) as client:
        (query,) = mongosh.statements(block("README.md", "js", "db.pageViews"))
        found = mongosh.run(client.get_default_database(), query, {})
    assert found.result == [{"_id": "post-uuid-123", "slug": "introduction-to-typescript", "views": 2}]
    partitions = {record.partition for record in await installed.read("page-views")}
    assert len(partitions) == 1, "kafkajs and aiokafka send a key to different partitions"


async def test_the_commands_about_rejected_events_work_as_the_readme_has_them(installed: Pipeline) -> None:
    payload = {"postId": "p", "postSlug": "s", "ipAddress": "::1", "userAgent": "x"}
    headers = {"ce_specversion": "1.0", "ce_id": "e-1", "ce_type": "page.viewed", "ce_source": "/t"}
    with installed.worker() as worker:
        await worker.until_ready()
        sent = [(name, value.encode()) for name, value in headers.items()]
        await installed.send("page-views", [Message(json.dumps(payload).encode(), sent)])
        await until(lambda: dead_lettered(installed), "the event is a dead letter")
    text = (ROOT / "README.md").read_text()
    reason = re.search(r"`(page\.viewed: [^`]+)`", text)
    assert reason is not None
    commands = re.findall(r"^inkstream (.+?)(?: +#.*)?$", block("README.md", "sh", "dead-letters"), re.MULTILINE)
    assert [command.split()[0] for command in commands] == ["dead-letters", "replay"]
    for command in commands:
        ended = await inkstream(installed.environment, *command.split())
        assert ended.code == 0, ended
        if command.startswith("dead-letters"):
            assert reason[1] in ended.output


async def test_the_commands_of_production_work_as_the_readme_has_them(installed: Pipeline) -> None:
    commands = re.findall(r"^inkstream (\w+)", block("README.md", "sh", "inkstream bootstrap"), re.MULTILINE)
    assert commands == ["bootstrap", "worker", "doctor"]
    assert (await inkstream(installed.environment, "bootstrap")).code == 0
    with installed.worker() as worker:
        await worker.until_ready()
        doctor = await inkstream(installed.environment, "doctor")
        assert "page-views" in doctor.output
        assert worker.terminate() == 0


async def test_the_analysts_sample_data_fills_four_weeks(installed: Pipeline, tmp_path: Path) -> None:
    program = block("docs/analysts.md", "python", "from dev.traffic").replace("20_000", "2_000")
    with installed.worker(agents="page-views") as worker:
        await worker.until_ready()
        await run(installed, program, sys.executable, "send.py", directory=tmp_path)
        await until_stored(installed, 300)
    first = await installed.collection("pageViews").find_one({"bot": {"$exists": False}}, sort=[("timestamp", 1)])
    assert first is not None
    assert first["timestamp"] < datetime.now(UTC) - timedelta(days=20)


async def until_stored(pipeline: Pipeline, views: int) -> None:
    async def are_there() -> bool:
        return await pipeline.collection("pageViews").count_documents({"incomplete": {"$exists": False}}) >= views

    await until(are_there, f"{views} views are stored")


async def dead_lettered(pipeline: Pipeline) -> bool:
    return bool(await pipeline.read("page-views.dead-letter"))
