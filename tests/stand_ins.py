"""Servers that are not databases, to test errors about wrong addresses: each on a free port of 127.0.0.1."""

import socket
import ssl
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from ipaddress import ip_address
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID


def _web_server(connection: socket.socket) -> None:
    connection.recv(1024)
    connection.sendall(b"HTTP/1.1 400 Bad Request\r\nContent-Length: 0\r\n\r\n")


def _redis(connection: socket.socket) -> None:
    connection.recv(1024)
    connection.sendall(b"-ERR wrong number of arguments for 'get' command\r\n")


def _closing(connection: socket.socket) -> None:
    pass


def _silent(connection: socket.socket) -> None:
    while connection.recv(1024):
        pass


ANSWERS: Mapping[str, Callable[[socket.socket], None]] = {
    "web server": _web_server,
    "redis": _redis,
    "closing": _closing,
    "silent": _silent,
}


@contextmanager
def stand_in(kind: str, certificate: Path | None = None) -> Iterator[int]:
    """Run a server until the end; yield its port.

    Args:
        kind: One of `ANSWERS`.
        certificate: A PEM file with key and certificate: it speaks TLS.
    """
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER) if certificate else None
    if context and certificate:
        context.load_cert_chain(certificate)

    def answer(plain: socket.socket) -> None:
        plain.settimeout(30)
        try:
            with plain, context.wrap_socket(plain, server_side=True) if context else plain as connection:
                ANSWERS[kind](connection)
        except OSError:
            pass

    with socket.create_server(("127.0.0.1", 0)) as server:

        def accept() -> None:
            while True:
                try:
                    connection, _ = server.accept()
                except OSError:  # the end
                    return
                threading.Thread(target=answer, args=(connection,), daemon=True).start()

        threading.Thread(target=accept, daemon=True).start()
        yield server.getsockname()[1]
        server.shutdown(socket.SHUT_RDWR)


def self_signed(file: Path) -> Path:
    """Write a key and a certificate that nobody has signed into a PEM file; return it."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "127.0.0.1")])
    now = datetime.now(UTC)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(1)
        .not_valid_before(now - timedelta(days=1))
        .not_valid_after(now + timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([x509.IPAddress(ip_address("127.0.0.1"))]), critical=False)
        .sign(key, hashes.SHA256())
    )
    private = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    file.write_bytes(certificate.public_bytes(serialization.Encoding.PEM) + private)
    return file
