"""The registry of providers: makes the configured ones and routes messages to them.

Input: settings, and the key files that they name. Output: routes to providers, each with its own circuit breaker.
Missing settings are an error at the start. The state of a provider is lost with the process.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import partial
from math import ceil
from typing import Any, Generic, Self, TypeVar

import httpx
from pydantic import BaseModel, ValidationError

from notifications.circuit_breaker import CircuitBreaker
from notifications.messages import Email, Push
from notifications.rate import Rate
from notifications.refusal_guard import RefusalGuard
from providers.base import MissingSettingError, Provider, ProviderSettingsError
from providers.email.mailgun import Mailgun
from providers.email.sendgrid import SendGrid
from providers.email.ses import Ses
from providers.email.smtp import Smtp
from providers.push.apns import Apns
from providers.push.fcm import Fcm
from providers.push.file import PushFile
from providers.push.web_push import WebPush
from runtime.metrics import CIRCUIT_OPEN
from runtime.settings import EmailProvider, Settings
from schemas.notifications import Platform

PUSH_SERVICES = 500
"""How many push services of browsers have their own route: only a few exist, but strangers may invent more."""

Message = TypeVar("Message", Email, Push)

EMAIL: Mapping[EmailProvider, Callable[[Settings], Provider[Email]]] = {
    "smtp": Smtp.from_settings,
    "sendgrid": SendGrid.from_settings,
    "aws-ses": Ses.from_settings,
    "mailgun": Mailgun.from_settings,
}
"""The vendors of e-mail by their names in INKSTREAM_EMAIL_PROVIDERS, and how each is made of the settings."""

PUSH: Mapping[Platform, type[Fcm | Apns | WebPush]] = {"android": Fcm, "ios": Apns, "web": WebPush}
"""The vendor of push messages for each platform."""

NAMES: frozenset[str] = frozenset({*EMAIL, *(vendor.name for vendor in PUSH.values())})
"""The names of all vendors, as logs and metrics have them."""


@dataclass(frozen=True, slots=True)
class Route(Generic[Message]):
    """The way to one provider.

    Attributes:
        name: The provider's name in logs, metrics and rate limits.
        provider: The provider.
        rate: The rate of messages by all workers together; `None` for no limit.
        breaker: Decides whether it may get messages.
        refusal_guard: Decides whom its refusals are about; `None` to accept each as it is.
    """

    name: str
    provider: Provider[Message]
    rate: Rate | None = None
    breaker: CircuitBreaker = field(default_factory=CircuitBreaker)
    refusal_guard: RefusalGuard | None = field(default_factory=RefusalGuard)


class Providers:
    """The configured providers.

    Args:
        email: The providers of e-mail, the preferred one first.
        push: The provider of push messages for each platform; a platform may have none.
        email_rate: The rate of each provider of e-mail.
        push_rate: The rate of each provider of push messages.
        clock: Returns the current time, with a zone.

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
        """Return the providers of the settings.

        Reads key files, and may ask the network for credentials of AWS.

        Raises:
            ProviderSettingsError: The settings of a provider are wrong.
        """
        return cls(
            [make() for make in _email_makers(settings)],
            {platform: make() for platform, make in _push_makers(settings).items()},
            email_rate=_rate(settings.email_rate),
            push_rate=_rate(settings.push_rate),
        )

    def push(self, push_platform: Platform, token: str) -> Route[Push] | None:
        """Return the route to a device; `None` if its platform has no provider.

        Browsers have a circuit breaker for each push service, because one says nothing about the others.
        """
        route = self._push.get(push_platform)
        if route is None or push_platform != "web":
            return route
        own = Route(
            route.name, route.provider, route.rate, refusal_guard=None
        )  # a service that shuts down refuses everything
        service = _push_service(token)
        # A subscription without a service is refused alone, which says nothing about other subscriptions.
        return own if service is None else self._known(service, own)

    async def close(self) -> None:
        """Close all connections."""
        for email in self.email:
            await email.provider.close()
        for push in self._push.values():
            await push.provider.close()

    def _known(self, service: str, new: Route[Push]) -> Route[Push]:
        """Return the known route to a push service, or the new one; drop the least recently used of too many."""
        route = self._push_services.pop(service, new)
        self._push_services[service] = route
        if len(self._push_services) > PUSH_SERVICES:
            del self._push_services[next(iter(self._push_services))]
        return route

    def _watch(self) -> None:
        """Compute the circuits' gauge whenever metrics are read, because a pause ends without an event."""
        for email in self.email:
            CIRCUIT_OPEN.labels(email.name).set_function(partial(self._open, {email.name: email}))
        for platform, push in self._push.items():
            watched = self._push_services if platform == "web" else {push.name: push}
            CIRCUIT_OPEN.labels(push.name).set_function(partial(self._open, watched))

    def _open(self, routes: Mapping[str, Route[Any]]) -> int:
        now = self._clock()
        return sum(route.breaker.state(now) != "closed" for route in routes.values())


def problems(settings: Settings) -> list[str]:
    """Return the problems of the configured providers, one line each.

    Args:
        settings: The settings; a provider with missing settings is skipped, as the check of the settings reports it.
    """
    found = []
    for make in (*_email_makers(settings), *_push_makers(settings).values()):
        try:
            make()
        except ProviderSettingsError as error:
            found.append(str(error))
        except MissingSettingError:
            pass
    return found


def _email_makers(settings: Settings) -> list[Callable[[], Provider[Email]]]:
    return [partial(EMAIL[name], settings) for name in settings.email_providers]


def _push_makers(settings: Settings) -> dict[Platform, Callable[[], Provider[Push]]]:
    if settings.push_file:
        return {platform: partial(PushFile, settings.push_file, vendor.name) for platform, vendor in PUSH.items()}
    return {
        platform: partial(vendor.from_settings, settings)
        for platform, vendor in PUSH.items()
        if vendor.is_configured(settings)
    }


def _rate(per_second: float | None) -> Rate | None:
    """Return a rate whose burst is the number of messages of one second."""
    return None if per_second is None else Rate(per_second, burst=ceil(per_second))


class _Subscription(BaseModel):
    endpoint: str


def _push_service(token: str) -> str | None:
    """Return the host of a subscription's endpoint; `None` if it has none."""
    try:
        host = httpx.URL(_Subscription.model_validate_json(token).endpoint).raw_host
    except (ValidationError, httpx.InvalidURL):
        return None
    return host.decode() or None
