from contextlib import suppress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from enrich.ip_address import canonical_ip, hash_ip
from schemas.event import InvalidEvent

KEY = b"a key of thirty-two random bytes"


@pytest.mark.parametrize(
    ("written", "canonical"),
    [
        ("81.2.69.160", "81.2.69.160"),
        ("::ffff:81.2.69.160", "81.2.69.160"),
        ("::FFFF:5102:45A0", "81.2.69.160"),
        ("2001:DB8:0:0:0:0:0:1", "2001:db8::1"),
        ("2001:0db8::0001", "2001:db8::1"),
    ],
)
def test_an_address_has_one_canonical_form(written: str, canonical: str) -> None:
    assert canonical_ip(written) == canonical


@pytest.mark.parametrize(
    "written",
    [
        "",
        "unknown",
        "81.2.69.160:443",
        "[2001:db8::1]",
        "fe80::1%eth0",
        "81.2.69.160, 10.0.0.1",
        "81.2.69",
        "081.2.69.160",
    ],
)
def test_what_is_no_address_is_refused_without_repeating_it(written: str) -> None:
    with pytest.raises(InvalidEvent) as refused:
        hash_ip(written, KEY)
    assert refused.value.reason == "schema"
    assert refused.value.message == "ipAddress: should be an IPv4 or IPv6 address, without a port or a zone"
    assert refused.value.__cause__ is None


def test_equal_addresses_have_equal_hashes_however_they_are_written() -> None:
    assert hash_ip("::ffff:81.2.69.160", KEY) == hash_ip("81.2.69.160", KEY)
    assert hash_ip("2001:DB8::1", KEY) == hash_ip("2001:db8:0::1", KEY)


def test_the_hash_is_half_of_the_hmac_sha_256_of_the_canonical_address() -> None:
    # As `printf 81.2.69.160 | openssl dgst -sha256 -hmac 'a key of thirty-two random bytes'` prints it.
    assert hash_ip("81.2.69.160", KEY) == "4af8985d136db455a69f9f0b4ff4d4fe"


def test_another_key_gives_another_hash() -> None:
    assert hash_ip("81.2.69.160", KEY) != hash_ip("81.2.69.160", b"another key")


@given(st.ip_addresses())
def test_every_address_is_hashed(address: object) -> None:
    assert len(hash_ip(str(address), KEY)) == 32


@given(st.text())
def test_no_text_does_worse_than_being_refused(text: str) -> None:
    with suppress(InvalidEvent):
        assert len(hash_ip(text, KEY)) == 32
