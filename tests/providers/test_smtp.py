"""SMTP: what we say to a mail server, and what its replies mean to us."""

import asyncio
import ssl
from collections.abc import AsyncIterator
from datetime import timedelta
from email import message_from_bytes
from email.policy import default as reader
from typing import Any

import pytest
from hypothesis import given
from pydantic import SecretStr

from dev.providers.server import AcceptedEmail, Fault, Reply
from dev.providers.smtp import SmtpServer, Step
from notifications.messages import Email
from notifications.outcome import Failed, Misconfigured, Outcome, Refused, Sent, Throttled
from providers.base import Provider
from providers.email.addresses import address, one_line, without_personal
from providers.email.smtp import Smtp, Tls, _write
from tests.providers.conftest import ANYTHING, KEY, MakeEmail, injecting_email, is_one_line, make_email

USER = ("blog", "right password")
HEADERS = {
    "From", "To", "Subject", "Date", "Message-ID", "Auto-Submitted", "List-Unsubscribe", "List-Unsubscribe-Post",
    "MIME-Version", "Content-Type",
}  # fmt: skip


@pytest.fixture
async def server() -> AsyncIterator[SmtpServer]:
    async with SmtpServer() as running:
        yield running


@pytest.fixture
async def provider(server: SmtpServer) -> AsyncIterator[Provider[Email]]:
    made = Smtp(server.host, server.port, tls="none")
    yield made
    await made.close()


def hasty(server: SmtpServer) -> Smtp:
    return Smtp(server.host, server.port, tls="none", timeout=timedelta(seconds=0.3))


async def test_an_email_arrives_with_all_that_it_has(
    provider: Provider[Email], server: SmtpServer, email: MakeEmail
) -> None:
    message = email()
    outcome = await provider.send(message)
    (accepted,) = server.accepted
    assert outcome == Sent(f"{KEY}@blog.example")
    assert (accepted.to, accepted.sender, accepted.subject) == (message.to, message.sender, message.subject)
    assert accepted.text == message.text
    assert accepted.html.strip() == message.html


async def test_the_message_id_is_the_same_at_every_attempt(
    provider: Provider[Email], server: SmtpServer, email: MakeEmail
) -> None:
    server.plan = [Fault.CLOSE_AFTER]
    await provider.send(email())
    await provider.send(email())
    assert [accepted.headers["Message-ID"] for accepted in server.accepted] == [f"<{KEY}@blog.example>"] * 2
    assert provider.may_repeat


@pytest.mark.parametrize("changes", [{}, {"unsubscribe_url": None}, {"metadata": {}}, {"sender": "blog@blog.example"}])
async def test_every_mail_says_once_that_a_program_wrote_it(
    provider: Provider[Email], server: SmtpServer, email: MakeEmail, changes: dict[str, Any]
) -> None:
    await provider.send(email(**changes))
    (accepted,) = server.accepted
    assert accepted.raw.count(b"\r\nAuto-Submitted: auto-generated\r\n") == 1
    assert b"\r\nPrecedence:" not in accepted.raw


async def test_one_click_unsubscribes_by_a_url_in_one_piece(
    provider: Provider[Email], server: SmtpServer, email: MakeEmail
) -> None:
    message = email()
    await provider.send(message)
    await provider.send(email(unsubscribe_url=None))
    with_url, without = server.accepted
    assert f"\r\nList-Unsubscribe: <{message.unsubscribe_url}>\r\n".encode() in with_url.raw
    assert b"\r\nList-Unsubscribe-Post: List-Unsubscribe=One-Click\r\n" in with_url.raw
    assert b"List-Unsubscribe" not in without.raw


async def test_text_outside_ascii_arrives_as_it_is(
    provider: Provider[Email], server: SmtpServer, email: MakeEmail
) -> None:
    subject, sender = (
        "Grüße an die ganze Welt, 世界 🎉, " * 6 + "Ende",
        "Zoë, 編集部 mit einem recht langen Namen (sic)",
    )
    message = email(subject=subject, sender=f"{sender} <news@bücher.example>", text="héllo 世界\n" * 50)
    assert isinstance(await provider.send(message), Sent)
    (accepted,) = server.accepted
    assert accepted.subject == subject
    assert accepted.sender == f"{sender} <news@xn--bcher-kva.example>"
    assert accepted.text == message.text
    assert accepted.raw.isascii()
    assert max(len(line) for line in accepted.raw.partition(b"\r\nList-Unsubscribe")[0].split(b"\r\n")) <= 78


@pytest.mark.parametrize("text", ["", ".\n..\n.\r\nFrom me\n", "x" * 3000, "a\rb\nc\r\nd", "\udfff", "世" * 3000])
async def test_any_text_arrives(provider: Provider[Email], server: SmtpServer, email: MakeEmail, text: str) -> None:
    assert isinstance(await provider.send(email(text=text)), Sent)
    expected = text.replace("\r\n", "\n").replace("\r", "\n").replace("\udfff", "?")
    assert server.accepted[0].text.rstrip("\n") == expected.rstrip("\n")
    assert max(len(line) for line in server.accepted[0].raw.split(b"\r\n")) <= 998


@pytest.mark.parametrize(
    ("to", "sent_to"),
    [
        (" ada@reader.example", "ada@reader.example"),
        ("mailto:Ada@READER.example", "Ada@reader.example"),
        ('"Lovelace, Ada" <ada@reader.example>', "ada@reader.example"),
        ("ada@reader.example.", "ada@reader.example"),
        ("\u200bada@bücher.example\u00a0", "ada@xn--bcher-kva.example"),
        ("a..b@docomo.ne.jp", "a..b@docomo.ne.jp"),
        ("ada.@docomo.ne.jp", "ada.@docomo.ne.jp"),
        ("ada@corp.local", "ada@corp.local"),
        ("ada@localhost", "ada@localhost"),
        ("ada@host_name.example", "ada@host_name.example"),
        ('"quoted local"@example.org', '"quoted local"@example.org'),
        ("user@[192.0.2.1]", "user@[192.0.2.1]"),
    ],
)
async def test_an_address_goes_to_the_server_in_one_form_and_the_server_judges(
    provider: Provider[Email], server: SmtpServer, email: MakeEmail, to: str, sent_to: str
) -> None:
    assert isinstance(await provider.send(email(to=to)), Sent)
    assert [accepted.to for accepted in server.accepted] == [sent_to]


@pytest.mark.parametrize(
    "to",
    [
        "",
        "not an address",
        "ada@reader.example,eve@evil.example",
        "ada@reader.example> NOTIFY=NEVER\r\nRCPT TO:<eve@evil.example",
        "ada@reader.example\r\nBcc: eve@evil.example",
        '"ada\r\nRCPT TO:<eve@evil.example>"@reader.example',
        "mailto:ada@reader.example%0d%0aRCPT%20TO:eve@evil.example",
    ],
)
async def test_what_is_no_address_is_an_invalid_address_and_nobody_gets_anything(
    provider: Provider[Email], server: SmtpServer, email: MakeEmail, to: str
) -> None:
    outcome = await provider.send(email(to=to))
    assert isinstance(outcome, Refused)
    assert (outcome.code, outcome.recipient_is_gone) == ("invalid-address", False)
    assert (server.accepted, server.connections) == ([], 0)


async def test_an_address_outside_ascii_goes_where_the_server_takes_it(
    provider: Provider[Email], server: SmtpServer, email: MakeEmail
) -> None:
    assert isinstance(await provider.send(email(to="zoë@bücher.example")), Sent)
    assert server.accepted[0].to == "zoë@xn--bcher-kva.example"


async def test_an_address_outside_ascii_is_refused_where_the_server_does_not_take_it(email: MakeEmail) -> None:
    async with SmtpServer(unicode=False) as server:
        provider = Smtp(server.host, server.port, tls="none")
        outcome = await provider.send(email(to="zoë@bücher.example"))
    assert outcome == Refused("SMTPUTF8", "the server takes no address outside ASCII", recipient_is_gone=False)


@given(subject=ANYTHING, name=ANYTHING, url=ANYTHING)
def test_nothing_that_is_written_begins_a_header(subject: str, name: str, url: str) -> None:
    message = injecting_email(subject, name, url)
    envelope = address(message)
    assert not isinstance(envelope, Refused | Misconfigured)
    content = _write(message, envelope).content
    parsed = message_from_bytes(content, policy=reader)
    assert set(parsed.keys()) == HEADERS
    assert len(parsed.keys()) == len(HEADERS)
    assert content.partition(b"\r\n\r\n")[0].isascii()
    assert b"\n" not in content.replace(b"\r\n", b"")
    assert all(len(line) <= 998 or line.startswith(b"List-") for line in content.split(b"\r\n"))
    assert str(parsed["Subject"]).split() == one_line(message.subject).split()
    assert parsed["From"].addresses[0].addr_spec == "news@blog.example"
    assert len(parsed["From"].addresses) == 1


@given(to=ANYTHING, sender=ANYTHING)
def test_any_address_is_read_or_refused(to: str, sender: str) -> None:
    for message in (
        make_email(to=to),
        make_email(to=f"{to}@reader.example"),
        make_email(sender=f"{sender} <{sender}>"),
    ):
        read = address(message)
        assert isinstance(read, Refused | Misconfigured) or not set("\r\n ,<>") & set(read.recipient.address)


@given(said=ANYTHING, more=ANYTHING, subject=ANYTHING)
def test_nothing_personal_is_reported(said: str, more: str, subject: str) -> None:
    message = make_email(subject=subject)
    told = without_personal(f"{said} <{message.to}> {more} {message.subject} {message.to}", message)
    assert message.to not in told
    assert is_one_line(told)
    assert len(one_line(subject)) < 3 or one_line(subject) not in told


RECIPIENT_REPLIES: list[tuple[str, Outcome]] = [
    ("550 5.1.1 <{to}>: user unknown", Refused("550", "5.1.1 <recipient>: user unknown", recipient_is_gone=True)),
    ("551 5.1.6 {to} has moved", Refused("551", "5.1.6 <recipient> has moved", recipient_is_gone=True)),
    ("553 5.1.3 bad syntax", Refused("553", "5.1.3 bad syntax", recipient_is_gone=False)),
    ("556 5.1.10 null MX", Refused("556", "5.1.10 null MX", recipient_is_gone=True)),
    ("550 5.2.1 disabled", Refused("550", "5.2.1 disabled", recipient_is_gone=True)),
    # Without an enhanced code it may be policy as well (RFC 5321, section 4.2.3), which would lose an address for ever.
    ("550 mailbox unavailable", Refused("550", "mailbox unavailable", recipient_is_gone=False)),
    ("550 5.7.1 not allowed", Refused("550", "5.7.1 not allowed", recipient_is_gone=False)),
    # One recipient's reply is no verdict on us; that of many is (tests/unit/test_refusal_guard.py).
    ("554 5.7.1 <{to}>: Relay access denied", Failed("554", "5.7.1 <recipient>: Relay access denied", False)),
    ("553 5.1.8 sender's domain is unknown", Failed("553", "5.1.8 sender's domain is unknown", False)),
    ("530 5.7.0 Authentication required", Failed("530", "5.7.0 Authentication required", False)),
    ("552 5.2.2 mailbox full", Failed("552", "5.2.2 mailbox full", may_have_arrived=False)),
    ("452 4.2.2 quota exceeded", Failed("452", "4.2.2 quota exceeded", may_have_arrived=False)),
    ("450 4.2.1 try later", Failed("450", "4.2.1 try later", may_have_arrived=False)),
    ("451 4.7.1 Greylisted", Failed("451", "4.7.1 Greylisted", may_have_arrived=False)),
    ("421 4.3.2 going down", Failed("421", "4.3.2 going down", may_have_arrived=False)),
    ("421 4.7.0 Try again later", Throttled("421", "4.7.0 Try again later", None)),
    ("450 4.7.28 flood", Throttled("450", "4.7.28 flood", None)),
    ("451 4.4.5 congested", Throttled("451", "4.4.5 congested", None)),
    (
        "454 Throttling failure: Maximum sending rate exceeded",
        Throttled("454", "Throttling failure: Maximum sending rate exceeded", None),
    ),
    ("452 Daily message quota exceeded", Throttled("452", "Daily message quota exceeded", None)),
]


@pytest.mark.parametrize(("reply", "outcome"), RECIPIENT_REPLIES, ids=lambda value: str(value)[:20])
async def test_a_reply_to_the_recipient_means(
    provider: Provider[Email], server: SmtpServer, email: MakeEmail, reply: str, outcome: Outcome
) -> None:
    message = email()
    server.replies[Step.RCPT] = [reply.format(to=message.to)]
    assert await provider.send(message) == outcome
    assert isinstance(await provider.send(message), Sent)
    assert len(server.accepted) == 1


@pytest.mark.parametrize(
    ("reply", "kind"),
    [
        ("550 5.7.1 Sender address rejected: not owned by user", Misconfigured),
        ("553 5.1.8 no such domain", Misconfigured),
        ("552 5.3.4 Message size exceeds fixed limit", Refused),
        ("451 4.3.0 later", Failed),
    ],
)
async def test_a_reply_to_the_sender_means(
    provider: Provider[Email], server: SmtpServer, email: MakeEmail, reply: str, kind: type[Outcome]
) -> None:
    server.replies[Step.MAIL] = [reply]
    assert isinstance(await provider.send(email()), kind)


@pytest.mark.parametrize(
    ("answer", "outcome"),
    [
        (Fault.REFUSE, Refused("554", "5.6.0 The subject is not to our taste: <subject>", recipient_is_gone=False)),
        (
            Fault.REFUSE_RECIPIENT,
            Refused("550", "5.1.1 <recipient>: there is nobody of this name", recipient_is_gone=True),
        ),
        (Fault.THROTTLE, Throttled("450", "4.7.28 Too many messages from you; slow down", None)),
        (Fault.FAIL, Failed("451", "4.3.0 Local error in processing", may_have_arrived=False)),
        (Fault.REJECT_US, Failed("530", "5.7.0 Authentication required", may_have_arrived=False)),
        (Reply(554, "5.6.0 caf\u00e9"), Refused("554", "5.6.0 café", recipient_is_gone=False)),
        (Reply(354, "go on"), Failed("354", "go on", may_have_arrived=True)),
    ],
)
async def test_a_reply_to_the_message_means(
    provider: Provider[Email], server: SmtpServer, email: MakeEmail, answer: Fault | Reply, outcome: Outcome
) -> None:
    server.plan = [answer]
    assert await provider.send(email()) == outcome
    assert isinstance(await provider.send(email()), Sent)


async def test_one_connection_serves_many_emails(
    provider: Provider[Email], server: SmtpServer, email: MakeEmail
) -> None:
    server.plan = [None, Fault.REFUSE, None]
    for _ in range(4):
        await provider.send(email())
    assert len(server.accepted) == 3
    assert server.connections == 1


async def test_emails_at_the_same_time_have_connections_of_their_own(
    provider: Provider[Email], server: SmtpServer, email: MakeEmail
) -> None:
    outcomes = await asyncio.gather(*(provider.send(email(key=f"{number:032x}")) for number in range(8)))
    assert all(isinstance(outcome, Sent) for outcome in outcomes)
    assert {accepted.key for accepted in server.accepted} == {f"{number:032x}" for number in range(8)}


async def test_a_connection_that_the_server_ended_is_replaced(
    provider: Provider[Email], server: SmtpServer, email: MakeEmail
) -> None:
    await provider.send(email())
    server.drop_connections()
    assert isinstance(await provider.send(email()), Sent)
    server.replies[Step.RSET] = ["421 4.4.2 idle for too long"]
    assert isinstance(await provider.send(email()), Sent)
    server.replies[Step.RSET] = [Fault.CLOSE_BEFORE]
    assert isinstance(await provider.send(email()), Sent)
    assert server.connections == 4


@pytest.mark.parametrize("step", [Step.MAIL, Step.RCPT])
async def test_a_connection_lost_before_the_message_means_that_nothing_arrived(
    provider: Provider[Email], server: SmtpServer, email: MakeEmail, step: Step
) -> None:
    server.replies[step] = [Fault.CLOSE_BEFORE]
    outcome = await provider.send(email())
    assert isinstance(outcome, Failed)
    assert not outcome.may_have_arrived
    assert isinstance(await provider.send(email()), Sent)


@pytest.mark.parametrize(("fault", "kept"), [(Fault.CLOSE_BEFORE, 0), (Fault.CLOSE_AFTER, 1)])
async def test_a_connection_lost_after_the_message_may_mean_either(
    provider: Provider[Email], server: SmtpServer, email: MakeEmail, fault: Fault, kept: int
) -> None:
    server.plan = [fault]
    outcome = await provider.send(email())
    assert isinstance(outcome, Failed)
    assert outcome.may_have_arrived
    assert len(server.accepted) == kept


async def test_silence_ends_with_the_time_out(server: SmtpServer, email: MakeEmail) -> None:
    server.replies[Step.RCPT] = [Fault.HANG]
    before = await hasty(server).send(email())
    server.plan = [Fault.HANG]
    after = await hasty(server).send(email())
    assert before == Failed("TimeoutError", "the server's reply did not come", may_have_arrived=False)
    assert after == Failed("TimeoutError", "the server's reply did not come", may_have_arrived=True)


async def test_a_server_that_never_greets_is_not_waited_for(email: MakeEmail) -> None:
    held: list[asyncio.StreamWriter] = []

    def say_nothing(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        held.append(writer)

    async with await asyncio.start_server(say_nothing, "127.0.0.1", 0) as silent:
        port = silent.sockets[0].getsockname()[1]
        outcome = await Smtp("127.0.0.1", port, tls="none", timeout=timedelta(seconds=0.3)).send(email())
        for writer in held:
            writer.close()
    assert outcome == Failed("TimeoutError", "the server can't be reached", may_have_arrived=False)


async def test_a_server_that_greets_with_a_refusal_has_nothing_for_us(email: MakeEmail) -> None:
    def refuse(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"554 5.7.1 no SMTP service for you, caf\xe9\r\n")
        writer.close()

    async with await asyncio.start_server(refuse, "127.0.0.1", 0) as refusing:
        port = refusing.sockets[0].getsockname()[1]
        outcome = await Smtp("127.0.0.1", port, tls="none").send(email())
    assert outcome == Misconfigured("554", "5.7.1 no SMTP service for you, caf?")


async def test_nobody_there_means_that_nothing_arrived(server: SmtpServer, email: MakeEmail) -> None:
    await server.stop()
    outcome = await Smtp(server.host, server.port, tls="none").send(email())
    assert outcome == Failed("SMTPConnectError", "the server can't be reached", may_have_arrived=False)


async def test_a_user_is_let_in_by_the_right_password_alone(email: MakeEmail) -> None:
    async with SmtpServer(user=USER) as server:
        right = Smtp(server.host, server.port, USER[0], SecretStr(USER[1]), tls="none")
        wrong = Smtp(server.host, server.port, USER[0], SecretStr("wrong password"), tls="none")
        nobody = Smtp(server.host, server.port, tls="none")
        outcomes = [await provider.send(email()) for provider in (right, wrong, nobody)]
        await right.close()
    assert isinstance(outcomes[0], Sent)
    assert [type(outcome) for outcome in outcomes[1:]] == [Misconfigured, Misconfigured]
    assert [outcome.code for outcome in outcomes[1:] if isinstance(outcome, Misconfigured)] == ["535", "530"]
    assert "wrong password" not in repr(outcomes)
    assert USER[1] not in repr(vars(right))


@pytest.mark.usefixtures("trusted")
@pytest.mark.parametrize("implicit", [False, True])
async def test_tls_is_spoken_where_it_is_asked_for(email: MakeEmail, tls: ssl.SSLContext, implicit: bool) -> None:
    async with SmtpServer(tls=tls, implicit=implicit, user=USER) as server:
        kind: Tls = "implicit" if implicit else "starttls"
        provider = Smtp(server.host, server.port, USER[0], SecretStr(USER[1]), tls=kind)
        assert isinstance(await provider.send(email()), Sent)
        assert isinstance(await provider.send(email()), Sent)
        await provider.close()
        assert server.connections == 1


@pytest.mark.parametrize("implicit", [False, True])
async def test_a_certificate_that_is_not_trusted_is_ours_to_mend(
    email: MakeEmail, tls: ssl.SSLContext, implicit: bool
) -> None:
    async with SmtpServer(tls=tls, implicit=implicit) as server:
        outcome = await Smtp(server.host, server.port, tls="implicit" if implicit else "starttls").send(email())
    assert isinstance(outcome, Misconfigured)
    assert outcome.code == "certificate"
    assert server.accepted == []


async def test_a_server_without_tls_gets_nothing_where_tls_is_asked_for(server: SmtpServer, email: MakeEmail) -> None:
    outcome = await Smtp(server.host, server.port, tls="starttls").send(email())
    assert isinstance(outcome, Misconfigured)
    assert "STARTTLS" in outcome.message
    assert server.accepted == []


async def test_a_cancelled_email_leaves_no_connection_behind(server: SmtpServer, email: MakeEmail) -> None:
    arrived = asyncio.Event()

    def hang(_: AcceptedEmail) -> Fault:
        arrived.set()
        return Fault.HANG

    server.plan = hang
    provider = Smtp(server.host, server.port, tls="none")
    sending = asyncio.create_task(provider.send(email()))
    await arrived.wait()
    sending.cancel()
    with pytest.raises(asyncio.CancelledError):
        await sending
    server.plan = ()
    assert isinstance(await provider.send(email()), Sent)
    assert server.connections == 2
    await provider.close()
