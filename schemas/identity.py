"""The id of an event: its producer's, or the original position of its record.

Input: a producer's id, or a record's position in Kafka. Output: an id of that event only. Ids that Inkstream generates
and ids of producers never collide: a producer's id that has the form of ours gets the prefix `id:`.
`docs/decisions/0016-event-ids.md` has the reasons.
"""

import hmac
import re
from collections.abc import Iterable, Mapping
from hashlib import blake2b

REPLAYED_FROM = "replayed_from"
"""Header of a replayed record: the position that it first had, `topic:partition:offset`."""
REPLAY_SIGNATURE = "replay_signature"
"""Header of a replayed record: what proves that `inkstream replay` wrote `replayed_from`."""
REPLAY_ATTEMPT = "replay_attempt"
"""Header of a replayed record: how often it has been replayed, this time included."""

MAX_LENGTH = 256
"""Characters that the id of a producer's event may have."""

_APART = "id:"
# A topic's name has no colon. All forms that a position could have, not just those of topics that are declared today.
_LIKE_POSITION = re.compile(rf"(?:{_APART})*[A-Za-z0-9._-]+:[0-9]+:[0-9]+")
# Of notices by rules, and of the groups that they are gathered in, with a generation after a dash.
_LIKE_NOTICE = re.compile(rf"(?:{_APART})*[0-9a-f]{{32}}(?:-.*)?", re.DOTALL)


def position(topic: str, partition: int, offset: int) -> str:
    """Return the id of an event that has none of its own: the original position of its record."""
    return f"{topic}:{partition}:{offset}"


def of_producer(name: str) -> str:
    """Return the id for a producer's id of an event: the same, unless it has the form of a `position`.

    Whatever refers to an event by its producer's name for it goes through here as well. Two names have two ids.
    """
    return _APART + name if ":" in name and _LIKE_POSITION.fullmatch(name) else name


def of_request(event_id: str) -> str:
    """Return the id of the notification that an event asks for: the event's, unless it could be one made by a rule."""
    return _APART + event_id if _LIKE_NOTICE.fullmatch(event_id) else event_id


def content(value: bytes | None, headers: Iterable[tuple[str, bytes | None]]) -> bytes:
    """Return a digest of a record's content, which a replay does not change."""
    digest = blake2b(digest_size=32)
    for part in (value, *(part for name, header in _said(headers) for part in (name, header))):
        digest.update(b"-" if part is None else b"%d:" % len(part) + part)
    return digest.digest()


def _said(headers: Iterable[tuple[str, bytes | None]]) -> Iterable[tuple[bytes, bytes | None]]:
    ours = (REPLAYED_FROM, REPLAY_SIGNATURE, REPLAY_ATTEMPT)
    return ((name.encode(errors="surrogatepass"), value) for name, value in headers if name not in ours)


class ReplaySigner:
    """Signs the original position of a replayed record, because any producer can write a header.

    The signature covers what the record says as well, so that it serves for no other record.

    Args:
        secret: Known to the workers and to `inkstream replay`, and to no producer.
    """

    def __init__(self, secret: bytes) -> None:
        # A key of its own: the secret has other uses.
        self._key = hmac.digest(secret, b"inkstream replay", "sha256")

    def sign(self, origin: str, said: bytes) -> bytes:
        """Return the signature for a record with this `content` that first was at the origin."""
        return hmac.digest(self._key, said + origin.encode(), "sha256").hex().encode()

    def origin(self, said: bytes, headers: Mapping[str, bytes | None]) -> str | None:
        """Return where a record with this `content` first was; `None` where its headers do not prove it."""
        claimed, signature = headers.get(REPLAYED_FROM), headers.get(REPLAY_SIGNATURE)
        if claimed is None or signature is None:
            return None
        origin = claimed.decode(errors="replace")
        return origin if hmac.compare_digest(signature, self.sign(origin, said)) else None
