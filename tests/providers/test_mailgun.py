"""Mailgun's contract: what we ask it for, and what its replies mean to us."""

from collections.abc import AsyncIterator
from datetime import timedelta

import httpx
import pytest
from hypothesis import given
from pydantic import SecretStr

from dev.providers.mailgun import MailgunServer
from dev.providers.server import Answer, Fault, Reply
from notifications.messages import Email
from notifications.outcome import Failed, Misconfigured, Refused, Sent, Throttled
from providers.base import Provider
from providers.email.addresses import Envelope, address_in_ascii
from providers.email.mailgun import Mailgun, _form
from tests.providers.conftest import ANYTHING, KEY, MakeEmail, injecting_email, is_one_line

API_KEY = SecretStr("key-right")
DOMAIN = "mg.blog.example"


@pytest.fixture
async def server() -> AsyncIterator[MailgunServer]:
    async with MailgunServer(API_KEY.get_secret_value(), DOMAIN) as running:
        yield running


@pytest.fixture
def provider(server: MailgunServer, client: httpx.AsyncClient) -> Provider[Email]:
    return Mailgun(client, API_KEY, DOMAIN, server.url)


async def test_an_email_arrives_with_all_that_it_has(
    provider: Provider[Email], server: MailgunServer, email: MakeEmail
) -> None:
    message = email()
    outcome = await provider.send(message)
    (accepted,) = server.accepted
    assert outcome == Sent(f"{KEY}@blog.example")
    assert (accepted.to, accepted.sender, accepted.subject) == (message.to, message.sender, message.subject)
    assert (accepted.text, accepted.html) == (message.text, message.html)
    assert accepted.metadata == {**message.metadata, "o:tag": "comment.reply"}


async def test_the_key_is_the_same_at_every_attempt_and_so_is_the_message_id(
    provider: Provider[Email], server: MailgunServer, email: MakeEmail
) -> None:
    server.plan = [Fault.CLOSE_AFTER]
    await provider.send(email())
    await provider.send(email())
    assert [accepted.key for accepted in server.accepted] == [KEY, KEY]
    assert {accepted.headers["Message-Id"] for accepted in server.accepted} == {f"<{KEY}@blog.example>"}
    assert provider.may_repeat


async def test_one_click_unsubscribes(provider: Provider[Email], server: MailgunServer, email: MakeEmail) -> None:
    message = email()
    await provider.send(message)
    await provider.send(email(unsubscribe_url=None))
    with_url, without = (accepted.headers for accepted in server.accepted)
    assert with_url["List-Unsubscribe"] == f"<{message.unsubscribe_url}>"
    assert with_url["List-Unsubscribe-Post"] == "List-Unsubscribe=One-Click"
    assert without.keys() == {"Message-Id", "Auto-Submitted"}


async def test_text_outside_ascii_arrives_as_it_is(
    provider: Provider[Email], server: MailgunServer, email: MakeEmail
) -> None:
    await provider.send(email(subject="Grüße, 世界 🎉", sender='Zoë "Z", 編集部 <news@blog.example>', text="héllo"))
    (accepted,) = server.accepted
    assert accepted.subject == "Grüße, 世界 🎉"
    assert accepted.sender == r'"Zoë \"Z\", 編集部" <news@blog.example>'
    assert accepted.text == "héllo"


async def test_half_a_surrogate_pair_does_not_stop_it(provider: Provider[Email], email: MakeEmail) -> None:
    message = email(subject="a\ud800b", text="\udfff", html="\udfff", metadata={"name": "\ud800"})
    assert isinstance(await provider.send(message), Sent)


@pytest.mark.parametrize("fault", [Fault.REFUSE, Reply(413)])
async def test_a_message_that_is_not_taken_is_refused(
    provider: Provider[Email], server: MailgunServer, email: MakeEmail, fault: Answer
) -> None:
    server.plan = [fault]
    outcome = await provider.send(email())
    assert isinstance(outcome, Refused)
    assert not outcome.recipient_is_gone
    assert email().subject not in outcome.message
    assert server.accepted == []


async def test_an_address_that_mailgun_calls_invalid_is_refused_and_not_suppressed(
    provider: Provider[Email], server: MailgunServer, email: MakeEmail
) -> None:
    server.plan = [Fault.REFUSE_RECIPIENT]
    outcome = await provider.send(email())
    assert isinstance(outcome, Refused)
    assert not outcome.recipient_is_gone
    assert outcome.message == "to parameter is not a valid address: <recipient>. please check documentation"


async def test_two_addresses_in_one_are_refused_unasked(
    provider: Provider[Email], server: MailgunServer, email: MakeEmail
) -> None:
    outcome = await provider.send(email(to="ada@reader.example, eve@evil.example"))
    assert outcome == Refused(
        "invalid-address",
        "the recipient's address can't be read: what stands before the @ is empty, or has a character that can't be "
        "there",
        recipient_is_gone=False,
    )
    assert server.accepted == []


async def test_a_wrong_key_or_domain_is_ours_to_mend(
    server: MailgunServer, client: httpx.AsyncClient, email: MakeEmail
) -> None:
    wrong_key = await Mailgun(client, SecretStr("key-wrong"), DOMAIN, server.url).send(email())
    wrong_domain = await Mailgun(client, API_KEY, "other.example", server.url).send(email())
    assert wrong_key == Misconfigured("401", "")
    assert wrong_domain == Misconfigured("404", "Domain not found: other.example")


@pytest.mark.parametrize("answer", [Fault.REJECT_US, Reply(403, {"message": "Domain is not allowed to send"})])
async def test_an_account_that_is_not_let_in_is_ours_to_mend(
    provider: Provider[Email], server: MailgunServer, email: MakeEmail, answer: Answer
) -> None:
    server.plan = [answer]
    assert isinstance(await provider.send(email()), Misconfigured)


async def test_a_limit_is_waited_for_as_long_as_mailgun_says(
    provider: Provider[Email], server: MailgunServer, email: MakeEmail
) -> None:
    server.plan, server.retry_after = [Fault.THROTTLE, Reply(429)], timedelta(seconds=90)
    assert await provider.send(email()) == Throttled("429", "Too Many Requests", timedelta(seconds=90))
    assert await provider.send(email()) == Throttled("429", "", None)


async def test_a_fault_of_mailgun_may_pass(provider: Provider[Email], server: MailgunServer, email: MakeEmail) -> None:
    server.plan = [Fault.FAIL]
    assert await provider.send(email()) == Failed("500", "Internal Server Error", may_have_arrived=False)
    assert isinstance(await provider.send(email()), Sent)


@given(subject=ANYTHING, name=ANYTHING, url=ANYTHING)
def test_nothing_that_is_written_begins_a_header(subject: str, name: str, url: str) -> None:
    message = injecting_email(subject, name, url)
    envelope = address_in_ascii(message)
    assert isinstance(envelope, Envelope)
    form = _form(message, envelope)
    assert is_one_line(form["subject"])
    assert is_one_line(form["from"])
    assert all(is_one_line(value) and value.isascii() for name, value in form.items() if name.startswith("h:"))


async def test_a_limit_that_mailgun_says_by_403_is_waited_for(
    provider: Provider[Email], server: MailgunServer, email: MakeEmail
) -> None:
    said = "Domain mg.blog.example is not allowed to send: request limit exceeded, try again after 1h"
    server.plan = [Reply(403, {"message": said})]
    assert isinstance(await provider.send(email()), Throttled)


async def test_a_recipient_unknown_to_the_sandbox_says_nothing_about_us(
    provider: Provider[Email], server: MailgunServer, email: MakeEmail
) -> None:
    said = "Sandbox subdomains are for test purposes only. Please add your own domain or add the address to "
    server.plan = [Reply(403, {"message": f"{said}authorized recipients in Account Settings."})]
    outcome = await provider.send(email())
    assert isinstance(outcome, Failed)
    assert outcome.concerns == "recipient"
