"""Notifications: the queue, the logs of messages, and what notifications say of their channels.

In come documents; out goes what is wrong with them. What is sent when depends on providers, preferences and chance, so
that is judged as `make run` does it; which documents there are, and what they say of each other, is exact.
"""

import asyncio
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from typing import Any, NamedTuple, cast

from delivery.batch import Record
from dev.blog import Blog
from dev.notifications import NotificationAccount, arrived
from dev.stack import Platform
from dev.traffic import Sample
from notifications.item import Item, UnreadableItemError
from notifications.preferences import DEFAULTS
from notifications.states import BOUNCED, INTERRUPTED, Delivery, status_of
from runtime.settings import Settings
from schemas.cloudevents import Decoder
from schemas.notifications import Channel
from schemas.receipts import DeliveryReceived
from schemas.topics import Topic
from sinks.collections import EMAIL_LOGS, PUSH_NOTIFICATION_LOGS
from tests.chaos.history import Check
from tests.chaos.ledger import Entry
from tests.chaos.oracle_documents import Database
from tests.chaos.oracle_findings import Findings

RECEIPTS = "delivery-receipts"
"""The topic of what providers report."""

LOGS: Mapping[Channel, str] = {"email": EMAIL_LOGS.name, "push": PUSH_NOTIFICATION_LOGS.name}
_MARKS: Mapping[Channel, str] = {"email": "emailId", "push": "pushId"}
_ARRIVED = ("sent", "delivered")
_WANTS = {person.id: person.preferences for person in Blog().people}


class _Message(NamedTuple):
    """A message that a delivery stands for.

    Attributes:
        notification_id: The notification that it brings.
        user_id: Whose that is.
        is_begun: Whether an attempt was begun.
        must_be_logged: Whether an attempt got as far as its log.
    """

    notification_id: str
    user_id: str
    is_begun: bool
    must_be_logged: bool


class Deliveries:
    """The deliveries of all items of the queue, as they are looked at one after another.

    Args:
        now: When that is.
    """

    def __init__(self, now: datetime) -> None:
        self._now = now
        self._messages: dict[Channel, dict[str, _Message]] = {"email": {}, "push": {}}
        self._marks: dict[str, dict[Channel, dict[str, Delivery]]] = {}

    def inspect_item(self, document: Mapping[str, Any]) -> list[str]:
        """Return what is wrong with an item, but for what its event alone decides."""
        wrong = []
        if "lease" in document:
            wrong.append(f"it is held by {document['lease'].get('worker')} until {document['lease'].get('until')}")
        try:
            item = Item.from_document(document)
        except UnreadableItemError as error:
            return [*wrong, f"it can't be read: {error}"]
        self._take_note(item)
        if document["status"] not in ("completed", "failed"):
            return [*wrong, *self._why_unfinished(document, item)]
        if item.unplanned:
            wrong.append(f"nothing was decided on {', '.join(item.unplanned)}")
        elif document["status"] != status_of(item.deliveries):
            wrong.append(f"its status is {document['status']}, and its deliveries are {status_of(item.deliveries)}")
        names = [(delivery.channel, delivery.device) for delivery in item.deliveries]
        if len(names) != len(set(names)):
            wrong.append("it has two deliveries of the same")
        if "nextRetryAt" in document:
            wrong.append(f"it is {document['status']}, and waits until {document['nextRetryAt']}")
        if (document["status"] == "completed") != ("completedAt" in document):
            wrong.append(f"its status is {document['status']}, and completedAt is {document.get('completedAt')}")
        if document["status"] == "completed" and "recipient" in document:
            wrong.append("it is completed, and says still where to reach somebody")
        return wrong

    def _why_unfinished(self, document: Mapping[str, Any], item: Item) -> list[str]:
        """Return why an item is not at its end; nothing, where it waits for the end of quiet hours."""
        waiting = [delivery for delivery in item.deliveries if delivery.state == "waiting"]
        wants = _WANTS.get(item.user_id, DEFAULTS)
        if waiting and all(isinstance(item.blocked_by(one, wants, self._now), datetime) for one in waiting):
            return []
        states = ", ".join(f"{delivery.channel} {delivery.state}" for delivery in item.deliveries)
        return [f"its status is {document['status']}, with {states or 'nothing decided'}"]

    def _take_note(self, item: Item) -> None:
        for delivery in item.deliveries:
            if delivery.channel == "inApp":
                continue
            key = delivery.key(item.notification_id)
            # A worker that is killed after it began has opened no log yet, and so may all of its successors.
            is_begun = delivery.provider is not None
            must_be_logged = is_begun and delivery.code != INTERRUPTED
            self._messages[delivery.channel][key] = _Message(
                item.notification_id, item.user_id, is_begun, must_be_logged
            )
            self._marks.setdefault(item.notification_id, {}).setdefault(delivery.channel, {})[key] = delivery

    def inspect_notification(self, document: Mapping[str, Any]) -> list[str]:
        """Return what is wrong with what a notification says of its channels."""
        wrong = []
        if document["channels"]["inApp"].get("read"):
            wrong.append("it is read, and nobody reads")
        for channel, mark in _MARKS.items():
            said = document["channels"][channel]
            deliveries = self._marks.get(document["_id"], {}).get(channel, {})
            has_arrived = any(delivery.state in _ARRIVED for delivery in deliveries.values())
            # What was taken and bounced later had been sent, and the notification may say so.
            was_taken = [
                key for key, delivery in deliveries.items() if delivery.state in _ARRIVED or delivery.code == BOUNCED
            ]
            if has_arrived and not said.get("sent"):
                wrong.append(f"it was sent by {channel}, and does not say so")
            elif said.get("sent") and said.get(mark) not in was_taken:
                wrong.append(f"it says it was sent by {channel} as {said.get(mark)}, and was not")
            elif bool(said.get("sent")) != ("sentAt" in said):
                wrong.append(f"channels.{channel} has sent {said.get('sent')} and sentAt {said.get('sentAt')}")
        return wrong

    async def logs_check(self, database: Database, channel: Channel) -> Check:
        """Return whether the logs of a channel are those of the messages that were begun."""
        messages = self._messages[channel]
        missing = {key for key, message in messages.items() if message.must_be_logged}
        findings = Findings(f"{LOGS[channel]}: one for each message that was begun, and no other", len(missing))
        right = 0
        fields = {"notificationId": 1, "userId": 1, "status": 1}
        async for log in database[LOGS[channel]].find({}, fields):
            key = log["_id"]
            message = messages.get(key)
            if message is None or not message.is_begun:
                findings.add("should not be there", f"{key} should not be there: no such message was begun")
                continue
            named = (log.get("notificationId"), log.get("userId"))
            if named != (message.notification_id, message.user_id):
                what = f"is of {named}, and should be of {(message.notification_id, message.user_id)}"
                findings.add("are of others", f"{key} {what}")
            else:
                right += key in missing
            missing.discard(key)
        for key in sorted(missing):
            what = f"{key} is missing, of notification {messages[key].notification_id}"
            findings.add("are missing", what)
        return findings.check(right)


class Account:
    """Whether people got what they must, and nothing that they turned off: judged as `make run` does.

    Args:
        settings: As the workers have them.
        platform: Where messages end.
        account: The account of the ledger's records.
        receipts: Reads what providers report.
    """

    def __init__(self, settings: Settings, platform: Platform, account: NotificationAccount, receipts: Decoder) -> None:
        self._settings = settings
        self._platform = platform
        self._account = account
        self._receipts = receipts
        self._reported: set[str] = set()

    def expect(self, entry: Entry) -> None:
        """Take note of whom a valid record must tell what."""
        sample = Sample(
            due=0.0,
            topic=entry.topic.removeprefix(self._settings.namespace),
            key=entry.key or b"",
            value=entry.value,
            headers=entry.headers,
            compression=None,
            outcome="stored",
            id=None,
            traces=(),
        )
        self._account.expect(sample, entry.partition, entry.offset, entry.timestamp)

    def hear(self, entry: Entry) -> None:
        """Take note of what a provider reports. The sender's may report what nobody has sent yet: then nobody does."""
        event = self._receipts.decode(cast("Record", entry))
        if isinstance(event.data, DeliveryReceived) and event.data.key:
            self._reported.add(event.data.key)

    async def check(self, database: Database, expected: int) -> Check:
        """Return whether each of so many notifications is where it should be."""
        await self._account.settle(database)
        reached = self._account.reached
        received = await asyncio.to_thread(arrived, reached, self._platform.inbox_url, self._settings.push_file)
        there = {channel: None if keys is None else {*keys, *self._reported} for channel, keys in received.items()}
        problems = await self._account.differences(database, there)
        found = expected - max(reached.waiting, len(problems))
        return Check("deliveries: sent, skipped or failed as people wish, and arrived", expected, found, problems)


def account_of(settings: Settings, platform: Platform, topics: Mapping[str, Topic]) -> Account:
    """Return the account of a run that nothing came before."""
    began = datetime.min.replace(tzinfo=UTC) + timedelta(days=1)
    account = NotificationAccount(settings, topics.values(), began)
    return Account(settings, platform, account, Decoder(topics[RECEIPTS], settings.ahead_limit))
