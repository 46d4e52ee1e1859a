"""Masks personal data: addresses and tokens, for output on a terminal.

Input: texts. Output: texts that contain no usable address or token.
"""

import re

from notifications.states import device_name

# It begins where a word does: tried within one as well, it would take a time that grows with the square of its length.
_ADDRESS = re.compile(r"(?<![^\s<>()\[\]\"',;:=@])[^\s<>()\[\]\"',;:=@]+@[^\s<>()\[\]\"',;:=@]+")


def masked_address(address: str) -> str:
    """Return an e-mail address as `a…@example.org`."""
    mailbox, at, domain = address.rpartition("@")
    return f"{mailbox[:1]}…{at}{domain}" if at else f"{address[:1]}…"


def masked_token(token: str) -> str:
    """Return a device's name in place of its token: `device:3fa94c1d0b2e5f68`."""
    return f"device:{device_name(token)}"


def without_addresses(text: str) -> str:
    """Return a text with every e-mail address in it masked."""
    return _ADDRESS.sub(lambda found: masked_address(found[0]), text)
