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
    """A document of the queue is not a valid item. The message names the error, and contains no value."""


@dataclass(frozen=True, slots=True)
class Item:
    """An item of the queue as it was read.

    Attributes:
        id: Of the item.
        notification_id: The notification's id.
        user_id: The recipient.
        type: The notification's.
        channels: The channels to deliver on.
        priority: 1 to 4; 4 is urgent.
        max_attempts: On each channel.
        created_at: When it was requested.
        expires_at: When it expires; `None` if never.
        transactional: Whether it is sent whatever the person's preferences are.
        recipient: The address that a request named; `None` if it must be looked up.
        deliveries: The deliveries; channels that are not planned yet have none.
        revision: Grows with each change of the deliveries.
        missing_since: When its notification was first found missing; `None` if it was not.
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
        """Read a document of the queue; fields that an older release did not write have their defaults.

        Raises:
            UnreadableItemError: The document is not a valid item.
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
        """Whether it ignores quiet hours and limits."""
        return self.priority >= URGENCY["urgent"]

    @property
    def unplanned(self) -> tuple[Channel, ...]:
        """The channels without a delivery; never `inApp`."""
        planned = {"inApp", *(delivery.channel for delivery in self.deliveries)}
        return tuple(channel for channel in self.channels if channel not in planned)

    def policy(self, channel: Channel) -> RetryPolicy:
        """Return the retry policy of a channel, with the item's own maximum of attempts."""
        if channel == "inApp":
            raise ValueError("the channel inApp has no attempts")
        return replace(POLICIES[channel], max_attempts=self.max_attempts)

    def plan(self, devices: Sequence[Device], now: datetime) -> tuple[Delivery, ...]:
        """Return a delivery for each channel without one: one e-mail, and one push message for each device.

        Without devices there is still one for `push`, so that the queue shows that none was found.
        """
        planned: list[Delivery] = []
        for channel in self.unplanned:
            names = dict.fromkeys(device_name(device.token) for device in devices) if channel == "push" else {}
            planned += [plan(channel, now, device=name) for name in names or (None,)]
        return tuple(planned)

    def blocked_by(self, delivery: Delivery, wants: Preferences, now: datetime) -> Reason | datetime | None:
        """Return the reason to skip a delivery, or until when to postpone it; `None` if neither applies."""
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
"""Fields whose wrong type would cause an error later, or in MongoDB, which refuses `$push` and `$inc` then."""


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
