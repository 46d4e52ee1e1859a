"""What a receipt changes in the log of a push message.

Input: a log and a receipt. Output: the changed fields. Such a log has no list of events, so the content of a receipt is
in `deliveredAt` and in `error`, which then has the receipt's id and time beside the specification's two fields. As for
an e-mail, the order and repetition of receipts do not matter.
"""

from collections.abc import Mapping
from datetime import datetime
from typing import Any

from notifications.receipts.receipt import ARRIVED, GIVEN_UP, Receipt, as_kept, earliest
from notifications.states import BOUNCED


def applied(log: Mapping[str, Any], receipt: Receipt) -> dict[str, Any]:
    """Return what a receipt changes in a push message's log.

    A message that bounced stays `failed`, whatever else is reported, with the error of the earliest such receipt. What
    arrived is `delivered`, although its attempt looked like a failure. Other kinds change nothing.

    Args:
        log: The document as it stands in `pushNotificationLogs`; its moments have a zone.
        receipt: What was reported of that message.

    Returns:
        Fields and their new values; `None` if a field is to go. Empty where nothing changes.
    """
    report = receipt.data
    at = as_kept(report.timestamp)
    after: dict[str, Any] = {}
    if report.kind in ARRIVED:
        after["deliveredAt"] = earliest(log.get("deliveredAt"), at)
        if not is_given_up(log):
            after |= {"status": "delivered", "error": None}
    elif report.kind in GIVEN_UP:
        error = {
            "code": report.code or BOUNCED,
            "message": report.message or "",
            "eventId": receipt.id,
            "timestamp": at,
        }
        if not is_given_up(log) or _order(error) < _order(log["error"]):
            after |= {"status": "failed", "error": error}
    if after:
        after["sentAt"] = earliest(log.get("sentAt"), at)
    return {name: value for name, value in after.items() if value != log.get(name)}


def is_given_up(log: Mapping[str, Any]) -> bool:
    """Whether a receipt said that the message could not be delivered; what an attempt said does not count."""
    return "eventId" in (log.get("error") or {})


def _order(error: Mapping[str, Any]) -> tuple[datetime, str]:
    return error["timestamp"], error["eventId"]
