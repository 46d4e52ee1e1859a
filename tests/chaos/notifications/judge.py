"""What must hold after a run, whatever happened in it: the stores against what was asked for and what providers took.

In come the documents as they lie in MongoDB, and the accounts of everybody outside of Inkstream; out go findings, each
a sentence with the id that it is about, and counts. Nothing is believed that a worker said of itself, but for one case:
that a provider's answer came too late, which only who waited for it can know.
"""

from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from itertools import pairwise
from typing import Any

from pymongo.asynchronous.database import AsyncDatabase

from notifications.grouping import NotificationGroup
from notifications.notice import digest
from notifications.states import INTERRUPTED
from tests.chaos.crew import Death
from tests.chaos.notifications.asked import Asked
from tests.chaos.notifications.providers import Take

_WINDOW_SECONDS = 1.0
"""How long after a provider took a message its worker may die, and leave the queue without word of it. The provider's
answer and one write take a few milliseconds; this is a machine on which all of a platform runs at once."""

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
"""What a queue says of an attempt whose answer did not come; others are of what did not get there."""

_SENT = ("sent", "delivered")
_LOGS = {"email": "emailLogs", "push": "pushNotificationLogs"}

Document = Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Outage:
    """When MongoDB was away, in seconds since 1970."""

    began: float
    ended: float


@dataclass(slots=True)
class Verdict:
    """What was found.

    Attributes:
        findings: What must not be, each in a sentence.
        items: How many items there are in each state.
        deliveries: How many deliveries, by channel and state, with the reason where skipped.
        repeats: How many messages were taken again, by what caused it.
        arrived_though_failed: Messages that a provider took, and that count as failed or skipped.
    """

    findings: list[str] = field(default_factory=list)
    items: Counter[str] = field(default_factory=Counter)
    deliveries: Counter[str] = field(default_factory=Counter)
    repeats: Counter[str] = field(default_factory=Counter)
    arrived_though_failed: int = 0


@dataclass(frozen=True, slots=True)
class Accounts:
    """What everybody outside of Inkstream knows.

    Attributes:
        asked: What was asked for.
        takes: What providers took, by key.
        deaths: Who was killed.
        outages: When MongoDB was away.
    """

    asked: Asked
    takes: Mapping[str, Sequence[Take]]
    deaths: Mapping[int, Death]
    outages: Sequence[Outage]


async def judge(database: AsyncDatabase[dict[str, Any]], accounts: Accounts) -> Verdict:
    """Return what is to be said of a database in which nothing moves any more."""
    notifications, items = [await _documents(database, name) for name in ("notifications", "notificationQueue")]
    logs = {channel: await _documents(database, name) for channel, name in _LOGS.items()}
    return Judgement(accounts, notifications, items, logs).verdict


async def _documents(database: AsyncDatabase[dict[str, Any]], name: str) -> dict[str, Document]:
    return {document["_id"]: document async for document in database[name].find()}


class Judgement:
    """All that is checked.

    Args:
        accounts: What is known outside.
        notifications: The documents, by id.
        items: The items of the queue, by id.
        logs: The logs of messages, by channel and id.

    Attributes:
        verdict: What was found.
    """

    def __init__(
        self,
        accounts: Accounts,
        notifications: Mapping[str, Document],
        items: Mapping[str, Document],
        logs: Mapping[str, Mapping[str, Document]],
    ) -> None:
        self._accounts = accounts
        self._notifications = notifications
        self._items = items
        self._logs = logs
        self.verdict = Verdict()
        self._check_requests()
        self._check_likes()
        keys = [self._check_item(item) for item in items.values()]
        self._check_strangers({key for some in keys for key in some})

    def _find(self, what: str) -> None:
        self.verdict.findings.append(what)

    def _check_requests(self) -> None:
        asked = self._accounts.asked.requests
        for request in asked.values():
            stored, item = self._notifications.get(request.id), self._items.get(request.id)
            if stored is None or item is None:
                self._find(f"{request.id} was asked for, and there is no {'item' if stored else 'notification'}")
                continue
            if (stored["userId"], stored["title"]) != (request.user, request.title):
                self._find(f"{request.id} is another's: {stored['userId']}, {stored['title']}")
            enabled = {channel for channel, state in stored["channels"].items() if state["enabled"]}
            if enabled != set(request.channels) or set(item["channels"]) != set(request.channels):
                self._find(f"{request.id} goes by {sorted(enabled)}, and was to go by {request.channels}")
        gathered = {name for name, stored in self._notifications.items() if "gathered" in stored}
        for name in self._notifications.keys() - asked.keys() - gathered:
            self._find(f"{name} is a notification that nobody asked for")
        for name in self._items.keys() - self._notifications.keys():
            self._find(f"{name} is an item without a notification")

    def _check_likes(self) -> None:
        told: defaultdict[str, list[bytes]] = defaultdict(list)
        for stored in self._notifications.values():
            if "gathered" not in stored:
                continue
            gathered = NotificationGroup.from_document(stored["gathered"])
            told[stored["relatedEntity"]["id"]] += gathered.actors
            if stored["title"] != gathered.words.title:
                self._find(f"{stored['_id']} says “{stored['title']}”, and has gathered “{gathered.words.title}”")
        for post, readers in self._accounts.asked.likes.items():
            if len(told[post]) != len(set(told[post])):
                self._find(f"{post}: {len(told[post]) - len(set(told[post]))} likes are counted twice")
            if len(set(told[post])) != len(readers):
                self._find(f"{post}: {len(readers)} liked it, and its author is told of {len(set(told[post]))}")

    def _check_item(self, item: Document) -> list[str]:
        """Check an item with its messages; return their keys."""
        name, deliveries = item["_id"], item.get("deliveries", [])
        self.verdict.items[item["status"]] += 1
        if item["status"] not in ("completed", "failed"):
            self._find(f"item {name} is {item['status']}, next at {item.get('nextRetryAt')}")
        for left in ("lease", "nextRetryAt"):
            if left in item:
                self._find(f"item {name} is {item['status']}, and has its {left} still")
        if (item["status"] == "completed") != ("completedAt" in item):
            self._find(f"item {name} is {item['status']}, and completedAt {item.get('completedAt')}")
        if item["status"] == "completed" and "recipient" in item:
            self._find(f"item {name} is completed, and has its recipient still")
        planned = {delivery["channel"] for delivery in deliveries}
        if planned != set(item["channels"]):
            self._find(f"item {name} goes by {item['channels']}, and has deliveries for {sorted(planned)}")
        keys = [self._check_delivery(item, delivery) for delivery in deliveries if delivery["channel"] != "inApp"]
        self._check_marks(item, deliveries)
        return keys

    def _check_delivery(self, item: Document, delivery: Document) -> str:
        """Check one message; return its key."""
        channel, state = delivery["channel"], delivery["state"]
        key = digest(item["notificationId"], channel, delivery.get("device"))
        takes = self._accounts.takes.get(key, ())
        what = f"{channel} {key} of {item['_id']}"
        self.verdict.deliveries[f"{channel} {delivery.get('reason', state)}"] += 1
        if state not in ("sent", "delivered", "failed", "skipped"):
            self._find(f"{what} is {state}")
        if state == "failed" and not delivery.get("error"):
            self._find(f"{what} failed, and does not say why")
        if state == "failed" and not _bounced(delivery) and not item["errors"]:
            self._find(f"{what} failed ({_why(delivery)}), and the item has no errors")
        if delivery["attempts"] > item["maxAttempts"]:
            self._find(f"{what} had {delivery['attempts']} attempts of {item['maxAttempts']}")
        if state in _SENT and not takes:
            self._find(f"{what} is {state}, and no provider took it")
        if state == "sent" and takes and not _is_of(delivery, takes):
            self._find(f"{what} is {delivery.get('providerId')} of {delivery['provider']}, who never said so")
        if state in ("failed", "skipped") and takes and "bounced" not in self._accounts.asked.reported.get(key, ()):
            self.verdict.arrived_though_failed += 1
            if any(cause is None for cause in (self._cause(item, take, None) for take in takes)):
                self._find(f"{what} is {state}, and was taken without any mishap")
        self._check_receipts(what, key, delivery)
        self._check_repeats(what, item, takes)
        self._check_log(what, key, item, delivery, takes)
        return key

    def _check_receipts(self, what: str, key: str, delivery: Document) -> None:
        reported = self._accounts.asked.reported.get(key, set())
        if "bounced" in reported and delivery.get("error", {}).get("code") != "bounced":
            self._find(f"{what} bounced, and is {delivery['state']}, {delivery.get('error')}")
        elif reported == {"delivered"} and delivery["state"] != "delivered":
            self._find(f"{what} was delivered, and is {delivery['state']}")
        elif not reported and (delivery["state"] == "delivered" or _bounced(delivery)):
            self._find(f"{what} is {delivery['state']}, and nobody reported so")

    def _check_repeats(self, what: str, item: Document, takes: Sequence[Take]) -> None:
        for take, again in pairwise(takes):
            cause = self._cause(item, take, again)
            self.verdict.repeats[cause or "unexplained"] += 1
            if cause is None:
                self._find(
                    f"{what} was taken by {take.provider} from {take.worker} at {take.at:.3f}, answered, and again "
                    f"{again.at - take.at:.3f} s later from {again.worker}; errors: {item['errors']}"
                )

    def _cause(self, item: Document, take: Take, again: Take | None) -> str | None:
        """Return why the queue may not know that a message was taken; `None` where it must."""
        until = again.at if again is not None else float("inf")
        if not take.answered:
            return "the provider closed the connection instead of an answer"
        if any(take.at <= _seconds(error["timestamp"]) <= until and _is_lost(take, error) for error in item["errors"]):
            return "the answer was lost on its way, or came too late"
        death = self._accounts.deaths.get(take.worker)
        if death is None:
            return None
        if death.at <= take.at + _WINDOW_SECONDS:
            return "its worker was killed before the queue knew"
        away = self._away(take.at - _WINDOW_SECONDS, death.at)
        if away and death.at <= take.at + _WINDOW_SECONDS + away + _LONGEST_BACKOFF_SECONDS:
            return "its worker was killed before the queue knew, as MongoDB was away"
        return None

    def _away(self, began: float, ended: float) -> float:
        """Return for how much of a time MongoDB was away."""
        return sum(max(0.0, min(ended, outage.ended) - max(began, outage.began)) for outage in self._accounts.outages)

    def _check_log(self, what: str, key: str, item: Document, delivery: Document, takes: Sequence[Take]) -> None:
        log = self._logs[delivery["channel"]].get(key)
        if log is None:
            # A worker that is killed after `begin` has given nobody anything yet, and so may all of its successors.
            is_untold = delivery["state"] == "failed" and _why(delivery) == INTERRUPTED
            if takes or (delivery["state"] in (*_SENT, "failed") and not is_untold):
                self._find(f"{what} is {delivery['state']}, taken {len(takes)} times, and has no log")
            return
        if (log["notificationId"], log["userId"]) != (item["notificationId"], item["userId"]):
            self._find(f"{what} has the log of another: {log['notificationId']}, {log['userId']}")
        wanted = {"failed": ("failed", "bounced"), "skipped": ("failed",)}.get(delivery["state"], (delivery["state"],))
        if log["status"] not in wanted:
            self._find(f"{what} is {delivery['state']} ({_why(delivery)}), and its log says {log['status']}")
        if delivery["state"] in _SENT and not _bounced(delivery):
            named = (log["provider"], log.get("providerId"))
            if delivery["state"] == "sent" and named != (delivery["provider"], delivery.get("providerId")):
                self._find(f"{what} is {delivery.get('providerId')} of {delivery['provider']}, its log says {named}")
            if "sentAt" not in log:
                self._find(f"{what} is {delivery['state']}, and its log has no sentAt")
        if log["status"] == "failed" and not log.get("error"):
            self._find(f"{what} failed, and its log does not say why")

    def _check_marks(self, item: Document, deliveries: Iterable[Document]) -> None:
        """Check what the notification says of its channels."""
        stored = self._notifications.get(item["notificationId"])
        if stored is None:
            return
        for channel, field_name in (("email", "emailId"), ("push", "pushId")):
            arrived = {
                digest(item["notificationId"], channel, delivery.get("device"))
                for delivery in deliveries
                if delivery["channel"] == channel and delivery["state"] in _SENT
            }
            mark = stored["channels"][channel]
            if arrived and not mark["sent"]:
                self._find(f"{item['_id']} was sent by {channel}, and the notification does not say so")
            if mark["sent"] and "sentAt" not in mark:
                self._find(f"{item['_id']} does not say when it was sent by {channel}")
            if mark["sent"] and arrived and mark.get(field_name) not in self._logs[channel]:
                self._find(f"{item['_id']} has {field_name} {mark.get(field_name)}, which is no log")

    def _check_strangers(self, keys: set[str]) -> None:
        for key in self._accounts.takes.keys() - keys:
            self._find(f"{key} was taken, and belongs to no item")
        for channel, logs in self._logs.items():
            for key in logs.keys() - keys:
                self._find(f"{key} has a log of {channel}, and belongs to no item")


def _is_of(delivery: Document, takes: Iterable[Take]) -> bool:
    named = (delivery["provider"], delivery.get("providerId"))
    return any((take.provider, take.provider_id) == named for take in takes)


def _is_lost(take: Take, error: Document) -> bool:
    return any(error["message"].startswith(f"{take.provider}: {code}: ") for code in _LOST_CODES)


def _bounced(delivery: Document) -> bool:
    return bool(delivery["state"] == "failed" and delivery["error"]["code"] == "bounced")


def _why(delivery: Document) -> str:
    return str(delivery.get("reason") or delivery.get("error", {}).get("code"))


def _seconds(moment: datetime) -> float:
    return moment.timestamp()


def grouped(findings: Iterable[str]) -> Iterator[tuple[str, int]]:
    """Yield the first of each kind of finding, and how many there are: those that differ in ids alone are of one."""
    kinds: dict[str, list[str]] = {}
    for finding in findings:
        kind = " ".join(word for word in finding.split() if not any(map(str.isdigit, word)))
        kinds.setdefault(kind, []).append(finding)
    for some in kinds.values():
        yield some[0], len(some)
