"""The proxy of the chaos harness: each trouble is what it says, and what comes through is whole and in order."""

import asyncio
import socket
import struct
import sys
import time
from asyncio import StreamReader, StreamWriter
from collections.abc import AsyncIterator
from contextlib import suppress
from pathlib import Path
from random import randbytes
from typing import Self

import psutil
import pytest

from dev.ports import Ports
from runtime.settings import ROOT
from tests.chaos.proxied import ProxiedPlatform
from tests.chaos.proxy import Proxy, ProxyError, Route

SOON_SECONDS = 10.0
A_WHILE_SECONDS = 0.2


class Echo:
    """A server that sends back what it gets, and knows what that was."""

    def __init__(self) -> None:
        self.port = Ports.free().redis
        self.pieces: list[bytes] = []
        self.ends = 0
        self.reads = asyncio.Event()
        self.reads.set()
        self.writers: list[StreamWriter] = []
        self._server: asyncio.Server | None = None

    async def __aenter__(self) -> Self:
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", self.port)
        return self

    async def __aexit__(self, *_: object) -> None:
        assert self._server is not None
        self._server.close()
        for writer in self.writers:
            writer.transport.abort()

    async def _serve(self, reader: StreamReader, writer: StreamWriter) -> None:
        self.writers.append(writer)
        try:
            while piece := await reader.read(2**16):
                self.pieces.append(piece)
                await self.reads.wait()
                writer.write(piece)
                await writer.drain()
            self.ends += 1
        except OSError:
            pass
        writer.close()


class Client:
    """A client who knows what it wants back."""

    def __init__(self, reader: StreamReader, writer: StreamWriter) -> None:
        self.reader, self.writer = reader, writer

    @classmethod
    async def connect(cls, port: int) -> Self:
        return cls(*await asyncio.open_connection("127.0.0.1", port))

    async def round_trip(self, data: bytes = b"hello") -> float:
        """Send it, and wait until it is back; return how long that took."""
        began = time.monotonic()
        self.writer.write(data)
        async with asyncio.timeout(SOON_SECONDS):
            assert await self.reader.readexactly(len(data)) == data
        return time.monotonic() - began

    async def hears_nothing(self) -> bool:
        try:
            async with asyncio.timeout(A_WHILE_SECONDS):
                await self.reader.read(1)
        except TimeoutError:
            return True
        return False

    async def is_reset(self) -> bool:
        try:
            async with asyncio.timeout(SOON_SECONDS):
                await self.reader.read()
        except ConnectionResetError:
            self.writer.close()
            with suppress(ConnectionResetError):
                await self.writer.wait_closed()
            return True
        return False


@pytest.fixture
async def echo() -> AsyncIterator[Echo]:
    async with Echo() as server:
        yield server


@pytest.fixture
async def route(echo: Echo) -> Route:
    return Route(Ports.free().kafka, echo.port)


@pytest.fixture
async def proxy(route: Route) -> AsyncIterator[Proxy]:
    async with Proxy({"echo": route}) as its_own:
        yield its_own


@pytest.fixture
async def client(proxy: Proxy, route: Route) -> AsyncIterator[Client]:
    its_own = await Client.connect(route.listen)
    yield its_own
    its_own.writer.transport.abort()


async def test_all_that_is_sent_arrives_in_order_with_its_end(client: Client, echo: Echo) -> None:
    data = randbytes(5_000_000)
    assert await client.round_trip(data) < SOON_SECONDS
    client.writer.write(b"the last")
    client.writer.write_eof()
    assert await client.reader.read() == b"the last"  # which ends as the server has closed in its turn
    assert b"".join(echo.pieces) == data + b"the last"
    assert echo.ends == 1


async def test_clients_who_speak_at_once_are_heard(proxy: Proxy, route: Route) -> None:
    async def ask() -> None:
        client = await Client.connect(route.listen)
        await client.round_trip()
        client.writer.close()

    for _ in range(10):
        await asyncio.gather(*(ask() for _ in range(20)))


async def test_a_server_that_does_not_read_holds_up_the_sender_and_not_the_proxy(
    proxy: Proxy, client: Client, echo: Echo
) -> None:
    process = psutil.Process(proxy.pid)
    before = process.memory_info().rss
    data = randbytes(40_000_000)
    echo.reads.clear()
    client.writer.write(data)
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(A_WHILE_SECONDS):
            await client.writer.drain()
    assert process.memory_info().rss - before < 10_000_000
    assert sum(map(len, echo.pieces)) < len(data)
    echo.reads.set()
    assert await client.reader.readexactly(len(data)) == data


async def test_reset_ends_connections_and_lets_new_ones_in(
    proxy: Proxy, client: Client, echo: Echo, route: Route
) -> None:
    await client.round_trip()
    await proxy.reset("echo")
    assert await client.is_reset()
    again = await Client.connect(route.listen)
    await again.round_trip()
    assert echo.ends == 0  # the server was reset as well


async def test_cut_resets_and_refuses_until_it_heals(proxy: Proxy, client: Client, route: Route) -> None:
    for _ in range(20):
        await client.round_trip()
        await proxy.cut("echo")
        assert await client.is_reset()
        for _ in range(2):
            with pytest.raises(ConnectionRefusedError):
                await Client.connect(route.listen)
            await proxy.cut("echo")  # changes nothing
        await proxy.heal("echo")
        client = await Client.connect(route.listen)
    await client.round_trip()


async def test_delay_keeps_order_and_lets_all_travel_at_once(proxy: Proxy, client: Client) -> None:
    await proxy.delay("echo", 0.1, 0.05)
    assert await client.round_trip() >= 2 * 0.05
    sent, began = b"", time.monotonic()
    for number in range(100):
        piece = f"{number} ".encode()
        client.writer.write(piece)
        sent += piece
        await asyncio.sleep(0.002)
    async with asyncio.timeout(SOON_SECONDS):
        assert await client.reader.readexactly(len(sent)) == sent
    assert time.monotonic() - began < 100 * 2 * 0.05


async def test_the_end_of_a_connection_comes_after_what_was_delayed(proxy: Proxy, client: Client) -> None:
    await proxy.delay("echo", 0.05, 0.0)
    client.writer.write(b"the last")
    client.writer.write_eof()
    assert await client.reader.read() == b"the last"


async def test_nothing_comes_through_a_black_hole_and_who_was_in_it_is_reset(
    proxy: Proxy, client: Client, echo: Echo, route: Route
) -> None:
    leaver = await Client.connect(route.listen)
    await leaver.round_trip()
    await client.round_trip()
    echo.pieces.clear()
    await proxy.black_hole("echo")
    newcomer = await Client.connect(route.listen)
    client.writer.write(b"hello")
    newcomer.writer.write(b"hello")
    leaver.writer.close()
    for writer in echo.writers:
        writer.write(b"hello")
    assert await client.hears_nothing()
    assert await newcomer.hears_nothing()
    assert (echo.pieces, echo.ends) == ([], 0)
    await proxy.heal("echo")
    assert await client.is_reset()
    assert await newcomer.is_reset()
    assert (echo.pieces, echo.ends) == ([], 0)
    again = await Client.connect(route.listen)
    await again.round_trip()


async def test_a_slow_route_takes_its_time_in_each_direction(proxy: Proxy, client: Client) -> None:
    await proxy.slow("echo", 100_000)
    assert await client.round_trip(randbytes(40_000)) >= 0.4


async def test_slices_arrive_one_by_one_and_whole(proxy: Proxy, client: Client, echo: Echo) -> None:
    await proxy.slice("echo", 100, 0.005)
    assert await client.round_trip(randbytes(5_000)) >= 49 * 0.005
    assert len(echo.pieces) > 10


async def test_what_is_held_goes_on_at_once_when_it_heals_or_another_trouble_comes(
    proxy: Proxy, client: Client, route: Route
) -> None:
    data = randbytes(10_000)
    await proxy.delay("echo", 60, 0)
    client.writer.write(data[:5_000])
    assert await client.hears_nothing()
    await proxy.heal("echo")
    await client.reader.readexactly(5_000)
    await proxy.slow("echo", 1)
    client.writer.write(data[5_000:])
    assert await client.hears_nothing()
    await proxy.delay("echo", 0.01, 0)
    assert await client.reader.readexactly(5_000) == data[5_000:]


async def test_troubles_of_one_route_are_not_those_of_another(echo: Echo) -> None:
    ports = Ports.free()
    async with Proxy({"one": Route(ports.kafka, echo.port), "other": Route(ports.mongo, echo.port)}) as proxy:
        assert proxy.names == ("one", "other")
        one, other = await Client.connect(ports.kafka), await Client.connect(ports.mongo)
        await proxy.cut("one")
        assert await one.is_reset()
        await other.round_trip()
        with pytest.raises(KeyError, match="no route third; there are one, other"):
            await proxy.heal("third")


async def test_while_a_server_is_not_there_its_clients_are_reset() -> None:
    ports, echo = Ports.free(), Echo()
    echo.port = ports.redis
    async with Proxy({"echo": Route(ports.kafka, echo.port)}):
        try:
            client = await Client.connect(ports.kafka)
        except ConnectionResetError:
            pass  # it was reset before it knew that it was connected
        else:
            assert await client.is_reset()
        async with echo:
            client = await Client.connect(ports.kafka)
            await client.round_trip()


async def test_a_reset_by_the_server_is_one_for_the_client(client: Client, echo: Echo) -> None:
    await client.round_trip()
    connection = echo.writers[0].get_extra_info("socket")
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    echo.writers[0].transport.abort()
    assert await client.is_reset()


async def test_orders_of_somebody_who_gave_up_confuse_nobody(proxy: Proxy, client: Client) -> None:
    for _ in range(20):
        order = asyncio.create_task(proxy.delay("echo", 60, 0))
        await asyncio.sleep(0)
        order.cancel()
    await proxy.heal("echo")
    await client.round_trip()


async def test_a_taken_port_is_an_error_and_an_ended_proxy_takes_no_orders(echo: Echo) -> None:
    with pytest.raises(ProxyError, match="address already in use"):
        await Proxy({"echo": Route(echo.port, echo.port)}).__aenter__()
    async with Proxy({"echo": Route(Ports.free().kafka, echo.port)}) as proxy:
        assert proxy.pid is not None
        await proxy.heal("echo")
        psutil.Process(proxy.pid).suspend()
        order = asyncio.create_task(proxy.reset("echo"))
        await asyncio.sleep(0)
        psutil.Process(proxy.pid).kill()
        with pytest.raises(ProxyError, match="has ended"):
            await order
        with pytest.raises(ProxyError, match="does not run"):
            await proxy.heal("echo")


async def test_the_proxy_ends_with_the_program_that_commands_it(route: Route) -> None:
    program = (
        "import asyncio\n"
        "from tests.chaos.proxy import Proxy, Route\n"
        "async def main():\n"
        f"    async with Proxy({{'echo': {route!r}}}) as proxy:\n"
        "        print(proxy.pid, flush=True)\n"
        "        await asyncio.sleep(60)\n"
        "asyncio.run(main())\n"
    )
    commander = await asyncio.create_subprocess_exec(
        sys.executable, "-c", program, cwd=ROOT, stdout=asyncio.subprocess.PIPE
    )
    assert commander.stdout is not None
    process = psutil.Process(int(await commander.stdout.readline()))
    assert process.is_running()
    commander.kill()
    await commander.wait()
    await asyncio.to_thread(process.wait, SOON_SECONDS)
    with pytest.raises(ConnectionRefusedError):
        await Client.connect(route.listen)


def test_workers_of_a_proxied_platform_get_the_doors_and_its_owner_the_servers(tmp_path: Path) -> None:
    platform = ProxiedPlatform.on_free_ports(tmp_path)
    listens, leads_to = (
        {name: getattr(route, side) for name, route in platform.routes.items()} for side in ("listen", "upstream")
    )
    addresses = platform.environment()
    assert addresses["INKSTREAM_KAFKA_BROKERS"] == f"127.0.0.1:{listens['kafka']}"
    assert addresses["INKSTREAM_MONGO_URL"] == f"mongodb://127.0.0.1:{listens['mongo']}/blog-platform?replicaSet=rs0"
    assert addresses["INKSTREAM_POSTGRES_URL"].endswith(f"@127.0.0.1:{listens['postgres']}/blog_platform")
    assert addresses["INKSTREAM_REDIS_URL"] == f"redis://127.0.0.1:{listens['redis']}/0"
    assert addresses["INKSTREAM_SMTP_URL"] == f"smtp://127.0.0.1:{listens['smtp']}"
    assert platform.mongo.url == f"mongodb://127.0.0.1:{leads_to['mongo']}/blog-platform?directConnection=true"
    assert platform.redis.url == f"redis://127.0.0.1:{leads_to['redis']}/0"
    assert platform.kafka.brokers != f"127.0.0.1:{leads_to['kafka']}"  # the broker tells those apart who come there
    assert len({*listens.values(), *leads_to.values(), platform.kafka.port}) == 11

    its_own = addresses | {"INKSTREAM_MONGO_URL": platform.mongo.url.replace("blog-platform", "test-1"), "OTHER": "1"}
    through = platform.through_doors(its_own)
    assert through == addresses | {
        "INKSTREAM_MONGO_URL": addresses["INKSTREAM_MONGO_URL"].replace("blog-platform", "test-1"),
        "OTHER": "1",
    }
    assert platform.through_doors(through) == through
