"""What people want to get, and how: which channels of a notice are used, and why the others are not.

In come a notice and its recipient's preferences, as PostgreSQL or its cache has them; out go the channels to use and a
reason for each that is left out. When a message may be sent is not decided here.
"""

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field
from pydantic.alias_generators import to_camel

from notifications.notice import Notice
from schemas.notifications import Channel

Reason = Literal["suppressed", "turned off", "turned off for this type"]
"""Why a channel is not used: the address may not be written to any more, or the person does not want it."""


class _Held(BaseModel):
    # What this release does not know, a later one may have stored.
    model_config = ConfigDict(alias_generator=to_camel, validate_by_name=True, frozen=True, extra="ignore")


class QuietHours(_Held):
    """When somebody does not want to be disturbed, every day; `end` before `start` is on the next day.

    Attributes:
        start: `22:00`, on the person's clock.
        end: `07:30`, likewise.
        time_zone: `Europe/Berlin`, as the IANA database names it.
    """

    start: str
    end: str
    time_zone: str


class Preferences(_Held):
    """What one person wants; without any, everything comes at any time.

    Attributes:
        channels_off: The channels that are turned off altogether.
        types_off: The channels that are turned off for a type of notification, by its name.
        quiet_hours: When only what is urgent may come; `None` where it may always.
        locale: The person's language, as `en` or `pt-BR`.
    """

    channels_off: frozenset[str] = frozenset()
    types_off: Mapping[str, frozenset[str]] = Field(default_factory=dict)
    quiet_hours: QuietHours | None = None
    locale: str = "en"


DEFAULTS = Preferences()
"""Of those who have said nothing."""


@dataclass(frozen=True, slots=True)
class Choice:
    """Which channels are used.

    Attributes:
        channels: These, in the notice's order.
        left_out: The notice's others, each with the reason.
    """

    channels: tuple[Channel, ...]
    left_out: Mapping[Channel, Reason]


def channels_for(
    notice: Notice, preferences: Preferences | None = None, *, suppressed: Collection[Channel] = ()
) -> Choice:
    """Choose the channels of a notice.

    What is in the application is always there. What is transactional comes whatever the person prefers, but not to an
    address that is suppressed: it bounced or complained, and would again.

    Args:
        notice: What to tell.
        preferences: The recipient's; `None` where there are none.
        suppressed: The channels on which the recipient can't be written to any more.
    """
    preferences = preferences or DEFAULTS
    left_out: dict[Channel, Reason] = {}
    for channel in notice.channels:
        reason = _reason(channel, notice, preferences, suppressed)
        if reason:
            left_out[channel] = reason
    used = tuple(channel for channel in notice.channels if channel not in left_out)
    return Choice(used, MappingProxyType(left_out))


def _reason(
    channel: Channel, notice: Notice, preferences: Preferences, suppressed: Collection[Channel]
) -> Reason | None:
    if channel == "inApp":
        return None
    if channel in suppressed:
        return "suppressed"
    if notice.transactional:
        return None
    if channel in preferences.channels_off:
        return "turned off"
    if channel in preferences.types_off.get(notice.type, ()):
        return "turned off for this type"
    return None
