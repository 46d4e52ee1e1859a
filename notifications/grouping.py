"""Grouping: merges likes of one post within a window into one notification, "Ada and 9 others".

Input: the stored group and one notice. Output: the merged group. These are pure functions. While nobody has read the
notification, the result does not depend on the order of notices or on repetitions, because every field is a union or a
maximum. So a batch that is read twice counts once, and a writer that lost a race merges again with the stored group.

A person counts once in a group, which is one user, type, entity and window. After the notification was read, the next
person begins a new one, whose id has the next generation's number. A person who was counted earlier is
not counted again, whatever that person does.

The size is bounded. Of each person eight bytes are kept, a digest of the id: the `EXACT` smallest of each generation,
and as many of all earlier ones together. Up to `EXACT` people in a window the rules above hold exactly. Beyond it:

- the number of people is an estimate, usually within 3 % ("Ada and about 5,200 others"). It too does not depend on
  order or repetitions. It follows from the size of the smallest digests (https://doi.org/10.1145/1562764.1562787);
- an event of a person whose digest was not kept is taken as counted if it is not later than the newest one that counted
  before the notification was read. So nothing counts twice, but a person whose event came that late may not count.
"""

from bisect import bisect_left
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime
from hashlib import blake2b
from typing import Any, Self

from notifications.notice import ACTORS, Gather, Notice, Words
from notifications.rendering import people

EXACT = 1_024
"""A group's count is exact up to this number of people."""

NEWEST = 3
"""How many people are stored with their names, which is as many as are ever shown."""

_DIGEST_BYTES = 8
_DIGESTS = 1 << 8 * _DIGEST_BYTES


@dataclass(frozen=True, slots=True)
class Act:
    """One person's latest action.

    Attributes:
        time: The time in milliseconds, the precision of MongoDB.
        notice_id: The notice's id, which orders acts at the same time.
        actor_id: The person.
        actor_name: The person's name; `None` if unknown.
    """

    time: datetime
    notice_id: str
    actor_id: str
    actor_name: str | None = field(repr=False)

    @property
    def rank(self) -> tuple[datetime, str]:
        """The sort key of acts; the newest is the greatest."""
        return self.time, self.notice_id


@dataclass(frozen=True, slots=True)
class NotificationGroup:
    """The state of a group: at most some 20 kB, and the content of one notice.

    Attributes:
        group: As `Gather.group` names it.
        generation: 1, and one more each time that a notification was read before the next person came.
        newest: The latest acts of up to `NEWEST` people, the newest first.
        actors: Digests of the people of this generation, ascending; the `EXACT` smallest.
        earlier: Digests of the people of earlier generations, likewise.
        earlier_until: When the newest event of the earlier generations happened; `None` in the first.
        pattern: The content of the newest notice, with `ACTORS` for the people.
        actor_avatar: The newest person's picture.
    """

    group: str
    generation: int
    newest: tuple[Act, ...]
    actors: tuple[bytes, ...] = field(repr=False)
    earlier: tuple[bytes, ...] = field(repr=False)
    earlier_until: datetime | None
    pattern: Words = field(repr=False)
    actor_avatar: str | None = field(repr=False)

    @property
    def id(self) -> str:
        """The id of this generation's notification."""
        return f"{self.group}-{self.generation}"

    @property
    def is_exact(self) -> bool:
        """Whether `count` is the exact number."""
        return len(self.actors) < EXACT

    @property
    def count(self) -> int:
        """The number of people in this generation's notification."""
        if self.is_exact:
            return len(self.actors)
        # Were n digests spread evenly, the k-th smallest would stand at k/n of the way.
        greatest = int.from_bytes(self.actors[-1])
        return max(EXACT, (EXACT - 1) * _DIGESTS // greatest)

    @property
    def words(self) -> Words:
        """The content of the notification."""
        who = people([act.actor_name for act in self.newest], self.count, is_exact=self.is_exact)
        title, message = (text.replace(ACTORS, who) for text in (self.pattern.title, self.pattern.message))
        return replace(self.pattern, title=title, message=message)

    def document(self) -> dict[str, Any]:
        """Return the document for MongoDB, without fields that are `None`."""
        return _known(
            {
                "group": self.group,
                "generation": self.generation,
                "newest": [
                    _known(
                        {
                            "time": act.time,
                            "noticeId": act.notice_id,
                            "actorId": act.actor_id,
                            "actorName": act.actor_name,
                        }
                    )
                    for act in self.newest
                ],
                "actors": b"".join(self.actors),
                "earlier": b"".join(self.earlier),
                "earlierUntil": self.earlier_until,
                "title": self.pattern.title,
                "message": self.pattern.message,
                "actionUrl": self.pattern.action_url,
                "actionText": self.pattern.action_text,
                "actorAvatar": self.actor_avatar,
            }
        )

    @classmethod
    def from_document(cls, document: Mapping[str, Any]) -> Self:
        """Read what `document` returned; other fields are ignored. Times have a zone.

        A document of an earlier release has `null` for what is unknown.
        """
        return cls(
            group=document["group"],
            generation=document["generation"],
            newest=tuple(
                Act(act["time"], act["noticeId"], act["actorId"], act.get("actorName")) for act in document["newest"]
            ),
            actors=_split(document["actors"]),
            earlier=_split(document["earlier"]),
            earlier_until=document.get("earlierUntil"),
            pattern=Words(
                document["title"], document["message"], document.get("actionUrl"), document.get("actionText")
            ),
            actor_avatar=document.get("actorAvatar"),
        )


def merge(stored: NotificationGroup | None, notice: Notice, *, was_read: bool = False) -> NotificationGroup:
    """Return a group with one more notice.

    Args:
        stored: The stored group; `None` for the first notice.
        notice: A notice of the group.
        was_read: Whether the stored generation's notification was read.

    Returns:
        A group that equals the stored one if the notice was counted before. It has another id if a new notification
        begins.

    Raises:
        ValueError: The notice is not of this group, or of a type without grouping.
    """
    if notice.gather is None or notice.actor_id is None:
        raise ValueError("the notice has no group")
    one = _alone(notice.gather, notice, notice.actor_id)
    if stored is None:
        return one
    if one.group != stored.group:
        raise ValueError("the notice belongs to another group")
    [act] = one.newest
    if not was_read:
        return stored if _was_counted(act, stored.earlier, stored.earlier_until) else _joined(stored, one)
    earlier = _smallest((*stored.earlier, *stored.actors))
    until = max(stored.newest[0].time, stored.earlier_until or stored.newest[0].time)
    if _was_counted(act, earlier, until):
        return stored
    return replace(one, generation=stored.generation + 1, earlier=earlier, earlier_until=until)


def _alone(gather: Gather, notice: Notice, actor_id: str) -> NotificationGroup:
    """Return a group with its first notice."""
    time = notice.created_at
    # MongoDB would cut the rest, and what is stored must equal what is computed.
    time = time.replace(microsecond=time.microsecond // 1_000 * 1_000)
    return NotificationGroup(
        group=gather.group,
        generation=1,
        newest=(Act(time, notice.id, actor_id, notice.actor_name),),
        actors=(_digest(actor_id),),
        earlier=(),
        earlier_until=None,
        pattern=Words(gather.title, gather.message, notice.action_url, notice.action_text),
        actor_avatar=notice.actor_avatar,
    )


def _joined(stored: NotificationGroup, one: NotificationGroup) -> NotificationGroup:
    """Return a generation with one more notice."""
    acts = sorted((*stored.newest, *one.newest), key=lambda act: act.rank)
    # Only the last act of each person stays. So a person who was dropped returns only with a newer act, which contains
    # everything, and the order of notices does not matter.
    last_acts = {act.actor_id: act for act in acts}
    newest = tuple(sorted(last_acts.values(), key=lambda act: act.rank, reverse=True)[:NEWEST])
    is_newest = newest[0] == one.newest[0]
    return replace(
        stored,
        newest=newest,
        actors=_with(stored.actors, *one.actors),
        pattern=one.pattern if is_newest else stored.pattern,
        actor_avatar=one.actor_avatar if is_newest else stored.actor_avatar,
    )


def _was_counted(act: Act, earlier: tuple[bytes, ...], until: datetime | None) -> bool:
    digest = _digest(act.actor_id)
    if digest in earlier:
        return True
    was_dropped = len(earlier) == EXACT and digest > earlier[-1]
    return was_dropped and until is not None and act.time <= until


def _digest(actor_id: str) -> bytes:
    return blake2b(actor_id.encode(), digest_size=_DIGEST_BYTES).digest()


def _smallest(digests: Iterable[bytes]) -> tuple[bytes, ...]:
    return tuple(sorted(set(digests))[:EXACT])


def _with(digests: tuple[bytes, ...], digest: bytes) -> tuple[bytes, ...]:
    """Return the smallest digests with one more; the same tuple if nothing changes."""
    at = bisect_left(digests, digest)
    if at == EXACT or digests[at : at + 1] == (digest,):
        return digests
    return (*digests[:at], digest, *digests[at:])[:EXACT]


def _known(fields: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in fields.items() if value is not None}


def _split(digests: bytes) -> tuple[bytes, ...]:
    return tuple(digests[at : at + _DIGEST_BYTES] for at in range(0, len(digests), _DIGEST_BYTES))
