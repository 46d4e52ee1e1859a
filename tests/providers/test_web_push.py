import asyncio
import base64
import json
import logging
import socket
from collections.abc import AsyncIterator, Callable
from dataclasses import replace
from datetime import datetime, timedelta
from typing import Any

import httpx
import pytest
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat, PublicFormat
from pydantic import SecretStr

from dev.providers.http2 import Mishap, Reply
from dev.providers.web_push import PushService
from notifications.messages import Push
from notifications.outcome import Failed, Misconfigured, Outcome, Refused, Sent, Throttled
from providers.base import Provider
from providers.http import client
from providers.push.web_push import WebPush
from tests.providers.conftest import NOW, Clock

SUBJECT = "mailto:push@blog.example"
KEY = ec.generate_private_key(ec.SECP256R1())
PEM = KEY.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()).decode()


def base64url(content: bytes) -> str:
    return base64.urlsafe_b64encode(content).rstrip(b"=").decode()


PUBLIC_KEY = base64url(KEY.public_key().public_bytes(Encoding.X962, PublicFormat.UncompressedPoint))


@pytest.fixture
async def service(clock: Clock) -> AsyncIterator[PushService]:
    async with PushService(clock) as service:
        yield service


@pytest.fixture
async def web_push(clock: Clock) -> AsyncIterator[WebPush]:
    web_push = WebPush(client(http2=True), SecretStr(PEM), SUBJECT, loopback=True, clock=clock)
    yield web_push
    await web_push.close()


@pytest.fixture
async def hasty(clock: Clock) -> AsyncIterator[WebPush]:
    hasty = WebPush(client(timeout=timedelta(seconds=0.5)), SecretStr(PEM), SUBJECT, loopback=True, clock=clock)
    yield hasty
    await hasty.close()


@pytest.fixture
def push(service: PushService) -> Push:
    return Push(
        key="0123456789abcdef0123456789abcdef",
        token=service.subscribe(PUBLIC_KEY),
        platform="web",
        title="Ada hat geantwortet",
        body="„Schöne Grüße“ 👋🏽",
        url="https://blog.example/posts/1",
        data={"notificationId": "n-1"},
        expires_at=NOW + timedelta(hours=2),
        urgent=True,
    )


async def deliver(web_push: WebPush, push: Push) -> Outcome:
    outcome = await web_push.send(push)
    given = json.loads(push.token)
    for secret in (given["endpoint"].split("/")[-1], *given["keys"].values()):
        assert secret not in repr(outcome)
    return outcome


def altered(token: str, **changes: Any) -> str:
    given = json.loads(token)
    given["keys"] |= changes.pop("keys", {})
    return json.dumps(given | changes)


def at(endpoint: str, service: PushService) -> Push:
    token = altered(service.subscribe(), endpoint=endpoint)
    return Push("0" * 32, token, "web", "title", "body", None)


async def test_it_is_a_provider_of_push(web_push: WebPush) -> None:
    provider: Provider[Push] = web_push
    assert (provider.name, provider.may_repeat) == ("web-push", True)


async def test_a_browser_reads_all_that_a_message_says(service: PushService, web_push: WebPush, push: Push) -> None:
    assert await deliver(web_push, push) == Sent(f"{service.url}/message/1")
    [accepted] = service.accepted
    assert accepted.content == {
        "title": "Ada hat geantwortet",
        "body": "„Schöne Grüße“ 👋🏽",
        "url": "https://blog.example/posts/1",
        "data": {"notificationId": "n-1"},
    }
    assert accepted.headers["ttl"] == "7200"
    assert accepted.headers["urgency"] == "high"
    assert accepted.headers["topic"] == push.key


async def test_a_push_service_reads_nothing(service: PushService, web_push: WebPush, push: Push) -> None:
    await deliver(web_push, push)
    await deliver(web_push, push)
    first, second = (request.body for request in service.requests)
    assert b"Ada" not in first
    assert first != second


async def test_a_repetition_replaces_what_the_browser_has_not_fetched(
    service: PushService, web_push: WebPush, push: Push
) -> None:
    await deliver(web_push, push)
    await deliver(web_push, push)
    await deliver(web_push, replace(push, key="f" * 32))
    assert len(service.accepted) == 3
    assert len(service.stored) == 2


@pytest.mark.parametrize(
    ("expires_at", "ttl"),
    [(None, "2419200"), (NOW - timedelta(seconds=5), "0"), (NOW + timedelta(days=90), "2419200")],
)
async def test_every_message_has_a_time_to_live(
    service: PushService, web_push: WebPush, push: Push, expires_at: datetime | None, ttl: str
) -> None:
    await deliver(web_push, replace(push, expires_at=expires_at, urgent=False))
    assert service.accepted[0].headers["ttl"] == ttl
    assert service.accepted[0].headers["urgency"] == "normal"


@pytest.mark.parametrize("text", ["a", "ü", "👋"])
async def test_a_long_body_is_shortened_between_characters(
    service: PushService, web_push: WebPush, push: Push, text: str
) -> None:
    assert isinstance(await deliver(web_push, replace(push, body=text * 5_000)), Sent)
    [accepted] = service.accepted
    assert accepted.content["body"].endswith("…")
    assert (text * 5_000).startswith(accepted.content["body"][:-1])
    assert 4_096 - 8 <= accepted.size <= 4_096


async def test_a_message_that_is_too_long_without_its_body_is_refused_unsent(
    service: PushService, web_push: WebPush, push: Push
) -> None:
    outcome = await deliver(web_push, replace(push, data={"all": "x" * 4_000}))
    assert outcome == Refused("413", "without its body it has more than 3993 bytes", recipient_is_gone=False)
    assert service.requests == []


async def test_a_subscription_that_ended_is_gone(service: PushService, web_push: WebPush, push: Push) -> None:
    service.unsubscribe(push.token)
    assert await deliver(web_push, push) == Refused("410", "Gone", recipient_is_gone=True)
    unknown = replace(push, token=altered(push.token, endpoint=f"{service.url}/push/unknown-to-it"))
    assert await deliver(web_push, unknown) == Refused("404", "Not Found", recipient_is_gone=True)


@pytest.mark.parametrize(
    ("reply", "outcome"),
    [
        (Reply(400, b'{"reason":"BadWebPushTopic"}'), Refused("400", '{"reason":"BadWebPushTopic"}', False)),
        (Reply(413), Refused("413", "Request Entity Too Large", False)),
        (Reply(429, headers={"retry-after": "90"}), Throttled("429", "Too Many Requests", timedelta(seconds=90))),
        (
            Reply(429, headers={"retry-after": "Sun, 01 Mar 2026 12:00:30 GMT"}),
            Throttled("429", "Too Many Requests", timedelta(seconds=30)),
        ),
        (Reply(429), Throttled("429", "Too Many Requests", None)),
        (Reply(500), Failed("500", "Internal Server Error", may_have_arrived=False)),
        (Reply(502), Failed("502", "Bad Gateway", may_have_arrived=True)),
        (Reply(503), Failed("503", "Service Unavailable", may_have_arrived=False)),
        (Reply(408), Failed("408", "Request Timeout", may_have_arrived=False)),
        (Reply(200), Sent(None)),
        (Reply(204), Sent(None)),
    ],
    ids=lambda value: getattr(value, "code", type(value).__name__),
)
async def test_an_answer_becomes_its_outcome(
    service: PushService, web_push: WebPush, push: Push, reply: Reply, outcome: Outcome
) -> None:
    service.script = [reply]
    assert await deliver(web_push, push) == outcome


async def test_a_redirect_is_not_followed(service: PushService, web_push: WebPush, push: Push) -> None:
    service.script = [Reply(307, headers={"location": f"{service.url}/elsewhere"})]
    assert await deliver(web_push, push) == Refused("307", "Temporary Redirect", recipient_is_gone=False)
    assert len(service.requests) == 1


@pytest.mark.parametrize("status", [401, 403])
async def test_a_signature_that_was_never_accepted_is_misconfigured(
    service: PushService, web_push: WebPush, push: Push, status: int
) -> None:
    service.script = [Reply(status, b'{"reason":"BadJwtToken"}')]
    assert await deliver(web_push, push) == Misconfigured(str(status), '{"reason":"BadJwtToken"}')


@pytest.mark.parametrize("status", [401, 403])
async def test_a_signature_that_was_accepted_once_blames_the_subscription(
    service: PushService, web_push: WebPush, push: Push, status: int
) -> None:
    await deliver(web_push, push)
    service.script = [Reply(status, b"another key")]
    assert await deliver(web_push, push) == Refused(str(status), "another key", recipient_is_gone=False)


async def test_a_subscription_for_another_key_is_refused_by_the_service(
    service: PushService, web_push: WebPush, push: Push
) -> None:
    other = ec.generate_private_key(ec.SECP256R1()).public_key()
    key = base64url(other.public_bytes(Encoding.X962, PublicFormat.UncompressedPoint))
    outcome = await deliver(web_push, replace(push, token=service.subscribe(key)))
    assert outcome == Misconfigured("403", "the key is not the one that the subscription was made for")


async def test_a_signature_is_made_anew_before_it_expires(
    service: PushService, web_push: WebPush, push: Push, clock: Clock
) -> None:
    for _ in range(3):
        assert isinstance(await deliver(web_push, push), Sent)
        clock.now += timedelta(hours=13)
    assert len(service.accepted) == 3


async def test_no_answer_is_a_failure_after_which_it_may_have_arrived(
    service: PushService, hasty: WebPush, push: Push
) -> None:
    service.script = [Mishap.HANG, Mishap.CLOSE]
    for _ in range(2):
        outcome = await deliver(hasty, push)
        assert isinstance(outcome, Failed)
        assert outcome.may_have_arrived


async def test_a_push_service_that_is_not_there_is_a_failure(service: PushService, web_push: WebPush) -> None:
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        outcome = await deliver(web_push, at(f"http://127.0.0.1:{unused.getsockname()[1]}/push/abcdefgh", service))
    assert isinstance(outcome, Failed)
    assert not outcome.may_have_arrived


async def test_what_a_service_says_is_passed_on_without_the_subscription(
    service: PushService, web_push: WebPush, push: Push
) -> None:
    given = json.loads(push.token)
    path = given["endpoint"].removeprefix(service.url)
    said = f"{given['endpoint']} is {path.removeprefix('/push/')}\n\x1b[31m {given['keys']['auth']} " + "x" * 3_000
    service.script = [Reply(400, said.encode())]
    outcome = await deliver(web_push, push)
    assert isinstance(outcome, Refused)
    assert outcome.message.startswith("<recipient> is <recipient> [31m <recipient> xxx")
    assert len(outcome.message) == 200


async def test_a_location_that_repeats_the_endpoint_is_passed_on_without_it(
    service: PushService, web_push: WebPush, push: Push
) -> None:
    service.script = [Reply(201, headers={"location": json.loads(push.token)["endpoint"]})]
    assert await deliver(web_push, push) == Sent("<recipient>")


@pytest.mark.parametrize(("length", "kept"), [(2_000, True), (3_000, False)])
async def test_a_long_location_is_kept_whole_or_not_at_all(
    service: PushService, web_push: WebPush, push: Push, length: int, kept: bool
) -> None:
    location = "https://push.example/m/".ljust(length, "x")
    service.script = [Reply(201, headers={"location": location})]
    assert await deliver(web_push, push) == Sent(location if kept else None)


async def answer_by_hand(write: Callable[[asyncio.StreamWriter], Any]) -> asyncio.Server:
    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        try:
            await write(writer)
        except ConnectionError:
            pass
        finally:
            writer.close()

    return await asyncio.start_server(serve, "127.0.0.1", 0)


async def test_an_answer_without_end_is_not_read_to_its_end(service: PushService, hasty: WebPush) -> None:
    sent = 0

    async def flood(writer: asyncio.StreamWriter) -> None:
        nonlocal sent
        writer.write(b"HTTP/1.1 201 Created\r\ncontent-encoding: gzip\r\n\r\n")
        while True:
            writer.write(bytes(65_536))
            await writer.drain()
            sent += 65_536

    async with await answer_by_hand(flood) as server:
        port = server.sockets[0].getsockname()[1]
        assert await deliver(hasty, at(f"http://127.0.0.1:{port}/push/abcdefgh", service)) == Sent(None)
    assert sent < 100_000_000


async def test_an_answer_that_drips_is_not_waited_for(service: PushService, hasty: WebPush) -> None:
    async def drip(writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.1 201 Created\r\nx-drip: ")
        while True:
            writer.write(b"x")
            await writer.drain()
            await asyncio.sleep(0.05)

    async with await answer_by_hand(drip) as server:
        port = server.sockets[0].getsockname()[1]
        outcome = await deliver(hasty, at(f"http://127.0.0.1:{port}/push/abcdefgh", service))
    assert outcome == Failed("TimeoutError", "the push service's answer did not come", may_have_arrived=True)


async def test_a_stranger_leaves_no_cookie(service: PushService, web_push: WebPush, push: Push) -> None:
    service.script = [Reply(201, headers={"set-cookie": "a=b; Path=/"})]
    await deliver(web_push, push)
    await deliver(web_push, push)
    assert "cookie" not in service.requests[1].headers


@pytest.mark.parametrize(
    "token",
    [
        "",
        "null",
        "[]",
        "{}",
        '{"endpoint": "https://push.example/1"}',
        '{"endpoint": 1, "keys": {"p256dh": "", "auth": ""}}',
    ],
)
async def test_what_is_no_subscription_is_refused_and_kept(web_push: WebPush, push: Push, token: str) -> None:
    outcome = await web_push.send(replace(push, token=token))
    assert outcome == Refused("subscription", "it is not a subscription's JSON", recipient_is_gone=False)


@pytest.mark.parametrize(
    "keys",
    [
        {"p256dh": ""},
        {"p256dh": "not base64url!"},
        {"p256dh": base64url(b"\x04" + bytes(64))},
        {"p256dh": base64url(bytes(65))},
        {"auth": ""},
        {"auth": base64url(bytes(15))},
        {"auth": "ü" * 22},
        {"auth": "A"},
    ],
)
async def test_a_subscription_with_broken_keys_is_gone(
    service: PushService, web_push: WebPush, push: Push, keys: dict[str, str]
) -> None:
    outcome = await web_push.send(replace(push, token=altered(push.token, keys=keys)))
    assert isinstance(outcome, Refused)
    assert outcome.recipient_is_gone
    assert service.requests == []


@pytest.mark.parametrize("padding", ["=", "=="])
async def test_keys_in_padded_base64_are_read(
    service: PushService, web_push: WebPush, push: Push, padding: str
) -> None:
    keys = {name: value.replace("-", "+").replace("_", "/") for name, value in json.loads(push.token)["keys"].items()}
    padded = {"p256dh": keys["p256dh"] + padding[:1], "auth": keys["auth"] + padding}
    assert isinstance(await deliver(web_push, replace(push, token=altered(push.token, keys=padded))), Sent)


@pytest.mark.parametrize(
    "endpoint",
    [
        "",
        "/push/1",
        "https://",
        "https:///1",
        "ftp://push.example/1",
        "http://push.example/1",
        "http://192.168.0.1/1",
        "https://localhost/1",
        "https://redis:6379/1",
        "https://127.0.0.1/1",
        "https://10.0.0.1/1",
        "https://8.8.8.8/1",
        "https://127.1/1",
        "https://2130706433/1",
        "https://0x7f000001/1",
        "https://0x7f.0.0.0x1/1",
        "https://[::1]/1",
        "https://[::ffff:10.0.0.1]/1",
        "https://user:password@push.example/1",
        "https://user@push.example/1",
        "https://push..example/1",
        f"https://{'a' * 64}.example/1",
        f"https://{'a.' * 130}example/1",
        "https://push.example:99999/1",
        "https://push.example:0/1",
        "https://push.example:x/1",
        "https://pu sh.example/1",
        "https://push.example/\x00",
        "https://push_.exa\u2024mple\n/1",
    ],
)
async def test_an_endpoint_that_no_push_service_has_is_gone(
    service: PushService, web_push: WebPush, endpoint: str
) -> None:
    outcome = await web_push.send(at(endpoint, service))
    assert isinstance(outcome, Refused), outcome
    assert outcome.recipient_is_gone
    assert not endpoint or endpoint not in repr(outcome)


async def test_loopback_is_for_development_alone(service: PushService, push: Push, clock: Clock) -> None:
    web_push = WebPush(client(), SecretStr(PEM), SUBJECT, clock=clock)
    outcome = await deliver(web_push, push)
    await web_push.close()
    assert outcome == Refused("subscription", "the endpoint is not https", recipient_is_gone=True)
    assert service.requests == []


@pytest.mark.parametrize("address", ["127.0.0.1", "::1", "::ffff:127.0.0.1"])
async def test_a_name_that_leads_inside_gets_not_a_byte(
    service: PushService, web_push: WebPush, monkeypatch: pytest.MonkeyPatch, address: str
) -> None:
    received = asyncio.Queue[bytes]()

    async def record(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        received.put_nowait(await reader.read())
        writer.close()

    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    # A mapped address reaches what listens on the address that it stands for.
    async with await asyncio.start_server(record, "::1" if address == "::1" else "127.0.0.1", 0) as server:
        port = server.sockets[0].getsockname()[1]
        resolved = [(family, socket.SOCK_STREAM, 6, "", (address, port, 0, 0) if ":" in address else (address, port))]
        monkeypatch.setattr(socket, "getaddrinfo", lambda *_, **__: resolved)
        outcome = await web_push.send(at(f"https://push.example:{port}/1", service))
        async with asyncio.timeout(5):
            assert await received.get() == b""
    assert outcome == Refused("address", "the endpoint's name leads to an address that is not public", False)


async def test_a_proxy_may_be_inside(service: PushService, clock: Clock) -> None:
    asked = asyncio.Queue[bytes]()

    async def refuse(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        asked.put_nowait(await reader.readline())
        writer.write(b"HTTP/1.1 502 Bad Gateway\r\ncontent-length: 0\r\n\r\n")
        writer.close()

    async with await asyncio.start_server(refuse, "127.0.0.1", 0) as proxy:
        inside = httpx.AsyncClient(proxy=f"http://127.0.0.1:{proxy.sockets[0].getsockname()[1]}", timeout=5)
        web_push = WebPush(inside, SecretStr(PEM), SUBJECT, clock=clock)
        outcome = await web_push.send(at("https://push.example/1", service))
        await web_push.close()
        assert await asked.get() == b"CONNECT push.example:443 HTTP/1.1\r\n"
    assert isinstance(outcome, Failed)
    assert outcome.code == "ProxyError"


@pytest.mark.parametrize("host", ["permanently-removed.invalid", "push.invalid", "PUSH.INVALID"])
async def test_a_host_that_can_never_exist_is_gone(service: PushService, web_push: WebPush, host: str) -> None:
    outcome = await web_push.send(at(f"https://{host}/1", service))
    assert isinstance(outcome, Refused)
    assert outcome.recipient_is_gone


def resolving(monkeypatch: pytest.MonkeyPatch, errno: int) -> None:
    def fail(*_: object, **__: object) -> None:
        raise socket.gaierror(errno, "as the resolver says")

    monkeypatch.setattr(socket, "getaddrinfo", fail)


async def test_a_name_that_nobody_knows_concerns_its_subscription_alone_and_is_kept(
    service: PushService, web_push: WebPush, monkeypatch: pytest.MonkeyPatch
) -> None:
    message = at("https://nobody.example/1", service)
    resolving(monkeypatch, socket.EAI_NONAME)
    outcome = await web_push.send(message)
    assert outcome == Failed("name", "the endpoint's host is not known", may_have_arrived=False)
    assert isinstance(outcome, Failed)
    assert outcome.concerns == "recipient"


@pytest.mark.parametrize(
    ("host", "errno"),
    [("nobody.example", socket.EAI_AGAIN), ("fcm.googleapis.com", socket.EAI_NONAME)],
    ids=["a resolver that does not answer", "a service that is known to exist"],
)
async def test_a_resolver_that_is_down_is_no_fault_of_a_subscription(
    service: PushService, web_push: WebPush, monkeypatch: pytest.MonkeyPatch, host: str, errno: int
) -> None:
    message = at(f"https://{host}/1", service)
    resolving(monkeypatch, errno)
    outcome = await web_push.send(message)
    assert isinstance(outcome, Failed)
    assert outcome.concerns == "provider"
    assert not outcome.may_have_arrived


@pytest.mark.parametrize("status", [400, 401, 403, 404, 406, 410, 413])
async def test_a_reply_with_a_time_to_retry_ends_no_subscription(
    service: PushService, web_push: WebPush, push: Push, status: int
) -> None:
    service.script = [Reply(status, headers={"retry-after": "90"})]
    outcome = await deliver(web_push, push)
    assert isinstance(outcome, Throttled)
    assert outcome.retry_after == timedelta(seconds=90)


async def test_406_is_a_refusal_where_it_is_not_microsofts(service: PushService, web_push: WebPush, push: Push) -> None:
    service.script = [Reply(406)]
    assert await deliver(web_push, push) == Refused("406", "Not Acceptable", recipient_is_gone=False)


def test_a_key_may_be_given_in_base64url() -> None:
    raw = base64url(KEY.private_numbers().private_value.to_bytes(32, "big"))
    WebPush(client(), SecretStr(raw), "https://blog.example")


@pytest.mark.parametrize(
    "key",
    ["", "none", "ü", "-----BEGIN PRIVATE KEY-----", PEM[:100]],
    ids=["empty", "word", "letter", "its first line alone", "half"],
)
def test_an_invalid_key_is_an_error_at_once(key: str) -> None:
    with pytest.raises(ValueError, match="VAPID key"):
        WebPush(client(), SecretStr(key), SUBJECT)


@pytest.mark.parametrize("subject", ["", "push@blog.example", "mailto:", "http://blog.example"])
def test_an_invalid_subject_is_an_error_at_once(subject: str) -> None:
    with pytest.raises(ValueError, match="subject"):
        WebPush(client(), SecretStr(PEM), subject)


async def test_no_secret_is_shown(web_push: WebPush, push: Push) -> None:
    await deliver(web_push, push)
    shown = repr(web_push) + repr(vars(web_push)) + repr(push)
    given = json.loads(push.token)
    for secret in (given["endpoint"], *given["keys"].values(), PEM):
        assert secret not in shown


async def test_no_secret_is_logged(web_push: WebPush, push: Push, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    await deliver(web_push, push)
    given = json.loads(push.token)
    for secret in (given["endpoint"], *given["keys"].values(), "vapid t="):
        assert secret not in caplog.text
