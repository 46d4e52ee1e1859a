"""Web Push: push to browsers, through whichever push service a browser has chosen.

Input: a push message, whose token is the subscription's JSON. Output: the outcome. The message is encrypted for the
browser, so that the push service can't read it. The only state is whether the key has ever been accepted.

The endpoint and its responses are not trusted. It is reached only by HTTPS, by a name, and at a public address; a small
part of a response is read, for a bounded time; redirects are not followed; and if possible a refusal is attributed to
its own subscription, not to the key or to other push services.

The request: https://www.rfc-editor.org/rfc/rfc8030. The encryption: https://www.rfc-editor.org/rfc/rfc8291 in
https://www.rfc-editor.org/rfc/rfc8188. Who we are: https://www.rfc-editor.org/rfc/rfc8292.
"""

import asyncio
import base64
import re
import socket
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from ipaddress import IPv4Address, IPv6Address, ip_address
from typing import Any, NamedTuple, Self, cast

import httpx
from cryptography.hazmat.primitives.asymmetric.ec import SECP256R1, EllipticCurvePublicKey
from py_vapid import Vapid02, VapidException  # type: ignore[import-untyped]
from pydantic import BaseModel, SecretStr, ValidationError
from pywebpush import WebPusher  # type: ignore[import-untyped]

from notifications.messages import Push
from notifications.outcome import Failed, Outcome, Refused, Sent, Throttled
from notifications.replies import WEB_PUSH, of_api, outcome
from providers.base import ProviderSettingsError, required
from providers.http import client, failed, retry_after
from providers.push.payload import as_json, fitted
from runtime.settings import Settings

_LARGEST = 3993
"""The plain text in 4,096 bytes, which a push service must accept (RFC 8291, section 4)."""
_LONGEST_STORED = timedelta(weeks=4)
_SIGNATURE_LIFETIME = timedelta(hours=12)
"""RFC 8292 allows 24 hours; half of it leaves room for a wrong clock."""

_LOOPBACK = {"localhost", "127.0.0.1", "::1"}
_NEVER_RESOLVES = ".invalid"
"""RFC 6761, section 6.4. Browsers write `https://permanently-removed.invalid/` into a subscription that has ended."""
_KNOWN_SERVICES = (".googleapis.com", ".services.mozilla.com", ".notify.windows.com", ".push.apple.com")
_NO_SUCH_NAME = {socket.EAI_NONAME, getattr(socket, "EAI_NODATA", socket.EAI_NONAME)}
_WNS_STATUS = ("x-wns-notificationstatus", "x-wns-status")
_NAME = re.compile(r"(?=.{1,253}$)([a-z0-9_-]{1,63}\.)+[a-z][a-z0-9-]{0,62}")
"""A name with at least one dot, and no address in any notation: the last part of an address begins with a digit."""
_PUBLIC_KEY_BYTES = 65
_SECRET_BYTES = 16

_READ_BYTES = 2048
_READ_SECONDS = 1.0
_SAID_CHARACTERS = 200
_LOCATION_CHARACTERS = 2048
_TELLING_CHARACTERS = 8


class WebPush:
    """Sends to browsers through their push services.

    `may_repeat` holds: push services know no idempotency key. The message's key is its `Topic` though (RFC 8030,
    section 5.4: at most 32 characters of base64url, which its 32 digits are), so that a repetition replaces the first
    for as long as the browser has not fetched it; after that the browser gets both.

    One push service says nothing about the others: count failures, and wait after `Throttled`, for each host of an
    endpoint, so that a stranger's server can't stop all messages. For the same reason status 401 and 403, by which a
    push service refuses a signature (RFC 8292), count as `Misconfigured` only until the key has been accepted once:
    after that, the subscription was made for another key. Apple says which of the two it is.

    Args:
        client: The HTTP client; closed with this object, which must be its only user: connections are checked when
        made. private_key: The VAPID key: PEM, or 32 bytes in base64url. subject: The contact for push services:
        `mailto:` and an address, or `https://` and a name. loopback: Whether endpoints on this machine are allowed, by
        plain HTTP. For development only: a stranger could
            reach any local service.
        clock: Returns the current time, with a zone.

    Raises:
        ValueError: The key or the subject is invalid.
    """

    name = "web-push"
    may_repeat = True

    def __init__(
        self,
        client: httpx.AsyncClient,
        private_key: SecretStr,
        subject: str,
        *,
        loopback: bool = False,
        clock: Callable[[], datetime] = lambda: datetime.now(UTC),
    ) -> None:
        self._client = client
        self._vapid = _vapid(private_key.get_secret_value())
        self._subject = subject
        self._loopback = loopback
        self._clock = clock
        self._key_was_accepted = False
        try:
            self._authorization(httpx.URL("https://push.example"))
        except VapidException:
            raise ValueError("the subject is neither mailto: and an address nor https:// and a name") from None

    @staticmethod
    def is_configured(settings: Settings) -> bool:
        """Whether the settings have the provider."""
        return bool(settings.web_push_private_key)

    @classmethod
    def from_settings(cls, settings: Settings) -> Self:
        """Make the provider of the settings.

        Raises:
            MissingSettingError: A setting is missing.
            ProviderSettingsError: The key or the subject is wrong.
        """
        private_key, subject = required(settings.web_push_private_key), required(settings.web_push_subject)
        try:
            return cls(client(), private_key, subject, loopback=settings.environment == "development")
        except ValueError as error:
            raise ProviderSettingsError(
                f"INKSTREAM_WEB_PUSH_PRIVATE_KEY and INKSTREAM_WEB_PUSH_SUBJECT: {error}"
            ) from None

    async def send(self, message: Push) -> Outcome:
        """Send a message; a body that is too long is shortened.

        Raises:
            ValueError: If `expires_at` has no time zone.
        """
        try:
            subscription = _subscription(message.token, loopback=self._loopback)
        except _BrokenSubscriptionError as error:
            return Refused("subscription", str(error), recipient_is_gone=error.is_for_good, was_asked=False)
        if subscription.endpoint.host.endswith(_NEVER_RESOLVES):
            said = "the endpoint's host is one that can never exist"
            return Refused("subscription", said, recipient_is_gone=True, category="gone", was_asked=False)
        content = fitted(message.body, _LARGEST, lambda body: _content(message, body))
        if content is None:
            said = f"without its body it has more than {_LARGEST} bytes"
            return Refused("413", said, recipient_is_gone=False, category="content", was_asked=False)
        answer = await self._ask(self._request(subscription, message, content))
        return self._outcome(answer, subscription) if isinstance(answer, _Answer) else answer

    async def close(self) -> None:
        """Close connections."""
        await self._client.aclose()

    async def _ask(self, request: httpx.Request) -> "_Answer | Outcome":
        """Send a request, and read the beginning of the response, within little more than the client's time-out."""
        connection = _Connection(request.url)
        request.extensions["trace"] = connection.notice
        try:
            async with asyncio.timeout(self._client.timeout.read):
                response = await self._client.send(request, stream=True)
            return _Answer(response, await _beginning(response))
        except _ForbiddenAddressError:
            # The name or our resolver may be at fault, so the subscription is kept.
            said = "the endpoint's name leads to an address that is not public"
            return Refused("address", said, recipient_is_gone=False, was_asked=False)
        except (httpx.HTTPError, TimeoutError) as error:
            if _is_unknown_name(error) and not request.url.host.endswith(_KNOWN_SERVICES):
                # As likely the subscription's fault as our resolver's: it is tried as often as any, and kept.
                said = "the endpoint's host is not known"
                return Failed("name", said, may_have_arrived=False, concerns="recipient")
            what = "the push service's answer did not come" if connection.sent else "the push service can't be reached"
            return Failed(type(error).__name__, what, may_have_arrived=connection.sent)
        finally:
            # They would be kept, and are a stranger's.
            self._client.cookies.clear()

    def _request(self, subscription: "_Subscription", message: Push, content: bytes) -> httpx.Request:
        left = message.expires_at - self._clock() if message.expires_at else _LONGEST_STORED
        seconds = min(max(left, timedelta(0)), _LONGEST_STORED).total_seconds()
        headers = {
            "authorization": self._authorization(subscription.endpoint),
            "ttl": str(int(seconds)),
            "urgency": "high" if message.urgent else "normal",
            "topic": message.key,
            "content-encoding": "aes128gcm",
            "content-type": "application/octet-stream",
            "accept-encoding": "identity",
        }
        return self._client.build_request(
            "POST",
            subscription.endpoint,
            headers=headers,
            content=subscription.encrypt(content),
        )

    def _authorization(self, endpoint: httpx.URL) -> str:
        claims = {
            "aud": f"{endpoint.scheme}://{endpoint.netloc.decode()}",
            "sub": self._subject,
            "exp": int((self._clock() + _SIGNATURE_LIFETIME).timestamp()),
        }
        return cast(str, self._vapid.sign(claims)["Authorization"])

    def _outcome(self, answer: "_Answer", subscription: "_Subscription") -> Outcome:
        response, status = answer.response, answer.response.status_code
        code = str(status)
        if response.is_success:
            self._key_was_accepted = True
            dropped = _dropped(response, subscription.endpoint.host)
            if dropped is not None:
                return dropped
            location = subscription.without_secrets(response.headers.get("location", ""))
            return Sent(location if 0 < len(location) <= _LOCATION_CHARACTERS else None)
        message = subscription.without_secrets(answer.said)[:_SAID_CHARACTERS] or httpx.codes.get_reason_phrase(status)
        if response.is_server_error or status == 408:
            return failed(response, message)
        wait = retry_after(response, self._clock())
        if wait is not None and response.is_client_error:
            # A service that names a time to retry has not ended the subscription, even with such a status.
            return Throttled(code, message, wait)
        row = of_api(WEB_PUSH, status, subscription.endpoint.host, answer.said)
        if status in (401, 403) and row.words is None and self._key_was_accepted:
            # By RFC 8292 it refuses the signature: so it is a subscription that was made for another key.
            return Refused(code, message, recipient_is_gone=False, category="refused")
        return outcome(row.category, code, message, about_message=row.about_message, retry_after=wait)


def _dropped(response: httpx.Response, host: str) -> Outcome | None:
    """Return what Microsoft's service reports of a message that it accepts but does not keep.

    https://learn.microsoft.com/windows/apps/develop/notifications/push-notifications/push-request-response-headers
    """
    if not host.endswith(".notify.windows.com"):
        return None
    match next((response.headers[name].lower() for name in _WNS_STATUS if name in response.headers), ""):
        case "channelthrottled":
            return Throttled("channelThrottled", "the push service dropped it, as too many came", retry_after(response))
        case "dropped":
            return Refused("dropped", "the push service dropped it", recipient_is_gone=False)
        case _:
            return None


def _is_unknown_name(error: BaseException) -> bool:
    """Whether the name server responded that the name does not exist; no response is another case."""
    cause: BaseException | None = error
    while cause is not None:
        if isinstance(cause, socket.gaierror):
            return cause.errno in _NO_SUCH_NAME
        cause = cause.__cause__ or cause.__context__
    return False


class _BrokenSubscriptionError(Exception):
    """The subscription is unusable; the error's message contains nothing of it.

    Attributes:
        is_for_good: Whether it is a browser's, and can never be used. Anything else may be another platform's token,
            which is right as soon as somebody corrects the platform.
    """

    def __init__(self, message: str, *, is_for_good: bool = True) -> None:
        super().__init__(message)
        self.is_for_good = is_for_good


class _ForbiddenAddressError(Exception):
    """The endpoint's name leads to an address that is not allowed."""


class _Keys(BaseModel):
    p256dh: str
    auth: str


class _SubscriptionJson(BaseModel):
    """https://www.w3.org/TR/push-api/#dom-pushsubscriptionjson."""

    endpoint: str
    keys: _Keys


@dataclass(frozen=True, slots=True, repr=False)
class _Subscription:
    """A subscription that was checked."""

    endpoint: httpx.URL
    keys: Mapping[str, str]
    given: str

    def encrypt(self, content: bytes) -> bytes:
        """Encrypt for the browser: one record, with a key that is used once."""
        pusher = WebPusher({"endpoint": str(self.endpoint), "keys": dict(self.keys)})
        return cast(bytes, pusher.encode(content)["body"])

    def without_secrets(self, said: str) -> str:
        """Remove from a text what reveals the subscription, and what does not fit a line of a log."""
        parts = {self.given, str(self.endpoint), *self.endpoint.raw_path.decode().split("/"), *self.keys.values()}
        # The longest first: the endpoint holds the others. Short parts, as `v1` or `send`, are in every endpoint.
        for part in sorted(parts, key=len, reverse=True):
            if len(part) >= _TELLING_CHARACTERS:
                said = said.replace(part, "<recipient>")
        return " ".join("".join(c if c.isprintable() else " " for c in said).split())


class _Answer(NamedTuple):
    """A closed response, and the beginning of its body."""

    response: httpx.Response
    said: str


class _Connection:
    """Watches a request, and closes a connection to an address that is not allowed.

    A check before the connection is made could be given another answer by the name's server than the connection gets;
    this one comes when it is made, and before its first byte. It hangs on httpx's extension `trace`
    (https://www.python-httpx.org/advanced/extensions/#trace). A connection to a proxy is let through: there it is the
    proxy that looks the name up.

    Attributes:
        sent: Whether the headers of a request were sent, so that it may have arrived.
    """

    def __init__(self, endpoint: httpx.URL) -> None:
        self.sent = False
        self._host = endpoint.raw_host.decode()
        self._must_be_loopback = endpoint.scheme == "http"
        self._is_direct = True

    async def notice(self, event: str, details: Mapping[str, Any]) -> None:
        """Handle one event of httpx.

        Raises:
            _ForbiddenAddressError: If the connection was one to end; it is closed.
        """
        if event == "connection.connect_tcp.started":
            self._is_direct = details["host"] == self._host
        elif event == "connection.connect_tcp.complete" and self._is_direct:
            stream = details["return_value"]
            if not self._allows(ip_address(stream.get_extra_info("server_addr")[0])):
                await stream.aclose()
                raise _ForbiddenAddressError
        elif event.endswith(".send_request_headers.complete"):
            self.sent = True

    def _allows(self, address: IPv4Address | IPv6Address) -> bool:
        if isinstance(address, IPv6Address) and address.ipv4_mapped:
            address = address.ipv4_mapped
        if self._must_be_loopback:
            return address.is_loopback
        return address.is_global and not address.is_multicast


def _vapid(private_key: str) -> Vapid02:
    try:
        if "-----BEGIN" in private_key:
            return Vapid02.from_pem(private_key.strip().encode())
        return Vapid02.from_string(private_key)
    except Exception:
        # The libraries raise many kinds, and some messages hold what they could not read.
        raise ValueError("the VAPID key is neither PEM nor 32 bytes in base64url") from None


def _subscription(token: str, *, loopback: bool) -> _Subscription:
    """Read a subscription, and check that a message may be sent to it.

    Raises:
        _BrokenSubscriptionError: If not.
    """
    try:
        given = _SubscriptionJson.model_validate_json(token)
    except ValidationError:
        raise _BrokenSubscriptionError("it is not a subscription's JSON", is_for_good=False) from None
    _check_keys(given.keys)
    return _Subscription(_endpoint(given.endpoint, loopback=loopback), given.keys.model_dump(), given.endpoint)


def _endpoint(given: str, *, loopback: bool) -> httpx.URL:
    try:
        url = httpx.URL(given)
    except httpx.InvalidURL:
        raise _BrokenSubscriptionError("the endpoint is not a URL") from None
    host = url.raw_host.decode()
    if url.userinfo:
        raise _BrokenSubscriptionError("the endpoint has a user name")
    if url.port is not None and not 0 < url.port < 2**16:
        raise _BrokenSubscriptionError("the endpoint's port is invalid")
    if loopback and url.scheme == "http" and host in _LOOPBACK:
        return url
    if url.scheme != "https":
        raise _BrokenSubscriptionError("the endpoint is not https")
    if not _NAME.fullmatch(host):
        raise _BrokenSubscriptionError("the endpoint's host is not a name with a domain")
    return url


def _check_keys(keys: _Keys) -> None:
    try:
        if len(_decoded(keys.auth)) != _SECRET_BYTES:
            raise _BrokenSubscriptionError("the subscription's secret has not 16 bytes")
        public_key = _decoded(keys.p256dh)
        if len(public_key) != _PUBLIC_KEY_BYTES:
            raise _BrokenSubscriptionError("the subscription's key has not 65 bytes")
        EllipticCurvePublicKey.from_encoded_point(SECP256R1(), public_key)
    except ValueError:
        raise _BrokenSubscriptionError("the subscription's keys can't be read") from None


def _decoded(key: str) -> bytes:
    return base64.urlsafe_b64decode(key + "==")


async def _beginning(response: httpx.Response) -> str:
    """Read the beginning of a body, which may be endless, and close it. Unreadable content counts as missing."""
    said = b""
    try:
        async with asyncio.timeout(_READ_SECONDS):
            async for chunk in response.aiter_raw():
                said += chunk
                if len(said) >= _READ_BYTES:
                    break
    except (httpx.HTTPError, TimeoutError):
        pass
    finally:
        await response.aclose()
    return said[:_READ_BYTES].decode("utf-8", "replace")


def _content(message: Push, body: str) -> bytes:
    return as_json({"title": message.title, "body": body, "url": message.url, "data": dict(message.data)})
