"""Replies of mail servers, said by a server on loopback to the real client: what each is to the queue."""

import asyncio
from collections.abc import AsyncIterator

import pytest

from dev.providers.server import Reply
from dev.providers.smtp import SmtpServer, Step
from notifications.messages import Email
from notifications.outcome import Failed, Misconfigured, Outcome, Refused, Sent, Throttled
from notifications.replies import SMTP, Row
from providers.base import Provider
from providers.email.smtp import Smtp
from tests.providers.conftest import MakeEmail


@pytest.fixture
async def server() -> AsyncIterator[SmtpServer]:
    async with SmtpServer() as running:
        yield running


@pytest.fixture
async def provider(server: SmtpServer) -> AsyncIterator[Provider[Email]]:
    made = Smtp(server.host, server.port, tls="none")
    yield made
    await made.close()


def say(server: SmtpServer, at: str, reply: str) -> None:
    if at == "DATA":
        status, _, text = reply.partition(" ")
        server.plan = [Reply(int(status), text)]
    else:
        server.replies[Step(at)] = [reply]


async def greeted_with(reply: str, message: Email) -> Outcome:
    def refuse(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(f"{reply}\r\n".encode())
        writer.close()

    async with await asyncio.start_server(refuse, "127.0.0.1", 0) as refusing:
        return await Smtp("127.0.0.1", refusing.sockets[0].getsockname()[1], tls="none").send(message)


@pytest.mark.parametrize("row", SMTP, ids=lambda row: row.example)
async def test_a_row_of_the_table_means_the_same_to_the_client(
    provider: Provider[Email], server: SmtpServer, email: MakeEmail, row: Row
) -> None:
    at, reply = row.example.split(maxsplit=1)
    if at == "CONNECT":
        outcome = await greeted_with(reply, email())
    else:
        say(server, at, reply)
        outcome = await provider.send(email())
    assert not isinstance(outcome, Sent)
    assert outcome.category == row.category
    match row.category:
        case "gone" | "refused" | "content":
            assert isinstance(outcome, Refused)
            assert outcome.recipient_is_gone == (row.category == "gone")
        case "throttled":
            assert isinstance(outcome, Throttled)
        case "policy" | "configuration" if at in ("CONNECT", "MAIL"):
            assert isinstance(outcome, Misconfigured)
        case _:
            assert isinstance(outcome, Failed)
            assert not outcome.may_have_arrived
    assert isinstance(await provider.send(email()), Sent)


async def test_a_dead_mailbox_behind_a_relay_is_gone_and_says_nothing_about_us(
    provider: Provider[Email], server: SmtpServer, email: MakeEmail
) -> None:
    said = "550 5.1.1 <nobody@corp.example>: Recipient address rejected: User unknown in relay recipient table"
    say(server, "RCPT", said)
    outcome = await provider.send(email(to="nobody@corp.example"))
    without = "5.1.1 <recipient>: Recipient address rejected: User unknown in relay recipient table"
    assert outcome == Refused("550", without, recipient_is_gone=True)


async def test_a_word_in_the_address_that_a_server_repeats_means_nothing(
    provider: Provider[Email], server: SmtpServer, email: MakeEmail
) -> None:
    for to in ("gone@relay.example", "relay@relay.example", "blacklisted@rate-limit.example", "spam.relay@x.example"):
        say(server, "RCPT", f"550 5.1.1 <{to}>: no such user")
        outcome = await provider.send(email(to=to))
        assert isinstance(outcome, Refused), to
        assert outcome.recipient_is_gone, to


async def test_a_mailbox_that_gets_too_much_is_throttled_and_kept(
    provider: Provider[Email], server: SmtpServer, email: MakeEmail
) -> None:
    said = "5.2.1 this account is receiving mail at a rate that prevents delivery"
    say(server, "RCPT", f"550 {said}")
    assert await provider.send(email(to="busy@mail.example")) == Throttled("550", said, None)


async def test_an_ip_address_that_is_listed_is_ours(
    provider: Provider[Email], server: SmtpServer, email: MakeEmail
) -> None:
    say(server, "MAIL", "550 5.2.1 your IP address is listed")
    outcome = await provider.send(email())
    assert outcome == Misconfigured("550", "5.2.1 your IP address is listed")
    assert isinstance(outcome, Misconfigured)
    assert outcome.category == "policy"


async def test_a_daily_limit_is_waited_for_whatever_its_first_digit(
    provider: Provider[Email], server: SmtpServer, email: MakeEmail
) -> None:
    for said in ("5.4.5 daily sending limit exceeded", "5.4.5 Daily user sending limit exceeded. (in 24 hours)"):
        say(server, "DATA", f"550 {said}")
        assert await provider.send(email()) == Throttled("550", said, None)


async def test_a_reply_in_several_lines_is_read_as_one(
    provider: Provider[Email], server: SmtpServer, email: MakeEmail
) -> None:
    say(
        server,
        "RCPT",
        "550-5.2.1 The user you are trying to contact is receiving mail at a rate\r\n550 5.2.1 that prevents it",
    )
    assert isinstance(await provider.send(email()), Throttled)


async def test_a_full_mailbox_concerns_its_owner_alone(
    provider: Provider[Email], server: SmtpServer, email: MakeEmail
) -> None:
    server.replies[Step.RCPT] = ["452 4.2.2 mailbox full"] * 6
    for number in range(6):
        outcome = await provider.send(email(to=f"full{number}@mail.example"))
        assert isinstance(outcome, Failed)
        assert outcome.concerns == "recipient"
    assert isinstance(await provider.send(email()), Sent)


@pytest.mark.parametrize(
    ("reply", "concerns"),
    [
        ("450 4.2.0 mailbox busy", "recipient"),
        ("451 4.1.1 address not known yet", "recipient"),
        ("451 4.7.1 Greylisted, come back in 5 minutes", "recipient"),
        ("451 4.7.1 <ada@mail.example>: Recipient address rejected: Grey-listing in action", "recipient"),
        ("451 4.3.0 queue file write error", "provider"),
        ("452 4.3.1 no room on this server", "provider"),
        ("451 local error", "provider"),
    ],
)
async def test_what_a_server_says_of_a_mailbox_after_the_content_is_no_outage(
    provider: Provider[Email], server: SmtpServer, email: MakeEmail, reply: str, concerns: str
) -> None:
    say(server, "DATA", reply)
    outcome = await provider.send(email())
    assert isinstance(outcome, Failed)
    assert outcome.concerns == concerns
