"""Looks up what an IP address and a user agent tell about a reader.

Input: both as a producer wrote them. Output: what documents store of them. Equal input always has equal output, and
most input repeats, so the most recent answers are cached.
"""

from collections.abc import Callable
from functools import lru_cache
from typing import NamedTuple

from enrich.bots import recognise
from enrich.geo import GeoDatabase
from enrich.ip_address import hash_ip, read_ip
from enrich.traffic_source import TrafficSource, app_of
from enrich.user_agent import READ, device
from notifications.links import DEVELOPMENT_SITE, Site
from schemas.fields import UNKNOWN

REMEMBERED_ADDRESSES = 30_000
"""At some 600 bytes each, 18 MB when full."""

REMEMBERED_USER_AGENTS = 10_000
"""At some 1,000 bytes each, 10 MB when full."""


class Address(NamedTuple):
    """What documents hold of an IP address. They share what is in here, so nobody may change it.

    Attributes:
        hash: Stands for the address; `unknown` where none could be read.
        geo: `pageViews.geo`, where that is known.
    """

    hash: str
    geo: dict[str, str] | None


class UserAgent(NamedTuple):
    """What documents hold of a user agent, besides itself; shared like an `Address`.

    Attributes:
        device: `pageViews.device`.
        bot: `pageViews.bot`, where it is a program's.
        app: The app whose own browser sent it, as a source of readers.
    """

    device: dict[str, str]
    bot: dict[str, str] | None
    app: TrafficSource | None


class Context:
    """What every enrichment function is given beside its event.

    Args:
        ip_hash_key: The secret under which IP addresses are hashed.
        geo: Where addresses are looked up; `None` leaves `geo` out of every document.
        site: Where links of notifications may lead.

    Attributes:
        address: Tells what to store of an IP address, in whatever form it came.
        site: As above.
    """

    def __init__(self, *, ip_hash_key: bytes, geo: GeoDatabase | None, site: Site = DEVELOPMENT_SITE) -> None:
        self.site = site
        self._ip_hash_key = ip_hash_key
        self._geo = geo
        self.address: Callable[[str], Address] = lru_cache(maxsize=REMEMBERED_ADDRESSES)(self._address)

    def user_agent(self, header: str) -> UserAgent:
        """Tell what to store of a user agent."""
        return _user_agent(header[:READ])  # so that what is remembered has a bound

    def _address(self, written: str) -> Address:
        ip = read_ip(written)
        if ip is None:
            return Address(UNKNOWN, None)
        place = self._geo and self._geo.locate(ip)
        return Address(hash_ip(ip, self._ip_hash_key), place.document() if place else None)


@lru_cache(maxsize=REMEMBERED_USER_AGENTS)
def _user_agent(header: str) -> UserAgent:
    bot = recognise(header)
    return UserAgent(
        device(header)._asdict(),
        bot and {name: value for name, value in bot._asdict().items() if value},
        app_of(header),
    )
