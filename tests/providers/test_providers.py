"""All providers, made from settings alone, against servers that speak their contracts."""

import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from dev.providers.apns import KEY_ID, TEAM_ID, TOPIC, ApnsServer
from dev.providers.fcm import FcmServer
from dev.providers.mailgun import MailgunServer
from dev.providers.sendgrid import SendGridServer
from dev.providers.ses import SesServer
from dev.providers.smtp import SmtpServer
from dev.providers.web_push import PushService
from notifications.messages import Push
from notifications.outcome import Sent
from providers.registry import Providers
from runtime.settings import Settings
from tests.providers import test_apns, test_fcm, test_ses, test_web_push
from tests.providers.conftest import MakeEmail


@pytest.fixture(autouse=True)
def nothing_from_outside(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", test_ses.CREDENTIALS.access_key)
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", test_ses.CREDENTIALS.secret_key)
    monkeypatch.setenv("AWS_SESSION_TOKEN", test_ses.CREDENTIALS.token)


@asynccontextmanager
async def providers(**settings: Any) -> AsyncIterator[Providers]:
    made = Providers.of(Settings(**settings))
    try:
        yield made
    finally:
        await made.close()


async def test_every_provider_of_email_that_is_set_takes_a_message(email: MakeEmail) -> None:
    async with (
        SmtpServer(user=("ada@blog.example", "p/w:@d")) as smtp,
        SendGridServer("right key") as sendgrid,
        SesServer(test_ses.CREDENTIALS, test_ses.REGION) as ses,
        MailgunServer("right key", "mail.blog.example") as mailgun,
        providers(
            email_providers=("mailgun", "aws-ses", "sendgrid", "smtp"),
            smtp_url=f"smtp://ada%40blog.example:p%2Fw%3A%40d@{smtp.host}:{smtp.port}",
            sendgrid_api_key="right key",
            sendgrid_url=sendgrid.url,
            ses_region=test_ses.REGION,
            ses_url=ses.url,
            mailgun_api_key="right key",
            mailgun_domain="mail.blog.example",
            mailgun_url=f"{mailgun.url}/",
        ) as made,
    ):
        for route in made.email:
            assert isinstance(await route.provider.send(email()), Sent), route.name
        assert [len(server.accepted) for server in (smtp, sendgrid, ses, mailgun)] == [1, 1, 1, 1]


async def test_every_provider_of_push_that_is_set_takes_a_message(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with FcmServer() as fcm, ApnsServer() as apns, PushService() as browsers:
        account, key, trusted = (tmp_path / name for name in ("firebase.json", "AuthKey.p8", "trusted.pem"))
        account.write_text(json.dumps(fcm.service_account))
        key.write_text(apns.key)
        trusted.write_bytes(apns.certificate._certificate)
        monkeypatch.setenv("SSL_CERT_FILE", str(trusted))
        messages = [
            replace(test_fcm.PUSH, expires_at=None),
            replace(test_apns.PUSH, expires_at=None),
            replace(
                test_apns.PUSH, expires_at=None, platform="web", token=browsers.subscribe(test_web_push.PUBLIC_KEY)
            ),
        ]
        async with providers(
            fcm_service_account_file=account,
            fcm_url=fcm.url,
            apns_key_file=key,
            apns_key_id=KEY_ID,
            apns_team_id=TEAM_ID,
            apns_topic=TOPIC,
            apns_url=apns.url,
            web_push_private_key=test_web_push.PEM,
            web_push_subject=test_web_push.SUBJECT,
        ) as made:
            for message in messages:
                assert isinstance(await send(made, message), Sent), message.platform
        assert [len(server.accepted) for server in (fcm, apns, browsers)] == [1, 1, 1]


async def send(made: Providers, message: Push) -> object:
    route = made.push(message.platform, message.token)
    assert route is not None
    return await route.provider.send(message)
