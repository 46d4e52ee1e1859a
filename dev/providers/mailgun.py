"""Mailgun on loopback: `POST /v3/{domain}/messages`.

Input: a form as https://documentation.mailgun.com/docs/mailgun/api-reference/send/mailgun/messages specifies.
"""

import re
from datetime import timedelta
from email.utils import getaddresses

from aiohttp import encode_basic_auth, web
from email_validator import EmailNotValidError, validate_email

from dev.providers.server import AcceptedEmail, Fault, HttpEmailServer, Invalid, Plan, Reply

# RFC 5322, section 2.2.
_HEADER_NAME = re.compile(r"[!-9;-~]+")
_OPTIONS_BYTES = 16 * 1024
_TAGS = 3
_TAG_LENGTH = 128


class MailgunServer(HttpEmailServer):
    """Accepts messages with the right key, for one domain.

    Args:
        api_key: The one that is right.
        domain: The only one that is known.
        plan: See `EmailServer`.
        retry_after: Likewise.
        port: Where to listen; 0 for any that is free.
    """

    def __init__(
        self, api_key: str, domain: str, plan: Plan = (), retry_after: timedelta = timedelta(seconds=2), port: int = 0
    ) -> None:
        super().__init__(plan, retry_after, port)
        self._authorization = encode_basic_auth("api", api_key)
        self._domain = domain

    def path(self) -> str:
        """Return the path of the messages of a domain."""
        return "/v3/{domain}/messages"

    async def read(self, request: web.Request) -> AcceptedEmail:
        """Read a form, and check it."""
        if request.headers.get("Authorization") != self._authorization:
            raise Invalid(Reply(401, "Forbidden"))
        if request.match_info["domain"] != self._domain:
            raise Invalid(_message(404, "Domain not found: " + request.match_info["domain"]))
        raw = await request.read()
        form = {name: str(value) for name, value in (await request.post()).items()}
        self._check(form)
        variables = _of_kind(form, "v:")
        headers = _of_kind(form, "h:")
        return AcceptedEmail(
            key=variables.pop("key", ""),
            to=form["to"],
            sender=form["from"],
            subject=form.get("subject", ""),
            text=form.get("text", ""),
            html=form.get("html", ""),
            headers=headers,
            metadata=variables | ({"o:tag": form["o:tag"]} if "o:tag" in form else {}),
            provider_id=headers.get("Message-Id", "").strip("<>"),
            raw=raw,
        )

    def acceptance(self, email: AcceptedEmail) -> Reply:
        """Accept, with the message's id in brackets."""
        return Reply(200, {"id": f"<{email.provider_id}>", "message": "Queued. Thank you."})

    def refusal(self, fault: Fault, email: AcceptedEmail) -> Reply:
        """Say no, in a message."""
        match fault:
            case Fault.REFUSE_RECIPIENT:
                return _message(400, f"to parameter is not a valid address: {email.to}. please check documentation")
            case Fault.THROTTLE:
                seconds = str(int(self.retry_after.total_seconds()))
                return Reply(429, {"message": "Too Many Requests"}, {"Retry-After": seconds})
            case Fault.FAIL:
                return _message(500, "Internal Server Error")
            case Fault.REJECT_US:
                return Reply(401, "Forbidden")
            case _:
                return _message(400, f"the subject is not to our taste: {email.subject}")

    def _check(self, form: dict[str, str]) -> None:
        for name in ("from", "to"):
            addresses = getaddresses([form.get(name, "")])
            try:
                if not form.get(name):
                    raise Invalid(_message(400, f"{name} parameter is missing"))
                for _, address in addresses:
                    validate_email(address, check_deliverability=False, test_environment=True)
            except EmailNotValidError as error:
                text = f"{name} parameter is not a valid address. please check documentation"
                raise Invalid(_message(400, text)) from error
        if not form.get("text") and not form.get("html"):
            raise Invalid(_message(400, "Need at least one of 'text', 'html', 'amp-html' or 'template' parameters"))
        options = [(name, value) for name, value in form.items() if name[:2] in ("o:", "h:", "v:", "t:")]
        if sum(len(name) + len(value.encode()) for name, value in options) > _OPTIONS_BYTES:
            raise Invalid(_message(400, "send options (parameters starting with o:, h:, v:, or t:) are too large"))
        headers = [(name.removeprefix("h:"), value) for name, value in options if name.startswith("h:")]
        if not all(_HEADER_NAME.fullmatch(name) and "\n" not in value for name, value in headers):
            raise Invalid(_message(400, "a header is not valid"))
        tags = [value for name, value in options if name == "o:tag"]
        if len(tags) > _TAGS or any(len(tag) > _TAG_LENGTH or not tag.isascii() for tag in tags):
            raise Invalid(_message(400, "o:tag parameter is not valid"))


def _of_kind(form: dict[str, str], prefix: str) -> dict[str, str]:
    return {name.removeprefix(prefix): value for name, value in form.items() if name.startswith(prefix)}


def _message(status: int, text: str) -> Reply:
    return Reply(status, {"message": text})
