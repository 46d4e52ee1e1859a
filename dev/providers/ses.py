"""Amazon SES on loopback: `SendEmail` of its API, version 2.

Input: a request. It is checked against AWS's own description of the API (botocore's model `sesv2`), and its signature
against the secret (https://docs.aws.amazon.com/IAM/latest/UserGuide/reference_sigv-create-signed-request.html).
"""

import hmac
import json
import re
from datetime import UTC, datetime, timedelta
from email.header import decode_header, make_header
from typing import Any
from uuid import uuid4

from aiohttp import web
from botocore.auth import SigV4Auth
from botocore.awsrequest import AWSRequest
from botocore.credentials import Credentials
from botocore.loaders import Loader
from botocore.model import ServiceModel
from botocore.validate import ParamValidator

from dev.providers.server import AcceptedEmail, Fault, HttpEmailServer, Invalid, Plan, Reply

_AUTHORIZATION = re.compile(
    r"AWS4-HMAC-SHA256 Credential=(?P<key>[^/]+)/(?P<day>\d{8})/(?P<region>[^/]+)/(?P<service>[^/]+)/aws4_request, "
    r"SignedHeaders=(?P<headers>[a-z0-9;-]+), Signature=(?P<signature>[0-9a-f]{64})"
)
_TAG = re.compile(r"[A-Za-z0-9_-]{1,256}")
_HEADER_NAME = re.compile(r"[!-9;-@A-~]{1,126}")
_HEADER_VALUE = re.compile(r"[ -~]{1,995}")
_SKEW = timedelta(minutes=5)
_INPUT = ServiceModel(Loader().load_service_model("sesv2", "service-2")).operation_model("SendEmail").input_shape


class SesServer(HttpEmailServer):
    """Accepts e-mails signed with the secret, for one region.

    Args:
        credentials: Access key, secret, and session token where there is one.
        region: As `eu-central-1`.
        plan: See `EmailServer`.
        retry_after: Likewise; SES does not say it.
        port: Where to listen; 0 for any that is free.
    """

    def __init__(
        self,
        credentials: Credentials,
        region: str,
        plan: Plan = (),
        retry_after: timedelta = timedelta(seconds=2),
        port: int = 0,
    ) -> None:
        super().__init__(plan, retry_after, port)
        self._credentials = credentials
        self._region = region

    def path(self) -> str:
        """Return the path of `SendEmail`."""
        return "/v2/email/outbound-emails"

    async def read(self, request: web.Request) -> AcceptedEmail:
        """Check the signature, then read an e-mail and check it."""
        raw = await request.read()
        self._verify(request, raw)
        try:
            email = json.loads(raw)
        except ValueError as error:
            raise Invalid(_error(400, "SerializationException", "The body is not JSON")) from error
        _check(email)
        simple = email["Content"]["Simple"]
        tags = {tag["Name"]: tag["Value"] for tag in email.get("EmailTags", [])}
        return AcceptedEmail(
            key=tags.pop("key", ""),
            to=email["Destination"]["ToAddresses"][0],
            sender=str(make_header(decode_header(email["FromEmailAddress"]))),
            subject=simple["Subject"]["Data"],
            text=simple["Body"]["Text"]["Data"],
            html=simple["Body"]["Html"]["Data"],
            headers={header["Name"]: header["Value"] for header in simple.get("Headers", [])},
            metadata=tags,
            provider_id=f"{uuid4().hex[:16]}-{uuid4()}-000000",
            raw=raw,
        )

    def acceptance(self, email: AcceptedEmail) -> Reply:
        """Accept, with the message's id."""
        return Reply(200, {"MessageId": email.provider_id})

    def refusal(self, fault: Fault, email: AcceptedEmail) -> Reply:
        """Say no, by an error's name."""
        match fault:
            case Fault.REFUSE_RECIPIENT:
                return _error(400, "BadRequestException", f"Illegal address: {email.to}")
            case Fault.THROTTLE:
                return _error(429, "TooManyRequestsException", "Maximum sending rate exceeded.")
            case Fault.FAIL:
                return _error(500, "InternalServiceErrorException", "An internal error occurred.")
            case Fault.REJECT_US:
                return _error(400, "SendingPausedException", "Sending is paused for this account.")
            case _:
                return _error(400, "MessageRejected", f"The subject is not to our taste: {email.subject}")

    def _verify(self, request: web.Request, body: bytes) -> None:
        claim = _AUTHORIZATION.fullmatch(request.headers.get("Authorization", ""))
        if not claim:
            raise Invalid(_error(403, "MissingAuthenticationTokenException", "Missing Authentication Token"))
        if claim["key"] != self._credentials.access_key:
            raise Invalid(_error(403, "UnrecognizedClientException", "The security token is invalid."))
        signed = claim["headers"].split(";")
        moment = request.headers.get("X-Amz-Date", "")
        required = {"host", "x-amz-date"} | ({"x-amz-security-token"} if self._credentials.token else set())
        right = (
            required <= set(signed)
            and (claim["region"], claim["service"]) == (self._region, "ses")
            and moment.startswith(claim["day"])
            and request.headers.get("X-Amz-Security-Token") == self._credentials.token
            and hmac.compare_digest(self._signature(request, signed, moment, body), claim["signature"])
        )
        if not right:
            raise Invalid(_error(403, "InvalidSignatureException", "The request signature we calculated differs."))
        signed_at = datetime.strptime(moment, "%Y%m%dT%H%M%SZ").replace(tzinfo=UTC)
        if abs(datetime.now(UTC) - signed_at) > _SKEW:
            raise Invalid(_error(403, "InvalidSignatureException", "Signature expired."))

    def _signature(self, request: web.Request, signed: list[str], moment: str, body: bytes) -> str:
        headers = {name: request.headers.get(name, "") for name in signed}
        claimed = AWSRequest(request.method, f"{self.url}{request.path_qs}", headers, body)
        claimed.context["timestamp"] = moment
        signer = SigV4Auth(self._credentials, "ses", self._region)
        canonical = signer.canonical_request(claimed)
        return str(signer.signature(signer.string_to_sign(claimed, canonical), claimed))


def _check(email: dict[str, Any]) -> None:
    report = ParamValidator().validate(email, _INPUT)
    if report.has_errors():
        raise Invalid(_error(400, "BadRequestException", report.generate_report()))
    addresses = [email.get("FromEmailAddress", ""), *email.get("Destination", {}).get("ToAddresses", [])]
    headers = email["Content"].get("Simple", {}).get("Headers", [])
    tags = [text for tag in email.get("EmailTags", []) for text in tag.values()]
    if len(addresses) < 2 or not all(address.isascii() and "@" in address for address in addresses):
        raise Invalid(_error(400, "BadRequestException", "Missing final '@domain'"))
    if not all(_HEADER_NAME.fullmatch(header["Name"]) for header in headers):
        raise Invalid(_error(400, "BadRequestException", "A header's name is not valid"))
    if not all(_HEADER_VALUE.fullmatch(header["Value"]) for header in headers):
        raise Invalid(_error(400, "BadRequestException", "A header's value is not valid"))
    if not all(_TAG.fullmatch(text) for text in tags):
        raise Invalid(_error(400, "BadRequestException", "A tag is not valid"))


def _error(status: int, name: str, message: str) -> Reply:
    url = "http://internal.amazon.com/coral/com.amazonaws.services.simpleemailservicev2.model/"
    return Reply(status, {"message": message}, {"x-amzn-ErrorType": f"{name}:{url}"})
