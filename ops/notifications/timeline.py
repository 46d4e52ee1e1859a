"""The timeline of a notification: its state, what to do, and what happened when.

Input: its documents, and what else is known of its person. Output: sentences and a list of events. Pure: the current
time is an argument. Addresses and tokens are masked, and the content is omitted, unless the full output is requested.
"""

import re
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any, NamedTuple

from notifications.grouping import NotificationGroup
from notifications.item import URGENCY, Item
from notifications.preferences import DEFAULTS, Preferences
from notifications.replies import MEANINGS
from notifications.states import BOUNCED, INTERRUPTED, Delivery, device_name, expired, is_due, next_due
from ops.notifications.masking import masked_address, masked_token, without_addresses
from sinks.mongo.notification_admin import StoredNotification

NAMES: Mapping[str, str] = {"inApp": "in the application", "email": "e-mail", "push": "push"}
"""What channels are called in sentences."""

REASONS: Mapping[str, str] = {
    "preferences": "the person has turned it off",
    "suppressed": "the address is suppressed",
    "throttled": "the person had reached the daily limit",
    "expired": "it expired before it could be sent",
    "no-address": "there was no address",
    "no-provider": "no provider is configured for it",
    "cancelled": "it was cancelled, or the notification was deleted",
}
"""The reasons why a delivery was skipped."""

SUPPRESSED: Mapping[str, str] = {
    "bounced": "it bounced permanently",
    "complained": "the person reported spam",
    "gone": "the provider reported that it does not exist any more",
    "unsubscribed": "the person unsubscribed",
}
"""The reasons why an address is suppressed."""

_EVENTS: Mapping[str, str] = {
    "queued": "queued",
    "sent": "accepted by",
    "delivered": "delivery reported by",
    "opened": "open reported by",
    "clicked": "click on a link reported by",
    "bounced": "bounce reported by",
    "spam": "spam complaint reported by",
}
_STATUSES: Mapping[str, str] = {
    "queued": "was queued for {}; its result is unknown",
    "sent": "was accepted by {}, with no receipt yet",
    "delivered": "was delivered by {}",
    "bounced": "was accepted by {} and bounced",
    "failed": "failed with {}",
}
_PRIORITIES: Mapping[int, str] = {number: name for name, number in URGENCY.items()}
_NOT_TAKEN_UP_AFTER = timedelta(minutes=1)
_OF_A_RULE = re.compile(r"[0-9a-f]{32}(-\d+)?")


class Entry(NamedTuple):
    """One line of a timeline.

    Attributes:
        time: When it happened, or will.
        about: The channel, such as `e-mail`; empty for the whole notification.
        what: What happened.
    """

    time: datetime
    about: str
    what: str


@dataclass(frozen=True, slots=True)
class Circumstances:
    """What is known besides the documents.

    Attributes:
        events: The event of each type in `notifications.yaml`.
        suppressed: The reason for each suppressed channel and address.
        email: The person's current address; `None` if unknown.
        preferences: The person's current preferences; `None` if unknown.
        missing: What could not be looked up, and why.
    """

    events: Mapping[str, str] = field(default_factory=dict)
    suppressed: Mapping[tuple[str, str], str] = field(default_factory=dict, repr=False)
    email: str | None = field(default=None, repr=False)
    preferences: Preferences | None = None
    missing: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Timeline:
    """The timeline of one notification.

    Attributes:
        id: The notification's.
        standing: The current state, in a sentence.
        advice: What to do, if anything.
        facts: Names and values.
        past: Past events, in order.
        coming: Future events, in order.
    """

    id: str
    standing: str
    advice: tuple[str, ...]
    facts: tuple[tuple[str, str], ...]
    past: tuple[Entry, ...]
    coming: tuple[Entry, ...]


def addresses(stored: StoredNotification) -> dict[tuple[str, str], None]:
    """Return the channel and the address of every message, sent or not."""
    found: dict[tuple[str, str], None] = {}
    item = stored.item
    if item is not None and item.recipient is not None:
        if item.recipient.email:
            found["email", item.recipient.email] = None
        found |= {("push", device.token): None for device in item.recipient.devices}
    found |= {("email", log["to"]): None for log in stored.email_logs}
    found |= {("push", log["deviceToken"]): None for log in stored.push_logs}
    return found


def build_timeline(
    stored: StoredNotification, circumstances: Circumstances, now: datetime, *, full: bool = False
) -> Timeline:
    """Return the timeline of a notification.

    Args:
        stored: Its documents.
        circumstances: What else is known.
        now: The current time.
        full: Whether to show addresses, tokens, titles and links.
    """
    builder = _TimelineBuilder(stored, circumstances, now, full=full)
    entries = sorted(builder.entries(), key=lambda entry: entry.time)
    return Timeline(
        stored.id,
        builder.standing(),
        tuple(dict.fromkeys(builder.advice())),
        tuple(builder.facts()),
        tuple(entry for entry in entries if entry.time <= now),
        tuple(entry for entry in entries if entry.time > now),
    )


def moment(time: datetime) -> str:
    """Return a time as text."""
    return f"{time:%Y-%m-%d %H:%M:%S} UTC"


class _TimelineBuilder:
    def __init__(self, stored: StoredNotification, circumstances: Circumstances, now: datetime, *, full: bool) -> None:
        self._stored = stored
        self._known = circumstances
        self._now = now
        self._full = full
        self._item = stored.item
        self._parts: tuple[Mapping[str, Any], ...] = tuple(
            part for part in (stored.entry, stored.notification) if part is not None
        )

    # The current state

    def standing(self) -> str:
        entry, item = self._stored.entry, self._item
        if entry is None:
            return self._without_entry()
        if item is None:
            return f"Failed: its item in the queue can't be read.{self._last_error()}"
        match entry["status"]:
            case "processing":
                return self._held(entry)
            case "pending" if not any(delivery.next_attempt_at for delivery in item.deliveries):
                return self._not_begun(entry, item)
            case "pending":
                return f"Waiting: {self._clauses(item)}."
            case "failed" if not any(delivery.state == "failed" for delivery in item.deliveries):
                return f"Failed: its item in the queue could not be read.{self._last_error()}"
            case "failed":
                return f"Failed: {self._clauses(item)}."
        outside = [delivery for delivery in item.deliveries if delivery.channel != "inApp"]
        if not outside:
            return f"Done: it was only for the application, where it is {self._read_or_not()}."
        if all(delivery.state == "skipped" for delivery in outside):
            sentences = self._clauses(item)
            return f"{sentences[0].upper()}{sentences[1:]}."
        return f"Done: {self._clauses(item)}."

    def _without_entry(self) -> str:
        logs = (*self._stored.email_logs, *self._stored.push_logs)
        sentences = [f"the {'e-mail' if 'to' in log else 'push message'} {self._of_log(log)}" for log in logs]
        if sentences:
            return f"The queue has deleted it; according to its log, {'; '.join(dict.fromkeys(sentences))}."
        return "The queue has deleted it, 7 days after it was completed, and no log of a message is left."

    def _of_log(self, log: Mapping[str, Any]) -> str:
        words = _STATUSES[log["status"]].format(log["provider"])
        error = log.get("error")
        return f"{words}: {self._said(error.get('code'), error.get('message'))}" if error else words

    def _held(self, entry: Mapping[str, Any]) -> str:
        lease = entry.get("lease", {})
        worker, until = lease.get("worker", "a worker"), lease.get("until")
        if until is not None and until > self._now:
            return f"In progress: worker {worker} has it until {moment(until)} at the latest."
        return f"Interrupted: worker {worker} stopped; another worker recovers it within seconds."

    def _not_begun(self, entry: Mapping[str, Any], item: Item) -> str:
        due = entry.get("nextRetryAt")
        if due is not None and due > self._now:
            others = "; until then more people may join it" if "gathered" in (self._stored.notification or {}) else ""
            return f"Waiting: it is sent after {moment(due)}{others}."
        ways = " and ".join(NAMES[channel] for channel in item.unplanned)
        return f"Due: the next worker sends it by {ways}." if ways else "Due: the next worker claims it."

    def _clauses(self, item: Item) -> str:
        """Describe the result on each channel; devices with the same result are counted."""
        sentences = []
        for channel in ("email", "push"):
            of_channel = [self._clause(item, one) for one in item.deliveries if one.channel == channel]
            counted = Counter(of_channel)
            parts = [
                f"{clause} ({count} of {len(of_channel)} devices)" if len(of_channel) > 1 else clause
                for clause, count in counted.items()
            ]
            if parts:
                sentences.append(f"the {'e-mail' if channel == 'email' else 'push message'} {', '.join(parts)}")
        return "; ".join(sentences)

    def _clause(self, item: Item, delivery: Delivery) -> str:
        provider = delivery.provider or "the provider"
        match delivery.state:
            case "waiting":
                return self._waiting(item, delivery)
            case "sending":
                return f"is being sent to {provider}, attempt {delivery.attempts} of {item.max_attempts}"
            case "sent":
                return f"was accepted by {provider}, with no receipt yet"
            case "delivered":
                return f"was delivered by {provider}{self._reactions(delivery)}"
            case "skipped":
                return f"was not sent: {self._reason(delivery)}"
        suppressed = self._suppressed(delivery)
        and_suppressed = f", and its address is suppressed: {suppressed}" if suppressed else ""
        return f"{self._failed(item, delivery)}{and_suppressed}"

    def _waiting(self, item: Item, delivery: Delivery) -> str:
        at = delivery.next_attempt_at
        assert at is not None
        said = (
            f"; last error from {delivery.provider or 'the worker'}: {self._error(delivery)}" if delivery.code else ""
        )
        if is_due(delivery, self._now):
            return f"is due{said}"
        quiet = item.blocked_by(delivery, self._known.preferences or DEFAULTS, self._now)
        if isinstance(quiet, datetime):
            return f"waits until {moment(at)} for the end of the person's quiet hours{said}"
        if delivery.code:
            return f"is retried at {moment(at)}, attempt {delivery.attempts + 1} of {item.max_attempts}{said}"
        return (
            f"waits until {moment(at)} for a provider that is down or busy, or for quiet hours that have changed since"
        )

    def _failed(self, item: Item, delivery: Delivery) -> str:
        provider = delivery.provider or "a provider"
        if delivery.code == BOUNCED:
            error = (self._stored.log(delivery) or {}).get("error", {})
            sentences = self._said(error.get("code"), error.get("message"))
            said = f": {sentences}" if sentences not in ("", BOUNCED) else ""
            return f"was accepted by {provider} and bounced{said}"
        if delivery.code == INTERRUPTED:
            return f"failed after {_times(delivery.attempts)}: a worker stopped during the last one"
        if delivery.attempts < item.max_attempts:
            return f"was refused by {provider}: {self._error(delivery)}"
        return f"failed after {_times(delivery.attempts)}; last error from {provider}: {self._error(delivery)}"

    def _reason(self, delivery: Delivery) -> str:
        suppressed = self._suppressed(delivery) if delivery.reason == "suppressed" else None
        return f"{REASONS[str(delivery.reason)]}{f', as {suppressed}' if suppressed else ''}"

    def _reactions(self, delivery: Delivery) -> str:
        log = self._stored.log(delivery)
        seen = {event["type"] for event in (log or {}).get("events", ())}
        words = [
            word
            for event, word in (("opened", "opened"), ("clicked", "clicked"), ("spam", "reported as spam"))
            if event in seen
        ]
        return f", and {' and '.join(words)}" if words else ""

    def _read_or_not(self) -> str:
        in_app = (self._stored.notification or {}).get("channels", {}).get("inApp", {})
        return "read" if in_app.get("read") else "unread"

    # What to do

    def advice(self) -> Iterator[str]:
        entry, item = self._stored.entry, self._item
        if entry is None:
            return
        if item is None or (entry["status"] == "failed" and not _states(item) & {"failed"}):
            yield f"Correct its document in `notificationQueue`, then run {self._command('retry')}."
            return
        if entry["status"] in ("pending", "processing"):
            yield from self._advice_on_waiting(entry, item)
        for delivery in item.deliveries:
            yield from self._advice_on(item, delivery)

    def _advice_on_waiting(self, entry: Mapping[str, Any], item: Item) -> Iterator[str]:
        due = entry.get("lease", {}).get("until") or entry.get("nextRetryAt") or next_due(item.deliveries)
        since = due or entry["createdAt"]
        if self._now - since > _NOT_TAKEN_UP_AFTER:
            yield f"No worker has claimed it since {moment(since)}: `inkstream doctor` shows whether one is running."
        elif "waiting" in _states(item):
            yield f"No action needed: it continues automatically. {self._command('cancel')} cancels it."

    def _advice_on(self, item: Item, delivery: Delivery) -> Iterator[str]:
        match delivery.state, delivery.reason:
            case "failed", _ if expired(item.expires_at, self._now):
                yield "It has expired and is not sent any more: request a new one."
            case "failed", _ if self._suppressed(delivery):
                yield f"If the address works again: {self._remove(delivery)}, then {self._command('retry')}."
            case "failed", _:
                twice = " It may have arrived already; then it arrives twice." if delivery.code == INTERRUPTED else ""
                yield f"After fixing the cause: {self._command('retry')}.{twice}"
            case "skipped", "suppressed":
                yield f"If the address works again: {self._remove(delivery)}; then request a new one, with a new id."
            case "skipped", "preferences":
                yield "No action needed: this is the person's choice. Request what people must know as `transactional`."
            case "skipped", "throttled":
                yield "To send more a day, raise INKSTREAM_NOTIFY_LIMIT and INKSTREAM_NOTIFY_DAILY_LIMIT."
            case "skipped", "no-address":
                yield "Check that INKSTREAM_RECIPIENTS_VIEW has an address for the person."
            case "skipped", "no-provider":
                way = "INKSTREAM_EMAIL_PROVIDERS" if delivery.channel == "email" else "providers of push messages"
                yield f"Check which {way} are configured; then request a new one, with a new id."
            case "skipped", "expired":
                yield "If that was too early, set a later `expiresAt` in the request; the events below show the delays."
            case "sent", _ if delivery.channel == "email":
                called = f" about {delivery.provider_id}" if delivery.provider_id else ""
                yield f"Ask {delivery.provider}{called}, and ask the person to check the spam folder."
            case "delivered", _ if delivery.channel == "email" and not self._reactions(delivery):
                yield "It is in the person's mailbox: ask them to check the spam folder."

    def _command(self, name: str) -> str:
        return f"`inkstream notifications {name} {self._stored.id}`"

    def _remove(self, delivery: Delivery) -> str:
        address = self._address(delivery)
        if delivery.channel == "push":
            shown = masked_token(address) if address else "…"
        else:
            shown = address if address and self._full else "…"
        return f"`inkstream suppressions remove {delivery.channel} {shown}`"

    # Facts

    def facts(self) -> Iterator[tuple[str, str]]:
        stored, item, notification = self._stored, self._item, self._stored.notification
        yield "notification", stored.id
        if self._parts:
            yield "type", f"{self._parts[0]['type']}, {self._requested_by()}"
        if self._full and notification is not None:
            yield "title", notification["title"]
        if stored.user_id is not None:
            yield "user", stored.user_id
        if item is not None:
            transactional = ", transactional" if item.transactional else ""
            yield "priority", _PRIORITIES.get(item.priority, str(item.priority)) + transactional
            yield "channels", ", ".join(NAMES[channel] for channel in item.channels)
        if emails := self._emails():
            yield "e-mail address", ", ".join(emails)
        if self._known.preferences is not None:
            yield "preferences today", _preferences(self._known.preferences)
        if notification is not None and notification["channels"]["inApp"]["enabled"]:
            yield "in the application", self._read_or_not()
        if stored.entry is not None:
            yield "queue", stored.entry["status"]
        for missing in self._known.missing:
            yield "not known", missing

    def _requested_by(self) -> str:
        name = self._parts[0]["type"]
        event = self._known.events.get(name)
        if event is not None and _OF_A_RULE.fullmatch(self._stored.id):
            return f"by the rule on {event}"
        return "by a service with notification.requested"

    def _emails(self) -> list[str]:
        used = [address for channel, address in addresses(self._stored) if channel == "email"]
        today = self._known.email
        sentences = [self._email(address) for address in used]
        if today is not None and today.lower() not in (address.lower() for address in used):
            sentences.append(f"{self._email(today)}{' today' if used else ''}")
        return sentences

    def _email(self, address: str) -> str:
        shown = address if self._full else masked_address(address)
        reason = self._known.suppressed.get(("email", address))
        return f"{shown} (suppressed: {SUPPRESSED.get(reason, reason)})" if reason else shown

    # Events

    def entries(self) -> Iterator[Entry]:
        stored = self._stored
        if self._parts:
            yield Entry(self._parts[0]["createdAt"], "", f"requested, {self._requested_by()}")
        if stored.notification is not None:
            yield from self._of_notification(stored.notification)
        if stored.entry is not None:
            yield from self._of_entry(stored.entry)
        if self._item is not None:
            for delivery in self._item.deliveries:
                yield from self._of_delivery(self._item, delivery)
        for log in stored.email_logs:
            yield from self._of_email(log)
        for log in stored.push_logs:
            yield from self._of_push(log)

    def _of_notification(self, notification: Mapping[str, Any]) -> Iterator[Entry]:
        if "gathered" in notification:
            group = NotificationGroup.from_document(notification["gathered"])
            about = "" if group.is_exact else "about "
            last = group.newest[0].time
            yield Entry(last, "", f"the latest of {about}{group.count:,} people joined it")
        in_app = notification["channels"]["inApp"]
        if in_app.get("readAt"):
            yield Entry(in_app["readAt"], NAMES["inApp"], "read")
        if notification.get("expiresAt"):
            yield Entry(notification["expiresAt"], "", "expires: not sent any more, and deleted")

    def _of_entry(self, entry: Mapping[str, Any]) -> Iterator[Entry]:
        lease = entry.get("lease")
        if entry.get("processedAt"):
            worker = f", {lease['worker']}" if lease else ""
            yield Entry(entry["processedAt"], "", f"last claimed by a worker{worker}")
        if lease:
            yield Entry(
                lease["until"], "", "the lease expires; if the item is not released by then, another worker recovers it"
            )
        for error in entry.get("errors", ()):
            yield Entry(error["timestamp"], "", self._text(error["message"]))
        if entry.get("completedAt"):
            yield Entry(entry["completedAt"], "", "completed")
        due = entry.get("nextRetryAt")
        if due and self._item is not None and not any(one.next_attempt_at for one in self._item.deliveries):
            yield Entry(due, "", "due")
        if entry.get("expiresAt") and self._stored.notification is None:
            yield Entry(entry["expiresAt"], "", "expires: not sent any more")

    def _of_delivery(self, item: Item, delivery: Delivery) -> Iterator[Entry]:
        way = self._way(delivery)
        match delivery.state:
            case "waiting":
                assert delivery.next_attempt_at is not None
                yield Entry(delivery.next_attempt_at, way, f"due, attempt {delivery.attempts + 1}")
            case "sending":
                yield Entry(delivery.since, way, f"attempt {delivery.attempts} started, with {delivery.provider}")
            case "failed" if not self._is_among_events(delivery):
                known = f"{delivery.provider}: {delivery.code}: {delivery.message}"
                errors = [error["message"] for error in (self._stored.entry or {}).get("errors", ())]
                given_up = f"failed after {_times(delivery.attempts)}"
                yield Entry(delivery.since, way, given_up if known in errors else self._failed(item, delivery))
            case "skipped":
                yield Entry(delivery.since, way, f"not sent: {self._reason(delivery)}")
            case "sent" | "delivered" if delivery.channel != "inApp" and self._stored.log(delivery) is None:
                yield Entry(delivery.since, way, f"{delivery.state} by {delivery.provider}")

    def _is_among_events(self, delivery: Delivery) -> bool:
        """Whether the log of an e-mail contains its bounce."""
        log = self._stored.log(delivery) if delivery.code == BOUNCED else None
        return any(event["type"] == "bounced" for event in (log or {}).get("events", ()))

    def _of_email(self, log: Mapping[str, Any]) -> Iterator[Entry]:
        for event in log.get("events", ()):
            metadata = event.get("metadata")
            metadata = metadata if isinstance(metadata, Mapping) else {}
            kind, provider = event["type"], metadata.get("provider", log["provider"])
            words = _EVENTS[kind] if kind == "queued" else f"{_EVENTS[kind]} {provider}"
            called = f", as {log['providerId']}" if kind == "sent" and log.get("providerId") else ""
            said = self._said(metadata.get("code"), metadata.get("message"))
            link = f": {metadata['url']}" if self._full and metadata.get("url") else ""
            yield Entry(event["timestamp"], "e-mail", f"{words}{called}{f': {said}' if said else ''}{link}")

    def _of_push(self, log: Mapping[str, Any]) -> Iterator[Entry]:
        way = self._device(log["deviceToken"], log["platform"])
        yield Entry(log["createdAt"], way, "queued")
        if log.get("sentAt"):
            called = f", as {log['providerId']}" if log.get("providerId") else ""
            yield Entry(log["sentAt"], way, f"accepted by {log['provider']}{called}")
        if log.get("deliveredAt"):
            yield Entry(log["deliveredAt"], way, f"delivery reported by {log['provider']}")

    # Addresses and errors

    def _way(self, delivery: Delivery) -> str:
        if delivery.channel != "push":
            return NAMES[delivery.channel]
        log = self._stored.log(delivery)
        if log is not None:
            return self._device(log["deviceToken"], log["platform"])
        for device in self._item.recipient.devices if self._item and self._item.recipient else ():
            if device_name(device.token) == delivery.device:
                return self._device(device.token, device.platform)
        return f"push device:{delivery.device}" if delivery.device else "push"

    def _device(self, token: str, platform: str) -> str:
        return f"push {platform} {token if self._full else masked_token(token)}"

    def _address(self, delivery: Delivery) -> str | None:
        """Return the address of a delivery."""
        log = self._stored.log(delivery)
        if log is not None:
            address: str = log["to"] if delivery.channel == "email" else log["deviceToken"]
            return address
        recipient = self._item.recipient if self._item else None
        if delivery.channel == "email":
            return (recipient.email if recipient else None) or self._known.email
        devices = recipient.devices if recipient else ()
        return next((one.token for one in devices if device_name(one.token) == delivery.device), None)

    def _suppressed(self, delivery: Delivery) -> str | None:
        address = self._address(delivery)
        reason = self._known.suppressed.get((delivery.channel, address)) if address else None
        return None if reason is None else SUPPRESSED.get(reason, reason)

    def _last_error(self) -> str:
        errors: Sequence[Mapping[str, Any]] = (self._stored.entry or {}).get("errors", ())
        return self._text(f" Last error: {errors[-1]['message']}.") if errors else ""

    def _error(self, delivery: Delivery) -> str:
        said = self._said(delivery.code, delivery.message)
        meaning = MEANINGS.get(delivery.category) if delivery.category else None
        return f"{meaning.words} ({said})" if meaning else said

    def _said(self, code: object, message: object) -> str:
        return self._text(": ".join(str(part) for part in (code, message) if part))

    def _text(self, text: str) -> str:
        return text if self._full else without_addresses(text)


def _states(item: Item) -> set[str]:
    return {delivery.state for delivery in item.deliveries}


def _times(attempts: int) -> str:
    return f"{attempts} attempt{'' if attempts == 1 else 's'}"


def _preferences(preferences: Preferences) -> str:
    """Describe preferences; empty ones allow everything."""
    sentences = [f"no {_ways(preferences.channels_off)}"] if preferences.channels_off else []
    sentences += [
        f"no {_ways(channels)} of {name}" for name, channels in sorted(preferences.types_off.items()) if channels
    ]
    if hours := preferences.quiet_hours:
        sentences.append(f"quiet from {hours.start or '?'} to {hours.end or '?'}, {hours.time_zone or '?'}")
    if preferences.unreadable:
        sentences.append(f"unreadable, treated as turned off: {', '.join(part for part, _ in preferences.unreadable)}")
    return "; ".join(sentences) or "everything, at any time"


def _ways(channels: Iterable[str]) -> str:
    return " and ".join(NAMES.get(channel, channel) for channel in sorted(channels))
