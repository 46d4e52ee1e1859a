"""What the contract tests of providers share: an e-mail, clients, and a certificate."""

import os
import ssl
import unicodedata
from collections.abc import AsyncIterator, Callable, Iterator
from datetime import UTC, datetime, timedelta
from ipaddress import ip_address
from pathlib import Path
from typing import Any

import httpx
import httpx._transports.default as transports
import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from hypothesis import strategies as st

from notifications.messages import Email
from providers import http

KEY = "0123456789abcdef0123456789abcdef"
ANYTHING = st.text(
    alphabet=st.one_of(st.sampled_from("\r\n\x00\x0b\x85\u2028 \t:;,<>@\"'\\=?aé世🎉"), st.characters()), max_size=120
)
"""Texts that people may write, with what could begin a header, end a name or start an address in them."""
INJECTED = "\r\nBcc: eve@evil.example\r\n\r\n"
NOW = datetime(2026, 3, 1, 12, tzinfo=UTC)
MakeEmail = Callable[..., Email]


class Clock:
    """A clock that the test moves."""

    def __init__(self) -> None:
        self.now = NOW

    def __call__(self) -> datetime:
        return self.now


def make_email(**changes: Any) -> Email:
    """Make an e-mail with all that one can have."""
    fields: dict[str, Any] = {
        "key": KEY,
        "to": "ada.lovelace@reader.example",
        "sender": "The Blog <news@blog.example>",
        "subject": "Charles replied to you",
        "text": "Hello Ada,\n\nCharles replied.\n",
        "html": "<p>Hello Ada,</p><p>Charles replied.</p>",
        "unsubscribe_url": "https://blog.example/unsubscribe?user=u1&token=" + "a1b2" * 40,
        "metadata": {"notificationId": "66f0c0ffee66f0c0ffee66f0", "type": "comment.reply"},
    }
    return Email(**(fields | changes))


def injecting_email(subject: str, name: str, url: str = "") -> Email:
    """Make an e-mail whose subject, name and URL try to begin headers of their own."""
    return make_email(
        subject=subject + INJECTED + subject,
        sender=f"{name}{INJECTED}{name} <news@blog.example>",
        unsubscribe_url=f"https://blog.example/{url}{INJECTED}{url}",
    )


def is_one_line(text: str) -> bool:
    return len(text.splitlines()) == 1 and not any(unicodedata.category(letter) == "Cc" for letter in text)


@pytest.fixture(autouse=True, scope="session")
def trust_read_once() -> Iterator[None]:
    """Read the certificates of authorities once: each client does it, and it takes longer than most of these tests."""
    contexts: dict[tuple[object, ...], ssl.SSLContext] = {}
    create = httpx.create_ssl_context

    def create_once(*arguments: Any, **options: Any) -> ssl.SSLContext:
        key = (*arguments, *sorted(options.items()), *map(os.environ.get, ("SSL_CERT_FILE", "SSL_CERT_DIR")))
        if key not in contexts:
            contexts[key] = create(*arguments, **options)
        return contexts[key]

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(transports, "create_ssl_context", create_once)
        yield


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def email() -> MakeEmail:
    return make_email


@pytest.fixture
async def client() -> AsyncIterator[httpx.AsyncClient]:
    async with http.client(timeout=timedelta(seconds=5)) as made:
        yield made


@pytest.fixture
async def hasty_client() -> AsyncIterator[httpx.AsyncClient]:
    """A client that waits for an answer no longer than a fifth of a second."""
    async with http.client(timeout=timedelta(seconds=0.2)) as made:
        yield made


@pytest.fixture(scope="session")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A file with a key and a certificate for 127.0.0.1 that nobody trusts."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "127.0.0.1")])
    now = datetime.now(UTC)
    made = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - timedelta(hours=1))
        .not_valid_after(now + timedelta(hours=1))
        .add_extension(x509.SubjectAlternativeName([x509.IPAddress(ip_address("127.0.0.1"))]), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
    )
    path = tmp_path_factory.mktemp("tls") / "server.pem"
    secret = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    path.write_bytes(secret + made.public_bytes(Encoding.PEM))
    return path


@pytest.fixture
def tls(certificate: Path) -> ssl.SSLContext:
    """What a server with that certificate needs."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate)
    return context


@pytest.fixture
def trusted(certificate: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Trust that certificate, as an operator does with one of a company's own."""
    monkeypatch.setenv("SSL_CERT_FILE", str(certificate))
