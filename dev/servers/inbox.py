"""Run the inbox of development, `dev/inbox/`: a mail server, and a page of what was sent.

Input: a directory and two ports. Mails and push messages stay in the directory, and are shown again after a restart.
"""

from __future__ import annotations

import smtplib
import sys
import urllib.error
import urllib.request
from collections.abc import Mapping
from pathlib import Path
from typing import ClassVar

from dev.inbox import push_messages
from dev.servers.server import Server

_ANSWERS_WITHIN_SECONDS = 2.0


class Inbox(Server):
    """A mail server that delivers nothing, and the page of what came."""

    name: ClassVar[str] = "inbox"
    working_directory: ClassVar[Path] = Path(__file__).parents[2]
    """Where Python finds `dev`, which is not installed."""

    def __init__(self, directory: Path, port: int, smtp_port: int) -> None:
        super().__init__(directory, port)
        self._smtp_port = smtp_port

    @property
    def ports(self) -> Mapping[str, int]:
        """The page's, and the mail server's."""
        return {self.name: self.port, "smtp": self._smtp_port}

    @property
    def url(self) -> str:
        """The page."""
        return f"http://127.0.0.1:{self.port}"

    @property
    def environment(self) -> dict[str, str]:
        """The settings by which a worker sends everything here."""
        return {
            "INKSTREAM_SMTP_URL": f"smtp://127.0.0.1:{self._smtp_port}",
            "INKSTREAM_PUSH_FILE": str(self.directory / push_messages.FILE),
        }

    def command(self) -> list[str]:
        """The inbox."""
        ports = ["--port", str(self.port), "--smtp-port", str(self._smtp_port)]
        return [sys.executable, "-m", "dev.inbox", str(self.directory), *ports]

    def prepare(self) -> None:
        """Nothing: the inbox makes its folder itself."""

    def answers(self) -> bool:
        """Whether the page is served, and mail is taken."""
        try:
            with (
                urllib.request.urlopen(f"{self.url}/style.css", timeout=_ANSWERS_WITHIN_SECONDS),  # noqa: S310 - ours
                smtplib.SMTP("127.0.0.1", self._smtp_port, timeout=_ANSWERS_WITHIN_SECONDS) as server,
            ):
                return server.noop()[0] == 250
        except (OSError, urllib.error.URLError, smtplib.SMTPException):
            return False
