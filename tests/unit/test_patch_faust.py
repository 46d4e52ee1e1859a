"""Faust's channels, directories and web server: what is changed about them, and whether Faust still needs it."""

import asyncio
import socket
from pathlib import Path

import faust
import pytest
from faust.channels import Channel
from faust.web.drivers.aiohttp import Web as FaustWeb

from runtime.patches.faust import Application, OwnChannel, Web


def unused_port() -> int:
    with socket.socket() as listening:
        listening.bind(("127.0.0.1", 0))
        port: int = listening.getsockname()[1]
        return port


async def gets_what_was_put(channel: Channel[str]) -> bool:
    agents = channel.clone(is_iterator=True)
    await channel.put("value")  # type: ignore[arg-type]  # a channel may carry any value
    return bool(await agents.queue.get() == "value")


async def test_faust_still_blocks_channels_while_its_consumer_does_not_run() -> None:
    app = faust.App("channels", autodiscover=False)
    app.flow_control.suspend()
    putting = asyncio.ensure_future(gets_what_was_put(Channel(app)))
    for _ in range(20):
        await asyncio.sleep(0)
    is_open = putting.done() and putting.result()
    putting.cancel()
    assert not is_open, "remove me: Faust leaves channels alone, so patches.faust.OwnChannel can go"
    assert await gets_what_was_put(OwnChannel(app))


def test_faust_still_makes_directories(tmp_path: Path) -> None:
    faust.App("tables", autodiscover=False, datadir=tmp_path / "faust")._create_directories()
    assert (tmp_path / "faust").exists(), "remove me: Faust makes no directories, so ours need not be left out"
    Application("tables", autodiscover=False, datadir=tmp_path / "ours")._create_directories()
    assert not (tmp_path / "ours").exists()


@pytest.mark.skipif(not socket.has_dualstack_ipv6(), reason="there is no IPv6")
@pytest.mark.parametrize(("web", "only_ipv6"), [(FaustWeb, True), (Web, False)])
async def test_faust_still_listens_for_ipv6_alone(web: type[FaustWeb], only_ipv6: bool) -> None:
    app = faust.App("web", autodiscover=False, web_bind="::", web_port=unused_port())
    server = web(app)
    await server._runner.setup()
    site = server._new_transport_tcp()
    try:
        await site.start()
        (listening,) = site._server.sockets  # type: ignore[union-attr]
        found = bool(listening.getsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY))
        assert found is only_ipv6, "remove me: Faust listens for IPv4 too at ::, so patches.faust.Web can go"
    finally:
        await server._runner.cleanup()
