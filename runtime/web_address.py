"""The address of the worker's pages: as a URL, and whether this machine can listen there.

Imports nothing of the program, as the container's health check starts it every few seconds.
"""

import errno
import socket

_ALL_ADDRESSES = {"0.0.0.0": "127.0.0.1", "::": "::1"}  # noqa: S104 - nothing listens here


def in_url(host: str) -> str:
    """Return a host as a URL has it: an IPv6 address in brackets (RFC 3986, section 3.2.2; its zone by RFC 6874)."""
    return f"[{host.replace('%', '%25')}]" if ":" in host else host


def url(host: str, port: int | str) -> str:
    """Return the URL at which this machine reaches what listens there; for all addresses, the loopback address's."""
    return f"http://{in_url(_ALL_ADDRESSES.get(host, host))}:{port}"


def obstacle(host: str, port: int, *, setting: str = "INKSTREAM_WEB_PORT") -> str | None:
    """Return why nothing can listen there, with the setting to change; `None` where something can.

    Args:
        host: Where to listen.
        port: The port there.
        setting: The setting that has the port.
    """
    try:
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
    except (OSError, UnicodeError):
        return f"INKSTREAM_WEB_HOST: no address is known for the host {host!r}"
    for family, kind, protocol, _, address in found:
        try:
            with socket.socket(family, kind, protocol) as probe:
                probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # as servers do: ignores TIME_WAIT
                probe.bind(address)
        except OSError as error:
            return _reason(error, host, port, setting)
    return None


def _reason(error: OSError, host: str, port: int, setting: str) -> str:
    match error.errno:
        case errno.EADDRINUSE:
            return (
                f"another program listens on {in_url(host)}:{port}, perhaps another worker: "
                f"end it, or set {setting} to a free port"
            )
        case errno.EADDRNOTAVAIL:
            return (
                f"INKSTREAM_WEB_HOST: this machine does not have the address {host}; set one that it has, "
                "0.0.0.0 for all of IPv4, or :: for all"
            )
        case errno.EAFNOSUPPORT:
            return f"INKSTREAM_WEB_HOST: this machine has no IPv6, which {host} needs; set 0.0.0.0 for all of IPv4"
        case errno.EACCES:
            return f"{setting}: no permission to listen on port {port}; set one above 1023"
        case _:
            return f"INKSTREAM_WEB_HOST: can't listen on {in_url(host)}:{port}: {error.strerror}"
