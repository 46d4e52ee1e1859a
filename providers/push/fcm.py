"""Firebase Cloud Messaging, by its HTTP v1 API: push to Android.

Input: a push message, whose token is an FCM registration token. Output: the outcome. An access token is kept in memory
until shortly before it expires; if none can be had, that is the outcome of the messages that waited for it.

The request: https://firebase.google.com/docs/reference/fcm/rest/v1/projects.messages. The errors:
https://firebase.google.com/docs/reference/fcm/rest/v1/ErrorCode. The access token:
https://developers.google.com/identity/protocols/oauth2/service-account#httprest.
"""

import asyncio
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from typing import Annotated, Self

import httpx
import jwt
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPrivateKey
from cryptography.hazmat.primitives.serialization import load_pem_private_key
from pydantic import BaseModel, BeforeValidator, Field, TypeAdapter, ValidationError

from notifications.messages import Push
from notifications.outcome import Failed, Misconfigured, Outcome, Refused, Sent, Throttled
from notifications.replies import FCM, of_api, outcome
from providers.base import NOT_A_KEY, ProviderSettingsError, read_key_file, required
from providers.http import answer, ask, client, failed, retry_after
from providers.push.payload import as_json, fitted
from providers.webhooks.base import Detail, Text, listed
from runtime.settings import Settings

_SERVICE_ACCOUNT = TypeAdapter(dict[str, str])
_SCOPE = "https://www.googleapis.com/auth/firebase.messaging"
_GRANT = "urn:ietf:params:oauth:grant-type:jwt-bearer"
_ASSERTION_LIFETIME = timedelta(hours=1)
_RENEWED_BEFORE_EXPIRY = timedelta(minutes=5)

_LARGEST = 4096
_LONGEST_STORED = timedelta(weeks=4)
_WAIT_WHERE_NONE_IS_SAID = timedelta(minutes=1)
"""The shortest wait that FCM requires after throttling."""


class Fcm:
    """Sends to devices through FCM.

    `may_repeat` holds: FCM knows no idempotency key, and a message given twice is delivered twice. The message's key is
    its `tag` though, so that Android shows the second in the place of the first, where that is still to be seen.

    Args:
        client: The HTTP client; closed with this object.
        service_account: The service account's key file, read: `project_id`, `private_key_id`, `private_key` (PEM),
            `client_email` and `token_uri` are used.
        base_url: The API's address.
        clock: Returns the current time, with a zone.

    Raises:
        KeyError: The key file lacks a field.
        ValueError: The key is not an RSA key in PEM.
    """

    name = "fcm"
    may_repeat = True

    def __init__(
        self,
        client: httpx.AsyncClient,
        service_account: Mapping[str, str],
        base_url: str = "https://fcm.googleapis.com",
        clock: Callable[[], datetime] = lambda: datetime.now(UTC),
    ) -> None:
        self._client = client
        self._url = f"{base_url}/v1/projects/{service_account['project_id']}/messages:send"
        self._access = _Access(client, service_account, clock)
        self._clock = clock

    @staticmethod
    def is_configured(settings: Settings) -> bool:
        """Whether the settings have the provider."""
        return bool(settings.fcm_service_account_file)

    @classmethod
    def from_settings(cls, settings: Settings) -> Self:
        """Make the provider of the settings; read its key file.

        Raises:
            MissingSettingError: A setting is missing.
            ProviderSettingsError: The key file is wrong.
        """
        setting = "INKSTREAM_FCM_SERVICE_ACCOUNT_FILE"
        path = required(settings.fcm_service_account_file)
        text = read_key_file(path, setting)
        try:
            return cls(client(), _SERVICE_ACCOUNT.validate_json(text), settings.fcm_url)
        except KeyError as error:
            raise ProviderSettingsError(f"{setting}: {path} has no {error}: is it a service account's key?") from None
        except NOT_A_KEY:
            raise ProviderSettingsError(
                f"{setting}: {path} is no service account's key file: make one in the Firebase console"
            ) from None

    async def send(self, message: Push) -> Outcome:
        """Send a message; a body that is too long is shortened.

        Raises:
            ValueError: If `expires_at` has no time zone.
        """
        # The whole request but the token counts, which is a little more than FCM counts.
        content = fitted(
            message.body, _LARGEST + len(message.token.encode()), lambda body: self._content(message, body)
        )
        if content is None:
            said = f"without its body it has more than {_LARGEST} bytes"
            return Refused("INVALID_ARGUMENT", said, recipient_is_gone=False, category="content", was_asked=False)
        token = await self._access.token()
        if not isinstance(token, _AccessToken):
            return token
        response = await self._post(token, content)
        if isinstance(response, httpx.Response) and _blames_access(response):
            token = await self._access.token(refused=token)
            if not isinstance(token, _AccessToken):
                return token
            response = await self._post(token, content)
        return response if isinstance(response, Failed) else self._outcome(response, message)

    async def close(self) -> None:
        """Close connections; messages that wait for a response get `Failed`."""
        await self._client.aclose()

    async def _post(self, token: "_AccessToken", content: bytes) -> httpx.Response | Failed:
        headers = {"authorization": f"Bearer {token.value}", "content-type": "application/json"}
        return await ask(self._client, self._client.build_request("POST", self._url, headers=headers, content=content))

    def _content(self, message: Push, body: str) -> bytes:
        android: dict[str, object] = {
            "priority": "HIGH" if message.urgent else "NORMAL",
            "notification": {"tag": message.key},
        }
        if message.expires_at:
            left = min(max(message.expires_at - self._clock(), timedelta(0)), _LONGEST_STORED)
            android["ttl"] = f"{int(left.total_seconds())}s"
        data = dict(message.data) | ({"url": message.url} if message.url else {})
        return as_json(
            {
                "message": {
                    "token": message.token,
                    "notification": {"title": message.title, "body": body},
                    "data": data,
                    "android": android,
                }
            }
        )

    def _outcome(self, response: httpx.Response, message: Push) -> Outcome:
        if response.is_success:
            return Sent(_Answer.model_validate(answer(response)).name)
        error = _error(response)
        code = error.error_code or error.status or str(response.status_code)
        said = error.message or httpx.codes.get_reason_phrase(response.status_code)
        if message.token:
            said = said.replace(message.token, "<recipient>")
        if response.is_server_error or response.status_code == 408:
            return replace(failed(response, said), code=code)
        row = of_api(FCM, response.status_code, error.error_code, "message.token" if error.blames_token else "")
        wait = retry_after(response, self._clock()) or _WAIT_WHERE_NONE_IS_SAID
        return outcome(row.category, code, said, about_message=row.about_message, retry_after=wait)


@dataclass(frozen=True, slots=True, repr=False)
class _AccessToken:
    value: str
    renewed_at: datetime


class _Access:
    """The access token for the API, which Google issues for an hour to a service account.

    One token is requested at a time, and all callers that wait share the result: also a failure, so that none waits for
    longer than one request takes.
    """

    def __init__(
        self, client: httpx.AsyncClient, service_account: Mapping[str, str], clock: Callable[[], datetime]
    ) -> None:
        key = load_pem_private_key(service_account["private_key"].encode(), password=None)
        if not isinstance(key, RSAPrivateKey):
            raise ValueError("the service account's private key is no RSA key")
        self._client = client
        self._key = key
        self._key_id = service_account["private_key_id"]
        self._email = service_account["client_email"]
        self._url = service_account["token_uri"]
        self._clock = clock
        self._token: _AccessToken | None = None
        self._renewal: asyncio.Task[_AccessToken | Outcome] | None = None

    async def token(self, refused: _AccessToken | None = None) -> _AccessToken | Outcome:
        """Return a token other than `refused`, or the outcome if there is none; no message has been sent then."""
        token = self._token
        if token and token is not refused and self._clock() < token.renewed_at:
            return token
        if self._renewal is None or self._renewal.done():
            self._renewal = asyncio.create_task(self._renew())
        # One who gives up waiting must not take the answer from the others.
        return await asyncio.shield(self._renewal)

    async def _renew(self) -> _AccessToken | Outcome:
        now = self._clock()
        claims = {"iss": self._email, "scope": _SCOPE, "aud": self._url, "iat": now, "exp": now + _ASSERTION_LIFETIME}
        assertion = jwt.encode(claims, self._key, algorithm="RS256", headers={"kid": self._key_id})
        form = {"grant_type": _GRANT, "assertion": assertion}
        response = await ask(self._client, self._client.build_request("POST", self._url, data=form))
        if isinstance(response, Failed):
            return replace(response, may_have_arrived=False)
        if not response.is_success:
            return self._failure(response)
        try:
            grant = _Grant.model_validate_json(response.content)
        except ValidationError:
            return Failed("access-token", "the response to the request for an access token is invalid", False)
        self._token = _AccessToken(
            grant.access_token, now + timedelta(seconds=grant.expires_in) - _RENEWED_BEFORE_EXPIRY
        )
        return self._token

    def _failure(self, response: httpx.Response) -> Outcome:
        refusal = _GrantRefusal.model_validate(answer(response))
        code = refusal.error or str(response.status_code)
        phrase = refusal.error or httpx.codes.get_reason_phrase(response.status_code)
        said = f"no access token: {refusal.error_description or phrase}"
        if response.status_code == 429:
            return Throttled(code, said, retry_after(response, self._clock()) or _WAIT_WHERE_NONE_IS_SAID)
        if response.is_server_error or response.status_code == 408:
            return Failed(code, said, may_have_arrived=False)
        return Misconfigured(code, said)


class _Grant(BaseModel):
    access_token: str
    expires_in: Annotated[float, Field(ge=0), BeforeValidator(lambda value: value or 0)] = 0


class _GrantRefusal(Detail):
    """RFC 6749, section 5.2."""

    error: Text = None
    error_description: Text = None


class _Violation(Detail):
    field: Text = None


class _Detail(Detail):
    """One of two kinds: `google.firebase.fcm.v1.FcmError` has the code, `google.rpc.BadRequest` the violations."""

    error_code: Text = Field(None, alias="errorCode")
    violations: Annotated[list[_Violation], BeforeValidator(listed)] = Field([], alias="fieldViolations")


class _Error(Detail):
    message: Text = None
    status: Text = None
    details: Annotated[list[_Detail], BeforeValidator(listed)] = Field([])

    @property
    def error_code(self) -> str:
        return next((detail.error_code for detail in self.details if detail.error_code), "")

    @property
    def blames_token(self) -> bool:
        """Whether the invalid argument is the token: by its field, or by the message if no field is named."""
        fields = [one.field for detail in self.details for one in detail.violations if one.field]
        if fields:
            return set(fields) == {"message.token"}
        return self.error_code == "INVALID_ARGUMENT" and "registration token" in (self.message or "").lower()


class _Answer(Detail):
    error: _Error = _Error()
    name: Text = None


def _error(response: httpx.Response) -> _Error:
    return _Answer.model_validate(answer(response)).error  # empty if a proxy responds with a page


def _blames_access(response: httpx.Response) -> bool:
    # With this code it is the key of APNs or Web Push that is wrong, which the project keeps at Google.
    return response.status_code == 401 and _error(response).error_code != "THIRD_PARTY_AUTH_ERROR"
