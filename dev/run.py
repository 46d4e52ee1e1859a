"""Run the platform in one command: servers, worker and sample traffic, and a report on every event at the end.

Input: the options of `make run`. Output: live progress, a report, and exit code 0 only if every event that was sent is
accounted for. However it ends, it leaves no process that it started, and keeps the data.
"""

import argparse
import asyncio
import contextlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from types import FrameType
from typing import Any

import psycopg
from aiokafka.errors import KafkaError
from pymongo.errors import PyMongoError
from rich.console import Console, Group
from rich.live import Live
from rich.padding import Padding
from rich.rule import Rule
from rich.table import Table
from rich.text import Text

from delivery.kafka import client_options
from dev.blog import Blog
from dev.counts import PostCount, counted_within, trending, view_counts
from dev.ledger import EventLedger
from dev.notifications import arrived
from dev.posts import WrittenPosts, add_blog
from dev.producer import Producer
from dev.report import (
    documents_table,
    error_groups,
    insights,
    insights_table,
    ledger_table,
    notifications_lines,
    view_counts_lines,
    view_counts_problems,
    view_counts_table,
)
from dev.stack import LOCAL, ServerError, Stack, development_stack
from dev.traffic import Sample, Traffic
from dev.worker import Worker, WorkerError, command
from runtime.settings import ROOT, Settings
from runtime.web_address import url
from schemas.topics import Topic, load
from sinks import collections

RATE = 300.0
WORKER_LOG = LOCAL / "development" / "worker.log"
FIRST_REPORT_AFTER_SECONDS = 20.0
ACCOUNTED_WITHIN_SECONDS = 30.0
COUNTED_WITHIN_SECONDS = 20.0
DELIVERED_WITHIN_SECONDS = 90.0
"""More than a lease: another worker recovers a killed worker's items once the lease has expired."""

CAUGHT_UP_WITHIN_SECONDS = 120.0
_REFRESH_SECONDS = 0.5
_LINE_EVERY_SECONDS = 5.0
_LOSSES_SHOWN = 3
_TRENDING_SHOWN = 3
_BOOTSTRAP_LINES_SHOWN = 5
_INTERRUPTED = 130
_WIDTH_WITHOUT_TERMINAL = 120


# A day on the blog takes a minute here: likes of a moment make one notification, and one author hears of a lot.
_PACE = {
    "INKSTREAM_GATHER_WINDOW": "10",
    "INKSTREAM_NOTIFY_LIMIT": "1000",
    "INKSTREAM_NOTIFY_DAILY_LIMIT": "5000",
}


class RunError(Exception):
    """The run can't go on; the message is meant for the person at the terminal."""


@dataclass(frozen=True)
class Options:
    """The options of the command line.

    Attributes:
        seconds: How long to send; `None` until Ctrl-C.
        rate: Events per second.
        seed: Decides the traffic.
    """

    seconds: float | None
    rate: float
    seed: int


def main() -> int:
    """Run the command line; return the exit code."""
    options = _options()
    # Without a terminal, rich takes it for a narrow one.
    console = Console(highlight=False, width=None if sys.stdout.isatty() else _WIDTH_WITHOUT_TERMINAL)
    for number in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, _interrupt)
    try:
        return run(development_stack(), options, console)
    except (ServerError, WorkerError, RunError) as error:
        console.print()
        console.print(str(error), style="red", markup=False)
        return 1
    except (KeyboardInterrupt, asyncio.CancelledError):
        console.print(
            "Stopped before all events were accounted for; Kafka keeps them, and the next run reads them.",
            style="yellow",
        )
        return _INTERRUPTED


def run(stack: Stack, options: Options, console: Console, log: Path = WORKER_LOG) -> int:
    """Start what is not running, do the run, and stop what was started; return the exit code.

    Args:
        stack: The servers.
        options: What the command line says.
        console: Where to tell of it.
        log: The file for the worker's output.

    Raises:
        ServerError: A server can't be started.
        WorkerError: The worker can't be started, or does not stay alive.
        RunError: Something else can't go on.
    """
    console.print(Rule("Inkstream", style="cyan", align="left"))
    were_running = any(state.startswith(("ready", "running")) for state in stack.states().values())
    try:
        _start_servers(stack, console, were_running=were_running)
        _bootstrap(stack.environment(), console)
        _add_blog(stack, console)
        environment = {**_PACE, **stack.environment()}
        given: dict[str, Any] = {name.removeprefix("INKSTREAM_").lower(): value for name, value in environment.items()}
        settings = Settings(**given)
        # Only now it is known where the worker's pages are.
        page = f"{url(settings.web_host, settings.web_port)}/unsubscribe"
        environment["INKSTREAM_UNSUBSCRIBE_URL"] = page
        code = asyncio.run(_Run(settings, environment, stack, options, console, log)())
    finally:
        if not were_running:
            _stop_servers(stack, console)
    if were_running:
        _step(console, "Servers", "left running, as they were before; `make down` stops them")
    return code


class _Run:
    """One run, from a worker that starts to one that has stopped."""

    def __init__(
        self,
        settings: Settings,
        environment: Mapping[str, str],
        stack: Stack,
        options: Options,
        console: Console,
        log: Path,
    ) -> None:
        self._settings = settings
        self._environment = environment
        self._inbox_url = stack.inbox_url
        self._written_posts = WrittenPosts(stack.owner_url)
        self._options = options
        self._console = console
        self._topics: Mapping[str, Topic] = load(settings.topics_file, collections.NAMES).inbound
        self._worker = Worker(
            self._environment,
            host=settings.web_host,
            port=settings.web_port,
            log=log,
            report=lambda line: console.print(line, style="yellow", markup=False),
        )
        self._began = datetime.now(UTC)
        self._ledger = EventLedger(settings, self._topics.values(), self._began)
        self._stop = asyncio.Event()
        self._sending = False
        self._failed_sends = 0

    async def __call__(self) -> int:
        """Do all of it; return the exit code."""
        with self._signals():
            try:
                began = time.monotonic()
                with self._console.status("starting the worker"):
                    await self._worker.start()
                _step(
                    self._console, "Worker", f"ready after {time.monotonic() - began:.1f} s, process {self._worker.pid}"
                )
                async with self._ledger:
                    await self._catch_up()
                    self._show_addresses()
                    code = await self._traffic()
            except BaseException:
                self._worker.kill()
                raise
            finally:
                with self._console.status("stopping the worker"):
                    await self._worker.stop()
            _step(self._console, "Worker", "stopped")
        return code

    async def _traffic(self) -> int:
        """Send, and report; without a time limit report once early, then go on until Ctrl-C."""
        await self._send(self._options.seconds or FIRST_REPORT_AFTER_SECONDS)
        all_is_well = await self._report()
        if self._options.seconds is None and not self._stop.is_set():
            self._console.print("Traffic continues until Ctrl-C; then the whole run is reported.\n", style="dim")
            await self._send(None)
            all_is_well = await self._report()
        return 0 if all_is_well else 1

    async def _catch_up(self) -> None:
        """Wait until the worker has read what earlier runs left, so that this one begins with an empty ledger."""
        backlog = await self._ledger.backlog()
        if not backlog:
            return
        deadline = time.monotonic() + CAUGHT_UP_WITHIN_SECONDS
        with self._console.status("") as status:
            while left := await self._ledger.backlog():
                status.update(f"catching up: {left:,} records of earlier runs left to read")
                if time.monotonic() > deadline:
                    raise RunError(
                        f"The worker has not read {left:,} records of earlier runs within "
                        f"{CAUGHT_UP_WITHIN_SECONDS:.0f} s. See its log: {self._worker.log}"
                    )
                await asyncio.sleep(_REFRESH_SECONDS)
        await self._ledger.rebase()
        _step(self._console, "Caught up", f"{backlog:,} records that an earlier run had left")

    async def _send(self, seconds: float | None) -> None:
        """Send traffic for a time, or until it is time to stop; return once all is accounted for and counted."""
        traffic = Traffic(
            self._topics.values(), began=datetime.now(UTC), rate=self._options.rate, seed=self._options.seed
        )
        self._ledger.expect(traffic.ids)
        self._sending = True
        began = time.monotonic()
        async with (
            Producer(client_options(self._settings), self._settings.namespace, self._ledger.confirm) as producer,
            self._watched_worker() as watch,
        ):
            with self._progress(began, seconds) as show:
                await self._follow(asyncio.create_task(self._feed(producer, traffic, seconds)), watch, show)
                self._sending = False
                show("waiting until all events are accounted for")
                deadline = time.monotonic() + ACCOUNTED_WITHIN_SECONDS
                while self._ledger.open and time.monotonic() < deadline:
                    await self._settle()
                    show("waiting until all events are accounted for")
                    await asyncio.sleep(0.1)
                deadline = time.monotonic() + COUNTED_WITHIN_SECONDS
                while not await self._are_counted() and time.monotonic() < deadline:
                    show("waiting until all views are counted")
                    await asyncio.sleep(_REFRESH_SECONDS)
                deadline = time.monotonic() + DELIVERED_WITHIN_SECONDS
                while (waiting := self._ledger.notifications.reached.waiting) and time.monotonic() < deadline:
                    await self._settle()
                    show(f"waiting until all notifications are delivered, {waiting:,} to go")
                    await asyncio.sleep(_REFRESH_SECONDS)
            self._failed_sends += producer.failed

    async def _feed(self, producer: Producer, traffic: Traffic, seconds: float | None) -> None:
        await producer.send(self._noted(traffic), seconds=seconds, until=self._stop)
        await producer.send_at_once(self._noted(traffic.owed()))

    def _noted(self, samples: Iterable[Sample]) -> Iterator[Sample]:
        """Yield samples; the posts that they tell of are written to the platform's table within a moment."""
        for sample in samples:
            if sample.post is not None:
                self._written_posts.add(sample.post)
            yield sample

    async def _follow(
        self, sending: "asyncio.Task[None]", watch: "asyncio.Task[None]", show: Callable[[str], None]
    ) -> None:
        """Update the ledger and the display while traffic is sent."""
        try:
            while not sending.done():
                await asyncio.wait((sending, watch), timeout=_REFRESH_SECONDS, return_when=asyncio.FIRST_COMPLETED)
                if watch.done():
                    watch.result()
                await self._settle()
                show("sending")
            sending.result()
        finally:
            sending.cancel()

    async def _settle(self) -> None:
        # A server may be stopped on purpose, to see what happens; the ledger continues when it is back.
        with contextlib.suppress(PyMongoError, KafkaError):
            await self._ledger.settle()
            await self._ledger.notifications.settle(self._ledger.database)
        await self._written_posts.write()

    async def _are_counted(self) -> bool:
        """Whether PostgreSQL has every view that MongoDB has."""
        with contextlib.suppress(PyMongoError, psycopg.OperationalError):
            return all(count.agrees for count in await self._view_counts())
        return False

    async def _view_counts(self) -> list[PostCount]:
        return await view_counts(self._settings, self._ledger.database)

    @contextlib.asynccontextmanager
    async def _watched_worker(self) -> AsyncIterator["asyncio.Task[None]"]:
        watch = asyncio.create_task(self._worker.watch())
        try:
            yield watch
        finally:
            watch.cancel()

    async def _report(self) -> bool:
        """Print the results of the run so far; return whether all events are accounted for."""
        ledger, console = self._ledger, self._console
        console.print(Rule("Events", style="cyan", align="left"))
        console.print(ledger_table(ledger))
        problems = [
            *await self._problems(),
            *await self._report_view_counts(),
            *await self._report_notifications(),
        ]
        console.print(Rule("Documents", style="cyan", align="left"))
        groups = await error_groups(ledger.database, self._began)
        console.print(documents_table(ledger.documents, await ledger.totals(), groups))
        console.print(Rule("Summary of the data, since the run began", style="cyan", align="left"))
        console.print(Padding(insights_table(await insights(ledger.database, self._began)), (1, 1)))
        if problems:
            console.print("Not all events are accounted for.", style="bold red")
            for problem in problems:
                console.print(f"  {problem}", style="red", markup=False)
            console.print(f"See the worker's log, {self._worker.log}, and run `inkstream doctor`.\n", style="red")
        else:
            console.print(
                f"[bold green]All {ledger.sent:,} events are accounted for:[/] "
                "sent = stored + duplicate + dead letter, each looked up by its id.\n"
            )
        return not problems

    async def _report_view_counts(self) -> list[str]:
        """Print the views of the most read posts; return what is wrong with them."""
        self._console.print(Rule("View counts", style="cyan", align="left"))
        try:
            counts = await self._view_counts()
        except psycopg.OperationalError as error:
            return [f"view counts: cannot reach PostgreSQL: {error}"]
        self._console.print(view_counts_table(counts))
        seconds = counted_within(await asyncio.to_thread(self._worker.metrics), 0.5, 0.99)
        for line in view_counts_lines(counts, seconds, await trending(self._settings, _TRENDING_SHOWN)):
            self._console.print(Padding(Text(line), (0, 1)))
        self._console.print()
        return view_counts_problems(counts)

    async def _report_notifications(self) -> list[str]:
        """Print a summary of the notifications; return what is wrong with them."""
        self._console.print(Rule("Notifications", style="cyan", align="left"))
        self._console.print()
        reached = self._ledger.notifications.reached
        for line in notifications_lines(reached, self._inbox_url):
            self._console.print(Padding(Text(line), (0, 1)))
        self._console.print()
        received = await asyncio.to_thread(arrived, reached, self._inbox_url, self._settings.push_file)
        return await self._ledger.notifications.differences(self._ledger.database, received)

    async def _problems(self) -> list[str]:
        problems = []
        for name, topic in self._ledger.topics.items():
            if topic.open:
                problems.append(
                    f"{name}: outcome of {topic.open:,} events is unknown: {', '.join(self._ledger.unknown(name))}, …"
                )
            problems += [f"{name}: {loss.id} at {loss.place} {loss.problem}" for loss in topic.lost[:_LOSSES_SHOWN]]
            if len(topic.lost) > _LOSSES_SHOWN:
                problems.append(f"{name}: and {len(topic.lost) - _LOSSES_SHOWN:,} more")
        if self._failed_sends:
            problems.append(f"Kafka did not confirm {self._failed_sends:,} events")
        return problems or await self._ledger.differences()

    def _show_addresses(self) -> None:
        table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), show_header=False)
        table.add_column(style="cyan")
        table.add_column(overflow="fold")
        for name, address in {
            "Inbox": self._inbox_url,
            "Metrics": f"{self._worker.url}/metrics",
            "Health": f"{self._worker.url}/readyz",
            "Worker's log": os.path.relpath(self._worker.log),
            "Kafka": self._settings.kafka_brokers,
            "MongoDB": self._environment["INKSTREAM_MONGO_URL"],
            "PostgreSQL": self._environment["INKSTREAM_POSTGRES_URL"],
            "Redis": self._environment["INKSTREAM_REDIS_URL"],
        }.items():
            table.add_row(name, address)
        self._console.print(Padding(table, (1, 0, 1, 2)))

    @contextlib.contextmanager
    def _progress(self, began: float, seconds: float | None) -> Iterator[Callable[[str], None]]:
        """Show the ledger as it grows: a table that stays in place on a terminal, else a line every few seconds."""
        sent_before = self._ledger.sent

        def headline(doing: str) -> str:
            passed = time.monotonic() - began
            rate = (self._ledger.sent - sent_before) / max(passed, 0.001)
            limit = "Ctrl-C ends" if seconds is None else f"{min(passed, seconds):.0f} of {seconds:.0f} s"
            return f"{doing}  ·  {rate:,.0f} events/s  ·  {limit}" if doing == "sending" else doing

        if not self._console.is_terminal:
            printed = 0.0

            def line(doing: str) -> None:
                nonlocal printed
                if time.monotonic() - printed < _LINE_EVERY_SECONDS:
                    return
                printed = time.monotonic()
                counts = self._ledger.topics.values()
                self._console.print(
                    f"  {headline(doing)}  ·  {self._ledger.sent:,} sent, "
                    f"{sum(topic.stored for topic in counts):,} stored, "
                    f"{sum(topic.duplicate for topic in counts):,} duplicate, "
                    f"{sum(topic.dead_lettered for topic in counts):,} dead letters, "
                    f"{self._ledger.open:,} in progress",
                    soft_wrap=True,
                )

            yield line
            return

        def view(doing: str) -> Any:  # noqa: ANN401 - anything that rich can show
            return Group(Text(f" {headline(doing)}", "bold"), ledger_table(self._ledger))

        with Live(view("sending"), console=self._console, auto_refresh=False, transient=True) as live:
            yield lambda doing: live.update(view(doing), refresh=True)

    @contextlib.contextmanager
    def _signals(self) -> Iterator[None]:
        """Let the first Ctrl-C end the traffic, and the second, or another signal, the run."""
        loop = asyncio.get_running_loop()
        task = asyncio.current_task()
        assert task is not None

        def interrupted() -> None:
            if self._sending and not self._stop.is_set():
                self._stop.set()
            else:
                task.cancel()

        loop.add_signal_handler(signal.SIGINT, interrupted)
        for number in (signal.SIGTERM, signal.SIGHUP):
            loop.add_signal_handler(number, task.cancel)
        try:
            yield
        finally:
            for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
                loop.remove_signal_handler(number)


def _start_servers(stack: Stack, console: Console, *, were_running: bool) -> None:
    began = time.monotonic()
    with console.status("starting Kafka, MongoDB, PostgreSQL, Redis and the inbox"):
        # The lines of each server are news only when something has to be fetched.
        stack.up(lambda line: None if "ready after" in line else console.print(f"  {line}", style="dim", markup=False))
    passed = time.monotonic() - began
    _step(console, "Servers", "running already" if were_running else f"ready after {passed:.1f} s")


def _bootstrap(environment: dict[str, str], console: Console) -> None:
    with console.status("creating topics, collections and tables"):
        done = subprocess.run(  # noqa: S603 - our own program
            [command(), "bootstrap"],
            env={**os.environ, **environment},
            cwd=ROOT,
            capture_output=True,
            text=True,
            check=False,
        )
    lines = done.stdout.strip().splitlines()
    if done.returncode != 0:
        raise RunError("Topics, collections and tables could not be created.\n" + done.stdout + done.stderr)
    for line in lines[:-1] if len(lines) <= _BOOTSTRAP_LINES_SHOWN else []:
        console.print(f"  {line}", style="dim", markup=False)
    _step(console, "Bootstrap", f"topics, collections and tables are as declared. {lines[-1] if lines else ''}")


def _add_blog(stack: Stack, console: Console) -> None:
    blog = Blog()
    try:
        add_blog(stack.owner_url, blog)
    except psycopg.Error as error:
        raise RunError(f"PostgreSQL did not accept the blog's posts: {error}") from error
    what = f"{len(blog.posts):,} posts and {len(blog.people):,} people are in the platform's own tables"
    _step(console, "Blog", what)


def _stop_servers(stack: Stack, console: Console) -> None:
    # It is bounded in time; broken off, it would leave processes behind.
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        with console.status("stopping the servers"):
            stack.down()
    finally:
        signal.signal(signal.SIGINT, before)
    _step(console, "Servers", "stopped; `make up` starts them again with their data, `make clean` deletes it")


def _step(console: Console, what: str, outcome: str) -> None:
    console.print(f"[green]✓[/] [bold]{what:<10}[/] {outcome}")


def _interrupt(_: int, __: FrameType | None) -> None:
    raise KeyboardInterrupt


def _options() -> Options:
    parser = argparse.ArgumentParser(
        prog="python -m dev.run",
        description="Run the platform: servers, worker and sample traffic, and account for every event.",
    )
    parser.add_argument(
        "--seconds",
        type=_positive,
        help="send traffic for this many seconds, then report and exit (default: until Ctrl-C)",
    )
    parser.add_argument("--rate", type=_positive, default=RATE, help="events per second (default: %(default).0f)")
    parser.add_argument("--seed", type=int, default=1, help="seed of the sample traffic (default: %(default)s)")
    arguments = parser.parse_args()
    return Options(arguments.seconds, arguments.rate, arguments.seed)


def _positive(text: str) -> float:
    number = float(text)
    if not 0 < number < float("inf"):
        raise argparse.ArgumentTypeError(f"{text} should be more than 0")
    return number


if __name__ == "__main__":
    sys.exit(main())
