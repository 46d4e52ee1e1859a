"""Firebase Cloud Messaging on loopback: its HTTP v1 API, and the endpoint that gives access tokens.

Input: requests as https://firebase.google.com/docs/reference/fcm/rest/v1/projects.messages and
https://developers.google.com/identity/protocols/oauth2/service-account#httprest specify. Each is checked; what is
accepted is kept.
"""

import json
import re
from collections.abc import Callable, Mapping
from datetime import UTC, datetime, timedelta
from typing import Any
from urllib.parse import parse_qs

import jwt
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

from dev.providers.http2 import LoopbackServer, Reply, Request, Script, json_reply

PROJECT = "blog-platform"

_EMAIL = f"inkstream@{PROJECT}.iam.gserviceaccount.com"
_KEY_ID = "8d2f1c5a9b"
_GRANT = "urn:ietf:params:oauth:grant-type:jwt-bearer"
_SCOPE = "https://www.googleapis.com/auth/firebase.messaging"
_ACCESS_PATH = "/token"
_LARGEST = 4096
_LONGEST_TTL = 2_419_200
_RESERVED = re.compile(r"from|message_type|(google\.|gcm\.notification).*")
_SECONDS = re.compile(r"(\d+)(\.\d{1,9})?s")


class FcmServer(LoopbackServer):
    """Takes messages for one project.

    Args:
        clock: Tells the time, with its zone.
        key: The key of the service account; without it, a new one.

    Attributes:
        token_script: What to do instead of giving an access token; `script` is for messages alone.
        accepted: The messages that were taken: each the request's `message`.
        issued: The access tokens that were given, in order.
        lifetime: For how long the next access token is good.
    """

    def __init__(
        self, clock: Callable[[], datetime] = lambda: datetime.now(UTC), key: rsa.RSAPrivateKey | None = None
    ) -> None:
        super().__init__()
        self.token_script: Script = []
        self.accepted: list[dict[str, Any]] = []
        self.issued: list[str] = []
        self.lifetime = timedelta(seconds=3599)
        self._clock = clock
        self._key = key or rsa.generate_private_key(public_exponent=65537, key_size=2048)
        self._good_until: dict[str, datetime] = {}

    @property
    def service_account(self) -> dict[str, str]:
        """The key file of the one account that may send."""
        pem = self._key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
        return {
            "type": "service_account",
            "project_id": PROJECT,
            "private_key_id": _KEY_ID,
            "private_key": pem.decode(),
            "client_email": _EMAIL,
            "token_uri": self.url + _ACCESS_PATH,
        }

    def revoke(self) -> None:
        """Refuse all access tokens that were given so far."""
        self._good_until.clear()

    def script_for(self, request: Request) -> Script:
        """Return the script that a request is subject to: there is one for each of the two endpoints."""
        return self.token_script if request.path == _ACCESS_PATH else self.script

    def answer(self, request: Request) -> Reply:
        """Give an access token, or take a message."""
        if request.path == _ACCESS_PATH:
            return self._grant(request)
        if request.path != f"/v1/projects/{PROJECT}/messages:send" or request.method != "POST":
            return Reply(404, b"<!DOCTYPE html><title>Error 404 (Not Found)!!1</title>", {"content-type": "text/html"})
        access = request.headers.get("authorization", "").removeprefix("Bearer ")
        if self._good_until.get(access, datetime.min.replace(tzinfo=UTC)) <= self._clock():
            return refusal(401, "UNAUTHENTICATED", "Request had invalid authentication credentials.")
        return self._take(request)

    def _grant(self, request: Request) -> Reply:
        form = parse_qs(request.body.decode())
        if form.get("grant_type") != [_GRANT]:
            return grant_refusal(400, "unsupported_grant_type", "Invalid grant_type")
        now = self._clock()
        try:
            assertion = form["assertion"][0]
            claims = jwt.decode(
                assertion,
                self._key.public_key(),
                algorithms=["RS256"],
                audience=self.url + _ACCESS_PATH,
                issuer=_EMAIL,
                # The clock is ours, not the library's.
                options={"require": ["iss", "scope", "aud", "iat", "exp"], "verify_exp": False, "verify_iat": False},
            )
            issued, expires = (datetime.fromtimestamp(claims[name], UTC) for name in ("iat", "exp"))
        except (KeyError, jwt.InvalidTokenError):
            return grant_refusal(400, "invalid_grant", "Invalid JWT Signature.")
        if not (issued <= now < expires <= issued + timedelta(hours=1)):
            return grant_refusal(400, "invalid_grant", "Invalid JWT: Token must be a short-lived token (60 minutes)")
        if jwt.get_unverified_header(assertion).get("kid") != _KEY_ID or claims["scope"] != _SCOPE:
            return grant_refusal(400, "invalid_grant", "Invalid JWT")
        token = f"ya29.{len(self.issued)}.{self._key.public_key().public_numbers().n % 10**12}"
        self.issued.append(token)
        self._good_until[token] = now + self.lifetime
        return json_reply(
            200,
            {"access_token": token, "expires_in": int(self.lifetime.total_seconds()), "token_type": "Bearer"},
        )

    def _take(self, request: Request) -> Reply:
        try:
            message = json.loads(request.body)["message"]
        except (ValueError, KeyError, TypeError):
            return refusal(400, "INVALID_ARGUMENT", "Invalid JSON payload received.", field="message")
        if field := _invalid_field(message):
            return refusal(400, "INVALID_ARGUMENT", f"Invalid value at '{field}'", field=field)
        size = len(json.dumps([message["notification"], message["data"]], ensure_ascii=False).encode())
        if size > _LARGEST:
            return refusal(400, "INVALID_ARGUMENT", "Android message is too big", code="INVALID_ARGUMENT")
        self.accepted.append(message)
        return json_reply(200, {"name": f"projects/{PROJECT}/messages/0:{len(self.accepted)}%31bd1c96"})


def refusal(
    status: int,
    name: str,
    message: str,
    *,
    code: str | None = None,
    field: str | None = None,
    headers: Mapping[str, str] | None = None,
) -> Reply:
    """Refuse a message, as FCM does.

    Args:
        status: HTTP's.
        name: Google's general name of the error, as `NOT_FOUND`.
        message: What is said to people.
        code: FCM's own code, as `UNREGISTERED`.
        field: The field that is at fault.
        headers: Such as `retry-after`.
    """
    details: list[dict[str, Any]] = []
    if code:
        details.append({"@type": "type.googleapis.com/google.firebase.fcm.v1.FcmError", "errorCode": code})
    if field:
        violations = [{"field": field, "description": message}]
        details.append({"@type": "type.googleapis.com/google.rpc.BadRequest", "fieldViolations": violations})
    error = {"code": status, "message": message, "status": name} | ({"details": details} if details else {})
    return json_reply(status, {"error": error}, headers)


def grant_refusal(status: int, error: str, description: str) -> Reply:
    """Refuse an access token (RFC 6749, section 5.2)."""
    return json_reply(status, {"error": error, "error_description": description})


def _invalid_field(message: dict[str, Any]) -> str | None:
    """Name the field that FCM would not take."""
    known = {"token", "notification", "data", "android"}
    if unknown := message.keys() - known:
        return f"message.{min(unknown)}"
    if not isinstance(message.get("token"), str) or not message["token"]:
        return "message.token"
    notification, data, android = (message.get(name, {}) for name in ("notification", "data", "android"))
    if notification.keys() != {"title", "body"} or not all(isinstance(text, str) for text in notification.values()):
        return "message.notification"
    for key, value in data.items():
        if not isinstance(value, str) or _RESERVED.fullmatch(key):
            return f"message.data[{key}]"
    if android.get("priority") not in ("NORMAL", "HIGH"):
        return "message.android.priority"
    ttl = _SECONDS.fullmatch(android.get("ttl", "0s"))
    if not ttl or int(ttl[1]) > _LONGEST_TTL:
        return "message.android.ttl"
    return None
