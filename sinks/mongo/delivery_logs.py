"""The logs of messages in MongoDB: one for each e-mail and each push message that was sent to a provider.

Input: outcomes of attempts, and receipts. Output: documents of `emailLogs` and `pushNotificationLogs`, with the
message's key as `_id`. Deliveries and receipts write the same log at the same time: a receipt changes it only as it was
read, or reads it again, and an attempt never overwrites what a receipt reported.

After a crash: every write may be repeated.
"""

from collections.abc import Mapping
from datetime import datetime
from types import NoneType
from typing import Any

import structlog
from pymongo.asynchronous.database import AsyncDatabase
from pymongo.errors import WriteError
from pymongo.read_concern import ReadConcern

from notifications.outcome import Outcome, Sent
from notifications.receipts import email_log, push_log
from notifications.receipts.receipt import Receipt
from runtime.metrics import STORED_DOCUMENTS_SPOILED
from schemas.fields import UNKNOWN
from schemas.notifications import Channel
from schemas.receipts import DeliveryReceived
from sinks.collections import EMAIL_LOGS, PUSH_NOTIFICATION_LOGS
from sinks.mongo.errors import blames_stored_document

log = structlog.get_logger(__name__)

_READ = ("status", "events", "error", "sentAt", "deliveredAt")
"""The fields of a log that decide how a receipt changes it."""

_WITHOUT_RECEIPT: Mapping[Channel, Mapping[str, Any]] = {
    "email": {"status": {"$nin": ["delivered", "bounced"]}},
    "push": {"status": {"$ne": "delivered"}, "error.eventId": None},
}
"""The logs whose status an attempt may still set: those without a final receipt."""


class DeliveryLogs:
    """The logs of e-mails and push messages.

    Every method raises `PyMongoError` if MongoDB fails, and may then be repeated.

    Args:
        database: The platform's database; its client gives moments with a zone.
    """

    def __init__(self, database: AsyncDatabase[dict[str, Any]]) -> None:
        # Data on one member alone may be rolled back: then a receipt that seemed to be stored would be missing.
        durable = ReadConcern("majority")
        self._logs = {
            "email": database[EMAIL_LOGS.name].with_options(read_concern=durable),
            "push": database[PUSH_NOTIFICATION_LOGS.name].with_options(read_concern=durable),
        }

    async def open(self, channel: Channel, key: str, body: Mapping[str, Any]) -> None:
        """Create the log of a message before its first attempt; at a later one, set the provider. Durable.

        Args:
            channel: `email` or `push`.
            key: The message's key, as `Delivery.key` returns it.
            body: All known fields, `provider` and `createdAt` among them.
        """
        beginning: dict[str, Any] = {**body, "status": "queued"}
        if channel == "email":
            beginning["events"] = [{"type": "queued", "timestamp": body["createdAt"]}]
        provider = beginning.pop("provider")
        await self._logs[channel].update_one(
            {"_id": key}, {"$set": {"provider": provider}, "$setOnInsert": beginning}, upsert=True
        )

    async def settle(self, channel: Channel, key: str, outcome: Outcome, *, is_final: bool, now: datetime) -> None:
        """Record the outcome of an attempt; a receipt takes precedence. Durable.

        Args:
            channel: `email` or `push`.
            key: The message's key.
            outcome: The outcome.
            is_final: Whether no attempt follows.
            now: The time of the attempt; the same if the call is repeated.
        """
        if not isinstance(outcome, Sent):
            failure = {"error": {"code": outcome.code, "message": outcome.message}}
            status = {"status": "failed"} if is_final else {}
            await self._logs[channel].update_one(
                {"_id": key, **_WITHOUT_RECEIPT[channel]}, {"$set": {**failure, **status}}
            )
            return
        sent = {} if outcome.provider_id is None else {"providerId": outcome.provider_id}
        update: dict[str, Any] = {
            "$set": {**sent, "status": "sent"},
            "$min": {"sentAt": now},
            "$unset": {"error": ""},
        }
        if channel == "email":
            update["$addToSet"] = {"events": {"type": "sent", "timestamp": now}}
        wanted = {"_id": key, **_WITHOUT_RECEIPT[channel]}
        try:
            result = await self._logs[channel].update_one(wanted, update)
        except WriteError as error:
            if not blames_stored_document({"code": error.code}):
                raise
            await self._begin_events_anew(channel, key)
            result = await self._logs[channel].update_one(wanted, update)
        if not result.matched_count:  # a receipt was faster
            await self._logs[channel].update_one({"_id": key}, {"$set": sent, "$min": {"sentAt": now}})

    async def _begin_events_anew(self, channel: Channel, key: str) -> None:
        """Make `events` a list where somebody else has put something to which nothing can be added."""
        spoiled = {"_id": key, "$expr": {"$not": [{"$isArray": "$events"}]}}
        if (await self._logs[channel].update_one(spoiled, {"$set": {"events": []}})).modified_count:
            STORED_DOCUMENTS_SPOILED.labels("delivery logs", "repaired").inc()
            log.warning("repaired a log of a message that somebody else has changed", id=key, fields=["events"])

    async def receive(self, receipt: Receipt) -> Mapping[str, Any] | None:
        """Bring a receipt into the log of its message, durably.

        Returns:
            The log as it is then; `None` if there is none, as the message is not ours or from long ago.
        """
        channel = receipt.data.channel
        wanted = _wanted(receipt.data)
        if wanted is None:
            return None
        while True:
            found = await self._logs[channel].find_one(wanted)
            if found is None:
                return None
            as_read = {name: {"$eq": found.get(name)} for name in _READ}
            stored = _readable(found)
            changes = email_log.applied(stored, receipt) if channel == "email" else push_log.applied(stored, receipt)
            if not changes:
                return stored
            result = await self._logs[channel].update_one({"_id": stored["_id"], **as_read}, _update(changes))
            if result.matched_count:
                return {name: value for name, value in {**stored, **changes}.items() if value is not None}


def _wanted(report: DeliveryReceived) -> dict[str, Any] | None:
    """Return the filter that finds a message's log; `None` if nothing names the message."""
    if report.key is not None:
        return {"_id": report.key}
    if report.provider_id == UNKNOWN:
        return None
    named = {"provider": report.provider, "providerId": report.provider_id}
    if report.channel == "email":
        return named
    # There is no index of push messages by what their providers call them.
    return None if report.recipient is None else {"deviceToken": report.recipient, **named}


def _readable(stored: dict[str, Any]) -> dict[str, Any]:
    """Return a log without the fields that somebody else has changed so that they can't be read."""
    events, error = stored.get("events"), stored.get("error")
    spoiled = [name for name in ("sentAt", "deliveredAt") if not isinstance(stored.get(name), datetime | NoneType)]
    if stored.get("status", email_log.STATUSES[0]) not in email_log.STATUSES:
        spoiled.append("status")
    if events is not None and not (isinstance(events, list) and all(map(_is_event, events))):
        spoiled.append("events")
    if error is not None and not (isinstance(error, dict) and ("eventId" not in error or _is_of_receipt(error))):
        spoiled.append("error")
    if spoiled:
        STORED_DOCUMENTS_SPOILED.labels("delivery logs", "repaired").inc()
        log.warning("repaired a log of a message that somebody else has changed", id=stored["_id"], fields=spoiled)
    return {name: value for name, value in stored.items() if name not in spoiled}


def _is_event(event: object) -> bool:
    if not isinstance(event, dict):
        return False
    return isinstance(event.get("type"), str) and isinstance(event.get("timestamp"), datetime)


def _is_of_receipt(error: Mapping[str, Any]) -> bool:
    return isinstance(error["eventId"], str) and isinstance(error.get("timestamp"), datetime)


def _update(changes: Mapping[str, Any]) -> dict[str, Any]:
    set_fields = {name: value for name, value in changes.items() if value is not None}
    unset_fields = {name: "" for name, value in changes.items() if value is None}
    return {"$set": set_fields, **({"$unset": unset_fields} if unset_fields else {})}
