"""Verdicts of a real mail server, through the queue: who is not sent to any more, and that everybody else is."""

from collections.abc import AsyncIterator
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta

import pytest

from dev.providers.server import AcceptedEmail, Answer, Fault, Reply
from dev.providers.smtp import SmtpServer, Step
from notifications.circuit_breaker import CircuitPolicy
from notifications.messages import Email
from notifications.retry_policy import MOST_GIVEN_BACK
from notifications.states import plan
from notifications.unsubscribing import UnsubscribeLinks
from providers.email.smtp import Smtp
from providers.registry import Providers, Route
from runtime.metrics import REPLIES
from tests.integration.test_deliver import Post, deliver_notification, post

__all__ = ["post"]

USER_UNKNOWN = "550 5.1.1 <{to}>: Recipient address rejected: User unknown in relay recipient table"


@dataclass
class Mail:
    """All that delivers, with a mail server that comes first, and whom it sends to."""

    post: Post
    server: SmtpServer
    providers: Providers

    @property
    def route(self) -> Route[Email]:
        return self.providers.email[0]

    def is_open(self) -> bool:
        return self.route.breaker.state(datetime.now(UTC)) != "closed"

    def address(self, name: str) -> str:
        # What is suppressed stays so, in the database that all tests share.
        return f"{name}.{self.post.view}@mail.example"

    async def write_to(self, *names: str) -> list[str]:
        return [
            await self.post.ask("email", user=f"u-{name}", recipient={"email": self.address(name)}) for name in names
        ]

    async def suppressed(self, name: str) -> str | None:
        return await self.post.stores.suppressions.reason("email", self.address(name))

    async def outcome(self, name: str) -> tuple[str, int, str | None]:
        [delivery] = (await self.post.item(name))["deliveries"]
        return delivery["state"], delivery["attempts"], delivery.get("error", {}).get("category")

    def received(self) -> set[str]:
        return {mail.to for mail in self.server.accepted}


@pytest.fixture
async def mail(post: Post) -> AsyncIterator[Mail]:
    async with SmtpServer() as server:
        providers = Providers([Smtp(server.host, server.port, tls="none")])
        links = UnsubscribeLinks("https://blog.example/unsubscribe", "secret")
        yield Mail(replace(post, deliver=deliver_notification(post.stores, providers, links)), server, providers)
        await providers.close()


async def test_one_dead_mailbox_among_sixty_is_suppressed_and_holds_up_nobody(mail: Mail) -> None:
    good = [f"good{number}" for number in range(60)]
    mail.server.mailboxes = {mail.address("nobody"): USER_UNKNOWN.format(to=mail.address("nobody"))}
    names = await mail.write_to(*good[:30], "nobody", *good[30:])
    assert await mail.post.turn() == 61
    dead = names.pop(30)
    assert await mail.outcome(dead) == ("failed", 1, "gone")
    assert await mail.suppressed("nobody") == "gone"
    [again] = await mail.write_to("nobody")
    await mail.post.turn()
    assert (await mail.outcome(again))[0] == "skipped"
    assert {await mail.outcome(name) for name in names} == {("sent", 1, None)}
    assert mail.received() == {mail.address(name) for name in good}
    assert not mail.is_open()


@pytest.mark.parametrize(
    "reply",
    [
        USER_UNKNOWN,
        "550 5.1.1 <{to}>: no such user",
        "550 5.1.10 RESOLVER.ADR.RecipientNotFound; Recipient {to} not found by SMTP address lookup",
        "550 5.2.1 The account that you tried to reach is disabled",
    ],
)
async def test_a_dozen_dead_mailboxes_in_a_row_are_suppressed_and_open_no_circuit(mail: Mail, reply: str) -> None:
    dead = [f"relay{number}" for number in range(12)]
    mail.server.mailboxes = {mail.address(name): reply.format(to=mail.address(name)) for name in dead}
    names = await mail.write_to(*dead)
    await mail.post.turn()
    assert {await mail.outcome(name) for name in names} == {("failed", 1, "gone")}
    assert {await mail.suppressed(name) for name in dead} == {"gone"}
    assert not mail.is_open()


@pytest.mark.parametrize(
    "reply",
    [
        "550 5.4.5 Daily user sending limit exceeded",
        "550 5.2.1 The user you are trying to contact is receiving mail at a rate that prevents delivery",
        "454 Throttling failure: Maximum sending rate exceeded",
        "452 4.5.3 Too many messages in this session",
    ],
)
async def test_a_limit_that_holds_for_a_while_loses_no_mail_and_suppresses_nobody(mail: Mail, reply: str) -> None:
    status, _, said = reply.partition(" ")
    people = [f"reader{number}" for number in range(15)]
    mail.server.plan = [None] * 5 + [Reply(int(status), said)] * 25
    names = await mail.write_to(*people)
    for _ in range(4):
        await mail.post.turn()
        for name in names:
            await mail.post.make_due(name)
    assert {(await mail.outcome(name))[:2] for name in names} == {("sent", 1)}
    assert mail.received() == {mail.address(name) for name in people}
    assert {await mail.suppressed(name) for name in people} == {None}


async def test_six_full_mailboxes_in_a_row_hold_up_nobody_else(mail: Mail) -> None:
    full = [f"full{number}" for number in range(6)]
    mail.server.mailboxes = {mail.address(name): "452 4.2.2 mailbox full" for name in full}
    names = await mail.write_to(*full)
    await mail.post.turn()
    assert {await mail.outcome(name) for name in names} == {("waiting", 1, "full")}
    assert not mail.is_open()
    [other] = await mail.write_to("other")
    await mail.post.turn()
    assert await mail.outcome(other) == ("sent", 1, None)
    for _ in range(3):
        for name in names:
            await mail.post.make_due(name)
        await mail.post.turn()
    assert {await mail.outcome(name) for name in names} == {("failed", 3, "full")}
    assert {await mail.suppressed(name) for name in full} == {None}
    assert not mail.is_open()


@pytest.mark.parametrize(
    ("reply", "category"),
    [
        ("554 5.7.1 <{to}>: Relay access denied", "configuration"),
        ("550 5.7.1 Service unavailable; Client host [192.0.2.1] blocked using zen.example", "policy"),
        ("550 5.7.606 Access denied, banned sending IP [192.0.2.1]", "policy"),
    ],
)
async def test_the_same_refusal_of_everybody_is_ours_opens_the_circuit_and_loses_nothing(
    mail: Mail, reply: str, category: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(mail.route.breaker, "_policy", CircuitPolicy(pause=timedelta(0)))
    people = [f"reader{number}" for number in range(12)]
    mail.server.mailboxes = {mail.address(name): reply.format(to=mail.address(name)) for name in people}
    names = await mail.write_to(*people)
    told = REPLIES.labels("smtp", category)._value.get()
    await mail.post.turn()
    assert mail.is_open()
    assert REPLIES.labels("smtp", category)._value.get() > told
    assert {(await mail.outcome(name))[0] for name in names} == {"waiting"}
    mail.server.mailboxes = {}
    for _ in range(3):
        for name in names:
            await mail.post.make_due(name)
        await mail.post.turn()
    assert {(await mail.outcome(name))[0] for name in names} == {"sent"}
    assert {await mail.suppressed(name) for name in people} == {None}


async def test_a_listed_ip_address_is_reported_and_its_mails_are_retried_later(mail: Mail) -> None:
    mail.server.replies[Step.MAIL] = ["550 5.2.1 your IP address is listed"]
    [name] = await mail.write_to("any")
    await mail.post.turn()
    assert await mail.outcome(name) == ("waiting", 0, "policy")
    assert mail.is_open()
    assert await mail.suppressed("any") is None


async def test_what_one_provider_refuses_for_its_policy_is_given_to_another(mail: Mail) -> None:
    async with SmtpServer() as second:
        other = Smtp(second.host, second.port, tls="none")
        other.name = "mailgun"
        providers = Providers([mail.route.provider, other])
        mail.post.deliver._router._providers = providers
        mail.server.mailboxes = {mail.address("any"): "550 5.7.1 client host [192.0.2.1] blocked using a list"}
        [name] = await mail.write_to("any")
        await mail.post.turn()
        assert await mail.outcome(name) == ("waiting", 1, "policy")
        await mail.post.make_due(name)
        await mail.post.turn()
        assert await mail.outcome(name) == ("sent", 2, None)
        assert [accepted.to for accepted in second.accepted] == [mail.address("any")]
        await other.close()


async def test_a_message_that_alone_seems_to_be_a_refusal_of_us_has_an_end(
    post: Post, monkeypatch: pytest.MonkeyPatch
) -> None:
    bad = f"bad.{post.view}@mail.example"

    def answer(email: AcceptedEmail) -> Answer:
        return Fault.REJECT_US if email.to == bad else None

    post.first.plan = post.second.plan = answer
    for route in post.deliver._router._providers.email:
        monkeypatch.setattr(route.breaker, "_policy", CircuitPolicy(pause=timedelta(0)))
    name = await post.ask("email", recipient={"email": bad})
    for number in range(12):
        await post.ask("email", user=f"u-{number}", recipient={"email": f"good{number}@example.org"})
        await post.turn()
        await post.make_due(name)
    item = await post.item(name)
    assert (item["status"], item["deliveries"][0]["error"]["category"]) == ("failed", "configuration")
    assert len(post.first.accepted) + len(post.second.accepted) == 12
    assert await post.stores.suppressions.reason("email", bad) is None


async def test_a_mailbox_that_is_always_throttled_has_an_end(mail: Mail) -> None:
    mail.server.mailboxes = {mail.address("busy"): "550 5.2.1 is receiving mail at a rate that prevents delivery"}
    nearly = replace(plan("email", datetime.now(UTC)), given_back=MOST_GIVEN_BACK - 1)
    name = await mail.post.ask(
        "email", recipient={"email": mail.address("busy")}, deliveries=[nearly.to_document()], maxAttempts=2
    )
    outcomes = []
    for _ in range(3):
        await mail.post.turn()
        outcomes.append(await mail.outcome(name))
        await mail.post.make_due(name)
    assert outcomes == [("waiting", 0, "throttled"), ("waiting", 1, "throttled"), ("failed", 2, "throttled")]
    assert await mail.suppressed("busy") is None
