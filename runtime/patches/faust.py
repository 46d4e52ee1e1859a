"""Changes to faust-streaming 0.15: an application without Faust's own Kafka clients, tables and terminal output.

1. `OwnChannel`: Faust empties and blocks every channel while its own consumer rebalances, or has not started. Ours read
   Kafka themselves, and Faust's consumer never runs.
   Upstream: https://github.com/robinhood/faust/issues/678 and https://github.com/robinhood/faust/issues/153
2. `Application`: starts neither Faust's consumer nor its producer, which would join a consumer group of their own;
   after a crash the next worker would wait a minute for the dead member. It makes no directories for tables.
   Upstream: `BootStrategy` is Faust's own answer (https://github.com/robinhood/faust/issues/234), so it stays; for the
   directories no issue found.
3. `Web`: listens at `::` for IPv4 too; an event loop makes that socket for IPv6 alone.
   Upstream: no issue found.

Remove each change when its test in tests/unit/test_patch_faust.py says so.
"""

import logging
import socket
from typing import TypeVar

import faust
from aiohttp.web import BaseSite, SockSite
from faust.app.base import BootStrategy
from faust.channels import Channel
from faust.web.drivers.aiohttp import Web as FaustWeb
from mode.utils.queues import FlowControlEvent, ThrowableQueue

T = TypeVar("T")


class OwnChannel(Channel[T]):
    """A channel that Faust neither empties nor blocks."""

    @property
    def queue(self) -> ThrowableQueue[T]:
        """The queue behind the channel, made on first use as it belongs to the running event loop."""
        if self._queue is None:
            self._queue = ThrowableQueue(flow_control=FlowControlEvent(initially_suspended=False))
        return self._queue


class QuietWorker(faust.Worker):
    """Faust's process, without its spinner and with the log as we configured it."""

    def on_setup_root_logger(self, logger: logging.Logger, level: int) -> None:
        """Leave the root logger alone; Faust would set the level of its own command-line option."""


class WithoutKafka(BootStrategy):
    """Starts everything but Faust's own consumer and producer."""

    enable_kafka = False


class Application(faust.App):
    """Faust's application, without its own Kafka clients and without directories for tables."""

    BootStrategy = WithoutKafka

    def _create_directories(self) -> None:
        pass


class Web(FaustWeb):
    """Faust's web server, which listens at `::` for IPv4 too."""

    def _new_transport_tcp(self) -> BaseSite:
        configuration = self.app.conf
        if configuration.web_bind != "::" or not socket.has_dualstack_ipv6():
            site: BaseSite = super()._new_transport_tcp()
            return site
        address = ("::", configuration.web_port)
        listening = socket.create_server(address, family=socket.AF_INET6, dualstack_ipv6=True)
        listening.setblocking(False)
        return SockSite(self._runner, listening)
