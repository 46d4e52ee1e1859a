"""The contract of Amazon SES: what we ask it for, and what its replies mean to us."""

import json
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta

import httpx
import pytest
from botocore.credentials import Credentials, RefreshableCredentials
from botocore.exceptions import CredentialRetrievalError
from hypothesis import given

from dev.providers.server import Answer, Fault, Reply
from dev.providers.ses import SesServer
from notifications.messages import Email
from notifications.outcome import Failed, Misconfigured, Refused, Sent, Throttled
from providers.base import Provider
from providers.email.addresses import Envelope, address_in_ascii
from providers.email.ses import Ses, _email
from tests.providers.conftest import ANYTHING, KEY, MakeEmail, injecting_email, is_one_line

CREDENTIALS = Credentials("AKIDRIGHT", "right secret", "session token")
REGION = "eu-central-1"


@pytest.fixture
async def server() -> AsyncIterator[SesServer]:
    async with SesServer(CREDENTIALS, REGION) as running:
        yield running


@pytest.fixture
def provider(server: SesServer, client: httpx.AsyncClient) -> Provider[Email]:
    return Ses(client, CREDENTIALS, REGION, server.url)


def error(name: str, message: str, status: int = 400) -> Reply:
    return Reply(status, {"message": message}, {"x-amzn-ErrorType": name})


async def test_an_email_arrives_with_all_that_it_has(
    provider: Provider[Email], server: SesServer, email: MakeEmail
) -> None:
    message = email()
    outcome = await provider.send(message)
    (accepted,) = server.accepted
    assert outcome == Sent(accepted.provider_id)
    assert (accepted.to, accepted.sender, accepted.subject) == (message.to, message.sender, message.subject)
    assert (accepted.text, accepted.html) == (message.text, message.html)
    # A tag has no dot.
    assert accepted.metadata == {**message.metadata, "type": "comment_reply"}


async def test_the_key_is_the_same_at_every_attempt(
    provider: Provider[Email], server: SesServer, email: MakeEmail
) -> None:
    server.plan = [Fault.CLOSE_AFTER]
    await provider.send(email())
    await provider.send(email())
    assert [accepted.key for accepted in server.accepted] == [KEY, KEY]
    assert provider.may_repeat


async def test_one_click_unsubscribes(provider: Provider[Email], server: SesServer, email: MakeEmail) -> None:
    message = email()
    await provider.send(message)
    await provider.send(email(unsubscribe_url=None))
    with_url, without = (accepted.headers for accepted in server.accepted)
    assert with_url == {
        "Auto-Submitted": "auto-generated",
        "List-Unsubscribe": f"<{message.unsubscribe_url}>",
        "List-Unsubscribe-Post": "List-Unsubscribe=One-Click",
    }
    assert without == {"Auto-Submitted": "auto-generated"}


async def test_text_outside_ascii_arrives_as_it_is(
    provider: Provider[Email], server: SesServer, email: MakeEmail
) -> None:
    sender = "Zoë, 編集部 mit einem recht langen Namen, der nicht in ein Wort passt"
    await provider.send(email(subject="Grüße, 世界 🎉", sender=f"{sender} <news@bücher.example>", text="héllo"))
    (accepted,) = server.accepted
    assert accepted.subject == "Grüße, 世界 🎉"
    assert accepted.sender == f"{sender} <news@xn--bcher-kva.example>"
    assert accepted.text == "héllo"
    assert json.loads(accepted.raw)["FromEmailAddress"].isascii()


async def test_half_a_surrogate_pair_does_not_stop_it(provider: Provider[Email], email: MakeEmail) -> None:
    message = email(subject="a\ud800b", text="\udfff", html="\udfff", metadata={"name": "\ud800"})
    assert isinstance(await provider.send(message), Sent)


async def test_the_configuration_set_is_named(server: SesServer, client: httpx.AsyncClient, email: MakeEmail) -> None:
    await Ses(client, CREDENTIALS, REGION, server.url, "notifications").send(email())
    assert json.loads(server.accepted[0].raw)["ConfigurationSetName"] == "notifications"


@pytest.mark.parametrize(
    ("answer", "code"),
    [
        (Fault.REFUSE, "MessageRejected"),
        (Fault.REFUSE_RECIPIENT, "BadRequestException"),
        (Reply(400, {"__type": "com.amazonaws.sesv2#BadRequestException", "Message": "no"}), "BadRequestException"),
        (error("MessageRejected", "Local address contains control or whitespace"), "MessageRejected"),
    ],
)
async def test_a_message_that_is_not_taken_is_refused(
    provider: Provider[Email], server: SesServer, email: MakeEmail, answer: Answer, code: str
) -> None:
    message = email()
    server.plan = [answer]
    outcome = await provider.send(message)
    assert isinstance(outcome, Refused)
    assert outcome.code == code
    assert not outcome.recipient_is_gone
    assert message.to not in outcome.message
    assert message.subject not in outcome.message


async def test_an_address_that_ses_can_not_have_is_refused_unasked(
    provider: Provider[Email], server: SesServer, email: MakeEmail
) -> None:
    outcome = await provider.send(email(to="zoë@reader.example"))
    assert outcome == Refused("recipient", "the provider takes no address outside ASCII", recipient_is_gone=False)
    assert isinstance(await provider.send(email(sender="zoë@blog.example")), Misconfigured)
    assert server.accepted == []


@pytest.mark.parametrize(
    ("answer", "code"),
    [
        (Fault.REJECT_US, "SendingPausedException"),
        (error("AccountSuspendedException", ""), "AccountSuspendedException"),
        (error("MailFromDomainNotVerifiedException", ""), "MailFromDomainNotVerifiedException"),
        (error("NotFoundException", "Configuration set <x> does not exist.", 404), "NotFoundException"),
        (error("AccessDeniedException", "User is not authorized", 403), "AccessDeniedException"),
        (error("ExpiredTokenException", "The security token is expired", 403), "ExpiredTokenException"),
        (Reply(403, {"message": "Missing Authentication Token"}), "403"),
        (Reply(404, "<html>"), "404"),
    ],
)
async def test_an_account_that_is_not_let_in_is_ours_to_mend(
    provider: Provider[Email], server: SesServer, email: MakeEmail, answer: Answer, code: str
) -> None:
    server.plan = [answer]
    outcome = await provider.send(email())
    assert isinstance(outcome, Misconfigured)
    assert outcome.code == code


async def test_an_identity_that_is_not_verified_is_ours_to_mend(
    provider: Provider[Email], server: SesServer, email: MakeEmail
) -> None:
    message = email()
    said = "Email address is not verified. The following identities failed the check in region EU-CENTRAL-1: "
    server.plan = [error("MessageRejected", f"{said}{message.to}, {message.sender}")]
    outcome = await provider.send(message)
    assert outcome == Misconfigured("MessageRejected", f"{said}<recipient>, The Blog <news@blog.example>")


@pytest.mark.parametrize(
    ("credentials", "region", "code"),
    [
        (Credentials("AKIDWRONG", "right secret", "session token"), REGION, "UnrecognizedClientException"),
        (Credentials("AKIDRIGHT", "wrong secret", "session token"), REGION, "InvalidSignatureException"),
        (Credentials("AKIDRIGHT", "right secret"), REGION, "InvalidSignatureException"),
        (CREDENTIALS, "us-east-1", "InvalidSignatureException"),
    ],
)
async def test_wrong_credentials_are_ours_to_mend(
    server: SesServer,
    client: httpx.AsyncClient,
    email: MakeEmail,
    credentials: Credentials,
    region: str,
    code: str,
) -> None:
    outcome = await Ses(client, credentials, region, server.url).send(email())
    assert isinstance(outcome, Misconfigured)
    assert outcome.code == code
    assert "secret" not in repr(outcome)


async def test_credentials_that_can_not_be_had_are_ours_to_mend(
    server: SesServer, client: httpx.AsyncClient, email: MakeEmail
) -> None:
    def refresh() -> dict[str, str]:
        raise CredentialRetrievalError(provider="role", error_msg="no role")

    past = datetime(2024, 1, 1, tzinfo=UTC)
    credentials = RefreshableCredentials("AKIDRIGHT", "right secret", "session token", past, refresh, "role")
    outcome = await Ses(client, credentials, REGION, server.url).send(email())
    assert outcome == Misconfigured("CredentialRetrievalError", "the credentials can't be had")


@pytest.mark.parametrize(
    ("answer", "code", "wait"),
    [
        (Fault.THROTTLE, "TooManyRequestsException", None),
        (error("LimitExceededException", "Daily message quota exceeded."), "LimitExceededException", None),
        (error("ThrottlingException", "Maximum sending rate exceeded."), "ThrottlingException", None),
        (Reply(429, "", {"Retry-After": "3"}), "429", timedelta(seconds=3)),
    ],
)
async def test_a_limit_is_waited_for(
    provider: Provider[Email],
    server: SesServer,
    email: MakeEmail,
    answer: Answer,
    code: str,
    wait: timedelta | None,
) -> None:
    server.plan = [answer]
    outcome = await provider.send(email())
    assert isinstance(outcome, Throttled)
    assert (outcome.code, outcome.retry_after) == (code, wait)


async def test_a_fault_of_ses_may_pass(provider: Provider[Email], server: SesServer, email: MakeEmail) -> None:
    server.plan = [Fault.FAIL]
    assert await provider.send(email()) == Failed("500", "An internal error occurred.", may_have_arrived=False)
    assert isinstance(await provider.send(email()), Sent)


@given(subject=ANYTHING, name=ANYTHING, url=ANYTHING)
def test_nothing_that_is_written_begins_a_header(subject: str, name: str, url: str) -> None:
    message = injecting_email(subject, name, url)
    envelope = address_in_ascii(message)
    assert isinstance(envelope, Envelope)
    made = _email(message, envelope)
    assert is_one_line(made["Content"]["Simple"]["Subject"]["Data"])
    assert is_one_line(made["FromEmailAddress"])
    assert made["FromEmailAddress"].isascii()
    assert all(is_one_line(header["Value"]) for header in made["Content"]["Simple"]["Headers"])


async def test_a_recipient_unknown_to_the_sandbox_says_nothing_about_us(
    provider: Provider[Email], server: SesServer, email: MakeEmail
) -> None:
    message = email(to="address.is.not.verified@reader.example")
    said = "Email address is not verified. The following identities failed the check in region EU-CENTRAL-1: "
    server.plan = [error("MessageRejected", f"{said}{message.to}")]
    outcome = await provider.send(message)
    assert isinstance(outcome, Failed)
    assert (outcome.concerns, outcome.category) == ("recipient", "configuration")
