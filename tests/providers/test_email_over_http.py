"""What is the same for every e-mail provider with an HTTP API: silence, a lost answer, nobody there."""

from collections.abc import AsyncIterator, Callable
from typing import Any, NamedTuple

import httpx
import pytest

from dev.providers.mailgun import MailgunServer
from dev.providers.sendgrid import SendGridServer
from dev.providers.server import Fault, HttpEmailServer, Reply
from dev.providers.ses import SesServer
from notifications.messages import Email
from notifications.outcome import Failed, Refused, Sent
from providers.base import Provider
from providers.email.mailgun import Mailgun
from providers.email.sendgrid import SendGrid
from providers.email.ses import Ses
from tests.providers import test_mailgun, test_sendgrid, test_ses
from tests.providers.conftest import MakeEmail


class Pair(NamedTuple):
    server: Callable[[], HttpEmailServer]
    provider: Callable[[httpx.AsyncClient, str], Provider[Email]]


PAIRS = {
    "mailgun": Pair(
        lambda: MailgunServer(test_mailgun.API_KEY.get_secret_value(), test_mailgun.DOMAIN),
        lambda client, url: Mailgun(client, test_mailgun.API_KEY, test_mailgun.DOMAIN, url),
    ),
    "sendgrid": Pair(
        lambda: SendGridServer(test_sendgrid.API_KEY.get_secret_value()),
        lambda client, url: SendGrid(client, test_sendgrid.API_KEY, url),
    ),
    "ses": Pair(
        lambda: SesServer(test_ses.CREDENTIALS, test_ses.REGION),
        lambda client, url: Ses(client, test_ses.CREDENTIALS, test_ses.REGION, url),
    ),
}


@pytest.fixture(params=PAIRS.values(), ids=list(PAIRS))
def pair(request: pytest.FixtureRequest) -> Pair:
    chosen: Pair = request.param
    return chosen


@pytest.fixture
async def server(pair: Pair) -> AsyncIterator[HttpEmailServer]:
    async with pair.server() as running:
        yield running


@pytest.mark.parametrize("changes", [{}, {"unsubscribe_url": None}, {"metadata": {}}, {"sender": "blog@blog.example"}])
async def test_every_email_says_that_a_program_wrote_it(
    pair: Pair, server: HttpEmailServer, client: httpx.AsyncClient, email: MakeEmail, changes: dict[str, Any]
) -> None:
    outcome = await pair.provider(client, server.url).send(email(**changes))
    assert isinstance(outcome, Sent)
    assert server.accepted[0].headers["Auto-Submitted"] == "auto-generated"
    assert "Precedence" not in server.accepted[0].headers


async def test_silence_ends_with_the_time_out(
    pair: Pair, server: HttpEmailServer, hasty_client: httpx.AsyncClient, email: MakeEmail
) -> None:
    server.plan = [Fault.HANG]
    outcome = await pair.provider(hasty_client, server.url).send(email())
    assert isinstance(outcome, Failed)
    assert outcome.may_have_arrived


@pytest.mark.parametrize(("fault", "kept"), [(Fault.CLOSE_BEFORE, 0), (Fault.CLOSE_AFTER, 1)])
async def test_a_lost_answer_may_mean_either(
    pair: Pair, server: HttpEmailServer, client: httpx.AsyncClient, email: MakeEmail, fault: Fault, kept: int
) -> None:
    server.plan = [fault]
    outcome = await pair.provider(client, server.url).send(email())
    assert isinstance(outcome, Failed)
    assert outcome.may_have_arrived
    assert len(server.accepted) == kept


@pytest.mark.parametrize(
    "body",
    [
        "",
        "null",
        "7",
        "[]",
        '{"errors": null, "message": null, "id": null, "MessageId": null}',
        '{"errors": [null, 7, {"message": null, "field": null}], "message": 7, "id": 7, "MessageId": []}',
        '{"errors": {"message": "odd"}, "message": {"a": 1}, "id": {}, "MessageId": {}}',
        "[" * 100_000,
    ],
)
async def test_an_answer_of_any_shape_is_judged_by_its_status(
    pair: Pair, server: HttpEmailServer, client: httpx.AsyncClient, email: MakeEmail, body: str
) -> None:
    server.plan = [Reply(202, body), Reply(503, body)]
    provider = pair.provider(client, server.url)
    assert isinstance(await provider.send(email()), Sent)
    failed = await provider.send(email())
    assert isinstance(failed, Failed)
    assert "None" not in failed.message


@pytest.mark.parametrize("to", ["a..b@docomo.ne.jp", "ada.@docomo.ne.jp", "ada@corp.local", "ada@localhost"])
async def test_an_address_that_breaks_strict_rules_is_the_providers_to_judge(
    pair: Pair, server: HttpEmailServer, client: httpx.AsyncClient, email: MakeEmail, to: str
) -> None:
    outcome = await pair.provider(client, server.url).send(email(to=to))
    # Some of the stand-ins are as strict as the providers, and answer 400.
    assert isinstance(outcome, Sent) or (isinstance(outcome, Refused) and outcome.code == "400")


@pytest.mark.parametrize("to", ["", "not an address", "ada@reader.example,eve@evil.example", "ada@reader.example\r\nx"])
async def test_what_is_no_address_is_an_invalid_address_and_says_nothing_of_the_person(
    pair: Pair, server: HttpEmailServer, client: httpx.AsyncClient, email: MakeEmail, to: str
) -> None:
    outcome = await pair.provider(client, server.url).send(email(to=to))
    assert isinstance(outcome, Refused)
    assert (outcome.code, outcome.recipient_is_gone) == ("invalid-address", False)
    assert server.accepted == []


async def test_nobody_there_means_that_nothing_arrived(
    pair: Pair, server: HttpEmailServer, client: httpx.AsyncClient, email: MakeEmail
) -> None:
    await server.stop()
    outcome = await pair.provider(client, server.url).send(email())
    assert isinstance(outcome, Failed)
    assert not outcome.may_have_arrived
