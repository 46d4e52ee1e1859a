"""Names of servers that DNS does not tell: the worker waits as for a server that is away, and commands say one line."""

from urllib.parse import urlsplit

import orjson
import pytest

from tests.command_line import inkstream
from tests.dns_server import DnsServer
from tests.integration.pipeline import Message, Pipeline, Worker, plain, until

HOST = "cluster.inkstream.test"
SRV = f"_mongodb._tcp.{HOST}", "SRV"
TXT = HOST, "TXT"
SECRET = "se-cret"


def view(number: int) -> Message:
    return plain(
        type="page.viewed",
        eventId=f"view-{number}",
        postId="post",
        postSlug="post",
        sessionId="session",
        ipAddress="81.2.69.160",
        userAgent="Mozilla/5.0 (X11; Linux x86_64; rv:140.0) Gecko/20100101 Firefox/140.0",
    )


def url(pipeline: Pipeline, host: str = HOST, options: str = "") -> str:
    """Return a URL of the test's database that leaves servers to DNS.

    Targets of SRV records are to end as the URL says. Here that is the end of 127.0.0.1, which needs no DNS.
    """
    return f"mongodb+srv://{host}/{pipeline.database.name}?tls=false&srvAllowedHostsSuffix=0.0.1{options}"


@pytest.fixture
def name_server(counting: Pipeline) -> DnsServer:
    """A DNS server that is away, and knows where the MongoDB of the tests is."""
    port = urlsplit(counting.platform.mongo.url).port
    return DnsServer({SRV: [f"0 5 {port} 127.0.0.1."], TXT: ['"replicaSet=rs0"']})


async def logged(worker: Worker, *texts: str) -> str:
    """Return the log of a worker, which has not ended, as soon as it says all of this."""

    async def said() -> bool:
        assert worker.process.poll() is None, worker.log.read_text()[-4_000:]
        log = worker.log.read_text()
        return all(text in log for text in texts)

    await until(said, f"the log says {texts}")
    return worker.log.read_text()


def problem(worker: Worker, server: str) -> str | None:
    """Return what readiness says of a server."""
    state = orjson.loads(worker.page("/readyz")[1])["dependencies"][server]["problem"]
    assert state is None or isinstance(state, str)
    return state


async def stored(pipeline: Pipeline, count: int) -> None:
    async def all_of_them() -> bool:
        return len(await pipeline.documents("pageViews")) == count

    await until(all_of_them, f"{count} views are stored")


async def test_dns_that_is_away_at_the_start_and_later_is_waited_for(
    counting: Pipeline, name_server: DnsServer
) -> None:
    await counting.send("page-views", [view(number) for number in range(100)])
    with counting.worker(name_server.prelude, mongo_url=url(counting)) as worker:
        await logged(worker, "server does not answer, trying again", f"no DNS server answers when asked for {SRV[0]}")
        assert problem(worker, "mongodb") == "ServerSelectionTimeoutError", "as for a server that is away"
        with name_server.running():
            await worker.until_ready()
            await stored(counting, 100)
        # Now that it knows where MongoDB is, it needs DNS no more.
        await counting.send("page-views", [view(number) for number in range(100, 200)])
        await stored(counting, 200)
        assert await worker.ready()
        assert "Traceback" not in await logged(worker, "server answers again")
        assert worker.terminate() == 0


async def test_a_name_that_dns_does_not_know_is_waited_for_and_said(counting: Pipeline, name_server: DnsServer) -> None:
    right, name_server.records = name_server.records, {}
    await counting.send("page-views", [view(number) for number in range(10)])
    with name_server.running(), counting.worker(name_server.prelude, mongo_url=url(counting)) as worker:
        said = f"DNS knows no name {SRV[0]}: is {HOST} spelled right"
        assert "Traceback" not in await logged(worker, "server does not answer, trying again", said)
        name_server.records = right
        await worker.until_ready()
        await stored(counting, 10)


@pytest.mark.parametrize("command", ["worker", "doctor", "bootstrap", "verify counts", "notifications failed"])
async def test_what_dns_says_wrongly_is_one_line_at_once(
    counting: Pipeline, name_server: DnsServer, command: str
) -> None:
    name_server.records = {**name_server.records, TXT: ['"tls=true"']}
    environment = {**counting.environment, "INKSTREAM_MONGO_URL": url(counting)}
    with name_server.running():
        ended = await inkstream(environment, *command.split(), prelude=name_server.prelude)
    said = "Only authSource, replicaSet, and loadBalanced"
    if command == "doctor":
        assert (ended.code, said in ended.output, ended.errors) == (1, True, "")
        assert "correct INKSTREAM_MONGO_URL" in ended.output
    else:
        assert (ended.code, len(ended.errors.splitlines())) == (2, 1), ended.errors
        assert ended.errors.startswith("INKSTREAM_MONGO_URL: ")
        assert said in ended.errors


@pytest.mark.parametrize("command", ["worker", "doctor", "verify counts"])
async def test_a_malformed_url_is_one_line_at_once(counting: Pipeline, command: str) -> None:
    wrong = f"mongodb+srv://user:{SECRET}@db.example.org/x?tlsCAFile=/nowhere.pem"
    ended = await inkstream({**counting.environment, "INKSTREAM_MONGO_URL": wrong}, *command.split())
    assert (ended.code, len(ended.errors.splitlines())) == (2, 1), ended.errors
    assert ended.errors.startswith("INKSTREAM_MONGO_URL: ")
    assert SECRET not in ended.errors


@pytest.fixture
def nowhere(counting: Pipeline) -> dict[str, str]:
    """Settings with names that are nowhere, as `.invalid` never is (RFC 6761), and with secrets."""
    return {
        **counting.environment,
        "INKSTREAM_KAFKA_BROKERS": "kafka.invalid:9092",
        "INKSTREAM_MONGO_URL": f"mongodb://user:{SECRET}@mongo.invalid/x",
        "INKSTREAM_POSTGRES_URL": f"postgresql://user:{SECRET}@postgres.invalid/x",
        "INKSTREAM_REDIS_URL": f"redis://:{SECRET}@redis.invalid/0",
    }


@pytest.mark.parametrize("scheme", ["mongodb", "mongodb+srv"])
async def test_commands_say_in_one_line_which_name_is_nowhere(nowhere: dict[str, str], scheme: str) -> None:
    environment = {**nowhere, "INKSTREAM_MONGO_URL": f"{scheme}://user:{SECRET}@mongo.invalid/x"}
    cases = {
        ("verify", "counts"): "mongo.invalid",
        ("notifications", "failed"): "mongo.invalid",
        ("suppressions", "list"): "postgres.invalid",
    }
    for command, name in cases.items():
        ended = await inkstream(environment, *command)
        (said,) = ended.errors.splitlines()
        assert (ended.code, name in said) == (1, True)
    for examining in (["doctor"], ["bootstrap", "--wait", "0"]):
        ended = await inkstream(environment, *examining)
        assert (ended.code, "Traceback" in ended.errors) == (1, False)
        for name in ("kafka.invalid", "mongo.invalid", "postgres.invalid"):
            assert name in ended.output + ended.errors
        assert SECRET not in ended.output + ended.errors


SERVERS = {"mongodb": "mongo.invalid", "postgresql": "postgres.invalid"}


@pytest.mark.parametrize("server", SERVERS)
async def test_a_name_that_is_nowhere_at_the_start_is_waited_for(
    counting: Pipeline, nowhere: dict[str, str], server: str
) -> None:
    setting = f"{server.removesuffix('db').removesuffix('ql')}_url"
    with counting.worker(**{setting: nowhere[f"INKSTREAM_{setting.upper()}"]}) as worker:
        log = await logged(worker, "server does not answer, trying again", SERVERS[server])
        assert problem(worker, server) is not None
        assert SECRET not in log
        assert "Traceback" not in log
        assert worker.terminate() == 0


async def test_a_redis_whose_name_is_nowhere_keeps_nobody_from_work(
    counting: Pipeline, nowhere: dict[str, str]
) -> None:
    counting.add_posts(["post"])
    with counting.worker(redis_url=nowhere["INKSTREAM_REDIS_URL"]) as worker:
        await worker.until_ready()
        await counting.send("page-views", [view(1)])
        await stored(counting, 1)
        log = await logged(worker, "recent views not written, trying again")
        assert SECRET not in log
        assert "Traceback" not in log
        assert worker.terminate() == 0
