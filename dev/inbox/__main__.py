"""Run the inbox as a process: `python -m dev.inbox DIRECTORY`.

Input: a directory and two ports. Output: a mail server and a page, until SIGTERM. What is in the directory is shown
again after a restart.
"""

import argparse
import asyncio
import signal
import sys
from pathlib import Path

from aiohttp import web

from dev.inbox import mailbox, push_messages
from dev.inbox.catcher import Catcher
from dev.inbox.pages import Pages


def main() -> int:
    """Run the command line; return the exit code."""
    arguments = _arguments()
    try:
        asyncio.run(_serve(arguments.directory, arguments.host, arguments.smtp_port, arguments.port))
    except OSError as error:
        print(f"Cannot start the inbox: {error}", file=sys.stderr)
        return 1
    return 0


async def _serve(directory: Path, host: str, smtp_port: int, port: int) -> None:
    stop = asyncio.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    mails = mailbox.Mailbox(directory / mailbox.FOLDER)
    pages = Pages(mails, push_messages.PushMessages(directory / push_messages.FILE))
    catcher = await Catcher(mails).start(host, smtp_port)
    runner = web.AppRunner(pages.application(), access_log=None)
    await runner.setup()
    # The page comes last: once it answers, mail is taken as well.
    await web.TCPSite(runner, host, port).start()
    shown = f"[{host}]" if ":" in host else host
    print(f"Mail server on {shown}:{smtp_port}, inbox on http://{shown}:{port}", flush=True)
    await stop.wait()
    catcher.close()
    await runner.cleanup()


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m dev.inbox", description="Accept every mail, deliver none, and show them on a page."
    )
    parser.add_argument("directory", type=Path, help="directory for mails and push messages")
    parser.add_argument("--host", default="127.0.0.1", help="address to listen on (default: %(default)s)")
    parser.add_argument("--smtp-port", type=int, default=16025, help="port for mail (default: %(default)s)")
    parser.add_argument("--port", type=int, default=16026, help="port for the page (default: %(default)s)")
    return parser.parse_args()


if __name__ == "__main__":
    sys.exit(main())
