"""Masks: what a terminal shows of addresses and tokens."""

import pytest

from notifications.states import device_name
from ops.notifications.masking import masked_address, masked_token, without_addresses


@pytest.mark.parametrize(
    ("address", "masked"),
    [
        ("grace.hopper@example.org", "g…@example.org"),
        ("a@example.org", "a…@example.org"),
        ('"a@b"@example.org', '"…@example.org'),
        ("@example.org", "…@example.org"),
        ("nonsense", "n…"),
        ("", "…"),
    ],
)
def test_of_an_address_the_first_letter_and_the_domain_are_shown(address: str, masked: str) -> None:
    assert masked_address(address) == masked


def test_a_token_is_shown_by_its_devices_name() -> None:
    assert masked_token("token") == f"device:{device_name('token')}"
    assert "token" not in masked_token("token")


def test_addresses_within_a_text_are_masked() -> None:
    said = "550 5.1.1 <grace.hopper@example.org>: no such user, nor ada@example.org. Ask at 17:00"
    assert without_addresses(said) == "550 5.1.1 <g…@example.org>: no such user, nor a…@example.org. Ask at 17:00"
