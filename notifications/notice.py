"""A notice: what one person is to be notified of, whether a rule or a service's request asks for it.

Rules on domain events and requests both produce notices, so that delivery has one input. Nothing here is logged,
because most of it is personal.
"""

import json
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from hashlib import blake2b

from schemas.notifications import Channel, Device, Priority, RelatedEntity

KEPT = timedelta(days=90)
"""How long after its creation a notification expires by default."""

ATTEMPTS = 5
"""The default number of attempts on a channel."""

SENT_AFTER = timedelta(minutes=1)
"""How long e-mail and push of a group wait for more people after the first, unless its window is shorter."""

_LAST_MOMENT = datetime.max.replace(tzinfo=UTC)


@dataclass(frozen=True, slots=True)
class Words:
    """The content of a notification on every channel, as stored in `notifications`.

    Attributes:
        title: One line.
        message: What stands below it, in one or several lines.
        action_url: Where it leads: a path of the site or a URL; `None` if it leads nowhere.
        action_text: The words on the button there.
    """

    title: str = field(repr=False)
    message: str = field(repr=False)
    action_url: str | None = field(repr=False, default=None)
    action_text: str | None = field(repr=False, default=None)


@dataclass(frozen=True, slots=True)
class Recipient:
    """The addresses of a person in a request.

    Attributes:
        email: The address; `None` if the request named none.
        devices: Those that push messages reach.
    """

    email: str | None = field(repr=False)
    devices: tuple[Device, ...] = field(repr=False)


@dataclass(frozen=True, slots=True)
class Gather:
    """How a notice joins its group, and the texts of the group.

    Attributes:
        group: The same for all that are gathered: same user, type, entity and window; 32 hexadecimal digits.
        window_start: When the group's window of event time begins.
        title: The title, with `ACTORS` wherever it says who.
        message: The message, likewise.
        wait: How long after the first of the group e-mail and push wait for others.
    """

    group: str
    window_start: datetime
    title: str = field(repr=False)
    message: str = field(repr=False)
    wait: timedelta = SENT_AFTER


ACTORS = "\N{OBJECT REPLACEMENT CHARACTER}"
"""The placeholder for the people in a group's title and message; cleaned text never contains it."""


@dataclass(frozen=True, slots=True)
class Notice:
    """One notification for one person.

    Attributes:
        id: A request's is its event's; another's is made of event, user and type, so that an event read again makes
            the same notices. At most 256 characters.
        user_id: Whom to tell.
        type: What kind of news it is, as `comment_reply`; preferences are by type.
        title: As in `Words`; of a request, as the request has it.
        message: As in `Words`; of a request, as the request has it.
        action_url: As in `Words`.
        action_text: As in `Words`.
        related_entity: What it is about.
        actor_id: Who did it.
        actor_name: That person's name; `None` if the event does not say.
        actor_avatar: URL of that person's picture.
        channels: How to tell, each once; preferences may leave some out.
        priority: How soon.
        created_at: When the event happened; UTC.
        expires_at: From when on it is not sent any more; UTC.
        gather: What it joins; `None` for what stands alone.
        transactional: Whether it is sent whatever the user's preferences are.
        recipient: Where to reach the user, if the request says; `None` if that is to be looked up.
        max_attempts: How often a channel is tried.
    """

    id: str
    user_id: str
    type: str
    title: str = field(repr=False)
    message: str = field(repr=False)
    action_url: str | None = field(repr=False)
    action_text: str | None = field(repr=False)
    related_entity: RelatedEntity | None
    actor_id: str | None
    actor_name: str | None = field(repr=False)
    actor_avatar: str | None = field(repr=False)
    channels: tuple[Channel, ...]
    priority: Priority
    created_at: datetime
    expires_at: datetime
    gather: Gather | None = None
    transactional: bool = False
    recipient: Recipient | None = None
    max_attempts: int = ATTEMPTS

    @property
    def words(self) -> Words:
        """The content of the notice alone; `grouping` has that of a group."""
        return Words(self.title, self.message, self.action_url, self.action_text)


def digest(*parts: str | None) -> str:
    """Return 32 hexadecimal digits that identify these parts in this order."""
    # JSON keeps ("ab", "c") and ("a", "bc") apart, and a part that is missing from one that is empty.
    return blake2b(json.dumps(parts).encode(), digest_size=16).hexdigest()


def expiry(created_at: datetime) -> datetime:
    """Return the default expiry of a notification."""
    return min(created_at, _LAST_MOMENT - KEPT) + KEPT
