"""Builds messages from notifications, and the initial logs of messages.

Input: an item of the queue, its notification's document, and an address. Output: an e-mail or a push message that is
ready for a provider, and the body of its log. Each attempt of a delivery builds the same message, unless more people
joined the group meanwhile.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Literal

from notifications.item import Item
from notifications.messages import Email, Push
from notifications.notice import Words
from notifications.rendering import Renderer
from notifications.states import Delivery
from notifications.unsubscribing import UnsubscribeLinks
from schemas.notifications import Device


@dataclass(frozen=True, slots=True)
class Address:
    """The address of one message.

    Attributes:
        text: An e-mail address, or a device's token.
        device: The device; `None` for e-mail.
    """

    text: str = field(repr=False)
    device: Device | None = field(repr=False)

    @property
    def channel(self) -> Literal["email", "push"]:
        """The channel that reaches the address."""
        return "email" if self.device is None else "push"


class MessageBuilder:
    """Builds messages.

    Args:
        renderer: Lays out the content of notifications.
        links: Makes unsubscribe links; `None` if e-mails have none.
        sender: The sender of e-mails: `Name <address>`.
    """

    def __init__(self, renderer: Renderer, links: UnsubscribeLinks | None, sender: str) -> None:
        self._renderer = renderer
        self._links = links
        self._sender = sender

    def build(self, item: Item, delivery: Delivery, address: Address, notification: Mapping[str, Any]) -> Email | Push:
        """Build the message of a delivery."""
        key = delivery.key(item.notification_id)
        words = Words(
            notification["title"],
            notification["message"],
            notification.get("actionUrl"),
            notification.get("actionText"),
        )
        if address.device is None:
            return self._email(item, key, address.text, words)
        push = self._renderer.push(words)
        return Push(
            key=key,
            token=address.text,
            platform=address.device.platform,
            title=push.title,
            body=push.body,
            url=push.url,
            data={"notificationId": item.notification_id, "type": item.type},
            expires_at=item.expires_at,
            urgent=item.is_urgent,
        )

    def _email(self, item: Item, key: str, to: str, words: Words) -> Email:
        unsubscribe_url = self._links.url(key) if self._links is not None and not item.transactional else None
        email = self._renderer.email(words, unsubscribe_url=unsubscribe_url)
        return Email(
            key=key,
            to=to,
            sender=self._sender,
            subject=email.subject,
            text=email.text,
            html=email.html,
            unsubscribe_url=unsubscribe_url,
            metadata={"key": key, "notificationId": item.notification_id, "type": item.type},
        )


def new_log(item: Item, message: Email | Push, provider: str, now: datetime) -> dict[str, Any]:
    """Return the log of a message before the first attempt, without its `_id`."""
    body = {
        "provider": provider,
        "notificationId": item.notification_id,
        "userId": item.user_id,
        "createdAt": now,
    }
    if isinstance(message, Email):
        return {
            "to": message.to,
            "from": message.sender,
            "subject": message.subject,
            "templateId": item.type,
            **body,
        }
    return {
        "deviceToken": message.token,
        "platform": message.platform,
        "title": message.title,
        "body": message.body,
        "data": dict(message.data),
        **body,
    }
