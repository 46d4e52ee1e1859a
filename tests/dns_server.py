"""A small DNS server on loopback, for names that only a test has; and how a process is made to ask it."""

import socketserver
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import dns.flags
import dns.message
import dns.rcode
import dns.rdatatype
import dns.rrset

from dev.ports import Ports

Records = Mapping[tuple[str, str], list[str]]
"""Texts of records by name and type; a name that has records of another type alone has no answer."""


class DnsServer:
    """A DNS server that may be away.

    Args:
        records: All that it knows; may be replaced while it runs.
        code: What it answers to everything, where it is not to answer from the records.
    """

    def __init__(self, records: Records) -> None:
        self.records = records
        self.code: dns.rcode.Rcode | None = None
        self.asked = 0
        self.port = Ports.free().worker

    @property
    def prelude(self) -> str:
        """Python that makes a process ask this server, and no other."""
        return (
            "import dns.asyncresolver as asking\n"
            "asking.default_resolver = asking.Resolver(configure=False)\n"
            "asking.default_resolver.nameservers = ['127.0.0.1']\n"
            f"asking.default_resolver.port = {self.port}\n"
        )

    @contextmanager
    def running(self) -> Iterator[None]:
        """Answer until the end of the block."""
        server = self

        class Handler(socketserver.BaseRequestHandler):
            def handle(self) -> None:
                data, socket = self.request
                socket.sendto(server._reply(data), self.client_address)

        with socketserver.UDPServer(("127.0.0.1", self.port), Handler) as udp:
            thread = threading.Thread(target=udp.serve_forever, kwargs={"poll_interval": 0.05})
            thread.start()
            try:
                yield
            finally:
                udp.shutdown()
                thread.join()

    def _reply(self, data: bytes) -> bytes:
        self.asked += 1
        query = dns.message.from_wire(data)
        reply: Any = dns.message.make_response(query)
        reply.flags |= dns.flags.RA
        question = query.question[0]
        name, kind = question.name.to_text(omit_final_dot=True), dns.rdatatype.to_text(question.rdtype)
        if self.code is not None:
            reply.set_rcode(self.code)
        elif texts := self.records.get((name, kind)):
            reply.answer.append(dns.rrset.from_text(question.name, 60, "IN", kind, *texts))
        elif not any(known == name for known, _ in self.records):
            reply.set_rcode(dns.rcode.NXDOMAIN)
        return bytes(reply.to_wire())
