"""A push service and its browsers on loopback: subscriptions, and what is sent to them.

Input: requests as https://www.rfc-editor.org/rfc/rfc8030 specifies. Each is checked: its sender by
https://www.rfc-editor.org/rfc/rfc8292, and its content by decrypting it as the browser would, by
https://www.rfc-editor.org/rfc/rfc8291.
"""

import base64
import json
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from secrets import token_bytes, token_urlsafe
from typing import Any

import http_ece  # type: ignore[import-untyped]
import jwt
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from dev.providers.http2 import LoopbackServer, Reply, Request

_LARGEST = 4096
_LONGEST_SIGNATURE = timedelta(hours=24)
_AUTHORIZATION = re.compile(r"vapid t=(?P<token>[\w.-]+), ?k=(?P<key>[\w-]+)")
_TOPIC = re.compile(r"[\w-]{1,32}", re.ASCII)


@dataclass(slots=True)
class Browser:
    """One browser's subscription.

    Attributes:
        key: The server's key, in base64url, that the subscription is restricted to; `None` for any.
        is_subscribed: Whether it still is.
    """

    private_key: ec.EllipticCurvePrivateKey = field(repr=False)
    secret: bytes = field(repr=False)
    key: str | None = None
    is_subscribed: bool = True


@dataclass(frozen=True, slots=True)
class Accepted:
    """A message that was taken, and could be decrypted.

    Attributes:
        path: The endpoint's.
        headers: As they came.
        content: The JSON, read.
        size: Of the encrypted body, in bytes.
    """

    path: str
    headers: Mapping[str, str]
    content: dict[str, Any]
    size: int


class PushService(LoopbackServer):
    """Takes messages for the browsers that subscribed here.

    Args:
        clock: Tells the time, with its zone.

    Attributes:
        accepted: What was taken, in order.
        stored: What browsers would get now, were they there: of the messages of one topic the last.
    """

    def __init__(self, clock: Callable[[], datetime] = lambda: datetime.now(UTC)) -> None:
        super().__init__()
        self.accepted: list[Accepted] = []
        self.stored: dict[tuple[str, str], Accepted] = {}
        self._clock = clock
        self._browsers: dict[str, Browser] = {}

    def subscribe(self, key: str | None = None) -> str:
        """Subscribe a browser, and return the JSON that it gives its page.

        Args:
            key: The public key of the server that alone may send, in base64url; `None` for any.
        """
        path = f"/push/{token_urlsafe(24)}"
        browser = Browser(ec.generate_private_key(ec.SECP256R1()), token_bytes(16), key)
        self._browsers[path] = browser
        public_key = browser.private_key.public_key().public_bytes(Encoding.X962, PublicFormat.UncompressedPoint)
        keys = {"p256dh": _base64url(public_key), "auth": _base64url(browser.secret)}
        return json.dumps({"endpoint": self.url + path, "expirationTime": None, "keys": keys})

    def unsubscribe(self, subscription: str) -> None:
        """End a subscription."""
        self._browsers[json.loads(subscription)["endpoint"].removeprefix(self.url)].is_subscribed = False

    def answer(self, request: Request) -> Reply:
        """Take a message."""
        browser = self._browsers.get(request.path)
        if not browser:
            return Reply(404)
        if not browser.is_subscribed:
            return Reply(410)
        if refused := self._refuse_sender(request.headers, browser) or _refuse_headers(request):
            return refused
        try:
            text = http_ece.decrypt(request.body, private_key=browser.private_key, auth_secret=browser.secret)
            content = json.loads(text)
        except (http_ece.ECEException, ValueError) as error:
            return Reply(400, f"the browser could not read it: {error!r}".encode())
        accepted = Accepted(request.path, request.headers, content, len(request.body))
        self.accepted.append(accepted)
        self.stored[request.path, request.headers.get("topic") or str(len(self.accepted))] = accepted
        return Reply(201, headers={"location": f"{self.url}/message/{len(self.accepted)}"})

    def _refuse_sender(self, headers: Mapping[str, str], browser: Browser) -> Reply | None:
        authorization = _AUTHORIZATION.fullmatch(headers.get("authorization", ""))
        if not authorization:
            return Reply(401, b"no VAPID authentication")
        key = authorization["key"]
        try:
            point = base64.urlsafe_b64decode(key + "==")
            claims = jwt.decode(
                authorization["token"],
                ec.EllipticCurvePublicKey.from_encoded_point(ec.SECP256R1(), point),
                algorithms=["ES256"],
                audience=self.url,
                # The clock is ours, not the library's.
                options={"require": ["aud", "exp", "sub"], "verify_exp": False},
            )
        except (ValueError, jwt.InvalidTokenError) as error:
            return Reply(403, f"invalid VAPID authentication: {error}".encode())
        left = datetime.fromtimestamp(claims["exp"], UTC) - self._clock()
        if not timedelta(0) < left <= _LONGEST_SIGNATURE:
            return Reply(403, b"the VAPID token has expired, or expires too late")
        if browser.key not in (None, key):
            return Reply(403, b"the key is not the one that the subscription was made for")
        return None


def _refuse_headers(request: Request) -> Reply | None:
    headers = request.headers
    if not headers.get("ttl", "").isdecimal():
        return Reply(400, b"no TTL")
    if headers.get("urgency", "normal") not in ("very-low", "low", "normal", "high"):
        return Reply(400, b"not an urgency")
    if "topic" in headers and not _TOPIC.fullmatch(headers["topic"]):
        return Reply(400, b"not a topic")
    if headers.get("content-encoding") != "aes128gcm":
        return Reply(415, b"not aes128gcm")
    if len(request.body) > _LARGEST:
        return Reply(413)
    return None


def _base64url(content: bytes) -> str:
    return base64.urlsafe_b64encode(content).rstrip(b"=").decode()
