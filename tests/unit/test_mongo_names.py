"""The name of a `mongodb+srv://` URL: what DNS may know later is waited for, what is wrong is an error at once."""

import asyncio
import logging
from collections.abc import Iterator

import dns.asyncresolver
import dns.rcode
import pytest
from pymongo.errors import ServerSelectionTimeoutError

from agents.server_problems import first_line
from runtime.patches import pymongo as patch
from sinks.mongo.client import Mongo
from sinks.mongo.errors import is_transient
from sinks.servers import MongoUrlError
from tests.dns_server import DnsServer, Records

HOST = "cluster.inkstream.test"
SRV = f"_mongodb._tcp.{HOST}", "SRV"
TXT = HOST, "TXT"
SECRET = "se-cret"
URL = f"mongodb+srv://user:{SECRET}@{HOST}/blog"
KNOWN: Records = {SRV: ["0 5 27017 db.inkstream.test."], TXT: ['"replicaSet=rs0"']}


@pytest.fixture
def name_server(monkeypatch: pytest.MonkeyPatch) -> DnsServer:
    """A DNS server that is away, and that this process asks."""
    server = DnsServer(KNOWN)
    resolver = dns.asyncresolver.Resolver(configure=False)
    resolver.nameservers, resolver.port = ["127.0.0.1"], server.port
    monkeypatch.setattr(dns.asyncresolver, "default_resolver", resolver)
    return server


@pytest.fixture
def hasty(monkeypatch: pytest.MonkeyPatch) -> None:
    """Wait for a DNS server that is away no longer than half a second."""
    monkeypatch.setattr(patch, "_LOOKED_UP_WITHIN_SECONDS", 0.5)


@pytest.fixture(autouse=True)
def complaints(caplog: pytest.LogCaptureFixture) -> Iterator[None]:
    """See that the event loop complains of no task that is left behind."""
    yield
    assert [record for record in caplog.records if record.levelno >= logging.ERROR] == []


async def refusal(url: str) -> Exception:
    """Return what the first operation raises."""
    mongo = Mongo.connect(url)
    try:
        await mongo.ping()
    except Exception as error:
        return error
    finally:
        await mongo.close()
    raise AssertionError("nothing was raised")


@pytest.mark.usefixtures("hasty")
async def test_dns_that_is_away_is_as_a_server_that_is_away(name_server: DnsServer) -> None:
    error = await refusal(URL)
    assert isinstance(error, ServerSelectionTimeoutError)
    assert is_transient(error)
    assert first_line(error).startswith(f"no DNS server answers when asked for {SRV[0]}: ")


UNKNOWN: dict[str, tuple[Records, int | None, str]] = {
    "no such name": ({}, None, f"DNS knows no name {SRV[0]}: is {HOST} spelled right"),
    "no such record": ({(SRV[0], "TXT"): ["x"]}, None, f"DNS has no SRV record {SRV[0]}: "),
    "a server that fails": ({}, dns.rcode.SERVFAIL, f"no DNS server could say where {SRV[0]} is: "),
    "a server that refuses": ({}, dns.rcode.REFUSED, f"no DNS server could say where {SRV[0]} is: "),
}


@pytest.mark.parametrize("unknown", UNKNOWN)
async def test_what_dns_may_know_later_is_waited_for_and_says_what_to_check(
    name_server: DnsServer, unknown: str
) -> None:
    records, code, said = UNKNOWN[unknown]
    name_server.records, name_server.code = records, None if code is None else dns.rcode.Rcode(code)
    with name_server.running():
        error = await refusal(URL)
    assert is_transient(error)
    assert first_line(error).startswith(said)


WRONG: dict[str, tuple[Records, str]] = {
    "an option that DNS may not set": ({TXT: ['"tls=true"']}, "Only authSource, replicaSet, and loadBalanced"),
    "two sets of options": ({TXT: ['"replicaSet=rs0"', '"authSource=admin"']}, "Only one TXT record"),
    "a server of another domain": ({SRV: ["0 5 27017 db.elsewhere.test."]}, "Invalid SRV host: db.elsewhere.test"),
}


@pytest.mark.parametrize("wrong", WRONG)
async def test_what_dns_says_wrongly_is_an_error_at_once(name_server: DnsServer, wrong: str) -> None:
    records, said = WRONG[wrong]
    name_server.records = {**KNOWN, **records}
    with name_server.running():
        error = await refusal(URL)
    assert isinstance(error, MongoUrlError)
    assert not is_transient(error)
    assert said in str(error)


@pytest.mark.parametrize(
    "url",
    [
        f"mongodb+srv://user:{SECRET}@db.example.org:27017/x",
        f"mongodb+srv://user:{SECRET}@a.example.org,b.example.org/x",
        f"mongodb+srv://user:{SECRET}@10.0.0.1/x",
        f"mongodb+srv://user:{SECRET}@db..example.org/x",
        f"mongodb+srv://user:{SECRET}@{'a' * 64}.example.org/x",
        f"mongodb+srv://user:{SECRET}/more@db.example.org/x",
        f"mongodb+srv://user:{SECRET}@db.example.org/x?tlsCAFile=/nowhere.pem",
        f"mongodb://user:{SECRET}@db.example.org:99999/x",
        f"mongodb://user:{SECRET}/more@db.example.org/x",
    ],
)
async def test_a_malformed_url_is_an_error_at_once_which_does_not_repeat_it(url: str) -> None:
    with pytest.raises(MongoUrlError) as raised:
        raise await refusal(url)
    assert SECRET not in str(raised.value)


async def test_many_first_operations_ask_dns_once_and_all_hear_what_it_says(name_server: DnsServer) -> None:
    name_server.records = {}
    mongo = Mongo.connect(URL)
    with name_server.running():
        errors = await asyncio.gather(*(mongo.ping() for _ in range(20)), return_exceptions=True)
        assert all(isinstance(error, ServerSelectionTimeoutError) for error in errors)
        assert name_server.asked == 1
        await asyncio.gather(*(mongo.ping() for _ in range(20)), return_exceptions=True)
        assert name_server.asked == 2, "once more, as DNS may know it by now"
    await mongo.close()


@pytest.mark.usefixtures("hasty")
async def test_a_caller_that_no_longer_waits_for_dns_does_not_stop_the_others(name_server: DnsServer) -> None:
    mongo = Mongo.connect(URL)
    first, second = asyncio.create_task(mongo.ping()), asyncio.create_task(mongo.ping())
    await asyncio.sleep(0)
    first.cancel()
    with pytest.raises(ServerSelectionTimeoutError):
        await second
    await mongo.close()


async def test_a_client_that_is_closed_while_it_asks_dns_asks_no_more(name_server: DnsServer) -> None:
    mongo = Mongo.connect(URL)
    waiting = asyncio.create_task(mongo.ping())
    await asyncio.sleep(0)  # it asks from then on
    await mongo.close()
    with pytest.raises(asyncio.CancelledError):
        await waiting
