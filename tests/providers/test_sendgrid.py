"""SendGrid's contract: what we ask it for, and what its replies mean to us."""

import asyncio
import json
from collections.abc import AsyncIterator
from datetime import timedelta

import httpx
import pytest
from hypothesis import given
from pydantic import SecretStr

from dev.providers.sendgrid import SendGridServer
from dev.providers.server import Answer, Fault, Reply
from notifications.messages import Email
from notifications.outcome import Failed, Misconfigured, Refused, Sent, Throttled
from providers.base import Provider
from providers.email.addresses import Envelope, address_in_ascii
from providers.email.sendgrid import SendGrid, _mail
from tests.providers.conftest import ANYTHING, KEY, MakeEmail, injecting_email, is_one_line

API_KEY = SecretStr("SG.right")


@pytest.fixture
async def server() -> AsyncIterator[SendGridServer]:
    async with SendGridServer(API_KEY.get_secret_value()) as running:
        yield running


@pytest.fixture
def provider(server: SendGridServer, client: httpx.AsyncClient) -> Provider[Email]:
    return SendGrid(client, API_KEY, server.url)


async def test_an_email_arrives_with_all_that_it_has(
    provider: Provider[Email], server: SendGridServer, email: MakeEmail
) -> None:
    message = email()
    outcome = await provider.send(message)
    (accepted,) = server.accepted
    assert outcome == Sent(accepted.provider_id)
    assert (accepted.to, accepted.sender, accepted.subject) == (message.to, message.sender, message.subject)
    assert (accepted.text, accepted.html) == (message.text, message.html)
    assert accepted.metadata == message.metadata


async def test_the_key_is_the_same_at_every_attempt(
    provider: Provider[Email], server: SendGridServer, email: MakeEmail
) -> None:
    server.plan = [Fault.CLOSE_AFTER]
    await provider.send(email())
    await provider.send(email())
    assert [accepted.key for accepted in server.accepted] == [KEY, KEY]
    assert provider.may_repeat


async def test_one_click_unsubscribes(provider: Provider[Email], server: SendGridServer, email: MakeEmail) -> None:
    message = email()
    await provider.send(message)
    assert server.accepted[0].headers == {
        "Auto-Submitted": "auto-generated",
        "List-Unsubscribe": f"<{message.unsubscribe_url}>",
        "List-Unsubscribe-Post": "List-Unsubscribe=One-Click",
    }


async def test_a_transactional_email_has_no_such_headers(
    provider: Provider[Email], server: SendGridServer, email: MakeEmail
) -> None:
    assert isinstance(await provider.send(email(unsubscribe_url=None)), Sent)
    assert server.accepted[0].headers == {"Auto-Submitted": "auto-generated"}


async def test_text_outside_ascii_arrives_as_it_is(
    provider: Provider[Email], server: SendGridServer, email: MakeEmail
) -> None:
    await provider.send(email(subject="Grüße, 世界 🎉", sender="Zoë, 編集部 <news@bücher.example>", text="héllo"))
    (accepted,) = server.accepted
    assert accepted.subject == "Grüße, 世界 🎉"
    assert accepted.sender == "Zoë, 編集部 <news@xn--bcher-kva.example>"
    assert accepted.text == "héllo"


async def test_half_a_surrogate_pair_does_not_stop_it(provider: Provider[Email], email: MakeEmail) -> None:
    message = email(subject="a\ud800b", text="\udfff", html="\udfff", metadata={"name": "\ud800"})
    assert isinstance(await provider.send(message), Sent)


@pytest.mark.parametrize("fault", [Fault.REFUSE, Reply(413)])
async def test_a_message_that_is_not_taken_is_refused(
    provider: Provider[Email], server: SendGridServer, email: MakeEmail, fault: Answer
) -> None:
    server.plan = [fault]
    outcome = await provider.send(email())
    assert isinstance(outcome, Refused)
    assert not outcome.recipient_is_gone
    assert server.accepted == []


async def test_an_address_that_sendgrid_calls_invalid_is_refused_and_not_suppressed(
    provider: Provider[Email], server: SendGridServer, email: MakeEmail
) -> None:
    server.plan = [Fault.REFUSE_RECIPIENT]
    outcome = await provider.send(email())
    assert outcome == Refused("400", "Does not contain a valid address: <recipient>", recipient_is_gone=False)


@pytest.mark.parametrize("address", ["", "ada", "ada@reader.example, eve@evil.example", "a\r\nBcc: e@e.example", "a@"])
async def test_what_is_no_address_is_refused_unasked(
    provider: Provider[Email], server: SendGridServer, email: MakeEmail, address: str
) -> None:
    outcome = await provider.send(email(to=address))
    assert isinstance(outcome, Refused)
    assert (outcome.code, outcome.recipient_is_gone) == ("invalid-address", False)
    assert server.accepted == []


async def test_a_sender_that_is_no_address_is_ours_to_mend(provider: Provider[Email], email: MakeEmail) -> None:
    assert isinstance(await provider.send(email(sender="The Blog")), Misconfigured)


async def test_errors_of_sendgrid_are_reported_without_address_and_subject(
    provider: Provider[Email], server: SendGridServer, email: MakeEmail
) -> None:
    message = email()
    said = f"{message.subject}: {message.to.upper()} and <{message.to}>, ada.lovelace%40reader.example, ada.lovelace"
    server.plan = [Reply(400, {"errors": [{"message": said, "field": None}]})]
    outcome = await provider.send(message)
    assert isinstance(outcome, Refused)
    assert outcome.message == "<subject>: <recipient> and <recipient>, <recipient>, <recipient>"


async def test_a_wrong_key_is_ours_to_mend(server: SendGridServer, client: httpx.AsyncClient, email: MakeEmail) -> None:
    outcome = await SendGrid(client, SecretStr("SG.wrong"), server.url).send(email())
    assert isinstance(outcome, Misconfigured)
    assert outcome.code == "401"
    assert "SG.wrong" not in repr(outcome)


@pytest.mark.parametrize("answer", [Fault.REJECT_US, Reply(404), Reply(301, headers={"Location": "/"}), Reply(451)])
async def test_a_sender_or_an_account_that_is_not_let_in_is_ours_to_mend(
    provider: Provider[Email], server: SendGridServer, email: MakeEmail, answer: Answer
) -> None:
    server.plan = [answer]
    assert isinstance(await provider.send(email()), Misconfigured)


async def test_a_limit_is_waited_for_until_it_is_lifted(
    provider: Provider[Email], server: SendGridServer, email: MakeEmail
) -> None:
    server.plan, server.retry_after = [Fault.THROTTLE], timedelta(seconds=90)
    outcome = await provider.send(email())
    assert isinstance(outcome, Throttled)
    assert outcome.retry_after is not None
    assert timedelta(seconds=80) < outcome.retry_after <= timedelta(seconds=90)


@pytest.mark.parametrize(
    ("headers", "wait"),
    [
        ({"Retry-After": "7", "X-RateLimit-Reset": "4000000000"}, timedelta(seconds=7)),
        ({"X-RateLimit-Reset": "1"}, timedelta(0)),
        ({"X-RateLimit-Reset": "4000000000"}, timedelta(days=1)),
        ({"X-RateLimit-Reset": "9" * 40}, None),
        ({"X-RateLimit-Reset": "soon", "Retry-After": "9" * 5000}, None),
        ({}, None),
    ],
)
async def test_a_limit_says_how_long_or_not(
    provider: Provider[Email],
    server: SendGridServer,
    email: MakeEmail,
    headers: dict[str, str],
    wait: timedelta | None,
) -> None:
    server.plan = [Reply(429, {"errors": [{"message": "too many requests"}]}, headers)]
    assert await provider.send(email()) == Throttled("429", "too many requests", wait)


@pytest.mark.parametrize(("status", "may_have_arrived"), [(500, False), (502, True), (503, False), (504, True)])
async def test_a_fault_of_sendgrid_may_pass(
    provider: Provider[Email], server: SendGridServer, email: MakeEmail, status: int, may_have_arrived: bool
) -> None:
    server.plan = [Reply(status, "<html>Bad Gateway</html>")]
    assert await provider.send(email()) == Failed(str(status), "", may_have_arrived)
    assert isinstance(await provider.send(email()), Sent)


async def test_an_answer_that_comes_drop_by_drop_ends_with_the_time_out(
    hasty_client: httpx.AsyncClient, email: MakeEmail
) -> None:
    ended = asyncio.Event()

    async def drip(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while not writer.is_closing():
            writer.write(b"H")
            await asyncio.sleep(0.05)
        ended.set()

    async with await asyncio.start_server(drip, "127.0.0.1", 0) as dripping:
        port = dripping.sockets[0].getsockname()[1]
        outcome = await SendGrid(hasty_client, API_KEY, f"http://127.0.0.1:{port}").send(email())
        await ended.wait()
    assert outcome == Failed("TimeoutError", "the provider's response did not arrive", may_have_arrived=True)


async def test_a_key_with_a_line_break_is_never_sent(
    server: SendGridServer, client: httpx.AsyncClient, email: MakeEmail
) -> None:
    outcome = await SendGrid(client, SecretStr("SG.right\n"), server.url).send(email())
    assert outcome == Failed("LocalProtocolError", "the provider can't be reached", may_have_arrived=False)
    assert server.accepted == []


async def test_closing_closes_the_client(server: SendGridServer, client: httpx.AsyncClient) -> None:
    await SendGrid(client, API_KEY, server.url).close()
    assert client.is_closed


async def test_the_request_is_as_published(provider: Provider[Email], server: SendGridServer, email: MakeEmail) -> None:
    await provider.send(email(sender="news@blog.example", unsubscribe_url=None, metadata={}))
    assert json.loads(server.accepted[0].raw) == {
        "personalizations": [{"to": [{"email": "ada.lovelace@reader.example"}]}],
        "from": {"email": "news@blog.example"},
        "subject": "Charles replied to you",
        "content": [
            {"type": "text/plain", "value": "Hello Ada,\n\nCharles replied.\n"},
            {"type": "text/html", "value": "<p>Hello Ada,</p><p>Charles replied.</p>"},
        ],
        "headers": {"Auto-Submitted": "auto-generated"},
        "custom_args": {"key": KEY},
    }


@given(subject=ANYTHING, name=ANYTHING, url=ANYTHING)
def test_nothing_that_is_written_begins_a_header(subject: str, name: str, url: str) -> None:
    message = injecting_email(subject, name, url)
    envelope = address_in_ascii(message)
    assert isinstance(envelope, Envelope)
    mail = _mail(message, envelope)
    assert is_one_line(mail["subject"])
    assert is_one_line(mail["from"]["name"])
    assert mail["headers"]["List-Unsubscribe"].isascii()
    assert all(is_one_line(value) for value in mail["headers"].values())


async def test_a_sender_that_sendgrid_refuses_is_our_configuration(
    provider: Provider[Email], server: SendGridServer, email: MakeEmail
) -> None:
    errors = [{"message": "Does not contain a valid address.", "field": "from.email", "help": None}]
    server.plan = [Reply(400, {"errors": errors})]
    assert isinstance(await provider.send(email()), Misconfigured)
