"""The states of a delivery, and of its item in the queue: which transition may follow which.

Input: a delivery and what happened to it. Output: the delivery in its next state. Nothing else in the project changes
the state of a delivery. docs/notification-states.md has the figure.

After a crash: each state is written before the next action, so the queue has the last known state, and `recover`
continues from it.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from hashlib import sha256
from random import Random
from types import MappingProxyType
from typing import Any, Literal, Self, get_args

from notifications.notice import digest
from notifications.outcome import Category, Failed, Misconfigured, Outcome, Refused, Sent, Throttled
from notifications.retry_policy import MOST_GIVEN_BACK, RetryPolicy, after_throttling, backoff
from schemas.notifications import Channel

State = Literal["waiting", "sending", "sent", "delivered", "failed", "skipped"]
Reason = Literal["preferences", "suppressed", "throttled", "expired", "no-address", "no-provider", "cancelled"]
Confirmation = Literal["delivered", "bounced"]
Status = Literal["pending", "processing", "completed", "failed"]
"""Of an item of `notificationQueue`."""

Step = Literal["plan", "store", "begin", "settle", "postpone", "skip", "cancel", "recover", "confirm", "retry"]
"""The transitions of a delivery: the functions of this module."""

TRANSITIONS: Mapping[Step, frozenset[tuple[State | None, State]]] = MappingProxyType(
    {
        "plan": frozenset({(None, "waiting")}),
        "store": frozenset({(None, "delivered")}),
        "begin": frozenset({("waiting", "sending")}),
        "settle": frozenset({("sending", "sent"), ("sending", "failed"), ("sending", "waiting")}),
        "postpone": frozenset({("waiting", "waiting")}),
        "skip": frozenset({("waiting", "skipped")}),
        "cancel": frozenset({("waiting", "skipped")}),
        "recover": frozenset({("sending", "waiting"), ("sending", "failed")}),
        "confirm": frozenset(
            {
                ("waiting", "delivered"),
                ("sending", "delivered"),
                ("sent", "delivered"),
                ("failed", "delivered"),
                ("skipped", "delivered"),
                ("waiting", "failed"),
                ("sending", "failed"),
                ("sent", "failed"),
                ("delivered", "failed"),
                ("failed", "failed"),
                ("skipped", "failed"),
            }
        ),
        "retry": frozenset({("failed", "waiting")}),
    }
)
"""The states before and after each step; `None` is a delivery that did not exist before."""

BOUNCED = "bounced"
"""The error code of a delivery that failed because of a receipt."""

INTERRUPTED = "interrupted"
"""The error code of an attempt whose result is unknown."""

INTERRUPTED_MESSAGE = "the worker stopped before the result of the attempt was known"
_BOUNCED_MESSAGE = "the provider accepted the message but could not deliver it"


class IllegalTransition(Exception):  # noqa: N818  # named by what was asked for
    """The state of a delivery does not allow the step."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Delivery:
    """The delivery of a notification on one channel: its state, and the fields that belong to it.

    Times are in UTC and whole milliseconds, the precision of MongoDB.

    Attributes:
        channel: The channel.
        device: For `push`, the name of the device, which is not its token.
        state: `waiting` until the attempt at `next_attempt_at`; `sending` while the result of an attempt is unknown;
            `sent` after a provider accepted it; `delivered` after a receipt; `failed`; `skipped`.
        since: The time of the last transition.
        attempts: How many attempts count against the maximum, the current one included.
        given_back: How many attempts did not count, because the provider throttled or seemed to refuse us.
        next_attempt_at: The earliest time of the next attempt; set only if it is waiting.
        provider: The provider of the last attempt.
        provider_id: The provider's id of the message.
        code: The code of the last error; `None` after it was sent.
        message: The text of the last error, without the recipient's address.
        category: What the last error means; `None` if it is temporary, or not from a provider.
        reason: Why it was skipped.

    Raises:
        ValueError: The fields do not match the state.
    """

    channel: Channel
    device: str | None = None
    state: State
    since: datetime
    attempts: int = 0
    given_back: int = 0
    next_attempt_at: datetime | None = None
    provider: str | None = None
    provider_id: str | None = None
    code: str | None = None
    message: str | None = None
    category: Category | None = None
    reason: Reason | None = None

    def __post_init__(self) -> None:
        """Truncate times to milliseconds, and check the fields."""
        object.__setattr__(self, "since", _as_kept(self.since))
        if self.next_attempt_at is not None:
            object.__setattr__(self, "next_attempt_at", _as_kept(self.next_attempt_at))
        fits = (
            self.state in get_args(State)
            and self.attempts >= 0
            and self.given_back >= 0
            and (self.next_attempt_at is not None) == (self.state == "waiting")
            and (self.reason is not None) == (self.state == "skipped")
            and (self.code is None) == (self.message is None)
            and (self.code is not None or self.category is None)
            and (self.code is not None or self.state != "failed")
            and (self.state not in ("sending", "sent") or (self.provider is not None and self.attempts > 0))
        )
        if not fits:
            raise ValueError(f"the fields do not match the state {self.state}")

    @classmethod
    def from_document(cls, document: Mapping[str, Any]) -> Self:
        """Read what `to_document` returned; its times have a zone, as a client with `tz_aware` returns them.

        Raises:
            KeyError: A field is missing.
            ValueError: The fields do not match the state.
        """
        error = document.get("error", {})
        return cls(
            channel=document["channel"],
            device=document.get("device"),
            state=document["state"],
            since=document["since"],
            attempts=document["attempts"],
            given_back=document.get("givenBack", 0),
            next_attempt_at=document.get("nextAttemptAt"),
            provider=document.get("provider"),
            provider_id=document.get("providerId"),
            code=error.get("code"),
            message=error.get("message"),
            category=error.get("category"),
            reason=document.get("reason"),
        )

    def key(self, notification_id: str) -> str:
        """Return the key of the message at its provider and in the logs: unique, and the same at every attempt."""
        return digest(notification_id, self.channel, self.device)

    def to_document(self) -> dict[str, Any]:
        """Return the document for the item of the queue, without fields that are `None`."""
        error = {"code": self.code, "message": self.message, "category": self.category}
        fields = {
            "channel": self.channel,
            "device": self.device,
            "state": self.state,
            "since": self.since,
            "attempts": self.attempts,
            "givenBack": self.given_back or None,
            "nextAttemptAt": self.next_attempt_at,
            "provider": self.provider,
            "providerId": self.provider_id,
            "error": {name: value for name, value in error.items() if value is not None} or None,
            "reason": self.reason,
        }
        return {name: value for name, value in fields.items() if value is not None}


def device_name(token: str) -> str:
    """Return a name for a device that does not reveal its token."""
    return sha256(token.encode(errors="surrogatepass")).hexdigest()[:16]


def plan(channel: Channel, now: datetime, *, at: datetime | None = None, device: str | None = None) -> Delivery:
    """Return a delivery that is due now, or at `at`."""
    return Delivery(channel=channel, device=device, state="waiting", since=now, next_attempt_at=at or now)


def store(now: datetime) -> Delivery:
    """Return the delivery in the application: the stored notification is the message, so there are no attempts."""
    return Delivery(channel="inApp", state="delivered", since=now)


def is_due(delivery: Delivery, now: datetime) -> bool:
    """Whether an attempt is due, provided that the notification has not expired."""
    return delivery.next_attempt_at is not None and delivery.next_attempt_at <= _as_kept(now)


def expired(expires_at: datetime | None, now: datetime) -> bool:
    """Whether a notification has expired, so that waiting deliveries are skipped."""
    return expires_at is not None and expires_at <= now


def begin(delivery: Delivery, provider: str, now: datetime) -> Delivery:
    """Begin an attempt, which counts from now on. The result is written durably before the provider gets the message.

    Raises:
        IllegalTransition: The delivery does not wait, or is not due.
    """
    if delivery.state == "waiting" and not is_due(delivery, now):
        raise IllegalTransition(f"begin: the delivery waits until {delivery.next_attempt_at}")
    attempts = delivery.attempts + 1
    return _move("begin", delivery, "sending", now, attempts=attempts, provider=provider, provider_id=None)


def settle(delivery: Delivery, outcome: Outcome, policy: RetryPolicy, now: datetime, chance: Random) -> Delivery:
    """End an attempt with its outcome.

    Attempts that are throttled, or refused because of us, do not count, up to `MOST_GIVEN_BACK` times. A throttled one
    waits for as long as the provider requested. A refused one is due at once, for the next provider: the open circuit
    keeps it from this one, and if no other is left, `postpone` makes it wait for the circuit.

    If a receipt came before the provider's response, the receipt wins.

    Raises:
        IllegalTransition: No attempt is in progress.
    """
    if _is_receipted(delivery):
        return replace(delivery, provider_id=outcome.provider_id) if isinstance(outcome, Sent) else delivery
    match outcome:
        case Sent(provider_id):
            known = {"provider_id": provider_id, "code": None, "message": None, "category": None}
            return _move("settle", delivery, "sent", now, **known)
        case Throttled() if delivery.given_back < MOST_GIVEN_BACK:
            at = now + after_throttling(outcome.retry_after, policy, chance, delivery.given_back)
            return _wait("settle", delivery, at, now, **_given_back(delivery), **_error(outcome))
        case Misconfigured() if delivery.given_back < MOST_GIVEN_BACK:
            return _wait("settle", delivery, now, now, **_given_back(delivery), **_error(outcome))
        case Throttled() | Misconfigured() | Failed() if delivery.attempts < policy.max_attempts:
            at = now + backoff(delivery.attempts, policy, chance)
            return _wait("settle", delivery, at, now, **_error(outcome))
        case Refused() | Throttled() | Misconfigured() | Failed():
            return _move("settle", delivery, "failed", now, **_error(outcome))


def recover(delivery: Delivery, policy: RetryPolicy, now: datetime) -> Delivery:
    """Recover a delivery whose worker lost its lease during an attempt. The attempt counts, as it may have arrived.

    The delivery is due at once, because the lease was a long enough wait; after the last attempt it has failed.

    Raises:
        IllegalTransition: No attempt was in progress.
    """
    error = {"code": INTERRUPTED, "message": INTERRUPTED_MESSAGE, "category": None}
    if delivery.attempts < policy.max_attempts:
        return _wait("recover", delivery, now, now, **error)
    return _move("recover", delivery, "failed", now, **error)


def postpone(delivery: Delivery, until: datetime) -> Delivery:
    """Postpone a delivery, for quiet hours, a circuit or a rate limit; never to an earlier time. No attempt is counted.

    Raises:
        IllegalTransition: The delivery does not wait.
    """
    at = max(until, delivery.next_attempt_at or until)
    return _wait("postpone", delivery, at, delivery.since)


def skip(delivery: Delivery, reason: Reason, now: datetime) -> Delivery:
    """Skip a waiting delivery.

    Raises:
        IllegalTransition: The delivery does not wait.
    """
    return _move("skip", delivery, "skipped", now, reason=reason)


def cancel(delivery: Delivery, now: datetime) -> Delivery:
    """Cancel a waiting delivery.

    Raises:
        IllegalTransition: The delivery does not wait; an attempt in progress can't be stopped.
    """
    return _move("cancel", delivery, "skipped", now, reason="cancelled")


def confirm(delivery: Delivery, confirmation: Confirmation, now: datetime) -> Delivery:
    """Apply a provider's receipt of a message that it accepted; opened or clicked counts as delivered.

    Receipts come in any order, more than once, and before the response to the attempt. A bounce is final, whatever else
    is reported, because servers accept messages and return them later. A message that arrived is not sent again, even
    if its attempt looked like a failure.

    A receipt changes nothing if no attempt counts: after `retry`, it is about an earlier attempt.
    """
    if delivery.attempts == 0 or _is_bounced(delivery):
        return delivery
    if confirmation == "bounced":
        return _move("confirm", delivery, "failed", now, code=BOUNCED, message=_BOUNCED_MESSAGE, category=None)
    if delivery.state == "delivered":
        return delivery
    return _move("confirm", delivery, "delivered", now, code=None, message=None, category=None)


def retry(delivery: Delivery, now: datetime) -> Delivery:
    """Retry a failed delivery, with the full number of attempts.

    Raises:
        IllegalTransition: The delivery has not failed.
    """
    return _wait("retry", delivery, now, now, attempts=0, given_back=0, provider_id=None)


def status_of(deliveries: Sequence[Delivery]) -> Status:
    """Return the status of an item that no worker holds; while one does, it is `processing`.

    `processing` comes out where something is `sending`. It is not to be written without a lease, as then nobody would
    ever take the item up: what a lost lease left so is for `recover` first.

    A channel failed where a delivery on it did, and none arrived: of several devices one is enough.

    Raises:
        ValueError: Where there are no deliveries: nothing was decided, so nothing is completed.
    """
    if not deliveries:
        raise ValueError("an item without deliveries has no status")
    states = {delivery.state for delivery in deliveries}
    if "sending" in states:
        return "processing"
    if "waiting" in states:
        return "pending"
    failed = {delivery.channel for delivery in deliveries if delivery.state == "failed"}
    arrived = {delivery.channel for delivery in deliveries if delivery.state in ("sent", "delivered")}
    return "failed" if failed - arrived else "completed"


def next_due(deliveries: Iterable[Delivery]) -> datetime | None:
    """Return when the first of the deliveries that wait is to be tried; `None` if none waits."""
    return min((delivery.next_attempt_at for delivery in deliveries if delivery.next_attempt_at), default=None)


def _move(step: Step, delivery: Delivery, state: State, since: datetime, **changes: Any) -> Delivery:
    if (delivery.state, state) not in TRANSITIONS[step]:
        raise IllegalTransition(f"{step}: what is {delivery.state} can't become {state}")
    left = {"next_attempt_at": None, "reason": None}
    return replace(delivery, **{**left, **changes, "state": state, "since": since})


def _wait(step: Step, delivery: Delivery, at: datetime, since: datetime, **changes: Any) -> Delivery:
    return _move(step, delivery, "waiting", since, next_attempt_at=at, **changes)


def _given_back(delivery: Delivery) -> dict[str, Any]:
    return {"attempts": delivery.attempts - 1, "given_back": delivery.given_back + 1}


def _error(outcome: Refused | Throttled | Failed | Misconfigured) -> dict[str, Any]:
    category = None if outcome.category == "transient" else outcome.category
    return {"code": outcome.code, "message": outcome.message, "category": category}


def _is_bounced(delivery: Delivery) -> bool:
    return delivery.state == "failed" and delivery.code == BOUNCED


def _is_receipted(delivery: Delivery) -> bool:
    return delivery.attempts > 0 and (delivery.state == "delivered" or _is_bounced(delivery))


def _as_kept(moment: datetime) -> datetime:
    if moment.tzinfo is None:
        raise ValueError("a moment needs a zone")
    utc = moment.astimezone(UTC)
    return utc.replace(microsecond=utc.microsecond // 1000 * 1000)
