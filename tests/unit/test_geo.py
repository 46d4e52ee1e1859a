from collections.abc import Iterator
from importlib.resources import files
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from enrich.geo import GeoDatabase, GeoDatabaseError, Place, _place

DEVELOPMENT_FILE = Path(str(files("_maxminddb_geolite2") / "GeoLite2-City.mmdb"))


@pytest.fixture(scope="module")
def geo() -> Iterator[GeoDatabase]:
    database = GeoDatabase.open(DEVELOPMENT_FILE)
    yield database
    database.close()


def test_an_address_has_a_country_a_city_and_a_time_zone(geo: GeoDatabase) -> None:
    assert geo.locate("81.2.69.160") == Place("GB", "Willesden", "Europe/London")


def test_an_ipv4_address_written_as_ipv6_is_in_the_same_place(geo: GeoDatabase) -> None:
    assert geo.locate("::ffff:81.2.69.160") == geo.locate("81.2.69.160")


def test_where_only_the_country_is_known_there_is_no_time_zone(geo: GeoDatabase) -> None:
    place = geo.locate("8.8.8.8")
    assert place == Place("US", "", None)
    assert place is not None
    assert place.document() == {"country": "US", "city": ""}


@pytest.mark.parametrize(
    "name", ["", " ", "Europe/Berlin ", "Mars/Olympus", "Europe", "../Europe/Berlin", "/etc", "a\0b"]
)
def test_what_is_no_time_zone_is_left_out(name: str) -> None:
    record = {"country": {"iso_code": "DE"}, "city": {"names": {"en": "Berlin"}}, "location": {"time_zone": name}}
    assert _place(record) == Place("DE", "Berlin", None)


@pytest.mark.parametrize("name", ["Europe/Berlin", "Asia/Calcutta", "America/Argentina/Ushuaia", "Etc/UTC"])
def test_a_time_zone_that_there_is_stays_as_it_is_written(name: str) -> None:
    place = _place({"country": {"iso_code": "DE"}, "location": {"time_zone": name}})
    assert place is not None
    assert place.document() == {"country": "DE", "city": "", "timezone": name}


@pytest.mark.parametrize(
    "ip",
    ["10.0.0.1", "127.0.0.1", "192.168.1.7", "100.64.0.1", "169.254.1.1", "0.0.0.0", "::1", "fe80::1", "fd00::1"],
)
def test_private_and_reserved_addresses_are_nowhere(geo: GeoDatabase, ip: str) -> None:
    assert geo.locate(ip) is None


@given(st.text() | st.ip_addresses().map(str))
def test_no_text_is_too_strange_to_be_looked_up(geo: GeoDatabase, text: str) -> None:
    place = geo.locate(text)
    assert place is None or place.country


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(GeoDatabaseError, match=r"nowhere\.mmdb: No such file"):
        GeoDatabase.open(tmp_path / "nowhere.mmdb")


@pytest.mark.parametrize("content", [b"", b"no database", DEVELOPMENT_FILE.read_bytes()[:100_000]])
def test_a_damaged_file_is_named(tmp_path: Path, content: bytes) -> None:
    damaged = tmp_path / "damaged.mmdb"
    damaged.write_bytes(content)
    with pytest.raises(GeoDatabaseError, match=r"damaged\.mmdb is damaged"):
        GeoDatabase.open(damaged)


def test_a_directory_is_no_database(tmp_path: Path) -> None:
    with pytest.raises(GeoDatabaseError):
        GeoDatabase.open(tmp_path)


def test_a_database_without_cities_is_refused(tmp_path: Path) -> None:
    without_cities = tmp_path / "asn.mmdb"
    without_cities.write_bytes(DEVELOPMENT_FILE.read_bytes().replace(b"GeoLite2-City", b"GeoLite2-ASNs"))
    with pytest.raises(GeoDatabaseError, match="GeoLite2-ASNs database; a City database is needed"):
        GeoDatabase.open(without_cities)
