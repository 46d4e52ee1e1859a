"""SendGrid on loopback: `POST /v3/mail/send`.

Input: a mail as https://www.twilio.com/docs/sendgrid/api-reference/mail-send/mail-send specifies; it is checked for
what https://www.twilio.com/docs/sendgrid/api-reference/mail-send/errors names.
"""

import json
import time
from datetime import timedelta
from typing import Any
from uuid import uuid4

from aiohttp import web
from email_validator import EmailNotValidError, validate_email

from dev.providers.server import AcceptedEmail, Fault, HttpEmailServer, Invalid, Plan, Reply

# https://www.twilio.com/docs/sendgrid/api-reference/mail-send/errors#headers-errors
_RESERVED = {
    "x-sg-id", "x-sg-eid", "received", "dkim-signature", "content-type", "content-transfer-encoding",
    "to", "from", "subject", "reply-to", "cc", "bcc",
}  # fmt: skip
_CUSTOM_ARGUMENTS_BYTES = 10_000


class SendGridServer(HttpEmailServer):
    """Accepts mails with the right key.

    Args:
        api_key: The one that is right.
        plan: See `EmailServer`.
        retry_after: Likewise; said in `X-RateLimit-Reset`, as SendGrid does.
        port: Where to listen; 0 for any that is free.
    """

    def __init__(
        self, api_key: str, plan: Plan = (), retry_after: timedelta = timedelta(seconds=2), port: int = 0
    ) -> None:
        super().__init__(plan, retry_after, port)
        self._api_key = api_key

    def path(self) -> str:
        """Return the path of Mail Send."""
        return "/v3/mail/send"

    async def read(self, request: web.Request) -> AcceptedEmail:
        """Read a mail, and check it."""
        if request.headers.get("Authorization") != f"Bearer {self._api_key}":
            raise Invalid(_errors(401, "The provided authorization grant is invalid, expired, or revoked"))
        if request.content_type != "application/json":
            raise Invalid(_errors(415, "Content-Type should be application/json."))
        raw = await request.read()
        try:
            mail = json.loads(raw)
        except ValueError as error:
            raise Invalid(_errors(400, "Bad Request")) from error
        if not isinstance(mail, dict):
            raise Invalid(_errors(400, "Invalid type. Expected: object."))
        _check(mail)
        arguments = dict(mail.get("custom_args", {}))
        sender = mail["from"]
        return AcceptedEmail(
            key=arguments.pop("key", ""),
            to=mail["personalizations"][0]["to"][0]["email"],
            sender=f"{sender['name']} <{sender['email']}>" if "name" in sender else sender["email"],
            subject=mail["subject"],
            text=_part(mail, "text/plain"),
            html=_part(mail, "text/html"),
            headers=mail.get("headers", {}),
            metadata=arguments,
            provider_id=uuid4().hex[:22],
            raw=raw,
        )

    def acceptance(self, email: AcceptedEmail) -> Reply:
        """Accept: an empty body, and the id in a header."""
        return Reply(202, headers={"X-Message-Id": email.provider_id})

    def refusal(self, fault: Fault, email: AcceptedEmail) -> Reply:
        """Say no, in a list of errors."""
        match fault:
            case Fault.REFUSE_RECIPIENT:
                message = f"Does not contain a valid address: {email.to}"
                return _errors(400, message, "personalizations.0.to.0.email")
            case Fault.THROTTLE:
                reset = int(time.time() + self.retry_after.total_seconds())
                return _errors(429, "too many requests", headers={"X-RateLimit-Reset": str(reset)})
            case Fault.FAIL:
                return _errors(500, "Internal Server Error")
            case Fault.REJECT_US:
                return _errors(403, "The from address does not match a verified Sender Identity.", "from")
            case _:
                return _errors(400, f"The subject is not to our taste: {email.subject}", "subject")


def _check(mail: dict[str, Any]) -> None:
    personalizations = mail.get("personalizations")
    if not personalizations:
        raise Invalid(_errors(400, "You must have at least one personalization.", "personalizations"))
    recipients = personalizations[0].get("to")
    if not recipients:
        raise Invalid(_errors(400, "The to array is required for all personalization objects", "personalizations.0.to"))
    _check_address(recipients[0].get("email"), "personalizations.0.to.0.email")
    _check_address(mail.get("from", {}).get("email"), "from.email")
    if not mail.get("subject"):
        raise Invalid(_errors(400, "The subject is required.", "subject"))
    content = mail.get("content")
    if not content or any(not part.get("value") for part in content):
        raise Invalid(_errors(400, "The content value must be a string at least one character in length.", "content"))
    kinds = [part["type"] for part in content]
    if kinds != sorted(kinds, key=["text/plain", "text/html"].index):
        raise Invalid(_errors(400, "If present, text/plain must be first, followed by text/html.", "content"))
    for name, value in mail.get("headers", {}).items():
        if name.lower() in _RESERVED or not isinstance(value, str) or not name.isascii() or "\n" in value:
            raise Invalid(_errors(400, "The header can't be used.", f"headers.{name}"))
    arguments = mail.get("custom_args", {})
    if not all(isinstance(value, str) for value in arguments.values()):
        raise Invalid(_errors(400, "The custom_args values must be strings.", "custom_args"))
    if len(json.dumps(arguments).encode()) > _CUSTOM_ARGUMENTS_BYTES:
        raise Invalid(_errors(400, "The custom_args must not exceed 10000 bytes.", "custom_args"))


def _check_address(address: object, field: str) -> None:
    try:
        validate_email(str(address), check_deliverability=False, test_environment=True, allow_smtputf8=False)
    except EmailNotValidError as error:
        raise Invalid(_errors(400, "Does not contain a valid address.", field)) from error


def _part(mail: dict[str, Any], kind: str) -> str:
    return next((str(part["value"]) for part in mail["content"] if part["type"] == kind), "")


def _errors(status: int, message: str, field: str | None = None, headers: dict[str, str] | None = None) -> Reply:
    return Reply(status, {"errors": [{"message": message, "field": field, "help": None}]}, headers or {})
