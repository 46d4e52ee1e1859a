"""Apple Push Notification service on loopback: HTTP/2 over TLS, with provider tokens.

Input: requests as https://developer.apple.com/documentation/usernotifications/sending-notification-requests-to-apns
specifies. Each is checked and refused in Apple's words; what is accepted is kept.
"""

import json
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

import jwt
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

from dev.providers.http2 import Certificate, LoopbackServer, Reply, Request, json_reply

KEY_ID = "ABC123DEFG"
TEAM_ID = "DEF123GHIJ"
TOPIC = "example.blog.reader"

_LARGEST = 4096
_TOKEN_LIFETIME = timedelta(hours=1)
_LEAST_BETWEEN_TOKENS = timedelta(minutes=20)
_PATH = re.compile(r"/3/device/([^/]*)")
_DEVICE_TOKEN = re.compile(r"[0-9A-Fa-f]{64,200}")
_UUID = re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}")


@dataclass(frozen=True, slots=True)
class Accepted:
    """A notification that was taken.

    Attributes:
        device: The device token.
        headers: As they came.
        payload: The JSON, read.
    """

    device: str
    headers: Mapping[str, str]
    payload: dict[str, Any]


class ApnsServer(LoopbackServer):
    """Takes notifications for one topic of one team.

    Args:
        clock: Tells the time, with its zone.

    Attributes:
        certificate: Whom clients are to trust.
        key: The team's signing key, in PEM.
        accepted: What was taken.
        provider_tokens: The valid provider tokens that were seen, in order.
    """

    def __init__(self, clock: Callable[[], datetime] = lambda: datetime.now(UTC)) -> None:
        self.certificate = Certificate()
        super().__init__(self.certificate)
        self.accepted: list[Accepted] = []
        self.provider_tokens: list[str] = []
        self._clock = clock
        self._key = ec.generate_private_key(ec.SECP256R1())
        self.key = self._key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()).decode()
        self._last_made = datetime.min.replace(tzinfo=UTC)

    def answer(self, request: Request) -> Reply:
        """Take a notification, or give Apple's reason against it."""
        if request.http_version != "2":
            return Reply(505)
        if request.method != "POST":
            return refusal(405, "MethodNotAllowed")
        path = _PATH.fullmatch(request.path)
        if not path:
            return refusal(404, "BadPath")
        refused = self._refuse_sender(request.headers) or _refuse_headers(request.headers)
        if refused:
            return refused
        if not _DEVICE_TOKEN.fullmatch(path[1]):
            return refusal(400, "BadDeviceToken" if path[1] else "MissingDeviceToken")
        if not request.body:
            return refusal(400, "PayloadEmpty")
        if len(request.body) > _LARGEST:
            return refusal(413, "PayloadTooLarge")
        self.accepted.append(Accepted(path[1], request.headers, json.loads(request.body)))
        return Reply(200, headers={"apns-id": request.headers["apns-id"]})

    def _refuse_sender(self, headers: Mapping[str, str]) -> Reply | None:
        scheme, _, token = headers.get("authorization", "").partition(" ")
        if scheme.lower() != "bearer":
            return refusal(403, "MissingProviderToken")
        try:
            claims = jwt.decode(
                token,
                self._key.public_key(),
                algorithms=["ES256"],
                issuer=TEAM_ID,
                # The clock is ours, not the library's.
                options={"require": ["iss", "iat"], "verify_iat": False},
            )
        except jwt.InvalidTokenError:
            return refusal(403, "InvalidProviderToken")
        if jwt.get_unverified_header(token).get("kid") != KEY_ID:
            return refusal(403, "InvalidProviderToken")
        made = datetime.fromtimestamp(claims["iat"], UTC)
        if not made <= self._clock() <= made + _TOKEN_LIFETIME:
            return refusal(403, "ExpiredProviderToken")
        if token not in self.provider_tokens:
            if made - self._last_made < _LEAST_BETWEEN_TOKENS:
                return refusal(429, "TooManyProviderTokenUpdates")
            self.provider_tokens.append(token)
            self._last_made = made
        return None


def refusal(status: int, reason: str, headers: Mapping[str, str] | None = None) -> Reply:
    """Refuse a notification, as APNs does."""
    content = {"reason": reason} | ({"timestamp": 1_760_000_000_000} if status == 410 else {})
    return json_reply(status, content, headers)


def _refuse_headers(headers: Mapping[str, str]) -> Reply | None:
    checks = {
        "BadMessageId": bool(_UUID.fullmatch(headers.get("apns-id", ""))),
        "BadCollapseId": len(headers.get("apns-collapse-id", "").encode()) <= 64,
        "BadExpirationDate": headers.get("apns-expiration", "0").isdecimal(),
        "BadPriority": headers.get("apns-priority", "10") in ("1", "5", "10"),
        "InvalidPushType": headers.get("apns-push-type") == "alert",
        "MissingTopic": "apns-topic" in headers,
        "TopicDisallowed": headers.get("apns-topic") == TOPIC,
    }
    return next((refusal(400, reason) for reason, holds in checks.items() if not holds), None)
