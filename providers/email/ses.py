"""Amazon Simple Email Service: `SendEmail` of its API, version 2.

Input: an e-mail. Output: the outcome. SES has no idempotency keys: a message sent twice is delivered twice.
Source: https://docs.aws.amazon.com/ses/latest/APIReference-V2/API_SendEmail.html, and of the errors that every service
has https://docs.aws.amazon.com/ses/latest/APIReference-V2/CommonErrors.html.
"""

import asyncio
import json
import re
from typing import Any, Self

import botocore.session
import httpx
from botocore.auth import SigV4Auth
from botocore.awsrequest import AWSRequest
from botocore.credentials import Credentials, ReadOnlyCredentials
from botocore.exceptions import BotoCoreError

from notifications.messages import Email
from notifications.outcome import Category, Failed, Misconfigured, Outcome, Sent
from notifications.replies import SES, of_api, outcome
from providers.base import ProviderSettingsError, required, without_asking
from providers.email.addresses import (
    Envelope,
    added_headers,
    address_in_ascii,
    encodable,
    one_line,
    without_personal,
)
from providers.http import answer, ask, client, failed, retry_after
from runtime.settings import Settings

_SERVICE = "ses"
_PATH = "/v2/email/outbound-emails"
_NOT_IN_TAGS = re.compile(r"[^A-Za-z0-9_-]")
_LONGEST_TAG = 256
_NAME_OF_ERROR = re.compile(r"(?:.*#)?([A-Za-z]{1,64})(?::.*)?")

# AWS also throttles with a status of 5xx, by name.
_THROTTLES = {"RequestLimitExceeded", "Throttling", "ThrottlingException"}


class Ses:
    """Sends e-mails by Amazon SES.

    Args:
        client: The HTTP client; closed with this object.
        credentials: Of a user or role with the permission `ses:SendEmail`; temporary ones renew themselves.
        region: The region, such as `eu-central-1`.
        base_url: The API's address; `None` for the region's own.
        configuration_set: The set that configures events; `None` for the identity's own.
    """

    name = "aws-ses"
    may_repeat = True

    def __init__(
        self,
        client: httpx.AsyncClient,
        credentials: Credentials,
        region: str,
        base_url: str | None = None,
        configuration_set: str | None = None,
    ) -> None:
        self._client = client
        self._credentials = credentials
        self._region = region
        self._url = (base_url or f"https://email.{region}.amazonaws.com") + _PATH
        self._configuration_set = configuration_set

    @classmethod
    def from_settings(cls, settings: Settings) -> Self:
        """Make the provider of the settings; this may ask the network for credentials of AWS.

        Raises:
            MissingSettingError: A setting is missing.
            ProviderSettingsError: There are no credentials of AWS.
        """
        region = required(settings.ses_region)
        return cls(client(), _aws_credentials(), region, settings.ses_url, settings.ses_configuration_set)

    async def send(self, message: Email) -> Outcome:
        """Send an e-mail; later events name it by its tags, which contain its key."""
        envelope = address_in_ascii(message)
        if not isinstance(envelope, Envelope):
            return without_asking(envelope)
        body = _email(message, envelope)
        if self._configuration_set:
            body["ConfigurationSetName"] = self._configuration_set
        try:
            # Renews temporary credentials, which uses the network and raises the errors of their source.
            credentials = await asyncio.to_thread(self._credentials.get_frozen_credentials)
        except Exception as error:
            return Misconfigured(type(error).__name__, "the credentials can't be had")
        response = await ask(self._client, self._signed(json.dumps(body).encode(), credentials))
        return response if isinstance(response, Failed) else _outcome(response, message)

    async def close(self) -> None:
        """Close the client."""
        await self._client.aclose()

    def _signed(self, body: bytes, credentials: ReadOnlyCredentials) -> httpx.Request:
        request = AWSRequest("POST", self._url, {"Content-Type": "application/json"}, body)
        SigV4Auth(credentials, _SERVICE, self._region).add_auth(request)
        return self._client.build_request("POST", self._url, headers=dict(request.headers), content=body)


def _email(message: Email, envelope: Envelope) -> dict[str, Any]:
    sender, recipient = envelope
    tags = dict(message.metadata) | {"key": message.key}
    return {
        "FromEmailAddress": sender.encoded(),
        "Destination": {"ToAddresses": [recipient.address]},
        "Content": {
            "Simple": {
                "Subject": _content(one_line(message.subject)),
                "Body": {"Text": _content(message.text), "Html": _content(message.html)},
                "Headers": [{"Name": name, "Value": value} for name, value in added_headers(message).items()],
            }
        },
        "EmailTags": [{"Name": _tag(name), "Value": _tag(value)} for name, value in tags.items() if name and value],
    }


def _content(text: str) -> dict[str, str]:
    return {"Data": encodable(text), "Charset": "UTF-8"}


def _tag(text: str) -> str:
    """Return a text as a tag's name or value: invalid characters become `_`. Hexadecimal ids with dashes stay."""
    return _NOT_IN_TAGS.sub("_", text)[:_LONGEST_TAG]


def _outcome(response: httpx.Response, message: Email) -> Outcome:
    content = answer(response)
    if response.is_success:
        identifier = content.get("MessageId")
        return Sent(identifier if isinstance(identifier, str) else None)
    code = _code(response, content)
    spoken = str(content.get("message") or content.get("Message") or "")
    said = without_personal(spoken, message)
    if code not in _THROTTLES and (response.is_server_error or response.status_code == httpx.codes.REQUEST_TIMEOUT):
        return failed(response, said)
    row = of_api(SES, response.status_code, code, spoken, message.to)
    return outcome(
        row.category,
        code,
        said,
        about_message=row.about_message or _is_of_recipient_alone(row.category, spoken, message),
        retry_after=retry_after(response),
    )


def _is_of_recipient_alone(category: Category, spoken: str, message: Email) -> bool:
    """Whether the unverified identity is the recipient's: in the sandbox, others may be verified."""
    sender = message.sender.rpartition("<")[2].rstrip("> ").lower()
    named = spoken.lower()
    return category == "configuration" and message.to.lower() in named and sender.rpartition("@")[2] not in named


def _code(response: httpx.Response, content: dict[str, Any]) -> str:
    """Read the error's name from AWS's protocol `restJson1`: it may have a namespace before it or a URL after it.

    https://smithy.io/2.0/aws/protocols/aws-restjson1-protocol.html#operation-error-serialization
    """
    named = response.headers.get("x-amzn-errortype") or content.get("__type") or content.get("code")
    found = _NAME_OF_ERROR.fullmatch(str(named))
    return found[1] if named and found else str(response.status_code)


def _aws_credentials() -> Credentials:
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
