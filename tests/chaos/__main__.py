"""`make chaos`: shows that nothing is lost and nothing is there twice, whatever fails. `make chaos SEED=8 CYCLES=20`.

Brings up a platform of its own on free ports, runs three workers on sample traffic, and lets faults happen, drawn from
the seed: processes killed at marked points, frozen, told to stop; servers killed, paused and restarted; connections
cut, delayed and black-holed; the platform migrates, locks, deletes and restores its posts, or refuses updates of some.
In the end all stores are held against the event log of what Kafka had acknowledged. Exit
code 0 only if every promise holds. Nothing that it started is left.
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
from tests.chaos.history import History
from tests.chaos.proxied import ProxiedPlatform
from tests.chaos.proxy import Proxy
from tests.chaos.run import Plan, Run

_WIDTH_WITHOUT_TERMINAL = 150
_OUTPUTS = ("json", "html", "keep")
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
    arguments = _parser().parse_args()
    quieten_clients()
    # Of connections that are closed on purpose, the event loop says so each time.
    logging.getLogger("asyncio").setLevel(logging.CRITICAL + 1)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))
    console = Console(highlight=False, width=None if sys.stdout.isatty() else _WIDTH_WITHOUT_TERMINAL)
    try:
        history = _run(_plan(arguments), arguments.keep, console)
    except ServerError as error:
        console.print(str(error), style="red", markup=False)
        return 1
    except KeyboardInterrupt:
        console.print("Stopped before anything could be judged.", style="yellow")
        return 130
    report.show(history, console)
    if arguments.json:
        arguments.json.write_bytes(report.to_json(history))
    if arguments.html:
        arguments.html.write_text(report.to_html(history))
    return 0 if history.holds else 1


def _run(plan: Plan, keep: Path | None, console: Console) -> History:
    with tempfile.TemporaryDirectory(prefix="inkstream-chaos-") as name:
        directory = Path(name)
        platform = ProxiedPlatform.on_free_ports(directory / "platform")
        try:
            return asyncio.run(_under_fire(plan, platform, directory, console))
        finally:
            platform.forget()
            if keep:
                keep.mkdir(parents=True, exist_ok=True)
                for file in (*directory.glob("*.log"), *directory.glob("*.sqlite")):
                    shutil.copy(file, keep)


async def _under_fire(plan: Plan, platform: ProxiedPlatform, directory: Path, console: Console) -> History:
    async with Proxy(platform.routes) as proxy:
        # MongoDB finds itself by the proxy's address, so the proxy comes first.
        await asyncio.to_thread(platform.up, lambda line: console.print(line, markup=False))
        return await Run(plan, platform, proxy, directory, console)()


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
        rate=arguments.rate,
        workers=arguments.workers,
        calm=20.0 if quick else 60.0,
        settle=150.0 if quick else 300.0,
        defect=arguments.defect,
    )


def _command(arguments: argparse.Namespace) -> str:
    """Return what to type for the same again: all that was asked for, but for where to write it."""
    parser, variables, options = _parser(), [f"SEED={arguments.seed}"], list[str]()
    for name, value in vars(arguments).items():
        if value is None or name in ("seed", *_OUTPUTS) or value == parser.get_default(name):
            continue
        if name in ("cycles", "faults"):
            variables.append(f"{name.upper()}={' '.join(value) if name == 'faults' else value}")
        else:
            options += [f"--{name}"] if value is True else [f"--{name}", f"{value:g}" if name == "rate" else str(value)]
    return shlex.join(["make", "chaos", *variables, *([f"ARGS={shlex.join(options)}"] if options else [])])


def _faults(text: str) -> tuple[str, ...]:
    names = tuple(name for name in text.replace(",", " ").split() if name)
    if unknown := [name for name in names if name not in FAULTS]:
        raise argparse.ArgumentTypeError(f"no fault {', '.join(unknown)}; there are: {', '.join(FAULTS)}")
    return names


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m tests.chaos",
        description=(__doc__ or "").partition("\n\n")[2],
        epilog="Faults:\n" + "\n".join(f"  {name:26} {fault.description}" for name, fault in FAULTS.items()),
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--seed", type=int, default=1, help="decides what happens (default %(default)s)")
    parser.add_argument("--cycles", type=int, help="rounds of faults, each with a kill (default 100)")
    parser.add_argument("--alone", type=int, help="how often each fault happens by itself before that (default 3)")
    parser.add_argument("--faults", type=_faults, metavar="NAMES", help="which, separated by commas (default: all)")
    parser.add_argument("--events", type=int, help="least events to send (default 5,000 a cycle)")
    parser.add_argument("--rate", type=float, default=550.0, help="events a second (default %(default)s)")
    parser.add_argument("--workers", type=int, default=3, help="how many workers (default %(default)s)")
    parser.add_argument("--quick", action="store_true", help="a few minutes: 12 cycles of the most telling faults")
    parser.add_argument("--defect", choices=DEFECTS, metavar="NAME", help=f"one of {', '.join(DEFECTS)}: must fail")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the whole history there")
    parser.add_argument("--html", type=Path, metavar="FILE", help="write a page with a timeline there")
    parser.add_argument("--keep", type=Path, metavar="DIRECTORY", help="copy logs and event log there")
    return parser


if __name__ == "__main__":
    sys.exit(main())
