"""Accept mail by SMTP from any sender for any recipient, and deliver none of it.

Input: messages on loopback. Output: mails in the mailbox. A message is acknowledged once it is stored; if it can't be
stored, the sender is told to try again later.

Protocol: https://www.rfc-editor.org/rfc/rfc5321
"""

import asyncio
from datetime import UTC, datetime

from aiosmtpd.smtp import SMTP, Envelope, Session

from dev.inbox.mailbox import Mailbox

_LONGEST_BYTES = 32 * 1024 * 1024


class Catcher:
    """The mail server.

    Args:
        mailbox: Keeps what comes.
    """

    def __init__(self, mailbox: Mailbox) -> None:
        self._mailbox = mailbox

    async def start(self, host: str, port: int) -> asyncio.Server:
        """Listen; return when connections are taken.

        Raises:
            OSError: The port is taken.
        """
        loop = asyncio.get_running_loop()
        return await loop.create_server(self._begin, host, port)

    def _begin(self) -> SMTP:
        return SMTP(
            self,
            hostname="inbox.example",
            ident="Inkstream's inbox",
            enable_SMTPUTF8=True,
            data_size_limit=_LONGEST_BYTES,
            loop=asyncio.get_running_loop(),
        )

    async def handle_DATA(self, server: SMTP, session: Session, envelope: Envelope) -> str:  # noqa: N802
        """Keep a message."""
        content = envelope.original_content or b""
        try:
            id_ = self._mailbox.add(envelope.mail_from or "", envelope.rcpt_tos, content, datetime.now(UTC))
        except OSError as error:
            return f"452 4.3.1 It can't be kept: {error.strerror}"
        return f"250 2.0.0 Kept as {id_}"
