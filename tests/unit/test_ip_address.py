from ipaddress import IPv4Address, IPv6Address, ip_address

import pytest
from hypothesis import given
from hypothesis import strategies as st

from enrich.ip_address import hash_ip, read_ip

KEY = b"a key of thirty-two random bytes"


@pytest.mark.parametrize(
    ("written", "canonical"),
    [
        ("81.2.69.160", "81.2.69.160"),
        ("::ffff:81.2.69.160", "81.2.69.160"),
        ("::FFFF:5102:45A0", "81.2.69.160"),
        ("2001:DB8:0:0:0:0:0:1", "2001:db8::1"),
        ("2001:0db8::0001", "2001:db8::1"),
        ("81.2.69.160:51344", "81.2.69.160"),
        (" 81.2.69.160\n", "81.2.69.160"),
        ("[::1]:443", "::1"),
        ("[2001:db8::1]", "2001:db8::1"),
        ("[2001:db8::1]:443", "2001:db8::1"),
        ("[::ffff:81.2.69.160]:443", "81.2.69.160"),
        ("::ffff:81.2.69.160:443", "81.2.69.160"),
        ("fe80::1%eth0", "fe80::1"),
        ("[fe80::1%25eth0]:8080", "fe80::1"),
        ("81.2.69.160, 10.0.0.1", "81.2.69.160"),
        ("2001:db8::1,10.0.0.1", "2001:db8::1"),
        ("unknown, 81.2.69.160:80", "81.2.69.160"),
    ],
)
def test_an_address_has_one_canonical_form_however_a_server_wrote_it(written: str, canonical: str) -> None:
    assert read_ip(written) == canonical


@pytest.mark.parametrize(
    "written",
    [
        "",
        "unknown",
        "_hidden",
        "localhost:3000",
        "81.2.69",
        "081.2.69.160",
        "81.2.69.160:",
        "81.2.69.160:123456",
        "81.2.69.160:443:443",
        "[81.2.69.160",
        "[]:443",
        "2001:db8::1::",
        "\uff11.\uff12.\uff13.\uff14",
        "81.2.69.160\0",
        ",,",
    ],
)
def test_what_can_not_be_read_is_no_address(written: str) -> None:
    assert read_ip(written) is None


def test_the_hash_is_half_of_the_hmac_sha_256_of_the_canonical_address() -> None:
    # As `printf 81.2.69.160 | openssl dgst -sha256 -hmac 'a key of thirty-two random bytes'` prints it.
    assert hash_ip("81.2.69.160", KEY) == "4af8985d136db455a69f9f0b4ff4d4fe"


def test_another_key_gives_another_hash() -> None:
    assert hash_ip("81.2.69.160", KEY) != hash_ip("81.2.69.160", b"another key")


@given(st.ip_addresses())
def test_every_address_is_read_with_and_without_a_port_and_hashed(address: IPv4Address | IPv6Address) -> None:
    alone = read_ip(str(address))
    assert alone is not None
    assert len(hash_ip(alone, KEY)) == 32
    assert read_ip(f"{address}:443" if address.version == 4 else f"[{address}]:443") == alone
    assert read_ip(alone) == alone


@given(st.text())
def test_any_text_is_an_address_or_none(text: str) -> None:
    ip = read_ip(text)
    assert ip is None or ip == str(ip_address(ip))


@pytest.mark.parametrize(
    ("written", "address"),
    [
        ('"81.2.69.160"', "81.2.69.160"),
        ("'81.2.69.160:443'", "81.2.69.160"),
        ('"[2001:db8::1]:4711"', "2001:db8::1"),
        ("/81.2.69.160:51344", "81.2.69.160"),
        ("/[2001:db8::1]:443", "2001:db8::1"),
        ("for=192.0.2.60", "192.0.2.60"),
        ("for=192.0.2.60;proto=http;by=203.0.113.43", "192.0.2.60"),
        ('For="[2001:db8:cafe::17]:4711"', "2001:db8:cafe::17"),
        ("for=unknown, for=192.0.2.60", "192.0.2.60"),
        ('for="_hidden", for="[::1]"', "::1"),
    ],
)
def test_an_address_is_read_with_what_headers_and_runtimes_write_around_it(written: str, address: str) -> None:
    assert read_ip(written) == address
