"""Suppressions: addresses and devices to which nothing is sent any more, in PostgreSQL.

Input: an address and a reason. Output: rows, and whether an address is among them. The first reason stays, so adding an
address again changes nothing. An e-mail address is stored in a normal form, its identity; earlier releases stored some
addresses in other forms, which are found as well.
"""

import hashlib
from collections.abc import Collection
from datetime import datetime
from functools import partial
from typing import Literal, NamedTuple

from schemas.email_address import InvalidAddress, read
from sinks.batch_loader import BatchLoader
from sinks.postgres.pool import Pool, fetch, is_transient

Channel = Literal["email", "push"]
CHANNELS: tuple[Channel, ...] = ("email", "push")


class Suppression(NamedTuple):
    """An address that is suppressed.

    Attributes:
        channel: What kind of address.
        address: An e-mail address by its identity, or a device's token.
        reason: `bounced`, `complained`, `gone`, `unsubscribed`, or an operator's text.
        since: When it was added.
    """

    channel: Channel
    address: str
    reason: str
    since: datetime


class Suppressions:
    """The addresses that are suppressed.

    Every method raises `psycopg.Error` if PostgreSQL fails; `is_transient` says whether a retry may succeed.

    Args:
        pool: Connections to the database with our schema.
    """

    name = "postgresql"
    is_transient = staticmethod(is_transient)

    def __init__(self, pool: Pool) -> None:
        self._pool = pool
        self._reasons = {channel: BatchLoader(partial(self.reasons, channel)) for channel in CHANNELS}

    async def add(self, channel: Channel, address: str, reason: str) -> bool:
        """Suppress an address; return whether that is new."""
        identity, *earlier = _identities(channel, address)
        async with self._pool.transaction() as using:
            rows = await fetch(
                using,
                "add_suppression",
                channel=channel,
                digest=_digest(identity),
                earlier=[_digest(one) for one in earlier],
                address=identity,
                reason=reason,
            )
        return bool(rows)

    async def remove(self, channel: Channel, address: str) -> bool:
        """Remove an address; return whether it was suppressed."""
        digests = [_digest(identity) for identity in _identities(channel, address)]
        async with self._pool.transaction() as using:
            rows = await fetch(using, "remove_suppression", channel=channel, digests=digests)
        return bool(rows)

    async def remove_device(self, name: str) -> bool:
        """Remove a device by its name, as `device_name` returns it; return whether it was suppressed."""
        async with self._pool.transaction() as using:
            rows = await fetch(using, "remove_suppressed_device", name=name)
        return bool(rows)

    async def reason(self, channel: Channel, address: str) -> str | None:
        """Return why an address is suppressed; `None` if it is not. Concurrent calls share one query."""
        return await self._reasons[channel](address)

    async def reasons(self, channel: Channel, addresses: Collection[str]) -> dict[str, str]:
        """Return the suppressed ones of the addresses, each with the reason."""
        digests = {address: [_digest(one) for one in _identities(channel, address)] for address in addresses}
        if not digests:
            return {}
        every = [digest for each in digests.values() for digest in each]
        async with self._pool.transaction() as using:
            rows = await fetch(using, "suppressions_among", channel=channel, digests=every)
        found = {row["digest"]: row["reason"] for row in rows}
        return {
            address: next(found[digest] for digest in each if digest in found)
            for address, each in digests.items()
            if not found.keys().isdisjoint(each)
        }

    async def close(self) -> None:
        """Cancel queries in progress; the pool is closed by its owner."""
        for loader in self._reasons.values():
            await loader.close()

    async def latest(self, limit: int, channel: Channel | None = None) -> list[Suppression]:
        """Return the latest suppressions, newest first."""
        async with self._pool.transaction() as using:
            rows = await fetch(using, "suppressions", channel=channel, limit=limit)
        return [Suppression(**row) for row in rows]


def _identities(channel: Channel, address: str) -> list[str]:
    """Return the forms in which an address may be stored; the first is the current one."""
    if channel == "push":
        return [address]
    try:
        email = read(address)
    except InvalidAddress:
        # Nothing is sent there, but a row of an earlier release may have to be removed.
        return [address.strip().lower()]
    return [email.identity, *sorted(email.earlier_identities - {email.identity})]


def _digest(address: str) -> str:
    return hashlib.sha256(address.encode(errors="surrogatepass")).hexdigest()
