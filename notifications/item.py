"""An item of the queue as delivery reads it.

Input: a document of `notificationQueue`. Output: its deliveries, and what blocks one of them now. Pure: the current
time is an argument.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime
from types import MappingProxyType, NoneType
from typing import Any, Self

from notifications.notice import Recipient
from notifications.preferences import Preferences
from notifications.quiet_hours import understand
from notifications.retry_policy import POLICIES, RetryPolicy
from notifications.states import Delivery, Reason, device_name, expired, plan
from schemas.notifications import Channel, Device, Priority

URGENCY: Mapping[Priority, int] = MappingProxyType({"low": 1, "medium": 2, "high": 3, "urgent": 4})
"""The queue's `priority`: higher is more urgent."""


class UnreadableItemError(ValueError):
    """A document of the queue is no item, as somebody has changed it. The message names the error, and no value."""


@dataclass(frozen=True, slots=True)
class Item:
    """An item of the queue, as it was read.

    Attributes:
        id: Of the item.
        notification_id: Of the notification that is delivered.
        user_id: Whose it is.
        type: The notification's.
        channels: Those on which it is to be delivered.
        priority: 1 to 4; 4 is urgent.
        max_attempts: On each channel.
        created_at: When it was asked for.
        expires_at: When it is past its time; `None` where it never is.
        transactional: Whether it is sent whatever the person prefers.
        recipient: Where to reach the person, as a request had it; `None` where that is to be looked up.
        deliveries: How far it has come; on channels that are not planned yet there is none.
        revision: Grows with each change of the deliveries.
        missing_since: When its notification was not there for the first time; `None` where it is, as far as is known.
    """

    id: str
    notification_id: str
    user_id: str
    type: str
    channels: tuple[Channel, ...]
    priority: int
    max_attempts: int
    created_at: datetime
    expires_at: datetime | None
    transactional: bool
    recipient: Recipient | None = field(repr=False)
    deliveries: tuple[Delivery, ...]
    revision: int
    missing_since: datetime | None = None

    @classmethod
    def from_document(cls, document: Mapping[str, Any]) -> Self:
        """Read a document of the queue; what an older release did not write has its default.

        Raises:
            UnreadableItemError: It is none.
        """
        try:
            _check_types(document)
            return cls._read(document)
        except (AttributeError, KeyError, TypeError, ValueError) as error:
            raise UnreadableItemError(type(error).__name__) from error

    @classmethod
    def _read(cls, document: Mapping[str, Any]) -> Self:
        recipient = document.get("recipient")
        return cls(
            id=document["_id"],
            notification_id=document["notificationId"],
            user_id=document["userId"],
            type=document["type"],
            channels=tuple(document["channels"]),
            priority=document["priority"],
            max_attempts=max(1, document["maxAttempts"]),
            created_at=document["createdAt"],
            expires_at=document.get("expiresAt"),
            transactional=document.get("transactional", False),
            recipient=None if recipient is None else _recipient(recipient),
            deliveries=tuple(map(Delivery.from_document, document.get("deliveries") or ())),
            revision=document.get("revision") or 0,
            missing_since=document.get("missingSince"),
        )

    @property
    def is_urgent(self) -> bool:
        """Whether it passes quiet hours and limits."""
        return self.priority >= URGENCY["urgent"]

    @property
    def unplanned(self) -> tuple[Channel, ...]:
        """The channels of which nothing is decided yet; `inApp` is never among them."""
        planned = {"inApp", *(delivery.channel for delivery in self.deliveries)}
        return tuple(channel for channel in self.channels if channel not in planned)

    def policy(self, channel: Channel) -> RetryPolicy:
        """Return how the attempts on a channel follow each other, with as many as this item may have."""
        if channel == "inApp":
            raise ValueError("in the application there are no attempts")
        return replace(POLICIES[channel], max_attempts=self.max_attempts)

    def plan(self, devices: Sequence[Device], now: datetime) -> tuple[Delivery, ...]:
        """Return a delivery for each channel that is not planned: one e-mail, and one push message for each device.

        Without devices there is one for `push` all the same, so that the queue can say that it found none.
        """
        planned: list[Delivery] = []
        for channel in self.unplanned:
            names = dict.fromkeys(device_name(device.token) for device in devices) if channel == "push" else {}
            planned += [plan(channel, now, device=name) for name in names or (None,)]
        return tuple(planned)

    def blocked_by(self, delivery: Delivery, wants: Preferences, now: datetime) -> Reason | datetime | None:
        """Return why a delivery is not to be tried at all, or until when it waits; `None` where nothing hinders it."""
        if expired(self.expires_at, now):
            return "expired"
        if self.transactional:
            return None
        if wants.turns_off(delivery.channel, self.type):
            return "preferences"
        if self.is_urgent or wants.quiet_hours is None:
            return None
        stored = wants.quiet_hours
        allowed_at = understand(stored.start, stored.end, stored.time_zone).hours.allowed_at(now)
        return allowed_at if allowed_at > now else None


_TYPES: Mapping[str, tuple[type, ...]] = {
    "notificationId": (str,),
    "userId": (str,),
    "type": (str,),
    "channels": (list,),
    "priority": (int, float),
    "maxAttempts": (int, float),
    "createdAt": (datetime,),
}
_OPTIONAL_TYPES: Mapping[str, tuple[type, ...]] = {
    "expiresAt": (datetime, NoneType),
    "missingSince": (datetime, NoneType),
    "revision": (int, NoneType),
    "errors": (list, NoneType),
    "deliveries": (list, NoneType),
}
"""Fields of which a wrong type would be noticed later, or by MongoDB: `$push` and `$inc` are refused then."""


def _check_types(document: Mapping[str, Any]) -> None:
    for name, types in _TYPES.items():
        if not isinstance(document[name], types):
            raise TypeError(name)
    for name, types in _OPTIONAL_TYPES.items():
        if not isinstance(document.get(name), types):
            raise TypeError(name)


def _recipient(document: Mapping[str, Any]) -> Recipient:
    devices = [Device(token=device["token"], platform=device["platform"]) for device in document.get("devices", ())]
    return Recipient(document.get("email"), tuple(devices))
