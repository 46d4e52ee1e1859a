"""Mailgun: its Messages API, version 3.

Input: an e-mail. Output: the outcome. Mailgun has no idempotency keys: a message sent twice is delivered twice, with
the same `Message-Id`, by which some mailboxes show it once.
Source: https://documentation.mailgun.com/docs/mailgun/api-reference/send/mailgun/messages, and of the replies
https://documentation.mailgun.com/docs/mailgun/quickstart-guide/responses.
"""

import re
from typing import Self

import httpx
from pydantic import SecretStr

from notifications.messages import Email
from notifications.outcome import Failed, Outcome, Sent
from notifications.replies import MAILGUN, of_api, outcome
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

_NOT_A_TAG = re.compile(r"[^ -~]")
_LONGEST_TAG = 128


class Mailgun:
    """Sends e-mails by Mailgun.

    Args:
        client: The HTTP client; closed with this object.
        api_key: The key of the account or of the domain.
        domain: The sending domain.
        base_url: `https://api.eu.mailgun.net` for domains in the European Union.
    """

    name = "mailgun"
    may_repeat = True

    def __init__(
        self, client: httpx.AsyncClient, api_key: SecretStr, domain: str, base_url: str = "https://api.mailgun.net"
    ) -> None:
        self._client = client
        self._api_key = api_key
        self._url = f"{base_url}/v3/{domain}/messages"

    @classmethod
    def from_settings(cls, settings: Settings) -> Self:
        """Make the provider of the settings.

        Raises:
            MissingSettingError: A setting is missing.
        """
        api_key, domain = required(settings.mailgun_api_key), required(settings.mailgun_domain)
        return cls(client(), api_key, domain, settings.mailgun_url)

    async def send(self, message: Email) -> Outcome:
        """Send an e-mail; later events name it by its variables, which contain its key."""
        envelope = address_in_ascii(message)
        if not isinstance(envelope, Envelope):
            return without_asking(envelope)
        request = self._client.build_request("POST", self._url, data=_form(message, envelope))
        credentials = httpx.BasicAuth("api", self._api_key.get_secret_value())
        response = await ask(self._client, next(credentials.auth_flow(request)))
        return response if isinstance(response, Failed) else _outcome(response, message)

    async def close(self) -> None:
        """Close the client."""
        await self._client.aclose()


def _form(message: Email, envelope: Envelope) -> dict[str, str]:
    """Return the form: `h:` before headers, `v:` before variables. The tag is the metadata's `type`, if there is one.

    There may be 20,000 tags for a domain, so nothing else is one.
    """
    sender, recipient = envelope
    form = {
        "from": sender.quoted(),
        "to": recipient.address,
        "subject": one_line(message.subject),
        "text": encodable(message.text),
        "html": encodable(message.html),
        "h:Message-Id": f"<{message.key}@{sender.domain}>",
        "v:key": message.key,
    }
    form |= {f"h:{name}": value for name, value in added_headers(message).items()}
    form |= {f"v:{name}": encodable(value) for name, value in message.metadata.items() if name != "key"}
    if kind := message.metadata.get("type"):
        form["o:tag"] = _NOT_A_TAG.sub("_", kind)[:_LONGEST_TAG]
    return form


def _outcome(response: httpx.Response, message: Email) -> Outcome:
    status, code = response.status_code, str(response.status_code)
    content = answer(response)
    if response.is_success:
        identifier = content.get("id")
        return Sent(identifier.strip("<>") if isinstance(identifier, str) else None)
    spoken = str(content.get("message") or "")
    said = without_personal(spoken, message)
    if response.is_server_error or status == httpx.codes.REQUEST_TIMEOUT:
        return failed(response, said)
    row = of_api(MAILGUN, status, words=spoken, recipient=message.to)
    return outcome(row.category, code, said, about_message=row.about_message, retry_after=retry_after(response))
