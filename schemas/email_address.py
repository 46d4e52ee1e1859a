"""Normalises e-mail addresses: a mailbox that is written in several ways has one address and one identity.

Input: an address as a service, the platform, a provider or an operator wrote it.
Output: the address as it is sent to, and its identity, by which it is suppressed.

The grammar is RFC 5321's, section 4.1.2, without what only a mail server can judge: whether a mailbox with two dots in
a row exists, whether `.local` is a domain, how long a name may be. docs/notifications.md has the rules as a table.
"""

import re
import unicodedata
from ipaddress import AddressValueError, IPv4Address, IPv6Address
from typing import NamedTuple

from ada_url import idna_to_ascii, idna_to_unicode

LONGEST = 320
"""Characters in an address: RFC 3696, section 3, has 64 before the `@` and 255 behind it."""

# Not to be seen, and never meant: soft hyphen, zero-width space, marks of direction, word joiner, byte order mark.
_INVISIBLE = re.compile(r"[\u00ad\u180e\u200b\u200e\u200f\u202a-\u202e\u2060-\u206f\ufeff]")
# Within a local part some scripts need the two joiners; at the ends none does.
_AROUND = "\u200c\u200d" + "".join(
    character for character in map(chr, range(0x3001)) if character.isspace() or unicodedata.category(character) == "Cc"
)
_WIDE = str.maketrans({"\uff20": "@", "\ufe6b": "@"})
_SCHEME = re.compile(r"mailto:", re.IGNORECASE)
_HEX_PAIR = re.compile(r"%([0-9a-f]{2})", re.IGNORECASE)
# A name in quotes, or one without anything that could be another address, and the address behind it.
_NAMED = re.compile(r'(?:"(?:[^"\\]|\\.)*"\s*|[^<>@"]*)<([^<>]*)>')
# Everything that separates addresses, headers or commands is left out, also where quotes would allow it.
_LOCAL = r"[^\s\x00-\x20\x7f-\x9f\ud800-\udfff<>()\[\],;:\\\"@]+"
_PLAIN = re.compile(_LOCAL)
_QUOTED = re.compile(r'"((?:[^\s\x00-\x1f\x7f-\x9f\ud800-\udfff<>()\[\],;:\\"@]|[ ])+)"')
_LABEL = re.compile(r"[a-z0-9_-]{1,63}")
_DOTS = re.compile(r"[.\u3002\uff0e\uff61]")
_LONGEST_DOMAIN = 255


class InvalidAddress(ValueError):  # noqa: N818  # what a text is, not a fault of ours
    """A text that is not an address; the message says why, and contains nothing of it."""


class EmailAddress(NamedTuple):
    """An address.

    Attributes:
        text: As it is sent to: `Ada@example.org`. The domain is in lower case and ASCII (Punycode); what stands before
            the `@` is as it was given, in Unicode's normal form C.
        identity: The same for every way to write the mailbox: `ada@example.org`.
    """

    text: str
    identity: str

    def __repr__(self) -> str:
        """Hide the address: this may be logged."""
        return "EmailAddress()"

    @property
    def earlier_identities(self) -> frozenset[str]:
        """The identities that earlier releases may have stored it under: the domain in Unicode, other normal forms."""
        local, _, domain = self.identity.rpartition("@")
        readable = f"{local}@{idna_to_unicode(domain)}"
        decomposed = {unicodedata.normalize("NFD", text) for text in (readable, self.identity)}
        return frozenset({readable, *decomposed})


def read(text: str) -> EmailAddress:
    """Read an address in any notation.

    Taken away: blanks and invisible characters around it, `mailto:`, angle brackets with or without a name before them,
    quotes that are not needed, the dot at a domain's end.

    Raises:
        InvalidAddress: It is not an address, or several.
    """
    if len(text) > 4 * LONGEST:
        raise InvalidAddress(f"it has more than {LONGEST} characters")
    bare = _bare(unicodedata.normalize("NFC", _INVISIBLE.sub("", text)).translate(_WIDE))
    local, at, domain = bare.rpartition("@")
    if not at:
        raise InvalidAddress("it has no @")
    address = f"{_local(local)}@{_domain(domain)}"
    if len(address) > LONGEST:
        raise InvalidAddress(f"it has more than {LONGEST} characters")
    # In practice no two mailboxes differ only by case, although RFC 5321 allows it.
    return EmailAddress(address, unicodedata.normalize("NFC", address.lower()))


def normalised(text: str) -> str:
    """Return an address as it is sent to; if it is not an address, the text without blanks around it."""
    try:
        return read(text).text
    except InvalidAddress:
        return _trimmed(text)


def _bare(text: str) -> str:
    text = _trimmed(text)
    if scheme := _SCHEME.match(text):
        # RFC 6068: behind the question mark are headers.
        text = _trimmed(_decoded(text[scheme.end() :].partition("?")[0]))
    if named := _NAMED.fullmatch(text):
        text = _trimmed(named[1])
    return text


def _trimmed(text: str) -> str:
    return text.strip(_AROUND)


def _decoded(text: str) -> str:
    """Decode what stands in a URL as `%40`; only ASCII is, as in the mailbox of a URL nothing else is usual."""
    return _HEX_PAIR.sub(lambda found: chr(int(found[1], 16)) if int(found[1], 16) < 0x80 else found[0], text)


def _local(text: str) -> str:
    if _PLAIN.fullmatch(text):
        return text
    quoted = _QUOTED.fullmatch(text)
    if not quoted:
        raise InvalidAddress("what stands before the @ is empty, or has a character that can't be there")
    return quoted[1] if _PLAIN.fullmatch(quoted[1]) else text


def _domain(text: str) -> str:
    if text.startswith("[") and text.endswith("]"):
        return _literal(text[1:-1])
    labels = [_label(label) for label in _DOTS.split(text)]
    if len(labels) > 1 and not labels[-1]:
        labels.pop()
    domain = ".".join(labels)
    if not all(_LABEL.fullmatch(label) for label in labels) or len(domain) > _LONGEST_DOMAIN:
        raise InvalidAddress("what stands behind the @ is no domain")
    return domain


def _label(text: str) -> str:
    try:
        return str(idna_to_ascii(text), "ascii")
    except (UnicodeError, ValueError):
        return ""


def _literal(text: str) -> str:
    try:
        # What stands behind a percent sign is a network's name, which may hold anything.
        if text.lower().startswith("ipv6:") and "%" not in text:
            return f"[IPv6:{IPv6Address(text[5:])}]"
        return f"[{IPv4Address(text)}]"
    except AddressValueError:
        raise InvalidAddress("what stands in brackets is no IP address") from None
