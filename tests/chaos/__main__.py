"""Show that nothing is lost and nothing is stored twice, whatever fails. `make chaos SEED=8 CYCLES=20`.

The program starts a platform on free ports, with a proxy between workers and servers, and injects faults drawn from the
seed. At the end it checks every database. Exit code 0 only if every promise held. Nothing that it started is left.

Without `--notifications`, three workers process sample traffic of all topics. Processes are killed at marked points,
frozen or told to stop; servers are killed, paused and restarted; connections are cut, delayed and black-holed; the
platform migrates, locks, deletes and restores its posts, or refuses updates of some. Then each database is checked
against a log of acknowledged events.

With `--notifications`, workers deliver e-mails and push messages to providers that fail. A worker is killed every
second, Redis is flushed, and MongoDB's primary steps down. Then the queue is compared with what was requested and with
what providers accepted: nothing may be lost, and each message that was sent twice must have a cause.
"""

import argparse
import asyncio
import logging
import shlex
import shutil
import signal
import sys
import tempfile
from pathlib import Path

from rich.console import Console

from dev.servers.server import ServerError
from ops.commands.command import quieten_clients
from tests.chaos import report
from tests.chaos.defects import DEFECTS
from tests.chaos.faults import FAULTS
from tests.chaos.harness import Harness
from tests.chaos.history import History
from tests.chaos.notification_run import NotificationPlan, NotificationRun
from tests.chaos.proxied import ProxiedPlatform
from tests.chaos.proxy import Proxy
from tests.chaos.run import Plan, Run

_WIDTH_WITHOUT_TERMINAL = 150
_OUTPUTS = ("json", "html", "keep")
_OF_SAMPLE_TRAFFIC = ("cycles", "alone", "faults", "events", "rate", "defect")
_OF_NOTIFICATIONS = ("seconds", "share")
_RATE = 550.0
_SHARE = 0.3
_BY_LENGTH = 0
"""As many notifications as a quick or a whole run has."""

_QUICK_FAULTS = (
    "worker-killed",
    "worker-killed-at-a-point",
    "worker-frozen",
    "worker-stopped",
    "kafka-killed",
    "mongo-killed",
    "mongo-stepped-down",
    "postgres-restarted",
    "redis-flushed",
    "connections-cut-mongo",
    "poison-storm",
    "posts-migrated",
    "posts-locked",
    "posts-restored",
    "post-refused-by-trigger",
)


def main() -> int:
    """Run the command line; return the exit code."""
    arguments = _arguments()
    quieten_clients()
    # The event loop would log each connection that is closed on purpose.
    logging.getLogger("asyncio").setLevel(logging.CRITICAL + 1)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))
    console = Console(highlight=False, width=None if sys.stdout.isatty() else _WIDTH_WITHOUT_TERMINAL)
    try:
        history = _run(arguments, console)
    except ServerError as error:
        console.print(str(error), style="red", markup=False)
        return 1
    except KeyboardInterrupt:
        console.print("Stopped before anything was checked.", style="yellow")
        return 130
    report.show(history, console)
    if arguments.json:
        arguments.json.write_bytes(report.to_json(history))
    if arguments.html:
        arguments.html.write_text(report.to_html(history))
    return 0 if history.holds else 1


def _run(arguments: argparse.Namespace, console: Console) -> History:
    with tempfile.TemporaryDirectory(prefix="inkstream-chaos-") as name:
        directory = Path(name)
        platform = ProxiedPlatform.on_free_ports(directory / "platform")
        try:
            return asyncio.run(_with_proxy(arguments, platform, directory, console))
        finally:
            platform.forget()
            if arguments.keep:
                arguments.keep.mkdir(parents=True, exist_ok=True)
                for file in (*directory.glob("*.log"), *directory.glob("*.sqlite")):
                    shutil.copy(file, arguments.keep)


async def _with_proxy(
    arguments: argparse.Namespace, platform: ProxiedPlatform, directory: Path, console: Console
) -> History:
    async with Proxy(platform.routes) as proxy:
        # MongoDB finds itself by the proxy's address, so the proxy comes first.
        await asyncio.to_thread(platform.up, lambda line: console.print(line, markup=False))
        run: Harness
        if arguments.notifications is not None:
            run = NotificationRun(_notification_plan(arguments), platform, proxy, directory, console)
        else:
            run = Run(_plan(arguments), platform, proxy, directory, console)
        return await run()


def _plan(arguments: argparse.Namespace) -> Plan:
    quick = arguments.quick
    cycles = arguments.cycles if arguments.cycles is not None else (12 if quick else 100)
    return Plan(
        command=_command(arguments),
        seed=arguments.seed,
        alone=arguments.alone if arguments.alone is not None else (0 if quick else 3),
        cycles=cycles,
        faults=arguments.faults or (_QUICK_FAULTS if quick else tuple(FAULTS)),
        events=arguments.events if arguments.events is not None else (40_000 if quick else 5_000 * cycles),
        rate=arguments.rate or _RATE,
        workers=arguments.workers,
        calm=20.0 if quick else 60.0,
        settle=arguments.settle or (150.0 if quick else 300.0),
        defect=arguments.defect,
    )


def _notification_plan(arguments: argparse.Namespace) -> NotificationPlan:
    count, seconds, settle = (600, 30.0, 120.0) if arguments.quick else (5_000, 180.0, 120.0)
    return NotificationPlan(
        command=_command(arguments),
        notifications=arguments.notifications or count,
        seed=arguments.seed,
        workers=arguments.workers,
        seconds=arguments.seconds or seconds,
        settle=arguments.settle or settle,
        share=arguments.share if arguments.share is not None else _SHARE,
    )


def _command(arguments: argparse.Namespace) -> str:
    """Return what to type to repeat the run: all options, except where to write results."""
    parser, variables, options = _parser(), [f"SEED={arguments.seed}"], list[str]()
    for name, value in vars(arguments).items():
        if value is None or name in ("seed", *_OUTPUTS) or value == parser.get_default(name):
            continue
        if name in ("cycles", "faults"):
            variables.append(f"{name.upper()}={' '.join(value) if name == 'faults' else value}")
        elif value is True or (name == "notifications" and value == _BY_LENGTH):
            options.append(f"--{name}")
        else:
            options += [f"--{name}", f"{value:g}" if isinstance(value, float) else str(value)]
    return shlex.join(["make", "chaos", *variables, *([f"ARGS={shlex.join(options)}"] if options else [])])


def _faults(text: str) -> tuple[str, ...]:
    names = tuple(name for name in text.replace(",", " ").split() if name)
    if unknown := [name for name in names if name not in FAULTS]:
        raise argparse.ArgumentTypeError(f"no fault {', '.join(unknown)}; there are: {', '.join(FAULTS)}")
    return names


def _arguments() -> argparse.Namespace:
    parser = _parser()
    arguments = parser.parse_args()
    others = _OF_NOTIFICATIONS if arguments.notifications is None else _OF_SAMPLE_TRAFFIC
    if given := [f"--{name}" for name in others if getattr(arguments, name) is not None]:
        traffic = "sample traffic" if arguments.notifications is None else "notifications"
        parser.error(f"{', '.join(given)}: not for a run of {traffic}")
    return arguments


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m tests.chaos",
        description=(__doc__ or "").partition("\n\n")[2],
        epilog="Faults:\n" + "\n".join(f"  {name:26} {fault.description}" for name, fault in FAULTS.items()),
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--seed", type=int, default=1, help="decides what happens (default %(default)s)")
    parser.add_argument("--workers", type=int, default=3, help="how many workers (default %(default)s)")
    parser.add_argument("--quick", action="store_true", help="run for minutes: fewer faults, the most important ones")
    parser.add_argument(
        "--settle", type=float, metavar="SECONDS", help="how long work may take to end after the faults"
    )
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the whole history to FILE")
    parser.add_argument("--html", type=Path, metavar="FILE", help="write a page with a timeline to FILE")
    parser.add_argument("--keep", type=Path, metavar="DIRECTORY", help="copy logs and event log to DIRECTORY")
    sample = parser.add_argument_group("sample traffic")
    sample.add_argument("--cycles", type=int, help="rounds of faults, each with a killed worker (default 100)")
    sample.add_argument("--alone", type=int, help="inject each fault alone so many times before that (default 3)")
    sample.add_argument("--faults", type=_faults, metavar="NAMES", help="faults, separated by commas (default: all)")
    sample.add_argument("--events", type=int, help="send at least so many events (default 5,000 a cycle)")
    sample.add_argument("--rate", type=float, help=f"events a second (default {_RATE:g})")
    sample.add_argument("--defect", choices=DEFECTS, metavar="NAME", help=f"one of {', '.join(DEFECTS)}: must fail")
    notifications = parser.add_argument_group("notifications")
    notifications.add_argument(
        "--notifications",
        type=int,
        nargs="?",
        const=_BY_LENGTH,
        metavar="COUNT",
        help="run notifications, COUNT of them (default 5000)",
    )
    notifications.add_argument("--seconds", type=float, help="inject faults for so long (default 180)")
    notifications.add_argument("--share", type=float, help=f"share of messages that meet a fault (default {_SHARE:g})")
    return parser


if __name__ == "__main__":
    sys.exit(main())
