"""Prove that the judge finds defects, `make chaos-defects`: switch each defect on in the workers; the run must fail.

Input: the names of defects.
Output: for each, which promises were found broken. Exit code 0 only if every defect was found. One more run has no
defect, and must pass: a judge that always finds something proves nothing.
"""

import argparse
import asyncio
import logging
import signal
import sys
import tempfile
from pathlib import Path

from rich.console import Console
from rich.table import Table

from ops.commands.command import quieten_clients
from tests.chaos.defects import DEFECTS
from tests.chaos.history import History
from tests.chaos.proxied import ProxiedPlatform
from tests.chaos.proxy import Proxy
from tests.chaos.run import Plan, Run

_WIDTH_WITHOUT_TERMINAL = 150
_FAULTS = ("worker-killed", "worker-killed-at-a-point", "mongo-killed", "postgres-restarted")
_PROMISES_SHOWN = 4


def main() -> int:
    """Run the command line; return the exit code."""
    parser = argparse.ArgumentParser(prog="python -m tests.chaos.proof", description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("defects", nargs="*", metavar="DEFECT", help=f"some of {', '.join(DEFECTS)} (default: all)")
    parser.add_argument("--seed", type=int, default=1, help="decides what happens (default %(default)s)")
    parser.add_argument("--cycles", type=int, default=5, help="rounds of faults for each (default %(default)s)")
    arguments = parser.parse_args()
    if unknown := set(arguments.defects) - set(DEFECTS):
        parser.error(f"no defect {', '.join(sorted(unknown))}; there are {', '.join(DEFECTS)}")
    quieten_clients()
    logging.getLogger("asyncio").setLevel(logging.CRITICAL + 1)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))
    console = Console(highlight=False, width=None if sys.stdout.isatty() else _WIDTH_WITHOUT_TERMINAL)
    with tempfile.TemporaryDirectory(prefix="inkstream-proof-") as name:
        platform = ProxiedPlatform.on_free_ports(Path(name) / "platform")
        try:
            found = asyncio.run(_prove(arguments, platform, Path(name), console))
        finally:
            platform.forget()
    return _show(found, console)


async def _prove(
    arguments: argparse.Namespace, platform: ProxiedPlatform, directory: Path, console: Console
) -> dict[str | None, History]:
    found: dict[str | None, History] = {}
    async with Proxy(platform.routes) as proxy:
        await asyncio.to_thread(platform.up, lambda line: console.print(line, markup=False))
        for defect in (None, *(arguments.defects or DEFECTS)):
            console.rule(defect or "without a defect", align="left")
            own = directory / (defect or "none")
            own.mkdir()
            found[defect] = await Run(_plan(arguments, defect), platform, proxy, own, console)()
    return found


def _plan(arguments: argparse.Namespace, defect: str | None) -> Plan:
    return Plan(
        command="make chaos-defects",
        seed=arguments.seed,
        alone=0,
        cycles=arguments.cycles,
        faults=_FAULTS,
        events=2_000 * arguments.cycles,
        rate=550.0,
        workers=2,
        calm=3.0,
        settle=90.0,
        defect=defect,
    )


def _show(found: dict[str | None, History], console: Console) -> int:
    table = Table("defect", "noticed", "promises found broken", box=None, padding=(0, 2, 0, 0))
    is_proven = True
    for defect, history in found.items():
        broken = [check for check in history.checks if check.problems]
        said = [f"{check.promise}: {check.problems[0]}" for check in broken[:_PROMISES_SHOWN]]
        if len(broken) > _PROMISES_SHOWN:
            said.append(f"and {len(broken) - _PROMISES_SHOWN} more")
        is_right = history.holds is (defect is None)
        is_proven = is_proven and is_right
        mark = "[green]✓" if is_right else "[red]✗"
        table.add_row(defect or "none", mark, "\n".join(said) or "none")
    console.print(table)
    console.print(
        "The judge finds every defect, and finds nothing without a defect."
        if is_proven
        else "The judge is not proven: see ✗ above.",
        style="green" if is_proven else "bold red",
    )
    return 0 if is_proven else 1


if __name__ == "__main__":
    sys.exit(main())
