"""Providers: who takes e-mails and push messages, as the settings name them.

In come settings, with the key files that they name; out go routes to providers, each with a circuit breaker of its own.
What the settings lack is an error at the start. Of what a provider did, nothing outlives the process.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import partial
from math import ceil
from pathlib import Path
from typing import Any, Generic, Self, TypeVar
from urllib.parse import unquote, urlsplit

import botocore.session
import httpx
from botocore.exceptions import BotoCoreError
from cryptography.exceptions import UnsupportedAlgorithm
from pydantic import BaseModel, SecretStr, TypeAdapter, ValidationError

from notifications.circuit_breaker import CircuitBreaker
from notifications.messages import Email, Push
from notifications.rate import Rate
from notifications.refusal_guard import RefusalGuard
from providers.base import Provider
from providers.email.mailgun import Mailgun
from providers.email.sendgrid import SendGrid
from providers.email.ses import Ses
from providers.email.smtp import Smtp, Tls
from providers.http import client
from providers.push.apns import Apns
from providers.push.fcm import Fcm
from providers.push.file import PushFile
from providers.push.web_push import WebPush
from runtime.metrics import CIRCUIT_OPEN
from runtime.settings import EmailProvider, Settings
from schemas.notifications import Platform

PUSH_SERVICES = 500
"""How many push services of browsers are told apart: there are a handful, and whatever strangers make up."""

Message = TypeVar("Message", Email, Push)
Given = TypeVar("Given")

_SERVICE_ACCOUNT = TypeAdapter(dict[str, str])
_SMTP: Mapping[str, tuple[Tls, int]] = {
    "smtp": ("none", 25),
    "smtp+starttls": ("starttls", 587),
    "smtps": ("implicit", 465),
}
# What the libraries raise for what is no key, or is under a password, or of a kind that they don't know.
_NO_KEY = (ValueError, TypeError, UnsupportedAlgorithm)
_NAMES: Mapping[Platform, str] = {"android": Fcm.name, "ios": Apns.name, "web": WebPush.name}


class ProviderSettingsError(ValueError):
    """A provider can't be had as it is set. The message names the setting, and holds nothing of keys."""


class _NotSetError(Exception):
    """A setting is missing that the settings' own check has reported."""


@dataclass(frozen=True, slots=True)
class Route(Generic[Message]):
    """A way to send messages.

    Attributes:
        name: The provider's, in logs, metrics and the names of its limits.
        provider: Who takes them.
        rate: How fast it is given messages, by all workers together; `None` for as fast as it goes.
        breaker: Whether it may be given any.
        refusal_guard: How its refusals are to be taken; `None` where each is to be believed.
    """

    name: str
    provider: Provider[Message]
    rate: Rate | None = None
    breaker: CircuitBreaker = field(default_factory=CircuitBreaker)
    refusal_guard: RefusalGuard | None = field(default_factory=RefusalGuard)


class Providers:
    """All providers there are.

    Args:
        email: Who takes e-mails, the preferred one first.
        push: Who takes the push messages for each platform; where one is missing, nobody does.
        email_rate: How fast each of the first is given messages.
        push_rate: How fast each of the second is.
        clock: Tells the time, with its zone.

    Attributes:
        email: The routes for e-mails, the preferred one first.
    """

    def __init__(
        self,
        email: Sequence[Provider[Email]] = (),
        push: Mapping[Platform, Provider[Push]] | None = None,
        *,
        email_rate: Rate | None = None,
        push_rate: Rate | None = None,
        clock: Callable[[], datetime] = lambda: datetime.now(UTC),
    ) -> None:
        self.email = tuple(Route(provider.name, provider, email_rate) for provider in email)
        self._push = {
            platform: Route(provider.name, provider, push_rate) for platform, provider in (push or {}).items()
        }
        self._push_services: dict[str, Route[Push]] = {}
        self._clock = clock
        self._watch()

    @classmethod
    def of(cls, settings: Settings) -> Self:
        """Return the providers that the settings name.

        Reads key files, and may ask the network for credentials of AWS.

        Raises:
            ProviderSettingsError: One can't be had.
        """
        return cls(
            [make() for make in _email_makers(settings)],
            {platform: make() for platform, make in _push_makers(settings).items()},
            email_rate=_rate(settings.email_rate),
            push_rate=_rate(settings.push_rate),
        )

    def push(self, push_platform: Platform, token: str) -> Route[Push] | None:
        """Return the route to a device; `None` where nobody sends to such.

        Browsers have a circuit breaker for each push service, as one says nothing of the others.
        """
        route = self._push.get(push_platform)
        if route is None or push_platform != "web":
            return route
        own = Route(
            route.name, route.provider, route.rate, refusal_guard=None
        )  # a service that ends refuses all there is
        service = _push_service(token)
        # Whoever has a subscription that names no service is told so, which says nothing of other subscriptions.
        return own if service is None else self._known(service, own)

    async def close(self) -> None:
        """Let go of all connections."""
        for email in self.email:
            await email.provider.close()
        for push in self._push.values():
            await push.provider.close()

    def _known(self, service: str, new: Route[Push]) -> Route[Push]:
        """Return the route to a push service as it is known, or the new one; forget what was not used for longest."""
        route = self._push_services.pop(service, new)
        self._push_services[service] = route
        if len(self._push_services) > PUSH_SERVICES:
            del self._push_services[next(iter(self._push_services))]
        return route

    def _watch(self) -> None:
        """Have the circuits looked at whenever metrics are asked for: a pause ends without anybody doing anything."""
        for email in self.email:
            CIRCUIT_OPEN.labels(email.name).set_function(partial(self._open, {email.name: email}))
        for platform, push in self._push.items():
            watched = self._push_services if platform == "web" else {push.name: push}
            CIRCUIT_OPEN.labels(push.name).set_function(partial(self._open, watched))

    def _open(self, routes: Mapping[str, Route[Any]]) -> int:
        now = self._clock()
        return sum(route.breaker.state(now) != "closed" for route in routes.values())


def problems(settings: Settings) -> list[str]:
    """Return what keeps the providers that the settings name from being had, a line for each; none where all can be.

    Args:
        settings: The settings; a provider whose own settings are missing is passed over.
    """
    found = []
    for make in (*_email_makers(settings), *_push_makers(settings).values()):
        try:
            make()
        except ProviderSettingsError as error:
            found.append(str(error))
        except _NotSetError:
            pass
    return found


def _email_makers(settings: Settings) -> list[Callable[[], Provider[Email]]]:
    return [partial(_email_provider, name, settings) for name in settings.email_providers]


def _email_provider(name: EmailProvider, settings: Settings) -> Provider[Email]:
    """Make a provider of e-mail; `Settings` has seen to it that nothing is missing."""
    match name:
        case "smtp":
            return _smtp(settings.smtp_url)
        case "sendgrid":
            return SendGrid(client(), _given(settings.sendgrid_api_key), settings.sendgrid_url)
        case "aws-ses":
            region = _given(settings.ses_region)
            credentials = _aws_credentials()
            return Ses(client(), credentials, region, settings.ses_url, settings.ses_configuration_set)
        case "mailgun":
            api_key, domain = _given(settings.mailgun_api_key), _given(settings.mailgun_domain)
            return Mailgun(client(), api_key, domain, settings.mailgun_url)


def _smtp(smtp_url: SecretStr) -> Smtp:
    url = urlsplit(smtp_url.get_secret_value())
    tls, port = _SMTP[url.scheme]
    return Smtp(
        url.hostname or "",
        url.port or port,
        unquote(url.username) if url.username else None,
        SecretStr(unquote(url.password)) if url.password else None,
        tls=tls,
    )


def _aws_credentials() -> botocore.credentials.Credentials:
    advice = "AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, a profile or a role, or leave aws-ses out"
    try:
        credentials = botocore.session.get_session().get_credentials()
    except BotoCoreError as error:
        raise ProviderSettingsError(
            f"INKSTREAM_EMAIL_PROVIDERS names aws-ses, but credentials of AWS can't be had ({error}): set {advice}"
        ) from None
    if credentials is None:
        raise ProviderSettingsError(
            f"INKSTREAM_EMAIL_PROVIDERS names aws-ses, but there are no credentials of AWS: set {advice}"
        )
    return credentials


def _push_makers(settings: Settings) -> dict[Platform, Callable[[], Provider[Push]]]:
    if settings.push_file:
        return {platform: partial(PushFile, settings.push_file, name) for platform, name in _NAMES.items()}
    makers: dict[Platform, Callable[[], Provider[Push]]] = {}
    if settings.fcm_service_account_file:
        makers["android"] = partial(_fcm, settings.fcm_service_account_file, settings.fcm_url)
    if settings.apns_key_file:
        makers["ios"] = partial(_apns, settings.apns_key_file, settings)
    if settings.web_push_private_key:
        makers["web"] = partial(_web_push, settings.web_push_private_key, settings)
    return makers


def _fcm(path: Path, base_url: str) -> Fcm:
    setting = "INKSTREAM_FCM_SERVICE_ACCOUNT_FILE"
    text = _read(path, setting)
    try:
        return Fcm(client(), _SERVICE_ACCOUNT.validate_json(text), base_url)
    except KeyError as error:
        raise ProviderSettingsError(f"{setting}: {path} has no {error}: is it a service account's key?") from None
    except _NO_KEY:
        raise ProviderSettingsError(
            f"{setting}: {path} is no service account's key file: make one in the Firebase console"
        ) from None


def _apns(path: Path, settings: Settings) -> Apns:
    setting = "INKSTREAM_APNS_KEY_FILE"
    key = SecretStr(_read(path, setting))
    key_id, team_id, topic = _given(settings.apns_key_id), _given(settings.apns_team_id), _given(settings.apns_topic)
    try:
        return Apns(client(http2=True), key, key_id, team_id, topic, settings.apns_url)
    except _NO_KEY:
        raise ProviderSettingsError(f"{setting}: {path} is no signing key: Apple gives it as a file .p8") from None


def _web_push(private_key: SecretStr, settings: Settings) -> WebPush:
    loopback = settings.environment == "development"
    try:
        return WebPush(client(), private_key, _given(settings.web_push_subject), loopback=loopback)
    except ValueError as error:
        raise ProviderSettingsError(f"INKSTREAM_WEB_PUSH_PRIVATE_KEY and INKSTREAM_WEB_PUSH_SUBJECT: {error}") from None


def _read(path: Path, setting: str) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except OSError as error:
        raise ProviderSettingsError(f"{setting}: {path} can't be read: {error.strerror}") from None
    except UnicodeDecodeError:
        raise ProviderSettingsError(f"{setting}: {path} is no text") from None


def _given(value: Given | None) -> Given:
    if value is None:
        raise _NotSetError
    return value


def _rate(per_second: float | None) -> Rate | None:
    """Return a rate that lets go at once what a second allows."""
    return None if per_second is None else Rate(per_second, burst=ceil(per_second))


class _Subscription(BaseModel):
    endpoint: str


def _push_service(token: str) -> str | None:
    """Return the host of a subscription's endpoint; `None` where it has none."""
    try:
        host = httpx.URL(_Subscription.model_validate_json(token).endpoint).raw_host
    except (ValidationError, httpx.InvalidURL):
        return None
    return host.decode() or None
