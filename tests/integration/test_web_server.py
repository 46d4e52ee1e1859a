"""Requests of strangers at a real worker: whatever comes, the pages answer and consumers keep their partitions."""

import asyncio
import gzip
import socket
import statistics
import time
from collections.abc import AsyncIterator
from contextlib import ExitStack, asynccontextmanager, suppress

import pytest
import pytest_asyncio

from dev.stack import Platform
from tests.integration.pipeline import Pipeline, Worker, until
from tests.integration.test_receipts import SETTINGS, of_sendgrid

TOPIC = "delivery-receipts"
FEW_FILES = "import resource; resource.setrlimit(resource.RLIMIT_NOFILE, (1024, 1024))"
# Tests shorten it; here a busy machine must not be taken for a blocked event loop.
PRODUCTION_SESSION = "import datetime, delivery.consumer as c; c.SESSION_TIMEOUT = datetime.timedelta(seconds=6)"
SLOWEST_SECONDS = 2.0
"""Far more than a request takes, as other tests share the machine; a blocked event loop takes a minute."""

PAGES = ("/webhooks/sendgrid", "/webhooks/mailgun", "/webhooks/ses", "/unsubscribe")


@pytest.fixture(scope="module")
def bomb() -> bytes:
    """A megabyte of gzip that unpacks to a gibibyte."""
    zeros = gzip.compress(bytes(2**24), compresslevel=9)
    return zeros * 64  # members one after the other are one gzip file


@pytest.fixture
async def receiving(platform: Platform) -> AsyncIterator[Pipeline]:
    its_own = Pipeline(platform, only=(TOPIC,))
    its_own.own_tables()
    await its_own.prepare()
    yield its_own
    await its_own.forget()


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def strangers(platform: Platform) -> AsyncIterator[Worker]:
    """A worker for all tests that only send it what it refuses, or what changes nothing."""
    its_own = Pipeline(platform, only=(TOPIC,))
    its_own.own_tables()
    await its_own.prepare()
    with its_own.worker(f"{FEW_FILES}; {PRODUCTION_SESSION}", **SETTINGS) as worker:
        await worker.until_ready()
        yield worker
    await its_own.forget()


def request(method: str, path: str, body: bytes = b"", **headers: str) -> bytes:
    lines = [f"{method} {path} HTTP/1.1", "Host: worker", *(f"{name}: {value}" for name, value in headers.items())]
    return "\r\n".join([*lines, "", ""]).replace("_", "-").encode() + body


async def answer(worker: Worker, sent: bytes, seconds: float = 30) -> bytes:
    """Send bytes; return all that comes until the worker closes the connection, or its response is there."""
    reader, writer = await asyncio.open_connection("127.0.0.1", worker.port)
    try:
        with suppress(ConnectionError):
            writer.write(sent)
            await writer.drain()
        async with asyncio.timeout(seconds):
            with suppress(ConnectionError, asyncio.IncompleteReadError):
                return await reader.readuntil(b"\r\n\r\n")
    finally:
        writer.close()
    return b""


async def status(worker: Worker, sent: bytes) -> int:
    """Return the status of the response; 0 where the connection was closed without one."""
    head = await answer(worker, sent)
    return int(head.split()[1]) if head else 0


class Heartbeat:
    """Asks `/healthz` on a new connection again and again, and notes how long each answer took."""

    def __init__(self, worker: Worker) -> None:
        self._worker = worker
        self.seconds: list[float] = []

    async def beat(self) -> None:
        while True:
            began = time.monotonic()
            assert await status(self._worker, request("GET", "/healthz", Connection="close")) == 200
            self.seconds.append(time.monotonic() - began)
            await asyncio.sleep(0.02)

    def __str__(self) -> str:
        median, worst = statistics.median(self.seconds), max(self.seconds)
        return f"/healthz: {len(self.seconds)} answers, median {median * 1e3:.1f} ms, slowest {worst * 1e3:.0f} ms"


@asynccontextmanager
async def answers_throughout(worker: Worker) -> AsyncIterator[Heartbeat]:
    """Check that `/healthz` answers all the time, and that no consumer loses its partitions meanwhile."""
    heartbeat = Heartbeat(worker)
    task = asyncio.create_task(heartbeat.beat())
    assigned = worker.log.read_text().count("partitions assigned")
    try:
        yield heartbeat
    finally:
        if task.done():
            await task
        task.cancel()
    print(heartbeat)
    assert heartbeat.seconds
    assert max(heartbeat.seconds) < SLOWEST_SECONDS
    assert worker.log.read_text().count("partitions assigned") == assigned
    assert worker.process.poll() is None


@asynccontextmanager
async def half_sent(worker: Worker, sent: bytes, count: int) -> AsyncIterator[list[asyncio.StreamReader]]:
    """Hold so many connections open that have sent this and nothing more."""
    readers: list[asyncio.StreamReader] = []
    writers: list[asyncio.StreamWriter] = []
    try:
        for _ in range(count):
            reader, writer = await asyncio.open_connection("127.0.0.1", worker.port)
            writer.write(sent)
            readers.append(reader)
            writers.append(writer)
        yield readers
    finally:
        for writer in writers:
            writer.close()


async def test_bombs_and_half_sent_requests_hold_up_nothing(receiving: Pipeline, bomb: bytes) -> None:
    with receiving.worker(FEW_FILES, **SETTINGS) as worker:
        await worker.until_ready()
        packed = request("POST", PAGES[0], bomb, Content_Encoding="gzip", Content_Length=str(len(bomb)))
        begun = request("POST", PAGES[1], b"{", Content_Length="1000")
        head = b"POST /webhooks/ses HTTP/1.1\r\nHost: wor"
        async with answers_throughout(worker), half_sent(worker, begun, 1_000), half_sent(worker, head, 1_000):
            statuses = await asyncio.gather(*(status(worker, packed) for _ in range(50)))
            body, headers = of_sendgrid("delivered", key="a-key")
            signed = {name.replace("-", "_"): value for name, value in headers.items()}
            sound = request("POST", PAGES[0], body, Content_Length=str(len(body)), **signed)
            assert await status(worker, sound) == 200
        assert set(statuses) <= {415, 0}
        assert 415 in statuses
        metrics = worker.metrics()
        assert metrics['inkstream_web_refused_total{reason="too-many"}'] > 1_500
        assert metrics["inkstream_web_connections"] <= 128
        # The receipt is stored by an agent that has kept its partitions.
        await receiving.settled(TOPIC)
        assert worker.terminate() == 0


@pytest.mark.parametrize("encoding", ["gzip", "deflate", "br", "zstd", "gzip, gzip", "GZip"])
@pytest.mark.parametrize("page", PAGES)
async def test_a_compressed_body_is_refused_unread(strangers: Worker, page: str, encoding: str) -> None:
    body = gzip.compress(b"[]")
    sent = request("POST", page, body, Content_Encoding=encoding, Content_Length=str(len(body)))
    assert await status(strangers, sent) == 415


async def test_an_encoding_that_changes_nothing_is_taken(strangers: Worker) -> None:
    body, headers = of_sendgrid("delivered", key="a-key")
    signed = {name.replace("-", "_"): value for name, value in headers.items()}
    sent = request("POST", PAGES[0], body, Content_Encoding="identity", Content_Length=str(len(body)), **signed)
    assert await status(strangers, sent) == 200


@pytest.mark.parametrize("page", PAGES)
async def test_a_body_that_says_it_is_too_large_is_refused_unread(strangers: Worker, page: str) -> None:
    assert await status(strangers, request("POST", page, b"{", Content_Length=str(2**20 + 1))) == 413


async def test_a_body_in_chunks_is_refused_once_it_is_too_large(strangers: Worker) -> None:
    chunk = b"10000\r\n" + bytes(2**16) + b"\r\n"
    assert await status(strangers, request("POST", PAGES[0], chunk * 17, Transfer_Encoding="chunked")) == 413


@pytest.mark.parametrize(
    "head",
    [
        request("GET", "/healthz", Long="x" * 10_000),
        request("GET", "/unsubscribe?token=" + "x" * 10_000),
        request("GET", "/unsubscribe?" + "a&" * 10_000),
        b"GET /healthz HTTP/1.1\r\nHost: worker\r\n" + b"Many: x\r\n" * 1_000 + b"\r\n",
        b"\0\1\2\3 not HTTP at all\r\n\r\n",
    ],
    ids=["a header", "a token", "many parameters", "many headers", "no HTTP"],
)
async def test_headers_that_are_too_large_or_invalid_are_refused(strangers: Worker, head: bytes) -> None:
    assert await status(strangers, head) == 400


async def test_many_parameters_within_the_limit_are_answered(strangers: Worker) -> None:
    assert await status(strangers, request("GET", "/unsubscribe?" + "a&" * 4_000)) == 404


@pytest.mark.parametrize(
    "begun",
    [
        b"",
        b"GET /healthz HTTP/1.1\r\nHost: wor",
        request("POST", "/webhooks/mailgun", b"{", Content_Length="1000"),
        request("POST", "/webhooks/mailgun", b"5\r\n{", Transfer_Encoding="chunked"),
    ],
    ids=["nothing", "half a head", "half a body", "half a chunk"],
)
async def test_a_request_that_does_not_come_to_its_end_is_answered_408(strangers: Worker, begun: bytes) -> None:
    assert await status(strangers, begun) == 408


async def test_clients_that_read_nothing_delay_no_other_client(strangers: Worker) -> None:
    loop = asyncio.get_running_loop()
    asked = request("GET", "/metrics") * 100
    with ExitStack() as stack:
        async with answers_throughout(strangers):
            for _ in range(200):
                client = stack.enter_context(socket.socket())
                client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
                client.setblocking(False)
                await loop.sock_connect(client, ("127.0.0.1", strangers.port))
                await loop.sock_sendall(client, asked)
            await asyncio.gather(*(status(strangers, request("GET", "/healthz")) for _ in range(100)))

        async def are_gone() -> bool:
            return (await asyncio.to_thread(strangers.metrics))["inkstream_web_connections"] <= 2

        await until(are_gone, "the connections are closed, though nobody reads", 30)


@pytest.mark.parametrize("page", ["/healthz", "/metrics", "/unsubscribe", "/nowhere"])
async def test_a_connection_is_for_one_request(strangers: Worker, page: str) -> None:
    reader, writer = await asyncio.open_connection("127.0.0.1", strangers.port)
    writer.write(request("GET", page) * 100)
    try:
        with suppress(ConnectionError):
            assert (await reader.read()).count(b"HTTP/1.1 ") == 1
    finally:
        writer.close()


async def test_fausts_own_pages_are_not_there(strangers: Worker) -> None:
    for page in ("/", "/table/", "/router/", "/graph"):
        assert await status(strangers, request("GET", page)) == 404


async def test_a_stop_does_not_wait_for_half_sent_requests(receiving: Pipeline) -> None:
    with receiving.worker(**SETTINGS) as worker:
        await worker.until_ready()
        async with half_sent(worker, request("POST", PAGES[1], b"{", Content_Length="1000"), 50):
            assert await status(worker, request("GET", "/healthz")) == 200
            assert await asyncio.to_thread(worker.terminate) == 0
