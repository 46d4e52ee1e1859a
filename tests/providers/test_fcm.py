import asyncio
import json
import logging
import socket
from collections.abc import AsyncIterator
from dataclasses import replace
from datetime import timedelta

import pytest
from cryptography.hazmat.primitives.asymmetric import rsa

from dev.providers.fcm import PROJECT, FcmServer, grant_refusal, refusal
from dev.providers.http2 import Act, Mishap, Reply, Request, json_reply
from notifications.messages import Push
from notifications.outcome import Failed, Misconfigured, Outcome, Refused, Sent, Throttled
from providers.base import Provider
from providers.http import client
from providers.push.fcm import Fcm
from tests.providers.conftest import NOW, Clock

KEY = rsa.generate_private_key(65537, 2048)  # one for all tests: to make it takes longer than most of them
TOKEN = "cXk3:APA91bGhT-device-of-ada_0123456789"
PUSH = Push(
    key="0123456789abcdef0123456789abcdef",
    token=TOKEN,
    platform="android",
    title="Ada hat geantwortet",
    body="„Schöne Grüße“ 👋🏽",
    url="https://blog.example/posts/1",
    data={"notificationId": "n-1"},
    expires_at=NOW + timedelta(hours=2),
    urgent=True,
)


@pytest.fixture
async def server(clock: Clock) -> AsyncIterator[FcmServer]:
    async with FcmServer(clock, KEY) as server:
        yield server


@pytest.fixture
async def fcm(server: FcmServer, clock: Clock) -> AsyncIterator[Fcm]:
    fcm = Fcm(client(), server.service_account, server.url, clock)
    yield fcm
    await fcm.close()


@pytest.fixture
async def hasty(server: FcmServer, clock: Clock) -> AsyncIterator[Fcm]:
    fcm = Fcm(client(timeout=timedelta(seconds=0.3)), server.service_account, server.url, clock)
    yield fcm
    await fcm.close()


async def deliver(fcm: Fcm, push: Push = PUSH) -> Outcome:
    outcome = await fcm.send(push)
    assert push.token not in repr(outcome)
    return outcome


def asked(server: FcmServer, path: str) -> list[Request]:
    return [request for request in server.requests if request.path.endswith(path)]


async def test_it_is_a_provider_of_push(fcm: Fcm) -> None:
    provider: Provider[Push] = fcm
    assert (provider.name, provider.may_repeat) == ("fcm", True)


async def test_a_message_arrives_with_all_that_it_says(server: FcmServer, fcm: Fcm) -> None:
    assert await deliver(fcm) == Sent(f"projects/{PROJECT}/messages/0:1%31bd1c96")
    assert server.accepted == [
        {
            "token": TOKEN,
            "notification": {"title": "Ada hat geantwortet", "body": "„Schöne Grüße“ 👋🏽"},
            "data": {"notificationId": "n-1", "url": "https://blog.example/posts/1"},
            "android": {"priority": "HIGH", "ttl": "7200s", "notification": {"tag": PUSH.key}},
        }
    ]


async def test_what_is_not_said_is_not_sent(server: FcmServer, fcm: Fcm) -> None:
    await deliver(fcm, replace(PUSH, url=None, data={}, expires_at=None, urgent=False))
    assert server.accepted[0]["data"] == {}
    assert server.accepted[0]["android"] == {"priority": "NORMAL", "notification": {"tag": PUSH.key}}


@pytest.mark.parametrize(("left", "ttl"), [(timedelta(seconds=-5), "0s"), (timedelta(days=90), "2419200s")])
async def test_the_time_to_live_stays_within_what_fcm_takes(
    server: FcmServer, fcm: Fcm, left: timedelta, ttl: str
) -> None:
    assert isinstance(await deliver(fcm, replace(PUSH, expires_at=NOW + left)), Sent)
    assert server.accepted[0]["android"]["ttl"] == ttl


async def test_a_long_body_is_shortened_between_characters(server: FcmServer, fcm: Fcm) -> None:
    assert isinstance(await deliver(fcm, replace(PUSH, body="👋🏽ü" * 2_000)), Sent)
    body = server.accepted[0]["notification"]["body"]
    assert body.endswith("…")
    assert ("👋🏽ü" * 2_000).startswith(body[:-1])
    assert 3_500 < len(body.encode()) < 4_096


async def test_a_message_that_is_too_long_without_its_body_is_refused_unsent(server: FcmServer, fcm: Fcm) -> None:
    outcome = await deliver(fcm, replace(PUSH, data={"all": "x" * 5_000}))
    assert isinstance(outcome, Refused)
    assert not outcome.recipient_is_gone
    assert server.requests == []


@pytest.mark.parametrize(
    ("reply", "outcome"),
    [
        (
            refusal(404, "NOT_FOUND", "Requested entity was not found.", code="UNREGISTERED"),
            Refused("UNREGISTERED", "Requested entity was not found.", recipient_is_gone=True),
        ),
        (
            refusal(403, "PERMISSION_DENIED", "SenderId mismatch", code="SENDER_ID_MISMATCH"),
            Failed("SENDER_ID_MISMATCH", "SenderId mismatch", may_have_arrived=False),
        ),
        (
            refusal(400, "INVALID_ARGUMENT", "The registration token is not valid", code="INVALID_ARGUMENT"),
            Refused("INVALID_ARGUMENT", "The registration token is not valid", recipient_is_gone=True),
        ),
        (
            refusal(400, "INVALID_ARGUMENT", "Invalid", code="INVALID_ARGUMENT", field="message.token"),
            Refused("INVALID_ARGUMENT", "Invalid", recipient_is_gone=True),
        ),
        (
            refusal(400, "INVALID_ARGUMENT", "Invalid registration token field", field="message.data[0].value"),
            Refused("INVALID_ARGUMENT", "Invalid registration token field", recipient_is_gone=False),
        ),
        (
            refusal(400, "INVALID_ARGUMENT", "Android message is too big", code="INVALID_ARGUMENT"),
            Refused("INVALID_ARGUMENT", "Android message is too big", recipient_is_gone=False),
        ),
        (Reply(404, b"<title>Not Found</title>"), Refused("404", "Not Found", recipient_is_gone=False)),
        (
            refusal(429, "RESOURCE_EXHAUSTED", "Quota", code="QUOTA_EXCEEDED", headers={"retry-after": "90"}),
            Throttled("QUOTA_EXCEEDED", "Quota", timedelta(seconds=90)),
        ),
        (Reply(429), Throttled("429", "Too Many Requests", timedelta(minutes=1))),
        (
            refusal(503, "UNAVAILABLE", "Overloaded", code="UNAVAILABLE"),
            Failed("UNAVAILABLE", "Overloaded", may_have_arrived=False),
        ),
        (
            refusal(500, "INTERNAL", "Internal error", code="INTERNAL"),
            Failed("INTERNAL", "Internal error", may_have_arrived=False),
        ),
        (Reply(502, b"<title>Error 502</title>"), Failed("502", "Bad Gateway", may_have_arrived=True)),
        (
            refusal(401, "UNAUTHENTICATED", "APNs certificate", code="THIRD_PARTY_AUTH_ERROR"),
            Failed("THIRD_PARTY_AUTH_ERROR", "APNs certificate", may_have_arrived=False),
        ),
        (
            refusal(403, "PERMISSION_DENIED", "Permission denied on resource project"),
            Misconfigured("PERMISSION_DENIED", "Permission denied on resource project"),
        ),
        (Reply(400, b'{"error": ["odd"]}'), Refused("400", "Bad Request", recipient_is_gone=False)),
    ],
    ids=lambda value: getattr(value, "code", type(value).__name__),
)
async def test_an_error_becomes_its_outcome(server: FcmServer, fcm: Fcm, reply: Reply, outcome: Outcome) -> None:
    server.script = [reply]
    assert await deliver(fcm) == outcome
    assert len(asked(server, ":send")) == 1


@pytest.mark.parametrize("other", ["message.data[0].value", "message.android.ttl", "message.notification.title"])
async def test_a_token_is_kept_where_fcm_blames_another_field_as_well(server: FcmServer, fcm: Fcm, other: str) -> None:
    violations = [{"field": "message.token"}, {"field": other}]
    details = [{"errorCode": "INVALID_ARGUMENT"}, {"fieldViolations": violations}]
    error = {"code": 400, "message": "Invalid", "status": "INVALID_ARGUMENT", "details": details}
    server.script = [json_reply(400, {"error": error})]
    assert await deliver(fcm) == Refused("INVALID_ARGUMENT", "Invalid", recipient_is_gone=False)


@pytest.mark.parametrize("shape", ["null", "7", "true", '"text"', "[]", "[null]", "{}", "[{}]"])
@pytest.mark.parametrize("field", ["message", "status", "fieldViolations", "another detail"])
async def test_no_shape_of_another_field_hides_that_a_device_is_gone(
    server: FcmServer, fcm: Fcm, field: str, shape: str
) -> None:
    known = {"message": '"m"', "status": '"NOT_FOUND"', "fieldViolations": "[]", "another detail": "{}"} | {
        field: shape
    }
    detail = f'{{"errorCode": "UNREGISTERED", "fieldViolations": {known["fieldViolations"]}}}'
    error = f'"message": {known["message"]}, "status": {known["status"]}'
    body = f'{{"error": {{{error}, "details": [{known["another detail"]}, null, {detail}]}}}}'
    server.script = [Reply(404, body.encode())]
    outcome = await deliver(fcm)
    assert isinstance(outcome, Refused)
    assert (outcome.code, outcome.recipient_is_gone) == ("UNREGISTERED", True)


@pytest.mark.parametrize("name", ["null", "7", "[]", "{}"])
async def test_an_answer_with_a_name_of_any_shape_still_means_sent(server: FcmServer, fcm: Fcm, name: str) -> None:
    server.script = [Reply(200, f'{{"name": {name}}}'.encode())]
    assert isinstance(await deliver(fcm), Sent)


async def test_a_token_in_an_error_is_not_passed_on(server: FcmServer, fcm: Fcm) -> None:
    server.script = [refusal(404, "NOT_FOUND", f"No device {TOKEN} here", code="UNREGISTERED")]
    assert await deliver(fcm) == Refused("UNREGISTERED", "No device <recipient> here", recipient_is_gone=True)


async def test_an_answer_without_a_name_still_means_sent(server: FcmServer, fcm: Fcm) -> None:
    server.script = [Reply(200, b"{}")]
    assert await deliver(fcm) == Sent(None)


async def test_no_answer_is_a_failure_after_which_it_may_have_arrived(server: FcmServer, hasty: Fcm) -> None:
    await deliver(hasty)
    server.script = [Mishap.HANG, Mishap.CLOSE]
    for _ in range(2):
        outcome = await deliver(hasty)
        assert isinstance(outcome, Failed)
        assert outcome.may_have_arrived


async def test_a_provider_that_is_not_there_is_a_failure(server: FcmServer, clock: Clock) -> None:
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        fcm = Fcm(client(), server.service_account, f"http://127.0.0.1:{unused.getsockname()[1]}", clock)
        outcome = await deliver(fcm)
        await fcm.close()
    assert isinstance(outcome, Failed)
    assert not outcome.may_have_arrived


async def test_an_access_token_is_used_until_shortly_before_it_expires(
    server: FcmServer, fcm: Fcm, clock: Clock
) -> None:
    await deliver(fcm)
    clock.now += timedelta(minutes=54)
    await deliver(fcm)
    assert len(server.issued) == 1
    clock.now += timedelta(minutes=1)
    await deliver(fcm)
    assert len(server.issued) == 2
    assert len(server.accepted) == 3


async def test_a_refused_access_token_is_renewed_once(server: FcmServer, fcm: Fcm) -> None:
    await deliver(fcm)
    server.revoke()
    assert isinstance(await deliver(fcm), Sent)
    assert len(server.issued) == 2
    assert len(asked(server, ":send")) == 3


async def test_access_that_is_refused_twice_is_misconfigured(server: FcmServer, fcm: Fcm) -> None:
    unauthenticated = refusal(401, "UNAUTHENTICATED", "Request had invalid authentication credentials.")
    server.script = [unauthenticated, unauthenticated]
    assert await deliver(fcm) == Misconfigured("UNAUTHENTICATED", "Request had invalid authentication credentials.")
    assert len(asked(server, ":send")) == len(server.issued) == 2


async def test_many_messages_at_once_ask_for_one_access_token(server: FcmServer, fcm: Fcm) -> None:
    for rounds in (1, 2):
        outcomes = await asyncio.gather(*(deliver(fcm) for _ in range(20)))
        assert all(isinstance(outcome, Sent) for outcome in outcomes)
        assert len(server.issued) == rounds
        server.revoke()


async def test_who_gives_up_waiting_for_an_access_token_takes_it_from_nobody(server: FcmServer, fcm: Fcm) -> None:
    first, second = asyncio.create_task(deliver(fcm)), asyncio.create_task(deliver(fcm))
    await asyncio.sleep(0)
    first.cancel()
    assert isinstance(await second, Sent)
    assert len(server.issued) == 1


@pytest.mark.parametrize(
    ("reply", "outcome"),
    [
        (
            grant_refusal(400, "invalid_grant", "Invalid JWT Signature."),
            Misconfigured("invalid_grant", "no access token: Invalid JWT Signature."),
        ),
        (Reply(401), Misconfigured("401", "no access token: Unauthorized")),
        (
            Reply(429, headers={"retry-after": "7"}),
            Throttled("429", "no access token: Too Many Requests", timedelta(seconds=7)),
        ),
        (Reply(503), Failed("503", "no access token: Service Unavailable", may_have_arrived=False)),
        (Reply(502), Failed("502", "no access token: Bad Gateway", may_have_arrived=False)),
        (
            Reply(200, b"<html>"),
            Failed(
                "access-token", "the response to the request for an access token is invalid", may_have_arrived=False
            ),
        ),
    ],
    ids=lambda value: getattr(value, "code", type(value).__name__),
)
async def test_without_an_access_token_nothing_is_sent(
    server: FcmServer, fcm: Fcm, reply: Reply, outcome: Outcome
) -> None:
    server.token_script = [reply]
    assert await deliver(fcm) == outcome
    assert asked(server, ":send") == []
    assert isinstance(await deliver(fcm), Sent)


async def test_nobody_waits_longer_than_one_request_for_an_access_token(server: FcmServer, hasty: Fcm) -> None:
    server.token_script = [Mishap.HANG]
    outcomes = await asyncio.gather(*(deliver(hasty) for _ in range(10)))
    assert len(asked(server, "/token")) == 1
    for outcome in outcomes:
        assert isinstance(outcome, Failed)
        assert not outcome.may_have_arrived


async def test_a_wrong_key_gets_no_access(server: FcmServer, clock: Clock) -> None:
    async with FcmServer(clock) as other:
        account = server.service_account | {"private_key": other.service_account["private_key"]}
        fcm = Fcm(client(), account, server.url, clock)
        outcome = await deliver(fcm)
        await fcm.close()
    assert outcome == Misconfigured("invalid_grant", "no access token: Invalid JWT Signature.")


async def test_closing_ends_a_request_for_an_access_token(server: FcmServer, clock: Clock) -> None:
    came = asyncio.Event()

    def hang(request: Request) -> Act | None:
        came.set()
        return Mishap.HANG

    server.token_script = hang
    fcm = Fcm(client(), server.service_account, server.url, clock)
    waiting = asyncio.create_task(deliver(fcm))
    await came.wait()
    await fcm.close()
    async with asyncio.timeout(5):
        outcome = await waiting
    assert isinstance(outcome, Failed)
    assert not outcome.may_have_arrived


async def test_no_secret_is_shown(server: FcmServer, fcm: Fcm) -> None:
    await deliver(fcm)
    shown = repr(fcm) + repr(vars(fcm)) + repr(vars(fcm._access)) + repr(PUSH)
    for secret in (TOKEN, server.issued[0], server.service_account["private_key"]):
        assert secret not in shown


def test_a_key_file_without_a_key_is_an_error_at_once() -> None:
    account = {"project_id": "p", "private_key_id": "1", "private_key": "none", "client_email": "e", "token_uri": "u"}
    with pytest.raises(ValueError, match="PEM"):
        Fcm(client(), account)
    with pytest.raises(KeyError):
        Fcm(client(), json.loads("{}"))


async def test_no_secret_is_logged(server: FcmServer, fcm: Fcm, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    await deliver(fcm)
    assert TOKEN not in caplog.text
    assert server.issued[0] not in caplog.text
