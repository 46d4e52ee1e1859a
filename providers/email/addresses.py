"""The head of an e-mail: addresses, names, the subject and added headers, safe for any content.

Input: texts that people wrote. Output: lines without a line break or anything else that could begin another header. In
a provider's error message, the address and the subject are masked.
"""

import re
from email.header import Header
from typing import NamedTuple
from urllib.parse import quote

from notifications.messages import Email
from notifications.outcome import Misconfigured, Refused
from schemas.email_address import InvalidAddress, read

# What `str.splitlines` breaks a line at, and all else that is not to be seen: C0, DEL, C1, and Unicode's separators.
_CONTROLS = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029]+")
# It begins where a word does: tried within one as well, it would take a time that grows with the square of its length.
_ADDRESS = re.compile(r"(?:<|(?<![^\s<>()\[\]\"',;:=]))[^\s<>()\[\]\"',;:=]+(?:@|%40)[^\s<>()\[\]\"',;:=]+>?")
# RFC 5322, section 3.2.3, and letters beyond ASCII: what needs no quotes.
_ATOMS = re.compile(r"[\w !#$%&'*+/=?^`{|}~-]+")
# With the header's name before it, a word of this length leaves its line within the 76 characters of RFC 2047.
_LONGEST_WORD = 64
# RFC 5322, section 2.1.1, has 998 for a line with the header's name.
_LONGEST_LINE = 900
_READ = 10_000
_KEPT = 500
_IN_URL = "%/:=&?~#+!$,;'@()*[]"


class Mailbox(NamedTuple):
    """One person's address, and the name before it.

    Attributes:
        name: The display name; may be empty.
        address: Its domain in ASCII (Punycode). The part before the `@` may be any text: see `is_ascii`.
    """

    name: str
    address: str

    @property
    def is_ascii(self) -> bool:
        """Whether every server supports the address; others need SMTPUTF8 (RFC 6531)."""
        return self.address.isascii()

    @property
    def domain(self) -> str:
        """The part after the `@`."""
        return self.address.rpartition("@")[2]

    def quoted(self) -> str:
        """Return the mailbox in one line, its name in Unicode, quoted if needed."""
        return f"{_phrase(self.name)} <{self.address}>" if self.name else self.address

    def encoded(self, line_break: str = "") -> str:
        """Return the mailbox by RFC 5322: the name in ASCII, or encoded by RFC 2047."""
        if not self.name:
            return self.address
        if _is_plain(self.name):
            return self.quoted()
        return f"{encode(self.name, line_break)}{line_break} <{self.address}>"


class Envelope(NamedTuple):
    """Sender and recipient."""

    sender: Mailbox
    recipient: Mailbox


def address(message: Email) -> Envelope | Refused | Misconfigured:
    """Read a message's addresses; an invalid one is an outcome without asking the provider."""
    try:
        sender = _mailbox(message.sender)
    except InvalidAddress as error:
        return Misconfigured("sender", f"the sender's address can't be read: {error}")
    try:
        recipient = Mailbox("", read(message.to).text)
    except InvalidAddress as error:
        # What we can't read may be a mailbox all the same: it says nothing of the person.
        return Refused("invalid-address", f"the recipient's address can't be read: {error}", recipient_is_gone=False)
    return Envelope(sender, recipient)


def address_in_ascii(message: Email) -> Envelope | Refused | Misconfigured:
    """Read a message's addresses for a provider that accepts only ASCII."""
    envelope = address(message)
    if isinstance(envelope, Envelope) and not envelope.sender.is_ascii:
        return Misconfigured("sender", "the provider takes no sender outside ASCII")
    if isinstance(envelope, Envelope) and not envelope.recipient.is_ascii:
        return Refused("recipient", "the provider takes no address outside ASCII", recipient_is_gone=False)
    return envelope


def one_line(text: str) -> str:
    """Return a text as one line: control characters and line breaks become a space each."""
    return " ".join(part for part in _CONTROLS.split(encodable(text)) if part).strip()


def encodable(text: str) -> str:
    """Return a text that UTF-8 can encode: halves of surrogate pairs become question marks."""
    return text.encode("utf-8", "replace").decode()


def encode(text: str, line_break: str = "") -> str:
    """Return one line for a header: ASCII, or encoded words (RFC 2047) with a line break and a space between."""
    if _is_plain(text):
        return text
    return Header(text, "utf-8", maxlinelen=_LONGEST_WORD).encode(linesep=line_break)


def added_headers(message: Email) -> dict[str, str]:
    """Return the headers that every provider adds: that a program wrote the message, and how to unsubscribe.

    `Auto-Submitted` keeps absence replies and other programs from replying (RFC 3834, section 5). There is no
    `Precedence`: no RFC defines its values, and RFC 2076 discourages it.

    A mail reader unsubscribes in one click (RFC 8058, section 3.1; RFC 2369, section 3.2); without a URL these headers
    are left out. The URL stands in one piece: encoded words would spoil it.
    """
    headers = {"Auto-Submitted": "auto-generated"}
    if message.unsubscribe_url is not None:
        url = quote(message.unsubscribe_url, safe=_IN_URL, errors="replace")
        headers |= {"List-Unsubscribe": f"<{url}>", "List-Unsubscribe-Post": "List-Unsubscribe=One-Click"}
    return headers


def without_personal(text: str, message: Email) -> str:
    """Return a provider's text in one line of at most 500 characters, without the recipient and the subject.

    Every address but the sender's becomes `<recipient>`; so does the recipient's part before the `@` where it stands
    alone. The subject becomes `<subject>`.
    """
    said = one_line(text[:_READ])
    for subject in {one_line(message.subject), encodable(message.subject)} - {""}:
        said = _replace(said, subject, "<subject>")
    said = _replace(said, message.to, "<recipient>")
    sender = message.sender.rpartition("<")[2].rstrip("> ").lower()
    said = _ADDRESS.sub(lambda found: found[0] if found[0].strip("<>").lower() == sender else "<recipient>", said)
    said = _replace(said, message.to.rpartition("@")[0], "<recipient>")
    return said.replace("<<recipient>>", "<recipient>")[:_KEPT]


def _mailbox(text: str) -> Mailbox:
    name, bracket, rest = text.rpartition("<")
    if not bracket:
        return Mailbox("", read(text).text)
    return Mailbox(one_line(name).strip('" '), read(rest.strip().removesuffix(">")).text)


def _is_plain(text: str) -> bool:
    # What looks like an encoded word has to be encoded, to be read as it is.
    return text.isascii() and "=?" not in text and len(text) <= _LONGEST_LINE


def _phrase(name: str) -> str:
    if _ATOMS.fullmatch(name):
        return name
    escaped = name.replace("\\", r"\\").replace('"', r"\"")
    return f'"{escaped}"'


def _replace(text: str, word: str, by: str) -> str:
    """Replace whole words, ignoring case."""
    return re.sub(rf"(?<!\w){re.escape(word)}(?!\w)", by, text, flags=re.IGNORECASE) if word else text
