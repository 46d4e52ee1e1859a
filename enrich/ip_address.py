"""IP addresses, and the hash that stands for one in a store.

In comes an address as a producer wrote it; out goes its canonical form, or a keyed hash of it. The address itself is
never stored and never part of a message.
"""

import hmac
from ipaddress import IPv4Address, IPv6Address, ip_address

from schemas.event import InvalidEvent


def canonical_ip(ip: str) -> str:
    """Write an address the one way: `::FFFF:1.2.3.4` is `1.2.3.4`, and `2001:DB8:0::1` is `2001:db8::1`.

    Args:
        ip: A single IPv4 or IPv6 address. A port, a zone (`fe80::1%eth0`) or a list of addresses is no part of it.

    Returns:
        The IPv4 address in dotted decimals, or the IPv6 address as RFC 5952 has it.

    Raises:
        ValueError: It is no IPv4 or IPv6 address. The message does not repeat what came.
    """
    address = _parsed(ip)
    if address is None or (isinstance(address, IPv6Address) and address.scope_id is not None):
        raise ValueError("should be an IPv4 or IPv6 address, without a port or a zone")
    return str(_unmapped(address))


def hash_ip(ip: str, key: bytes) -> str:
    """Hash an address so that equal addresses stay equal and nobody without the key can tell which they were.

    HMAC-SHA-256 over the canonical form, the first half of it, which is what RFC 2104 (section 5) allows: 128 bits
    make no two strangers one visitor. It is keyed because a plain hash of all four thousand million IPv4 addresses can
    be tried in minutes. The other half would be the costliest 32 bytes of a view: random digits do not compress, and
    MongoDB's journal took a fifth fewer views a second with them.

    Args:
        ip: A single IPv4 or IPv6 address.
        key: The secret key, of any length; 32 random bytes are right.

    Returns:
        32 lower-case hexadecimal digits.

    Raises:
        InvalidEvent: `ip` is no IPv4 or IPv6 address.
    """
    try:
        canonical = canonical_ip(ip)
    except ValueError as error:
        raise InvalidEvent("schema", f"ipAddress: {error}") from None
    return hmac.digest(key, canonical.encode(), "sha256")[:16].hex()


def _parsed(ip: str) -> IPv4Address | IPv6Address | None:
    try:
        return ip_address(ip)
    except ValueError:
        # Its message quotes the address, and an address is personal: it must not travel with an error.
        return None


def _unmapped(address: IPv4Address | IPv6Address) -> IPv4Address | IPv6Address:
    return (isinstance(address, IPv6Address) and address.ipv4_mapped) or address
