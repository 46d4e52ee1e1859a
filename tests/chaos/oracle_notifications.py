"""Judge notifications after a run: the queue, the logs of messages, what notifications say of their channels, and
what providers accepted.

Input: documents, as they are in MongoDB, and what is known outside of Inkstream: expected notifications, the wishes of
people, accepted messages, killed workers and outages.
Output: checks, and counts. `NotificationJudge` judges each document and is used by every run. `Deliveries` adds what
only a run of sample traffic knows; `judge_notifications` adds what only a run with its own providers knows. A worker's
own word is believed in one case only: that a provider's response came too late.
"""

import asyncio
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from itertools import pairwise
from typing import Any, NamedTuple, cast

from delivery.batch import Record
from dev.blog import Blog
from dev.notifications import LOG_STATUSES, NotificationLedger, arrived
from dev.stack import Platform
from dev.traffic import Sample
from notifications.grouping import NotificationGroup
from notifications.item import Item, UnreadableItemError
from notifications.preferences import DEFAULTS
from notifications.states import BOUNCED, INTERRUPTED, Delivery, status_of
from runtime.settings import Settings
from schemas.cloudevents import Decoder
from schemas.notifications import Channel
from schemas.receipts import DeliveryReceived
from schemas.topics import Topic
from sinks.collections import EMAIL_LOGS, NOTIFICATION_QUEUE, NOTIFICATIONS, PUSH_NOTIFICATION_LOGS
from tests.chaos.event_log import Entry
from tests.chaos.history import Check
from tests.chaos.oracle_documents import Database
from tests.chaos.oracle_findings import Findings
from tests.chaos.providers import Take
from tests.chaos.requests import RECEIPTS, Requests
from tests.chaos.workers import Death

LOGS: Mapping[Channel, str] = {"email": EMAIL_LOGS.name, "push": PUSH_NOTIFICATION_LOGS.name}
_MARKS: Mapping[Channel, str] = {"email": "emailId", "push": "pushId"}
_ARRIVED = ("sent", "delivered")
_ENDED = ("completed", "failed")
_WANTS = {person.id: person.preferences for person in Blog().people}

_WINDOW_SECONDS = 1.0
"""How long after a provider accepted a message its worker may die before it updates the queue. The provider's
response and one write take a few milliseconds; this is a machine on which all of a platform runs at once."""

_LONGEST_BACKOFF_SECONDS = 10.0
"""How long a worker waits at most before it tries MongoDB again, `delivery.retry.BACKOFF`."""

_LOST_CODES = (
    "timeout",
    "ReadTimeout",
    "ReadError",
    "WriteError",
    "RemoteProtocolError",
    "LocalProtocolError",
    "TimeoutError",
)
"""The codes in the queue of an attempt whose response was lost; other codes mean that the message did not arrive."""

Document = Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Outage:
    """When MongoDB was unavailable, in seconds since 1970."""

    began: float
    ended: float


@dataclass(frozen=True, slots=True)
class Evidence:
    """What is known outside of Inkstream in a run with its own providers.

    Attributes:
        requests: What was requested, and what providers reported.
        takes: What providers accepted, by message key.
        deaths: The workers that were killed, by process id.
        outages: When MongoDB was unavailable.
    """

    requests: Requests
    takes: Mapping[str, Sequence[Take]]
    deaths: Mapping[int, Death]
    outages: Sequence[Outage]

    def cause(self, item: Document, take: Take, again: Take | None) -> str | None:
        """Return why the queue may not know that a message was accepted; `None` if it must know."""
        until = again.at if again is not None else float("inf")
        if not take.answered:
            return "the provider closed the connection instead of a response"
        if any(
            take.at <= error["timestamp"].timestamp() <= until and _is_lost(take, error)
            for error in item.get("errors") or ()
        ):
            return "the response was lost, or came too late"
        death = self.deaths.get(take.worker)
        if death is None:
            return None
        if death.at <= take.at + _WINDOW_SECONDS:
            return "its worker was killed before it updated the queue"
        away = self._away(take.at - _WINDOW_SECONDS, death.at)
        if away and death.at <= take.at + _WINDOW_SECONDS + away + _LONGEST_BACKOFF_SECONDS:
            return "its worker was killed before it updated the queue, as MongoDB was unavailable"
        return None

    def _away(self, began: float, ended: float) -> float:
        """Return for how many seconds between two moments MongoDB was unavailable."""
        return sum(max(0.0, min(ended, outage.ended) - max(began, outage.began)) for outage in self.outages)


class _Message(NamedTuple):
    """A message that a delivery stands for.

    Attributes:
        notification_id: The notification that it brings.
        user_id: Whose that is.
        delivery: Its delivery.
        has_ended: Whether its item has ended.
        is_begun: Whether an attempt was begun.
        must_be_logged: Whether an attempt got as far as its log.
    """

    notification_id: str
    user_id: str
    delivery: Delivery
    has_ended: bool
    is_begun: bool
    must_be_logged: bool


class NotificationJudge:
    """Judges the items of the queue, then the notifications and the logs: one document after another.

    Args:
        now: When that is.
        evidence: What is known outside; `None` if providers are the inbox's, which keep no account of attempts.

    Attributes:
        repeats: How many messages were accepted again, by cause.
        arrived_though_failed: How many messages a provider accepted that count as failed or skipped.
    """

    def __init__(self, now: datetime, evidence: Evidence | None = None) -> None:
        self._now = now
        self._evidence = evidence
        self._messages: dict[Channel, dict[str, _Message]] = {"email": {}, "push": {}}
        self._marks: dict[str, dict[Channel, dict[str, Delivery]]] = {}
        self.repeats: Counter[str] = Counter()
        self.arrived_though_failed = 0

    # Items ------------------------------------------------------------------------------------------------------

    def inspect_item(self, document: Document) -> list[str]:
        """Return what is wrong with an item, except for what its event alone decides."""
        wrong = []
        if "lease" in document:
            wrong.append(f"it is leased by {document['lease'].get('worker')} until {document['lease'].get('until')}")
        try:
            item = Item.from_document(document)
        except UnreadableItemError as error:
            return [*wrong, f"it can't be read: {error}"]
        self._note(document, item)
        if document["status"] not in _ENDED:
            wrong += self._why_unfinished(document, item)
        else:
            wrong += _inconsistencies(document, item)
        for delivery in item.deliveries:
            if delivery.channel != "inApp":
                wrong += self._inspect_delivery(document, item, delivery)
        return wrong

    def _why_unfinished(self, document: Document, item: Item) -> list[str]:
        """Return why an item has not ended; nothing if it waits for the end of quiet hours."""
        waiting = [delivery for delivery in item.deliveries if delivery.state == "waiting"]
        wants = _WANTS.get(item.user_id, DEFAULTS)
        if waiting and all(isinstance(item.blocked_by(one, wants, self._now), datetime) for one in waiting):
            return []
        states = ", ".join(f"{delivery.channel} {delivery.state}" for delivery in item.deliveries)
        retry = f", next attempt at {document['nextRetryAt']}" if "nextRetryAt" in document else ""
        return [f"its status is {document['status']}, with {states or 'nothing decided'}{retry}"]

    def _note(self, document: Document, item: Item) -> None:
        for delivery in item.deliveries:
            if delivery.channel == "inApp":
                continue
            key = delivery.key(item.notification_id)
            # A worker that is killed after it began has opened no log yet, and so may all of its successors.
            is_begun = delivery.provider is not None
            must_be_logged = is_begun and delivery.code != INTERRUPTED
            if self._evidence is not None:
                was_tried = delivery.state in (*_ARRIVED, "failed") and delivery.code != INTERRUPTED
                must_be_logged = must_be_logged or was_tried or bool(self._evidence.takes.get(key))
            self._messages[delivery.channel][key] = _Message(
                item.notification_id,
                item.user_id,
                delivery,
                document["status"] in _ENDED,
                is_begun or must_be_logged,
                must_be_logged,
            )
            self._marks.setdefault(item.notification_id, {}).setdefault(delivery.channel, {})[key] = delivery

    def _inspect_delivery(self, document: Document, item: Item, delivery: Delivery) -> list[str]:
        what = f"{delivery.channel} {delivery.key(item.notification_id)}"
        wrong = []
        if document["status"] in _ENDED and delivery.state in ("waiting", "sending"):
            wrong.append(f"{what} is {delivery.state}")
        if delivery.attempts > item.max_attempts:
            wrong.append(f"{what} had {delivery.attempts} attempts of {item.max_attempts}")
        if delivery.state == "failed" and delivery.code != BOUNCED and not document.get("errors"):
            wrong.append(f"{what} failed ({delivery.code}), and the item has no errors")
        if self._evidence is not None:
            wrong += self._compare_with_takes(self._evidence, what, document, delivery)
        return wrong

    def _compare_with_takes(
        self, evidence: Evidence, what: str, document: Document, delivery: Delivery
    ) -> Iterable[str]:
        """Yield what contradicts the providers: whether, how often and under which id they accepted the message."""
        key = delivery.key(document["notificationId"])
        takes, reported = evidence.takes.get(key, ()), evidence.requests.reported.get(key, set())
        named = (delivery.provider, delivery.provider_id)
        if delivery.state in _ARRIVED and not takes:
            yield f"{what} is {delivery.state}, and no provider accepted it"
        if delivery.state == "sent" and takes and named not in {(take.provider, take.provider_id) for take in takes}:
            yield f"{what} is {delivery.provider_id} of {delivery.provider}, which never reported that"
        if delivery.state in ("failed", "skipped") and takes and "bounced" not in reported:
            self.arrived_though_failed += 1
            if any(evidence.cause(document, take, None) is None for take in takes):
                yield f"{what} is {delivery.state}, and was accepted without any fault"
        is_bounced = delivery.state == "failed" and delivery.code == BOUNCED
        if "bounced" in reported and delivery.code != BOUNCED:
            yield f"{what} bounced, and is {delivery.state}, {delivery.code}"
        elif reported == {"delivered"} and delivery.state != "delivered":
            yield f"{what} was delivered, and is {delivery.state}"
        elif not reported and (delivery.state == "delivered" or is_bounced):
            yield f"{what} is {delivery.state}, and no provider reported so"
        for take, again in pairwise(takes):
            cause = evidence.cause(document, take, again)
            self.repeats[cause or "unexplained"] += 1
            if cause is None:
                yield (
                    f"{what} was accepted by {take.provider} from {take.worker} at {take.at:.3f}, answered, and again "
                    f"{again.at - take.at:.3f} s later from {again.worker}; errors: {document.get('errors')}"
                )

    # Notifications ----------------------------------------------------------------------------------------------

    def inspect_notification(self, document: Document) -> list[str]:
        """Return what is wrong with what a notification says of its channels; all items must have been judged."""
        wrong = []
        may_be_read = self._evidence is not None and "gathered" in document
        if document["channels"]["inApp"].get("read") and not may_be_read:
            wrong.append("it is read, and no one reads in this run")
        for channel, mark in _MARKS.items():
            said = document["channels"][channel]
            deliveries = self._marks.get(document["_id"], {}).get(channel, {})
            has_arrived = any(delivery.state in _ARRIVED for delivery in deliveries.values())
            # What was accepted and bounced later had been sent, and the notification may say so.
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

    # Logs -------------------------------------------------------------------------------------------------------

    async def logs_check(self, database: Database, channel: Channel) -> Check:
        """Return whether the logs of a channel are those of the messages that were begun."""
        names = ("notificationId", "userId", "status", "provider", "providerId", "sentAt", "error")
        logs = [log async for log in database[LOGS[channel]].find({}, dict.fromkeys(names, 1))]
        return self.judge_logs(channel, logs)

    def judge_logs(self, channel: Channel, logs: Iterable[Document]) -> Check:
        """Return whether logs of a channel are those of the messages that were begun, and say what became of them."""
        messages = self._messages[channel]
        missing = {key for key, message in messages.items() if message.must_be_logged}
        findings = Findings(f"{LOGS[channel]}: one for each message that was begun, and no other", len(missing))
        right = 0
        for log in logs:
            key = log["_id"]
            message = messages.get(key)
            if message is None or not message.is_begun:
                findings.add("should not be there", f"{key} should not be there: no such message was begun")
                continue
            wrong = list(self._log_differences(message, log))
            for kind, what in wrong:
                findings.add(kind, f"{key} {what}")
            right += key in missing and not wrong
            missing.discard(key)
        for key in sorted(missing):
            findings.add("are missing", f"{key} is missing, of notification {messages[key].notification_id}")
        return findings.check(right)

    def _log_differences(self, message: _Message, log: Document) -> Iterable[tuple[str, str]]:
        """Yield each difference between a log and its delivery, with its kind."""
        delivery = message.delivery
        owner = (log.get("notificationId"), log.get("userId"))
        if owner != (message.notification_id, message.user_id):
            yield "are of others", f"is of {owner}, and should be of {(message.notification_id, message.user_id)}"
        if not message.has_ended:
            return
        status = log.get("status")
        if status not in LOG_STATUSES.get(delivery.state, ("failed",)):
            said = delivery.reason or delivery.code
            yield "say otherwise", f"is {delivery.state} ({said}), and its log says {status}"
        named = (log.get("provider"), log.get("providerId"))
        if self._evidence is not None and delivery.state in _ARRIVED and status != delivery.state:
            yield "say otherwise", f"is {delivery.state}, and its log says {status}"
        if delivery.state == "sent" and named != (delivery.provider, delivery.provider_id):
            yield "name another", f"is {delivery.provider_id} of {delivery.provider}, its log says {named}"
        if delivery.state in _ARRIVED and "sentAt" not in log:
            yield "have no sentAt", f"is {delivery.state}, and its log has no sentAt"
        if status == "failed" and not log.get("error"):
            yield "have no error", "failed, and its log does not say why"

    def unknown_keys(self, keys: Iterable[str]) -> list[str]:
        """Return the keys that belong to no message of the queue."""
        known = {key for messages in self._messages.values() for key in messages}
        return sorted(set(keys) - known)


def _inconsistencies(document: Document, item: Item) -> Iterable[str]:
    """Yield what of an ended item contradicts its deliveries."""
    status, deliveries = document["status"], item.deliveries
    extra = sorted({delivery.channel for delivery in deliveries} - set(item.channels))
    if item.unplanned:
        yield f"nothing was decided on {', '.join(item.unplanned)}"
    elif status != status_of(deliveries):
        yield f"its status is {status}, and its deliveries are {status_of(deliveries)}"
    if extra:
        yield f"its channels are {', '.join(item.channels)}, and it has deliveries for {', '.join(extra)}"
    names = [(delivery.channel, delivery.device) for delivery in deliveries]
    if len(names) != len(set(names)):
        yield "it has two deliveries of the same"
    if "nextRetryAt" in document:
        yield f"it is {status}, and waits until {document['nextRetryAt']}"
    if (status == "completed") != ("completedAt" in document):
        yield f"its status is {status}, and completedAt is {document.get('completedAt')}"
    if status == "completed" and "recipient" in document:
        yield "it is completed, and still has its recipient"


def _is_lost(take: Take, error: Document) -> bool:
    return any(error["message"].startswith(f"{take.provider}: {code}: ") for code in _LOST_CODES)


# A run with its own providers -----------------------------------------------------------------------------------


class Verdict(NamedTuple):
    """What was found in a run with its own providers.

    Attributes:
        checks: Each promise, and whether it held.
        counts: Items and deliveries by state, and repeated messages by cause.
    """

    checks: list[Check]
    counts: dict[str, dict[str, int]]


async def judge_notifications(database: Database, evidence: Evidence) -> Verdict:
    """Return what is to be said of a database in which nothing changes any more."""
    names = (NOTIFICATIONS.name, NOTIFICATION_QUEUE.name)
    notifications, items = [{one["_id"]: one async for one in database[name].find()} for name in names]
    logs = {channel: [one async for one in database[name].find()] for channel, name in LOGS.items()}
    return compare(evidence, notifications, items, logs)


def compare(
    evidence: Evidence,
    notifications: Mapping[str, Document],
    items: Mapping[str, Document],
    logs: Mapping[Channel, Iterable[Document]],
) -> Verdict:
    """Compare documents, by id, with what is known outside."""
    judge = NotificationJudge(datetime.now(UTC), evidence)
    checks = [
        _requests_check(evidence.requests, notifications, items),
        _likes_check(evidence.requests, notifications),
        _documents_check(
            f"{NOTIFICATION_QUEUE.name}: each item has ended as its providers say", items, judge.inspect_item
        ),
        _documents_check(
            f"{NOTIFICATIONS.name}: each says of its channels what became of them",
            notifications,
            judge.inspect_notification,
        ),
        *(judge.judge_logs(channel, logs[channel]) for channel in LOGS),
    ]
    strangers = judge.unknown_keys(evidence.takes)
    findings = Findings("providers accepted only messages of the queue", len(evidence.takes))
    for key in strangers:
        findings.add("belong to no item", f"{key} was accepted, and belongs to no item")
    checks.append(findings.check(len(evidence.takes) - len(strangers)))
    deliveries = [delivery for item in items.values() for delivery in item.get("deliveries", ())]
    counts = {
        "items": Counter(item["status"] for item in items.values()),
        "deliveries": Counter(f"{one['channel']} {one.get('reason', one['state'])}" for one in deliveries),
        "accepted again": judge.repeats,
        "accepted, and counted as failed or skipped": Counter(
            {"the response was lost": judge.arrived_though_failed} if judge.arrived_though_failed else {}
        ),
    }
    return Verdict(checks, {name: dict(sorted(counted.items())) for name, counted in counts.items()})


def _documents_check(promise: str, documents: Mapping[str, Document], inspect: Any) -> Check:
    findings = Findings(promise, len(documents))
    right = 0
    for name, document in documents.items():
        wrong = inspect(document)
        for what in wrong:
            findings.add(_kind(what), f"{name}: {what}")
        right += not wrong
    return findings.check(right)


def _kind(finding: str) -> str:
    """Return what findings that differ in ids, moments and numbers alone have in common."""
    return " ".join(word for word in finding.split() if not any(map(str.isdigit, word)))


def _requests_check(requests: Requests, notifications: Mapping[str, Document], items: Mapping[str, Document]) -> Check:
    """Return whether each requested notification is stored and queued as requested, and no other is."""
    requested = requests.requests
    findings = Findings("each requested notification is stored and queued once, and no other", len(requested))
    right = 0
    for request in requested.values():
        stored, item = notifications.get(request.id), items.get(request.id)
        if stored is None or item is None:
            missing = "item" if stored else "notification"
            findings.add("are missing", f"{request.id} was requested, and there is no {missing}")
            continue
        is_right = True
        if (stored["userId"], stored["title"]) != (request.user, request.title):
            findings.add("are another's", f"{request.id} is another's: {stored['userId']}, {stored['title']}")
            is_right = False
        enabled = {channel for channel, state in stored["channels"].items() if state["enabled"]}
        if enabled != set(request.channels) or set(item["channels"]) != set(request.channels):
            what = f"{request.id} has the channels {sorted(enabled)}, and should have {request.channels}"
            findings.add("have other channels", what)
            is_right = False
        right += is_right
    gathered = {name for name, stored in notifications.items() if "gathered" in stored}
    for name in notifications.keys() - requested.keys() - gathered:
        findings.add("were not requested", f"{name} is a notification that was not requested")
    for name in notifications.keys() & gathered - items.keys():
        findings.add("are missing", f"{name} has gathered likes, and there is no item")
    for name in items.keys() - notifications.keys():
        findings.add("have no notification", f"{name} is an item without a notification")
    return findings.check(right)


def _likes_check(requests: Requests, notifications: Mapping[str, Document]) -> Check:
    """Return whether the notifications of an author have each like once."""
    findings = Findings("each like is in one notification of the post's author", sum(map(len, requests.likes.values())))
    counted: defaultdict[str, list[bytes]] = defaultdict(list)
    for stored in notifications.values():
        if "gathered" not in stored:
            continue
        gathered = NotificationGroup.from_document(stored["gathered"])
        counted[stored["relatedEntity"]["id"]] += gathered.actors
        if stored["title"] != gathered.words.title:
            what = f"{stored['_id']} says “{stored['title']}”, and has gathered “{gathered.words.title}”"
            findings.add("have another title", what)
    right = 0
    for post, readers in requests.likes.items():
        distinct = len(set(counted[post]))
        if len(counted[post]) != distinct:
            findings.add("are counted twice", f"{post}: {len(counted[post]) - distinct} likes are counted twice")
        if distinct != len(readers):
            what = f"{post}: {len(readers)} liked it, and its author is notified of {distinct}"
            findings.add("are not as many", what)
        right += min(distinct, len(readers))
    return findings.check(right)


# A run of sample traffic ----------------------------------------------------------------------------------------


class Deliveries:
    """Whether people got what they must, and nothing that they turned off: by the ledger that `make run` uses, too.

    Args:
        settings: As the workers have them.
        platform: Where messages end.
        ledger: The notifications that records must cause.
        receipts: Reads what providers report.
    """

    def __init__(self, settings: Settings, platform: Platform, ledger: NotificationLedger, receipts: Decoder) -> None:
        self._settings = settings
        self._platform = platform
        self._ledger = ledger
        self._receipts = receipts
        self._reported: set[str] = set()

    def expect(self, entry: Entry) -> None:
        """Note whom a valid record must notify of what."""
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
        self._ledger.expect(sample, entry.partition, entry.offset, entry.timestamp)

    def note_receipt(self, entry: Entry) -> None:
        """Note what a provider reports. The sender's may report what was never sent: such messages need not arrive."""
        event = self._receipts.decode(cast("Record", entry))
        if isinstance(event.data, DeliveryReceived) and event.data.key:
            self._reported.add(event.data.key)

    async def check(self, database: Database, expected: int) -> Check:
        """Return whether each of so many notifications is where it should be."""
        await self._ledger.settle(database)
        reached = self._ledger.reached
        received = await asyncio.to_thread(arrived, reached, self._platform.inbox_url, self._settings.push_file)
        there = {channel: None if keys is None else {*keys, *self._reported} for channel, keys in received.items()}
        problems = await self._ledger.differences(database, there)
        found = expected - max(reached.waiting, len(problems))
        return Check("deliveries: sent, skipped or failed as people wish, and arrived", expected, found, problems)


def deliveries_of(settings: Settings, platform: Platform, topics: Mapping[str, Topic]) -> Deliveries:
    """Return the deliveries of a run before which there were none."""
    began = datetime.min.replace(tzinfo=UTC) + timedelta(days=1)
    ledger = NotificationLedger(settings, topics.values(), began)
    return Deliveries(settings, platform, ledger, Decoder(topics[RECEIPTS], settings.ahead_limit))
