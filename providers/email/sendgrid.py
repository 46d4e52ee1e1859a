"""SendGrid: its Mail Send API, version 3.

Input: an e-mail. Output: the outcome. SendGrid has no idempotency keys: a message sent twice is delivered twice.
Source: https://www.twilio.com/docs/sendgrid/api-reference/mail-send/mail-send, and of the replies
https://www.twilio.com/docs/sendgrid/api-reference/how-to-use-the-sendgrid-v3-api/errors.
"""

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from typing import Any, Self

import httpx
from pydantic import SecretStr

from notifications.messages import Email
from notifications.outcome import Failed, Outcome, Sent
from notifications.replies import OURS, SENDGRID, Row, of_api, outcome
from notifications.retry_policy import bounded
from providers.base import required, without_asking
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


class SendGrid:
    """Sends e-mails by SendGrid.

    Args:
        client: The HTTP client; closed with this object.
        api_key: A key with the permission to send mail.
        base_url: `https://api.eu.sendgrid.com` for subusers in the European Union.
    """

    name = "sendgrid"
    may_repeat = True

    def __init__(
        self, client: httpx.AsyncClient, api_key: SecretStr, base_url: str = "https://api.sendgrid.com"
    ) -> None:
        self._client = client
        self._api_key = api_key
        self._url = f"{base_url}/v3/mail/send"

    @classmethod
    def from_settings(cls, settings: Settings) -> Self:
        """Make the provider of the settings.

        Raises:
            MissingSettingError: A setting is missing.
        """
        return cls(client(), required(settings.sendgrid_api_key), settings.sendgrid_url)

    async def send(self, message: Email) -> Outcome:
        """Send an e-mail; later events name it by `custom_args`, which contain its key."""
        envelope = address_in_ascii(message)
        if not isinstance(envelope, Envelope):
            return without_asking(envelope)
        request = self._client.build_request(
            "POST",
            self._url,
            headers={"Authorization": f"Bearer {self._api_key.get_secret_value()}"},
            json=_mail(message, envelope),
        )
        response = await ask(self._client, request)
        return response if isinstance(response, Failed) else _outcome(response, message)

    async def close(self) -> None:
        """Close the client."""
        await self._client.aclose()


def _mail(message: Email, envelope: Envelope) -> dict[str, Any]:
    sender, recipient = envelope
    return {
        "personalizations": [{"to": [{"email": recipient.address}]}],
        "from": {"email": sender.address} | ({"name": sender.name} if sender.name else {}),
        "subject": one_line(message.subject),
        "content": [
            {"type": "text/plain", "value": encodable(message.text)},
            {"type": "text/html", "value": encodable(message.html)},
        ],
        "headers": added_headers(message),
        "custom_args": {name: encodable(value) for name, value in message.metadata.items()} | {"key": message.key},
    }


def _outcome(response: httpx.Response, message: Email) -> Outcome:
    status, code = response.status_code, str(response.status_code)
    listed = answer(response).get("errors")
    errors = [error for error in listed if isinstance(error, dict)] if isinstance(listed, list) else []
    said = without_personal("; ".join(str(error.get("message") or "") for error in errors), message)
    if response.is_success:
        return Sent(response.headers.get("x-message-id"))
    if response.is_server_error or status == httpx.codes.REQUEST_TIMEOUT:
        return failed(response, said)
    row = _row(status, [str(error.get("field")) for error in errors])
    wait = retry_after(response) or _until_reset(response)
    return outcome(row.category, code, said, about_message=row.about_message, retry_after=wait)


def _row(status: int, fields: Sequence[str]) -> Row:
    """Return the row that decides: of several errors, one that we caused."""
    rows = [of_api(SENDGRID, status, name) for name in fields or [""]]
    return next((row for row in rows if row.category in OURS), rows[0])


def _until_reset(response: httpx.Response) -> timedelta | None:
    """Read `X-RateLimit-Reset`: when the limit is lifted, in seconds since 1970; a day from now at most."""
    try:
        reset = datetime.fromtimestamp(int(response.headers.get("x-ratelimit-reset", "")), UTC)
    except (ValueError, OverflowError, OSError):
        return None
    return bounded(reset - datetime.now(UTC))
