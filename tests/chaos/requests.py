"""Make the traffic of a notification run: requests, likes, what providers report, and the people it is for.

Input: a seed and a number of notifications.
Output: records for Kafka, and what must follow from them. Some records are sent twice, as producers do.
"""

import uuid
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from random import Random
from typing import Any, NamedTuple

import orjson
import psycopg

from schemas.notifications import Channel
from tests.chaos.providers import Take

REQUESTS, DOMAIN_EVENTS, RECEIPTS = "notifications", "domain-events", "delivery-receipts"

_CHANNELS: Sequence[tuple[tuple[Channel, ...], float]] = (
    (("inApp", "email", "push"), 40),
    (("inApp", "email"), 20),
    (("inApp", "push"), 20),
    (("email",), 8),
    (("push",), 8),
    (("inApp",), 4),
)
_PRIORITIES = ("low", "medium", "medium", "high", "urgent")
_LIKES_SHARE = 0.2
_TWICE_SHARE = 0.03
_LOOKED_UP_SHARE = 0.4
_SHORT_LIVED_SHARE = 0.02
_PEOPLE = 80
_POSTS = 15
_REPORTED_SHARE = 0.3
_BOUNCED_SHARE = 0.1
_CHANNEL_OF = {"sendgrid": "email", "mailgun": "email", "smtp": "email"}


class Record(NamedTuple):
    """What is sent to a topic."""

    topic: str
    key: bytes
    value: bytes


@dataclass(frozen=True, slots=True)
class Request:
    """A notification that was requested.

    Attributes:
        id: The notification's.
        user: Whose it is.
        title: What it says.
        channels: Where it is to be delivered.
        attempts: How often each channel is tried at most.
    """

    id: str
    user: str
    title: str
    channels: tuple[Channel, ...]
    attempts: int


class Requests:
    """All that is requested.

    Args:
        count: How many notifications.
        seed: Decides what they are.
        subscribe: Returns a new browser's subscription.

    Attributes:
        requests: Those that were made, by id.
        likes: Who liked what, by post; each once.
        reported: What was reported of a message, by its key: each kind once.
    """

    def __init__(self, count: int, seed: int, subscribe: Callable[[], str]) -> None:
        self.requests: dict[str, Request] = {}
        self.likes: defaultdict[str, set[str]] = defaultdict(set)
        self.reported: defaultdict[str, set[str]] = defaultdict(set)
        self._count = count
        self._chance = Random(seed)
        self._subscribe = subscribe

    def add_people(self, owner_url: str) -> None:
        """Add people with addresses and devices to the platform's database."""
        with psycopg.connect(owner_url) as connection:
            cursor = connection.cursor()
            for number in range(_PEOPLE):
                user = f"reader-{number}"
                cursor.execute(
                    'INSERT INTO users (id, email, "passwordHash") VALUES (%s, %s, %s)',
                    (user, f"{user}@reader.example", ""),
                )
                for device in self._devices():
                    cursor.execute(
                        'INSERT INTO devices (token, "userId", platform) VALUES (%s, %s, %s)',
                        (device["token"], user, device["platform"]),
                    )

    def records(self) -> Iterator[Record]:
        """Yield what services send, in order; what is yielded counts as requested."""
        chance = self._chance
        for number in range(self._count):
            record = self._like(number) if chance.random() < _LIKES_SHARE else self._request()
            yield record
            if chance.random() < _TWICE_SHARE:
                yield record

    def report(self, take: Take) -> Record | None:
        """Return what a provider reports of a message that it took, if it does."""
        chance = self._chance
        if chance.random() >= _REPORTED_SHARE:
            return None
        kind = "bounced" if chance.random() < _BOUNCED_SHARE else "delivered"
        self.reported[take.key].add(kind)
        provider_id = take.provider_id or "unknown"
        event = {
            "eventId": uuid.uuid4().hex,
            "channel": _CHANNEL_OF.get(take.provider, "push"),
            "provider": take.provider,
            "providerId": provider_id,
            "key": take.key,
            "kind": kind,
            "timestamp": datetime.fromtimestamp(take.at, UTC).isoformat(),
        }
        return Record(RECEIPTS, provider_id.encode(), orjson.dumps(event))

    def _request(self) -> Record:
        chance = self._chance
        [channels] = chance.choices([each for each, _ in _CHANNELS], [weight for _, weight in _CHANNELS])
        notification_id = str(uuid.UUID(int=chance.getrandbits(128), version=4))
        is_looked_up = chance.random() < _LOOKED_UP_SHARE
        user = f"reader-{chance.randrange(_PEOPLE)}" if is_looked_up else f"guest-{notification_id[:8]}"
        request = Request(
            notification_id, user, f"Ada answered no. {len(self.requests)}", channels, chance.choice((4, 5, 6))
        )
        self.requests[request.id] = request
        event: dict[str, Any] = {
            "type": "comment_reply",
            "eventId": request.id,
            "userId": user,
            "title": request.title,
            "message": "“That is the missing piece.”",
            "actionUrl": "/posts/types#c-1",
            "actionText": "Read the answer",
            "channels": channels,
            "priority": chance.choice(_PRIORITIES),
            "maxAttempts": request.attempts,
            "timestamp": datetime.now(UTC).isoformat(),
        }
        if not is_looked_up:
            event["email"] = f"{user}@reader.example"
            event["devices"] = self._devices()
        if chance.random() < _SHORT_LIVED_SHARE:
            seconds = chance.uniform(-2, 20)
            event["expiresAt"] = (datetime.now(UTC) + timedelta(seconds=seconds)).isoformat()
        return Record(REQUESTS, user.encode(), orjson.dumps(event))

    def _like(self, number: int) -> Record:
        chance = self._chance
        post = chance.randrange(_POSTS)
        reader = f"liker-{number}"
        self.likes[f"post-{post}"].add(reader)
        event = {
            "type": "post.liked",
            "eventId": f"like-{number}",
            "postId": f"post-{post}",
            "slug": f"post-{post}",
            "title": f"Post no. {post}",
            "userId": reader,
            "userName": f"Reader {number}",
            "authorId": f"reader-{post}",
            "timestamp": datetime.now(UTC).isoformat(),
        }
        return Record(DOMAIN_EVENTS, event["postId"].encode(), orjson.dumps(event))

    def _devices(self) -> list[dict[str, str]]:
        chance = self._chance
        tokens = {
            "android": lambda: f"android-{chance.getrandbits(120):030x}",
            "ios": lambda: f"{chance.getrandbits(256):064x}",
            "web": self._subscribe,
        }
        platforms = chance.sample(list(tokens), chance.choice((0, 1, 1, 1, 2)))
        return [{"platform": platform, "token": tokens[platform]()} for platform in platforms]
