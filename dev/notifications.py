"""Compare the notifications of a run with what was sent, one by one, up to the mail in the inbox.

Input: the records that Kafka confirmed. Pure functions that the worker uses as well say whom each must notify of what,
and whether a message may be sent: what a person turned off must not arrive.
Output: how far delivery is and what is wrong, read from MongoDB by id, never from the worker's own counters.
"""

import contextlib
import urllib.request
from collections import Counter
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, NamedTuple

from pymongo.asynchronous.database import AsyncDatabase

from dev.blog import Blog, Person
from dev.inbox import mailbox, push_messages
from dev.inbox.push_messages import PushMessages
from dev.traffic import Sample
from notifications import grouping, rules
from notifications.grouping import NotificationGroup
from notifications.item import Item
from notifications.notice import Notice
from notifications.preferences import DEFAULTS
from notifications.states import Delivery, device_name
from runtime.settings import Settings
from schemas.cloudevents import Decoder
from schemas.notifications import Channel
from schemas.topics import Topic
from sinks.collections import EMAIL_LOGS, NOTIFICATION_QUEUE, NOTIFICATIONS, PUSH_NOTIFICATION_LOGS

Database = AsyncDatabase[dict[str, Any]]

_IDS_IN_ONE_QUERY = 1_000
_PROBLEMS_SHOWN = 3
_LOGS: Mapping[Channel, str] = {"email": EMAIL_LOGS.name, "push": PUSH_NOTIFICATION_LOGS.name}
LOG_STATUSES: Mapping[str, Collection[str]] = {
    "sent": ("sent", "delivered"),
    "delivered": ("sent", "delivered"),
    "failed": ("failed", "bounced"),
}
"""The statuses that the log of a delivery may have, by the state of the delivery."""


@dataclass
class _Record:
    """A record as the decoder reads it."""

    topic: str
    partition: int
    offset: int
    timestamp: int
    value: bytes | None
    headers: Sequence[tuple[str, bytes]]


class Reached(NamedTuple):
    """How far the notifications of a run have come.

    Attributes:
        in_app: How many are in the application.
        emails: How many e-mails a provider took.
        pushes: How many push messages.
        failed: How many messages no provider accepted.
        skipped: How many messages were not to be sent, by the reason.
        quiet: How many notifications wait for the end of somebody's quiet hours.
        waiting: How many are still to be made or to be sent.
    """

    in_app: int
    emails: int
    pushes: int
    failed: int
    skipped: Mapping[str, int]
    quiet: int
    waiting: int


class NotificationLedger:
    """The account of a run's notifications.

    Args:
        settings: As the worker has them.
        topics: The topics that are sent to.
        began: When the run begins.

    Attributes:
        documents: How many documents of the run rules and deliveries brought, by collection.
    """

    def __init__(self, settings: Settings, topics: Iterable[Topic], began: datetime) -> None:
        listed = list(topics)
        events = {name: event for topic in listed for name, event in topic.events.items()}
        self._rules = rules.load(settings.notifications_file, events, window=settings.gather_window)
        notified = {*self._rules.events, "notification.requested"}
        self._decoders = {
            topic.name: Decoder(topic, settings.ahead_limit) for topic in listed if notified & topic.events.keys()
        }
        self._people: dict[str, Person] = {person.id: person for person in Blog().people}
        self._began = began
        self._open: dict[str, Notice] = {}
        self._ended: set[str] = set()
        self._groups: dict[str, NotificationGroup] = {}
        self._own_groups: set[str] = set()  # those that no run before this one can have added to
        self._stored: set[str] = set()
        self._quiet: set[str] = set()
        self._in_app = 0
        self._failed = 0
        self._skipped: Counter[str] = Counter()
        self._keys: dict[Channel, set[str]] = {"email": set(), "push": set()}
        self._problems: list[str] = []
        self.documents: Counter[str] = Counter()

    @property
    def reached(self) -> Reached:
        """How far they have come, by the last `settle`."""
        return Reached(
            self._in_app,
            len(self._keys["email"]),
            len(self._keys["push"]),
            self._failed,
            dict(self._skipped),
            len(self._quiet),
            len(self._open) - len(self._quiet),
        )

    def expect(self, sample: Sample, partition: int, offset: int, timestamp: int) -> None:
        """Take note of whom a record that Kafka has must tell what.

        Args:
            sample: The record.
            partition: Where it is.
            offset: Likewise.
            timestamp: Its own, in milliseconds since 1970.
        """
        decoder = self._decoders.get(sample.topic)
        if decoder is None or sample.outcome == "dead-lettered":
            return
        record = _Record(sample.topic, partition, offset, timestamp, sample.value, sample.headers)
        for notice in self._rules.notices(decoder.decode(record)):
            id_ = notice.id if notice.gather is None else self._gather(notice)
            if id_ not in self._ended:
                self._open.setdefault(id_, notice)

    def _gather(self, notice: Notice) -> str:
        """Add a notice to its group; return the notification's id. Nobody reads, so there is one for each group."""
        assert notice.gather is not None
        id_ = f"{notice.gather.group}-1"
        self._groups[id_] = grouping.merge(self._groups.get(id_), notice)
        if notice.gather.window_start >= self._began:
            self._own_groups.add(id_)
        return id_

    async def settle(self, database: Database) -> None:
        """Find out how far they have come.

        Raises:
            PyMongoError: MongoDB is not up to it; all of it may be done again.
        """
        now = datetime.now(UTC)
        for ids in _parts(sorted(self._open)):
            wanted = {"_id": {"$in": ids}}
            stored = {found["_id"] async for found in database[NOTIFICATIONS.name].find(wanted, {"_id": 1})}
            ended: list[Item] = []
            async for document in database[NOTIFICATION_QUEUE.name].find(wanted):
                if document["_id"] not in stored:
                    continue
                item = Item.from_document(document)
                self._stored.add(item.id)
                if document["status"] in ("completed", "failed"):
                    ended.append(item)
                elif self._is_quiet(item, now):
                    self._quiet.add(item.id)
            logs = await _statuses(database, ended)
            for item in ended:
                self._judge(item, self._open.pop(item.id), logs)

    async def differences(self, database: Database, received: Mapping[Channel, Collection[str] | None]) -> list[str]:
        """Return what is not as it should be, in the end.

        Args:
            database: MongoDB.
            received: The keys of the messages that arrived, by channel; `None` where that is not known for all.

        Raises:
            PyMongoError: MongoDB is not up to it.
        """
        waiting = [id_ for id_ in self._open if id_ not in self._quiet]
        wrong = list(self._problems)
        for what, ids in {
            "are not in MongoDB": [id_ for id_ in waiting if id_ not in self._stored],
            "are still to be sent": [id_ for id_ in waiting if id_ in self._stored],
        }.items():
            if ids:
                some = ", ".join(f"{id_} ({self._open[id_].type})" for id_ in ids[:_PROBLEMS_SHOWN])
                wrong.append(f"{len(ids):,} {what}: {some}, …")
        wrong += await self._groups_that_differ(database)
        for channel, keys in received.items():
            missing = sorted(self._keys[channel] - set(keys)) if keys is not None else []
            if missing:
                some = ", ".join(missing[:_PROBLEMS_SHOWN])
                wrong.append(
                    f"{len(missing):,} messages by {channel} are logged as sent, and did not arrive: {some}, …"
                )
        lines = [f"notifications: {problem}" for problem in wrong[:_PROBLEMS_SHOWN]]
        more = len(wrong) - len(lines)
        return [*lines, f"notifications: and {more:,} more problems"] if more else lines

    def _judge(self, item: Item, notice: Notice, logs: Mapping[str, str]) -> None:
        """Take a notification that has been delivered, or given up, into the account."""
        self._ended.add(item.id)
        self._stored.discard(item.id)
        self._quiet.discard(item.id)
        self._in_app += "inApp" in item.channels
        if notice.type in self._rules.by_type:
            self.documents.update((NOTIFICATIONS.name, NOTIFICATION_QUEUE.name))
        if item.channels != notice.channels:
            self._problem(item, f"has {', '.join(item.channels)}, where {', '.join(notice.channels)} should be")
        if item.unplanned:
            self._problem(item, f"was given up before anything was decided on {', '.join(item.unplanned)}")
        if "push" in item.channels:
            devices = {delivery.device for delivery in item.deliveries if delivery.channel == "push"}
            if devices != self._devices(notice):
                self._problem(item, "goes to other devices than the person has")
        for delivery in item.deliveries:
            if delivery.channel != "inApp":
                self._judge_delivery(item, notice, delivery, logs)

    def _judge_delivery(self, item: Item, notice: Notice, delivery: Delivery, logs: Mapping[str, str]) -> None:
        key = delivery.key(item.notification_id)
        may_not = self._hindrance(item, notice, delivery)
        if delivery.state == "skipped":
            self._skipped[delivery.reason or ""] += 1
            if delivery.reason in ("preferences", "no-address") and delivery.reason != may_not:
                self._problem(item, f"was not sent by {delivery.channel} for {delivery.reason}, and could be")
            return
        if may_not is not None:
            self._problem(item, f"was sent by {delivery.channel}, and should not for {may_not}")
        if logs.get(key) not in LOG_STATUSES.get(delivery.state, ()):
            self._problem(item, f"is {delivery.state} by {delivery.channel}, and its log says {logs.get(key)}")
        if key in logs:
            self.documents[_LOGS[delivery.channel]] += 1
        if delivery.state == "failed":
            self._failed += 1
        else:
            self._keys[delivery.channel].add(key)

    def _problem(self, item: Item, what: str) -> None:
        self._problems.append(f"{item.id} ({item.type}) {what}")

    def _hindrance(self, item: Item, notice: Notice, delivery: Delivery) -> str | None:
        """Return why a message must not be sent; `None` where it may."""
        blocked_by = item.blocked_by(delivery, self._person(item).preferences, delivery.since)
        if blocked_by == "preferences":
            return "preferences"
        if delivery.channel == "push":
            return "no-address" if delivery.device is None else None
        asked = notice.recipient.email if notice.recipient else None
        return None if asked or self._person(item).email else "no-address"

    def _is_quiet(self, item: Item, now: datetime) -> bool:
        """Whether all that waits of an item waits for the end of quiet hours."""
        waiting = [delivery for delivery in item.deliveries if delivery.state == "waiting"]
        wants = self._person(item).preferences
        return bool(waiting) and all(isinstance(item.blocked_by(one, wants, now), datetime) for one in waiting)

    def _devices(self, notice: Notice) -> set[str | None]:
        """Return the names of the devices that a notice must go to."""
        asked = notice.recipient.devices if notice.recipient else ()
        return {device_name(device.token) for device in asked or self._person(notice).devices} or {None}

    def _person(self, told: Item | Notice) -> Person:
        return self._people.get(told.user_id) or Person(told.user_id, "", "", (), DEFAULTS)

    async def _groups_that_differ(self, database: Database) -> list[str]:
        """Return a line for each group that has not gathered what it should."""
        wrong = []
        for ids in _parts(sorted(self._groups)):
            async for document in database[NOTIFICATIONS.name].find({"_id": {"$in": ids}}, {"gathered": 1}):
                expected, stored = self._groups[document["_id"]], NotificationGroup.from_document(document["gathered"])
                is_right = (
                    stored == expected
                    if document["_id"] in self._own_groups
                    else set(expected.actors) <= set(stored.actors)
                )
                if not is_right:
                    wrong.append(f"{expected.id} has gathered {stored.count:,} people, and should {expected.count:,}")
        return wrong


def arrived(reached: Reached, inbox_url: str, push_file: Path | None) -> dict[Channel, Collection[str] | None]:
    """Return the keys of the messages that arrived, by channel; `None` where not all of a run's are kept that long.

    Args:
        reached: How many there should be.
        inbox_url: The page of the inbox. Where it does not answer, nothing arrived.
        push_file: Where push messages are written.
    """
    page = f"{inbox_url}/message-ids"
    emails: set[str] = set()
    with contextlib.suppress(OSError), urllib.request.urlopen(page, timeout=5) as answer:  # noqa: S310
        # What comes before the @ is the message's key.
        emails = {line.decode().strip("<>\n").partition("@")[0] for line in answer}
    pushes = {message.key for message in PushMessages(push_file).newest()} if push_file else set()
    return {
        "email": emails if reached.emails <= mailbox.KEPT else None,
        "push": pushes if reached.pushes <= push_messages.SHOWN else None,
    }


async def _statuses(database: Database, items: Iterable[Item]) -> dict[str, str]:
    """Return what the logs of messages say, by the messages' keys."""
    keys: dict[Channel, list[str]] = {"email": [], "push": []}
    for item in items:
        for delivery in item.deliveries:
            if delivery.channel != "inApp" and delivery.state != "skipped":
                keys[delivery.channel].append(delivery.key(item.notification_id))
    found = {}
    for channel, wanted in keys.items():
        for some in _parts(wanted):
            async for log in database[_LOGS[channel]].find({"_id": {"$in": some}}, {"status": 1}):
                found[log["_id"]] = log["status"]
    return found


def _parts(ids: Sequence[str]) -> Iterable[list[str]]:
    return (list(ids[first : first + _IDS_IN_ONE_QUERY]) for first in range(0, len(ids), _IDS_IN_ONE_QUERY))
