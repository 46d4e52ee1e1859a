"""The context of one delivery run: the leased item, its notification and its person."""

from collections.abc import Sequence
from typing import Any, NamedTuple

from agents.notifications.leased_item import LeasedItem
from notifications.item import Item
from notifications.message_builder import Address
from notifications.states import Delivery, device_name
from schemas.email_address import normalised
from schemas.notifications import Device
from sinks.postgres.recipients import Person


class DeliveryContext(NamedTuple):
    """What the stages of a delivery share.

    Attributes:
        leased: The item of the queue.
        notification: The notification's document.
        person: The recipient; `None` if the platform does not know the user.
        began: When the item was claimed, in monotonic seconds.
    """

    leased: LeasedItem
    notification: dict[str, Any]
    person: Person | None
    began: float

    def address(self, delivery: Delivery) -> Address | None:
        """Return the address of a delivery; `None` if it no longer exists."""
        item = self.leased.item
        if delivery.channel == "email":
            requested = item.recipient.email if item.recipient else None
            email = normalised(requested or (self.person.email if self.person else None) or "")
            return Address(email, None) if email else None
        devices = {device_name(device.token): device for device in devices_of(item, self.person)}
        device = devices.get(delivery.device or "")
        return Address(device.token, device) if device else None


def devices_of(item: Item, person: Person | None) -> Sequence[Device]:
    """Return the devices that the request names, or else those that the platform knows."""
    if item.recipient is not None and item.recipient.devices:
        return item.recipient.devices
    return person.devices if person else ()
