"""Apple Push Notification service, by HTTP/2 with provider tokens: push to iOS.

Input: a push message, whose token is a device token in hexadecimal. Output: the outcome. The only state is the provider
token, which is recreated after a restart.

The request: https://developer.apple.com/documentation/usernotifications/sending-notification-requests-to-apns. The
reasons: https://developer.apple.com/documentation/usernotifications/handling-notification-responses-from-apns. The
provider token: https://developer.apple.com/documentation/usernotifications/establishing-a-token-based-connection-to-apns.
"""

import re
from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from typing import Self
from uuid import UUID

import httpx
import jwt
from cryptography.hazmat.primitives.asymmetric.ec import EllipticCurvePrivateKey
from cryptography.hazmat.primitives.serialization import load_pem_private_key
from pydantic import SecretStr

from notifications.messages import Push
from notifications.outcome import Failed, Outcome, Refused, Sent
from notifications.replies import APNS, of_api, outcome
from providers.base import NOT_A_KEY, ProviderSettingsError, read_key_file, required
from providers.http import answer, ask, client, failed, retry_after
from providers.push.payload import as_json, fitted
from providers.webhooks.base import Detail, Text
from runtime.settings import Settings

_LARGEST = 4096

# Apple wants a new provider token at least every 60 minutes, and at most every 20.
_RENEWED_AFTER = timedelta(minutes=50)
_KEPT_FOR = timedelta(minutes=20)

_DEVICE_TOKEN = re.compile(r"[0-9A-Fa-f]{2,}")


@dataclass(frozen=True, slots=True, repr=False)
class _ProviderToken:
    value: str
    made_at: datetime


class Apns:
    """Sends to devices through APNs.

    `may_repeat` holds: Apple says of `apns-id` that it names a notification in answers, and nowhere that it keeps one
    from being delivered twice. So the key is the `apns-collapse-id` as well, which Apple tells senders to repeat with a
    repetition: the device shows both as one, and may ring twice.

    Args:
        client: The HTTP/2 client; closed with this object. As Apple accepts the tokens of only one team on a
        connection,
            no other provider may share it.
        key: The signing key as Apple gives it, the PEM text of a `.p8` file.
        key_id: The key's ten characters.
        team_id: The team's ten characters.
        topic: The application's bundle id.
        base_url: The address of APNs: `https://api.push.apple.com`, or `https://api.sandbox.push.apple.com` for the
        device
            tokens of development builds.
        clock: Returns the current time, with a zone.

    Raises:
        ValueError: The key is not an EC key in PEM.
    """

    name = "apns"
    may_repeat = True

    def __init__(
        self,
        client: httpx.AsyncClient,
        key: SecretStr,
        key_id: str,
        team_id: str,
        topic: str,
        base_url: str = "https://api.push.apple.com",
        clock: Callable[[], datetime] = lambda: datetime.now(UTC),
    ) -> None:
        private_key = load_pem_private_key(key.get_secret_value().encode(), password=None)
        if not isinstance(private_key, EllipticCurvePrivateKey):
            raise ValueError("the signing key is no EC key")
        self._client = client
        self._key = private_key
        self._key_id = key_id
        self._team_id = team_id
        self._topic = topic
        self._base_url = base_url
        self._clock = clock
        self._token: _ProviderToken | None = None

    @staticmethod
    def is_configured(settings: Settings) -> bool:
        """Whether the settings have the provider."""
        return bool(settings.apns_key_file)

    @classmethod
    def from_settings(cls, settings: Settings) -> Self:
        """Make the provider of the settings; read its key file.

        Raises:
            MissingSettingError: A setting is missing.
            ProviderSettingsError: The key file is wrong.
        """
        setting = "INKSTREAM_APNS_KEY_FILE"
        path = required(settings.apns_key_file)
        key = SecretStr(read_key_file(path, setting))
        key_id, team_id = required(settings.apns_key_id), required(settings.apns_team_id)
        try:
            return cls(client(http2=True), key, key_id, team_id, required(settings.apns_topic), settings.apns_url)
        except NOT_A_KEY:
            raise ProviderSettingsError(f"{setting}: {path} is no signing key: Apple gives it as a file .p8") from None

    async def send(self, message: Push) -> Outcome:
        """Send a message; a body that is too long is shortened.

        Raises:
            ValueError: If the message's key is not 32 hexadecimal digits.
        """
        # It becomes part of a URL. A token stored for the wrong platform will be corrected, so it is not suppressed.
        if not _DEVICE_TOKEN.fullmatch(message.token):
            return Refused("BadDeviceToken", "the token is not hexadecimal", recipient_is_gone=False, was_asked=False)
        content = fitted(message.body, _LARGEST, lambda body: _content(message, body))
        if content is None:
            said = f"without its body it has more than {_LARGEST} bytes"
            return Refused("PayloadTooLarge", said, recipient_is_gone=False, category="content", was_asked=False)
        token = self._provider_token()
        response = await self._post(token, message, content)
        if isinstance(response, httpx.Response) and _reason(response) == "ExpiredProviderToken":
            renewed = self._provider_token(expired=token)
            if renewed != token:
                response = await self._post(renewed, message, content)
        return response if isinstance(response, Failed) else self._outcome(response, message)

    async def close(self) -> None:
        """Close connections."""
        await self._client.aclose()

    def _provider_token(self, expired: str | None = None) -> str:
        """Return the provider token; renewed if it is old or Apple says expired, but not more often than allowed."""
        now = self._clock()
        if self._token:
            age = now - self._token.made_at
            renewed_after = _KEPT_FOR if self._token.value == expired else _RENEWED_AFTER
            # A clock that was set back has made a token of the future, which Apple does not take.
            if timedelta(0) <= age < renewed_after:
                return self._token.value
        value = jwt.encode(
            {"iss": self._team_id, "iat": now}, self._key, algorithm="ES256", headers={"kid": self._key_id}
        )
        self._token = _ProviderToken(value, now)
        return value

    async def _post(self, token: str, message: Push, content: bytes) -> httpx.Response | Failed:
        headers = {
            "authorization": f"bearer {token}",
            "apns-id": str(UUID(hex=message.key)),
            "apns-collapse-id": message.key,
            "apns-topic": self._topic,
            "apns-push-type": "alert",
            "apns-priority": "10" if message.urgent else "5",
        }
        if message.expires_at:
            headers["apns-expiration"] = str(int(message.expires_at.timestamp()))
        url = f"{self._base_url}/3/device/{message.token}"
        return await ask(self._client, self._client.build_request("POST", url, headers=headers, content=content))

    def _outcome(self, response: httpx.Response, message: Push) -> Outcome:
        if response.is_success:
            return Sent(response.headers.get("apns-id", str(UUID(hex=message.key))))
        status = response.status_code
        code = _reason(response) or str(status)
        said = f"APNs answered {status}"
        if response.is_server_error:
            return replace(failed(response, said), code=code)
        row = of_api(APNS, status, code)
        # A connection on which the provider token was changed too soon is of no use before the time for a change.
        wait = _KEPT_FOR if code == "TooManyProviderTokenUpdates" else None
        return outcome(
            row.category,
            code,
            said,
            about_message=row.about_message,
            retry_after=retry_after(response, self._clock()) or wait,
        )


class _Answer(Detail):
    reason: Text = None


def _content(message: Push, body: str) -> bytes:
    payload: dict[str, object] = {"aps": {"alert": {"title": message.title, "body": body}}}
    if message.url:
        payload["url"] = message.url
    if message.data:
        payload["data"] = dict(message.data)
    return as_json(payload)


def _reason(response: httpx.Response) -> str:
    return _Answer.model_validate(answer(response)).reason or ""
