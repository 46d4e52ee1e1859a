import asyncio
import logging
import socket
from collections.abc import AsyncIterator
from dataclasses import replace
from datetime import timedelta

import httpx
import pytest
from pydantic import SecretStr

from dev.providers.apns import KEY_ID, TEAM_ID, TOPIC, ApnsServer, refusal
from dev.providers.http2 import Act, Mishap, Reply, Request
from notifications.messages import Push
from notifications.outcome import Failed, Misconfigured, Outcome, Refused, Sent, Throttled
from providers.base import Provider
from providers.push.apns import Apns
from tests.providers.conftest import NOW, Clock

TOKEN = "00fc13adff785122b4ad28809a3420982341241421348097878e577c991de8f0"
APNS_ID = "01234567-89ab-cdef-0123-456789abcdef"
PUSH = Push(
    key="0123456789abcdef0123456789abcdef",
    token=TOKEN,
    platform="ios",
    title="Ada hat geantwortet",
    body="„Schöne Grüße“ 👋🏽",
    url="https://blog.example/posts/1",
    data={"notificationId": "n-1"},
    expires_at=NOW + timedelta(hours=2),
    urgent=True,
)


def provider(
    server: ApnsServer, clock: Clock, *, timeout: float = 10, topic: str = TOPIC, key_id: str = KEY_ID
) -> Apns:
    client = httpx.AsyncClient(http2=True, timeout=timeout, verify=server.certificate.client_context())
    return Apns(client, SecretStr(server.key), key_id, TEAM_ID, topic, server.url, clock)


@pytest.fixture
async def server(clock: Clock) -> AsyncIterator[ApnsServer]:
    async with ApnsServer(clock) as server:
        yield server


@pytest.fixture
async def apns(server: ApnsServer, clock: Clock) -> AsyncIterator[Apns]:
    apns = provider(server, clock)
    yield apns
    await apns.close()


async def deliver(apns: Apns, push: Push = PUSH) -> Outcome:
    outcome = await apns.send(push)
    assert push.token not in repr(outcome)
    return outcome


async def test_it_is_a_provider_of_push(apns: Apns) -> None:
    as_declared: Provider[Push] = apns
    assert (as_declared.name, as_declared.may_repeat) == ("apns", True)


async def test_a_message_arrives_with_all_that_it_says(server: ApnsServer, apns: Apns) -> None:
    assert await deliver(apns) == Sent(APNS_ID)
    [accepted] = server.accepted
    assert accepted.device == TOKEN
    assert accepted.payload == {
        "aps": {"alert": {"title": "Ada hat geantwortet", "body": "„Schöne Grüße“ 👋🏽"}},
        "url": "https://blog.example/posts/1",
        "data": {"notificationId": "n-1"},
    }
    headers = {name: value for name, value in accepted.headers.items() if name.startswith("apns-")}
    assert headers == {
        "apns-id": APNS_ID,
        "apns-collapse-id": PUSH.key,
        "apns-topic": TOPIC,
        "apns-push-type": "alert",
        "apns-priority": "10",
        "apns-expiration": str(int((NOW + timedelta(hours=2)).timestamp())),
    }


async def test_what_is_not_said_is_not_sent(server: ApnsServer, apns: Apns) -> None:
    await deliver(apns, replace(PUSH, url=None, data={}, expires_at=None, urgent=False))
    [accepted] = server.accepted
    assert accepted.payload.keys() == {"aps"}
    assert accepted.headers["apns-priority"] == "5"
    assert "apns-expiration" not in accepted.headers


async def test_every_attempt_has_the_same_names_and_one_connection_carries_all(server: ApnsServer, apns: Apns) -> None:
    await deliver(apns)
    await asyncio.gather(*(deliver(apns) for _ in range(20)))
    assert {accepted.headers["apns-id"] for accepted in server.accepted} == {APNS_ID}
    assert {accepted.headers["apns-collapse-id"] for accepted in server.accepted} == {PUSH.key}
    assert {request.http_version for request in server.requests} == {"2"}
    assert server.connections == 1


@pytest.mark.parametrize("text", ["a", "ü", "漢", "👋", '"\\\n'])
async def test_a_long_body_is_shortened_between_characters(server: ApnsServer, apns: Apns, text: str) -> None:
    assert isinstance(await deliver(apns, replace(PUSH, body=text * 5_000)), Sent)
    body = server.accepted[0].payload["aps"]["alert"]["body"]
    assert body.endswith("…")
    assert (text * 5_000).startswith(body[:-1])
    assert 4_096 - 8 <= len(server.requests[0].body) <= 4_096


async def test_a_body_that_just_fits_stays_whole(server: ApnsServer, apns: Apns) -> None:
    await deliver(apns, replace(PUSH, body=""))
    body = "x" * (4_096 - len(server.requests[0].body))
    await deliver(apns, replace(PUSH, body=body))
    assert server.accepted[1].payload["aps"]["alert"]["body"] == body
    await deliver(apns, replace(PUSH, body=body + "x"))
    assert server.accepted[2].payload["aps"]["alert"]["body"] == body[:-3] + "…"


async def test_half_a_surrogate_pair_does_no_harm(server: ApnsServer, apns: Apns) -> None:
    assert isinstance(await deliver(apns, replace(PUSH, body="half \ud83d")), Sent)
    assert server.accepted[0].payload["aps"]["alert"]["body"] == "half ?"


async def test_a_message_that_is_too_long_without_its_body_is_refused_unsent(server: ApnsServer, apns: Apns) -> None:
    outcome = await deliver(apns, replace(PUSH, title="x" * 5_000))
    assert outcome == Refused("PayloadTooLarge", "without its body it has more than 4096 bytes", False)
    assert server.requests == []


@pytest.mark.parametrize("token", ["", "../../v1", "0g", f"{TOKEN}/x", f"{TOKEN}?x", f"{TOKEN}\n"])
async def test_what_is_no_device_token_goes_into_no_url(server: ApnsServer, apns: Apns, token: str) -> None:
    outcome = await apns.send(replace(PUSH, token=token))
    assert outcome == Refused("BadDeviceToken", "the token is not hexadecimal", recipient_is_gone=False)
    assert server.requests == []


@pytest.mark.parametrize("reason", ["BadDeviceToken", "DeviceTokenNotForTopic"])
async def test_a_token_of_another_environment_or_topic_fails_and_the_device_is_kept(
    server: ApnsServer, apns: Apns, reason: str
) -> None:
    server.script = [refusal(400, reason)]
    assert await deliver(apns) == Refused(reason, "APNs answered 400", recipient_is_gone=False)


@pytest.mark.parametrize("status", [404, 405, 410])
async def test_an_answer_without_a_reason_is_not_of_apns(server: ApnsServer, apns: Apns, status: int) -> None:
    server.script = [Reply(status, b"<title>Not Found</title>")]
    assert await deliver(apns) == Misconfigured(str(status), f"APNs answered {status}")


@pytest.mark.parametrize(("status", "reason"), [(410, "Unregistered"), (410, "ExpiredToken")])
async def test_a_device_that_is_gone_is_reported(server: ApnsServer, apns: Apns, status: int, reason: str) -> None:
    server.script = [refusal(status, reason)]
    assert await deliver(apns) == Refused(reason, f"APNs answered {status}", recipient_is_gone=True)


@pytest.mark.parametrize(
    ("status", "reason"),
    [
        (400, "BadCollapseId"),
        (400, "BadExpirationDate"),
        (400, "BadMessageId"),
        (400, "BadPriority"),
        (400, "DuplicateHeaders"),
        (400, "InvalidPushType"),
        (400, "MissingDeviceToken"),
        (400, "PayloadEmpty"),
        (404, "BadPath"),
        (405, "MethodNotAllowed"),
        (413, "PayloadTooLarge"),
    ],
)
async def test_a_message_that_can_never_be_taken_is_refused(
    server: ApnsServer, apns: Apns, status: int, reason: str
) -> None:
    server.script = [refusal(status, reason)]
    assert await deliver(apns) == Refused(reason, f"APNs answered {status}", recipient_is_gone=False)


@pytest.mark.parametrize(
    ("status", "reason"),
    [
        (400, "BadTopic"),
        (400, "MissingTopic"),
        (400, "TopicDisallowed"),
        (403, "BadCertificate"),
        (403, "BadCertificateEnvironment"),
        (403, "BadEnvironmentKeyIdInToken"),
        (403, "Forbidden"),
        (403, "InvalidProviderToken"),
        (403, "MissingProviderToken"),
        (403, "UnrelatedKeyIdInToken"),
    ],
)
async def test_what_is_ours_to_mend_is_misconfigured(server: ApnsServer, apns: Apns, status: int, reason: str) -> None:
    server.script = [refusal(status, reason)]
    assert await deliver(apns) == Misconfigured(reason, f"APNs answered {status}")


@pytest.mark.parametrize(
    ("reply", "outcome"),
    [
        (refusal(429, "TooManyRequests"), Throttled("TooManyRequests", "APNs answered 429", None)),
        (
            refusal(429, "TooManyRequests", {"retry-after": "30"}),
            Throttled("TooManyRequests", "APNs answered 429", timedelta(seconds=30)),
        ),
        (
            refusal(429, "TooManyProviderTokenUpdates"),
            Throttled("TooManyProviderTokenUpdates", "APNs answered 429", timedelta(minutes=20)),
        ),
        (refusal(500, "InternalServerError"), Failed("InternalServerError", "APNs answered 500", False)),
        (refusal(503, "ServiceUnavailable"), Failed("ServiceUnavailable", "APNs answered 503", False)),
        (refusal(503, "Shutdown"), Failed("Shutdown", "APNs answered 503", False)),
        (Reply(502, b"<html>"), Failed("502", "APNs answered 502", True)),
        (refusal(400, "IdleTimeout"), Failed("IdleTimeout", "APNs answered 400", False)),
        (Reply(418, b"[]"), Refused("418", "APNs answered 418", False)),
    ],
    ids=lambda value: getattr(value, "code", type(value).__name__),
)
async def test_an_answer_becomes_its_outcome(server: ApnsServer, apns: Apns, reply: Reply, outcome: Outcome) -> None:
    server.script = [reply]
    assert await deliver(apns) == outcome


@pytest.mark.parametrize("mishap", list(Mishap))
async def test_no_answer_is_a_failure_after_which_it_may_have_arrived(
    server: ApnsServer, clock: Clock, mishap: Mishap
) -> None:
    apns = provider(server, clock, timeout=0.5)
    await deliver(apns)
    server.script = [mishap]
    outcome = await deliver(apns)
    assert isinstance(outcome, Failed)
    assert outcome.may_have_arrived
    assert isinstance(await deliver(apns), Sent)
    await apns.close()


async def test_a_provider_that_is_not_there_is_a_failure(server: ApnsServer, clock: Clock) -> None:
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        url = f"https://127.0.0.1:{unused.getsockname()[1]}"
        apns = Apns(httpx.AsyncClient(http2=True), SecretStr(server.key), KEY_ID, TEAM_ID, TOPIC, url, clock)
        outcome = await deliver(apns)
        await apns.close()
    assert isinstance(outcome, Failed)
    assert not outcome.may_have_arrived


async def test_a_server_with_a_strangers_certificate_gets_nothing(server: ApnsServer, clock: Clock) -> None:
    url = server.url
    apns = Apns(httpx.AsyncClient(http2=True), SecretStr(server.key), KEY_ID, TEAM_ID, TOPIC, url, clock)
    outcome = await deliver(apns)
    await apns.close()
    assert isinstance(outcome, Failed)
    assert not outcome.may_have_arrived
    assert server.requests == []


async def test_a_provider_token_is_renewed_between_20_and_60_minutes(
    server: ApnsServer, apns: Apns, clock: Clock
) -> None:
    for _ in range(24):
        assert isinstance(await deliver(apns), Sent)
        clock.now += timedelta(minutes=5)
    assert len(server.provider_tokens) == 3


async def test_a_provider_token_that_has_expired_is_renewed_once(server: ApnsServer, apns: Apns, clock: Clock) -> None:
    await deliver(apns)
    clock.now += timedelta(minutes=25)
    server.script = [refusal(403, "ExpiredProviderToken")]
    assert isinstance(await deliver(apns), Sent)
    assert len(server.provider_tokens) == 2
    clock.now += timedelta(minutes=25)
    server.script = [refusal(403, "ExpiredProviderToken"), refusal(403, "ExpiredProviderToken")]
    assert await deliver(apns) == Misconfigured("ExpiredProviderToken", "APNs answered 403")
    assert len(server.requests) == 5


async def test_many_messages_at_once_renew_the_provider_token_once(
    server: ApnsServer, apns: Apns, clock: Clock
) -> None:
    await deliver(apns)
    old = server.provider_tokens[0]
    clock.now += timedelta(minutes=25)

    def expire(request: Request) -> Act | None:
        return refusal(403, "ExpiredProviderToken") if request.headers["authorization"].endswith(old) else None

    server.script = expire
    outcomes = await asyncio.gather(*(deliver(apns) for _ in range(20)))
    assert all(isinstance(outcome, Sent) for outcome in outcomes)
    assert len(server.provider_tokens) == 2


async def test_a_young_provider_token_is_never_renewed(server: ApnsServer, apns: Apns, clock: Clock) -> None:
    await deliver(apns)
    clock.now += timedelta(minutes=19)
    server.script = [refusal(403, "ExpiredProviderToken")]
    assert await deliver(apns) == Misconfigured("ExpiredProviderToken", "APNs answered 403")
    assert len(server.requests) == 2
    assert isinstance(await deliver(apns), Sent)
    assert len(server.provider_tokens) == 1


async def test_a_clock_that_was_set_back_makes_a_new_provider_token(apns: Apns, clock: Clock) -> None:
    await deliver(apns)
    clock.now -= timedelta(hours=3)
    # The server has seen a token three hours ahead, so it wants no other one yet.
    assert await deliver(apns) == Throttled("TooManyProviderTokenUpdates", "APNs answered 429", timedelta(minutes=20))


@pytest.mark.parametrize(
    ("topic", "key_id", "reason"),
    [("example.other", KEY_ID, "TopicDisallowed"), (TOPIC, "0000000000", "InvalidProviderToken")],
)
async def test_wrong_settings_are_misconfigured(
    server: ApnsServer, clock: Clock, topic: str, key_id: str, reason: str
) -> None:
    apns = provider(server, clock, topic=topic, key_id=key_id)
    outcome = await deliver(apns)
    await apns.close()
    assert isinstance(outcome, Misconfigured)
    assert outcome.code == reason


async def test_no_secret_is_shown(server: ApnsServer, apns: Apns) -> None:
    await deliver(apns)
    shown = repr(apns) + repr(vars(apns)) + repr(PUSH)
    for secret in (TOKEN, server.provider_tokens[0], server.key):
        assert secret not in shown


def test_an_invalid_key_is_an_error_at_once() -> None:
    with pytest.raises(ValueError, match="PEM"):
        Apns(httpx.AsyncClient(), SecretStr("none"), KEY_ID, TEAM_ID, TOPIC)


async def test_a_wrong_key_is_misconfigured(server: ApnsServer, apns: Apns, clock: Clock) -> None:
    async with ApnsServer(clock) as other:
        server.key, key = other.key, server.key
        wrong = provider(server, clock)
        outcome = await deliver(wrong)
        await wrong.close()
        server.key = key
    assert outcome == Misconfigured("InvalidProviderToken", "APNs answered 403")
    assert isinstance(await deliver(apns), Sent)


async def test_no_secret_is_logged(server: ApnsServer, apns: Apns, caplog: pytest.LogCaptureFixture) -> None:
    # hpack's own lines of what the server in this process reads are silenced with those of the client.
    caplog.set_level(logging.DEBUG)
    await deliver(apns)
    assert TOKEN not in caplog.text
    assert server.provider_tokens[0] not in caplog.text
