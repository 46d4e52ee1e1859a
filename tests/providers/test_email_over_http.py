"""What is the same for every e-mail provider with an HTTP API: silence, a lost answer, nobody there."""

from collections.abc import AsyncIterator, Callable
from typing import NamedTuple

import httpx
import pytest

from dev.providers.mailgun import MailgunServer
from dev.providers.sendgrid import SendGridServer
from dev.providers.server import Fault, HttpEmailServer
from dev.providers.ses import SesServer
from notifications.messages import Email
from notifications.outcome import Failed
from sinks.email.mailgun import Mailgun
from sinks.email.sendgrid import SendGrid
from sinks.email.ses import Ses
from sinks.provider import Provider
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


async def test_nobody_there_means_that_nothing_arrived(
    pair: Pair, server: HttpEmailServer, client: httpx.AsyncClient, email: MakeEmail
) -> None:
    await server.stop()
    outcome = await pair.provider(client, server.url).send(email())
    assert isinstance(outcome, Failed)
    assert not outcome.may_have_arrived
