"""Show that workers stay the same for as long as traffic goes on. `make soak MINUTES=30`.

The program starts a platform of its own, runs workers as they are shipped, sends steady sample traffic through all
topics, and looks at each worker every two seconds. After a warm-up nothing may grow: memory, open files, threads, lag,
and how long it takes until an event is stored. At the end each event must be accounted for, and no log may have an
exception. Exit code 0 only if all of that is true. Nothing that it started is left.
"""

import argparse
import asyncio
import contextlib
import shlex
import shutil
import signal
import sys
import tempfile
import time
import urllib.request
from collections.abc import Iterable, Iterator
from datetime import UTC, datetime
from pathlib import Path

import psutil
from aiokafka.errors import KafkaError
from pymongo.errors import PyMongoError
from rich.console import Console
from rich.rule import Rule
from rich.status import Status

from delivery.kafka import client_options
from dev.blog import Blog
from dev.ledger import EventLedger
from dev.ports import Ports
from dev.posts import WrittenPosts, add_blog
from dev.producer import Producer
from dev.report import ledger_table
from dev.servers.server import Server, ServerError, end_of_log
from dev.stack import Platform
from dev.traffic import Sample, Traffic
from dev.worker import Worker, WorkerError
from ops.commands.command import quieten_clients
from tests.chaos import logs, soak_report
from tests.chaos.soak_history import Soak, findings, look, warm_up_of
from tests.integration.pipeline import Pipeline

_LOOK_SECONDS = 2.0
_ANSWER_SECONDS = 5.0
_TELL_SECONDS = 30.0
_SERVERS_EVERY = 5
"""The servers' memory is looked at so seldom, as that takes long."""

_SETTLE_SECONDS = 2.0
_ACCOUNTED_WITHIN_SECONDS = 90.0
_WIDTH_WITHOUT_TERMINAL = 150
_INTERRUPTED = 130


class SoakError(Exception):
    """The run can't go on; the message is meant for the person at the terminal."""


class Run:
    """One run on a platform that is up.

    Args:
        soak: The options; measurements are added to it.
        platform: The servers.
        workers: How many workers there are.
        seed: Decides the traffic.
        directory: For logs.
        console: Where to tell of it.
    """

    def __init__(
        self, soak: Soak, platform: Platform, workers: int, seed: int, directory: Path, console: Console
    ) -> None:
        self._soak = soak
        self._platform = platform
        self._seed = seed
        self._console = console
        self._pipeline = Pipeline(platform)
        settings = self._pipeline.settings
        self._workers = {
            f"worker-{number}": self._worker(directory / f"worker-{number}.log") for number in range(1, workers + 1)
        }
        self._topics = self._pipeline.topics.inbound.values()
        self._stored_topics = {settings.namespace + topic.name for topic in self._topics}
        self._ledger = EventLedger(settings, self._topics, datetime.now(UTC))
        self._posts = WrittenPosts(platform.owner_url)
        self._began = 0.0
        self._told = 0.0
        self._servers_next = 0

    async def __call__(self) -> None:
        """Go through it."""
        await self._pipeline.prepare()
        await asyncio.to_thread(add_blog, self._platform.owner_url, Blog())
        try:
            await asyncio.gather(*(worker.start() for worker in self._workers.values()))
            async with self._ledger:
                await self._send()
                self._soak.problems += await self._problems()
                self._soak.topics = {
                    name: {
                        "sent": topic.sent,
                        "stored": topic.stored,
                        "duplicate": topic.duplicate,
                        "dead letter": topic.dead_lettered,
                    }
                    for name, topic in self._ledger.topics.items()
                }
        except BaseException:
            for worker in self._workers.values():
                worker.kill()
            raise
        finally:
            await asyncio.gather(*(worker.stop() for worker in self._workers.values()))
        self._console.print(Rule("Events", style="cyan", align="left"))
        self._console.print(ledger_table(self._ledger))
        self._soak.problems += logs.check(worker.log for worker in self._workers.values()).problems

    def _worker(self, log: Path) -> Worker:
        port = Ports.free().worker
        environment = {
            **self._pipeline.environment,
            "INKSTREAM_LOG_FORMAT": "json",
            "INKSTREAM_WEB_PORT": str(port),
        }
        return Worker(environment, host="127.0.0.1", port=port, log=log, report=self._console.print)

    async def _send(self) -> None:
        """Send traffic and watch the workers; return once all events are accounted for, or after too long."""
        soak = self._soak
        traffic = Traffic(self._topics, began=datetime.now(UTC), rate=soak.rate, seed=self._seed)
        self._ledger.expect(traffic.ids)
        self._began = time.monotonic()
        settings = self._pipeline.settings
        async with Producer(client_options(settings), settings.namespace, self._ledger.confirm) as producer:
            with self._console.status("") as status:
                sending = asyncio.create_task(self._feed(producer, traffic))
                meanwhile = [self._look_until(sending, status), self._settle_until(sending)]
                tasks = [sending, *map(asyncio.create_task, meanwhile)]
                try:
                    await asyncio.gather(*tasks)
                finally:
                    for task in tasks:
                        task.cancel()
                status.update("waiting until all events are accounted for")
                await self._settled()
            if producer.failed:
                soak.problems.append(f"Kafka did not confirm {producer.failed:,} events")

    async def _feed(self, producer: Producer, traffic: Traffic) -> None:
        await producer.send(self._noted(traffic), seconds=self._soak.seconds, until=asyncio.Event())
        await producer.send_at_once(self._noted(traffic.owed()))

    def _noted(self, samples: Iterable[Sample]) -> Iterator[Sample]:
        """Yield samples; the posts that they tell of are written to the platform's table within a moment."""
        for sample in samples:
            if sample.post is not None:
                self._posts.add(sample.post)
            yield sample

    async def _look_until(self, sending: "asyncio.Task[None]", status: Status) -> None:
        number = 0
        while not sending.done():
            await self._look(number)
            self._tell(status)
            number = int(self._clock() / _LOOK_SECONDS) + 1  # what was missed is not made up for
            await asyncio.wait([sending], timeout=self._began + number * _LOOK_SECONDS - time.monotonic())

    async def _look(self, number: int) -> None:
        """Look at each worker, and now and then at the servers."""
        at = self._clock()
        if ended := next((worker for worker in self._workers.values() if worker.pid is None), None):
            raise SoakError(f"A worker has ended. {end_of_log(ended.log)}")
        pages = await asyncio.gather(*(asyncio.to_thread(_metrics, worker) for worker in self._workers.values()))
        # Where one does not answer in time, as it waits for a core, all are looked at the next time.
        if all(pages):
            for (name, worker), page in zip(self._workers.items(), pages, strict=True):
                self._soak.looks.setdefault(name, []).append(
                    look(at, page, psutil.Process(worker.pid).num_threads(), self._stored_topics)
                )
        self._soak.sent.append((at, self._ledger.sent))
        if number >= self._servers_next:
            self._servers_next = number + _SERVERS_EVERY
            for server in self._platform.servers:
                memory = await asyncio.to_thread(_memory, server)
                self._soak.servers.setdefault(server.name, []).append((at, memory))

    async def _settle_until(self, sending: "asyncio.Task[None]") -> None:
        """Find out what became of events while others are sent, so that little is left to do in the end."""
        while not sending.done():
            await asyncio.wait([sending], timeout=_SETTLE_SECONDS)
            with contextlib.suppress(PyMongoError, KafkaError):
                await self._ledger.settle()
            await self._posts.write()

    async def _settled(self) -> None:
        deadline = time.monotonic() + _ACCOUNTED_WITHIN_SECONDS
        while self._ledger.open and time.monotonic() < deadline:
            await self._ledger.settle()
            await asyncio.sleep(0.2)

    async def _problems(self) -> list[str]:
        """Return which events did not become what they should."""
        problems = []
        for name, topic in self._ledger.topics.items():
            if topic.open:
                unknown = ", ".join(self._ledger.unknown(name))
                problems.append(f"{name}: nothing is known of {topic.open:,} events: {unknown}, …")
            problems += [f"{name}: {loss.id} at {loss.place} {loss.problem}" for loss in topic.lost]
        return problems + await self._ledger.differences()

    def _tell(self, status: Status) -> None:
        """Say how it goes: in place on a terminal, else every now and then."""
        line = soak_report.line(self._soak, self._clock())
        status.update(line)
        if not self._console.is_terminal and self._clock() - self._told >= _TELL_SECONDS:
            self._told = self._clock()
            self._console.print(line, markup=False, soft_wrap=True)

    def _clock(self) -> float:
        return time.monotonic() - self._began


def _metrics(worker: Worker) -> str:
    """Return what a worker says on `/metrics`; nothing where it does not answer in time."""
    try:
        with urllib.request.urlopen(f"{worker.url}/metrics", timeout=_ANSWER_SECONDS) as answer:
            page: bytes = answer.read()
    except OSError:
        return ""
    return page.decode()


def _memory(server: Server) -> float:
    """Return the memory of a server and its children in MiB, what they share counted once."""
    pid = server.pid
    if pid is None:
        return 0.0
    memory = 0
    with contextlib.suppress(psutil.Error):
        process = psutil.Process(pid)
        for one in (process, *process.children(recursive=True)):
            with contextlib.suppress(psutil.Error):
                memory += one.memory_full_info().pss
    return memory / 2**20


def main() -> int:
    """Run the command line; return the exit code."""
    arguments = _parser().parse_args()
    quieten_clients()
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    console = Console(highlight=False, width=None if sys.stdout.isatty() else _WIDTH_WITHOUT_TERMINAL)
    seconds = arguments.minutes * 60
    soak = Soak(
        command=shlex.join(["make", "soak", f"MINUTES={arguments.minutes:g}"]),
        began=datetime.now(UTC).isoformat(timespec="seconds"),
        machine=f"{psutil.cpu_count()} cores, {psutil.virtual_memory().total / 2**30:.0f} GiB",
        rate=arguments.rate,
        seconds=seconds,
        warm_up=warm_up_of(seconds),
    )
    try:
        _run(soak, arguments.workers, arguments.seed, arguments.keep, console)
        soak.findings = findings(soak.looks, soak.rate, soak.warm_up)
    except (ServerError, WorkerError, SoakError, ValueError) as error:
        console.print(str(error), style="red", markup=False)
        return 1
    except (KeyboardInterrupt, asyncio.CancelledError):
        console.print("Stopped before anything was checked.", style="yellow")
        return _INTERRUPTED
    soak_report.show(soak, console)
    if arguments.json:
        arguments.json.write_bytes(soak_report.to_json(soak))
    if arguments.html:
        arguments.html.write_text(soak_report.to_html(soak))
    return 0 if soak.holds else 1


def _run(soak: Soak, workers: int, seed: int, keep: Path | None, console: Console) -> None:
    with tempfile.TemporaryDirectory(prefix="inkstream-soak-") as name:
        directory = Path(name)
        platform = Platform(directory / "platform", Ports.free())
        try:
            with console.status("starting the servers"):
                platform.up(lambda _: None)
            asyncio.run(_until_told_to_stop(Run(soak, platform, workers, seed, directory, console)))
        finally:
            platform.forget()
            if keep is not None:
                keep.mkdir(parents=True, exist_ok=True)
                for log in directory.glob("*.log"):
                    shutil.copy(log, keep)


async def _until_told_to_stop(run: Run) -> None:
    task = asyncio.current_task()
    assert task is not None
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, task.cancel)
    await run()


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m tests.chaos.soak",
        description=(__doc__ or "").partition("\n\n")[2],
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--minutes", type=_positive, default=30.0, help="run for so long (default %(default).0f)")
    parser.add_argument("--rate", type=_positive, default=400.0, help="events a second (default %(default).0f)")
    parser.add_argument("--workers", type=int, default=2, help="how many workers (default %(default)s)")
    parser.add_argument("--seed", type=int, default=1, help="seed of the sample traffic (default %(default)s)")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write all measurements to FILE")
    parser.add_argument("--html", type=Path, metavar="FILE", help="write a page with curves to FILE")
    parser.add_argument("--keep", type=Path, metavar="DIRECTORY", help="copy the workers' logs to DIRECTORY")
    return parser


def _positive(text: str) -> float:
    number = float(text)
    if not 0 < number < float("inf"):
        raise argparse.ArgumentTypeError(f"{text} should be more than 0")
    return number


if __name__ == "__main__":
    sys.exit(main())
