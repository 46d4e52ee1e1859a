"""Looks up where an IP address is, in a file in MaxMind's format.

Input: an address. Output: its country, city and time zone, or nothing. The file is mapped into memory and read in
place: replace it by renaming another file over it and restarting the worker, never by writing into it.
"""

from functools import lru_cache
from pathlib import Path
from typing import NamedTuple
from zoneinfo import ZoneInfo

import maxminddb

from enrich.ip_address import read_ip


class GeoDatabaseError(Exception):
    """The file can't be used: it is missing, damaged, or of another kind."""


class Place(NamedTuple):
    """Where an address is, as `pageViews.geo` has it.

    Attributes:
        country: ISO 3166-1 alpha-2 code, as `DE`. Codes, unlike names, are the same in every release of the file.
        city: English name; empty where only the country is known.
        timezone: IANA name, as `Europe/Berlin`; `None` where it is not known.
    """

    country: str
    city: str
    timezone: str | None

    def document(self) -> dict[str, str]:
        """Return `pageViews.geo`. An unknown time zone is left out: for `""`, MongoDB's `$dateTrunc` fails."""
        return {name: value for name, value in self._asdict().items() if value is not None}


class GeoDatabase:
    """A file that maps addresses to places."""

    def __init__(self, reader: maxminddb.Reader) -> None:
        self._reader = reader
        # Many addresses share a place, and one tuple serves them all.
        self._places: dict[Place, Place] = {}

    @classmethod
    def open(cls, path: Path) -> "GeoDatabase":
        """Open a City database: MaxMind's GeoLite2 or GeoIP2, DB-IP's, or another in that format.

        Raises:
            GeoDatabaseError: The file is missing, unreadable, damaged, or has no cities.
        """
        try:
            reader = maxminddb.open_database(path)
        except OSError as error:
            raise GeoDatabaseError(f"{path}: {error.strerror or error}") from error
        except (maxminddb.InvalidDatabaseError, ValueError) as error:
            raise GeoDatabaseError(f"{path} is damaged, or no database in MaxMind's format: {error}") from error
        kind = reader.metadata().database_type
        if not any(word in kind for word in ("City", "Enterprise")):
            reader.close()
            raise GeoDatabaseError(f"{path} is a {kind} database; a City database is needed")
        return cls(reader)

    def locate(self, ip: str) -> Place | None:
        """Find where an address is.

        Returns:
            The place, or `None` where not even the country is known: for private and reserved addresses, and for
            what is no address at all.

        Raises:
            maxminddb.InvalidDatabaseError: The file is damaged inside.
        """
        try:
            # An IPv4 address is looked up as it is: reading it in Python takes as long as finding its place.
            place = _place(self._reader.get((read_ip(ip) or "") if ":" in ip else ip))
        except (TypeError, ValueError):  # the reader's word for a null character, and for all else
            return None
        return place and self._places.setdefault(place, place)

    def close(self) -> None:
        """Let go of the file."""
        self._reader.close()


def _place(record: object) -> Place | None:
    country = _text(record, "country", "iso_code")
    if not country:
        return None
    return Place(country, _text(record, "city", "names", "en"), _time_zone(_text(record, "location", "time_zone")))


@lru_cache(maxsize=1_024)  # a file has some hundred
def _time_zone(name: str) -> str | None:
    """Return the name of a time zone; `None` for an unknown name, which would make a whole MongoDB query fail."""
    try:
        ZoneInfo(name)
    except (KeyError, OSError, ValueError):  # not known, a directory, no name
        return None
    return name


def _text(record: object, *path: str) -> str:
    for name in path:
        record = record.get(name) if isinstance(record, dict) else None
    return record if isinstance(record, str) else ""
