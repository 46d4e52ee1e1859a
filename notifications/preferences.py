"""What people want to get, and how: their channels, by type of notification, and their quiet hours.

In come preferences as the platform's PostgreSQL or its cache has them; out goes whether a channel is turned off. When a
message may be sent is not decided here.
"""

from collections.abc import Mapping

from pydantic import BaseModel, ConfigDict, Field
from pydantic.alias_generators import to_camel

from schemas.notifications import Channel


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

    def turns_off(self, channel: Channel, notification_type: str) -> bool:
        """Whether nothing of this type is to come on the channel."""
        return channel in self.channels_off or channel in self.types_off.get(notification_type, ())


DEFAULTS = Preferences()
"""Of those who have said nothing."""
