"""Suppressions: addresses and devices that nothing may be sent to any more, in PostgreSQL.

In come an address and a reason; out go rows, and the answer whether an address is among them. The first reason stays,
so adding one again changes nothing.
"""

import hashlib
from collections.abc import Collection
from datetime import datetime
from functools import partial
from typing import Literal, NamedTuple

from sinks.postgres import Pool, fetch, is_transient
from sinks.together import Together

Channel = Literal["email", "push"]
CHANNELS: tuple[Channel, ...] = ("email", "push")


class Suppression(NamedTuple):
    """An address that is suppressed.

    Attributes:
        channel: What kind of address.
        address: An e-mail address in lower case, or a device's token.
        reason: `bounced`, `complained`, `gone`, `unsubscribed`, or what an operator wrote.
        since: When it was added.
    """

    channel: Channel
    address: str
    reason: str
    since: datetime


class Suppressions:
    """The addresses that are suppressed.

    Every method raises `psycopg.Error` where PostgreSQL is not up to it; `is_transient` tells whether it may be later.

    Args:
        pool: Connections to the database with our schema.
    """

    name = "postgresql"
    is_transient = staticmethod(is_transient)

    def __init__(self, pool: Pool) -> None:
        self._pool = pool
        self._reasons = {channel: Together(partial(self.reasons, channel)) for channel in CHANNELS}

    async def add(self, channel: Channel, address: str, reason: str) -> bool:
        """Suppress an address; return whether it was not."""
        written = _written(channel, address)
        async with self._pool.transaction() as using:
            rows = await fetch(
                using, "add_suppression", channel=channel, digest=_digest(written), address=written, reason=reason
            )
        return bool(rows)

    async def remove(self, channel: Channel, address: str) -> bool:
        """Let an address be used again; return whether it was suppressed."""
        async with self._pool.transaction() as using:
            rows = await fetch(using, "remove_suppression", channel=channel, digest=_digest(_written(channel, address)))
        return bool(rows)

    async def remove_device(self, name: str) -> bool:
        """Let a device be used again, by its name as `device_name` makes it; return whether it was suppressed."""
        async with self._pool.transaction() as using:
            rows = await fetch(using, "remove_suppressed_device", name=name)
        return bool(rows)

    async def reason(self, channel: Channel, address: str) -> str | None:
        """Return why an address is suppressed; `None` where it is not. Many at once are asked together."""
        return await self._reasons[channel](address)

    async def reasons(self, channel: Channel, addresses: Collection[str]) -> dict[str, str]:
        """Return those of the addresses that are suppressed, each with the reason."""
        digests = {_digest(_written(channel, address)): address for address in addresses}
        if not digests:
            return {}
        async with self._pool.transaction() as using:
            rows = await fetch(using, "suppressions_among", channel=channel, digests=list(digests))
        return {digests[row["digest"]]: row["reason"] for row in rows}

    async def close(self) -> None:
        """End what is being asked; the pool is closed by whoever made it."""
        for together in self._reasons.values():
            await together.close()

    async def latest(self, limit: int, channel: Channel | None = None) -> list[Suppression]:
        """Return the latest, newest first."""
        async with self._pool.transaction() as using:
            rows = await fetch(using, "suppressions", channel=channel, limit=limit)
        return [Suppression(**row) for row in rows]


def _written(channel: Channel, address: str) -> str:
    # Nobody's mailbox differs from another's by case, whatever RFC 5321 allows.
    return address.strip().lower() if channel == "email" else address


def _digest(address: str) -> str:
    return hashlib.sha256(address.encode(errors="surrogatepass")).hexdigest()
