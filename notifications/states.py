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
"""What happens to a delivery: the functions of this module."""

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
"""From which state to which each step leads; `None` is a delivery that was not there before."""

BOUNCED = "bounced"
"""The code of what failed as a receipt said so."""

INTERRUPTED = "interrupted"
"""The code of an attempt of which nobody knows what came."""

INTERRUPTED_MESSAGE = "the worker stopped before it was known what came of the attempt"
_BOUNCED_MESSAGE = "the provider took it, and could not deliver it"


class IllegalTransition(Exception):  # noqa: N818  # named by what was asked for
    """What was asked of a delivery does not follow from its state."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Delivery:
    """How far a notification has come on one channel: a single state, and what belongs to it.

    Moments are in UTC and whole milliseconds, as MongoDB keeps no more.

    Attributes:
        channel: The way that it goes.
        device: For `push`, which of the person's devices: a name that is not its token.
        state: `waiting` until it is tried at `next_attempt_at`; `sending` while it is not known what came of an
            attempt; `sent` once a provider took it; `delivered` once a receipt says so; `failed`; `skipped`.
        since: When it came into this state.
        attempts: How many attempts count against the maximum, the present one included.
        given_back: How many attempts did not count, as the provider throttled or seemed to refuse us.
        next_attempt_at: Not to be tried before; of what is waiting, and nothing else.
        provider: Who was given it last.
        provider_id: What the provider called it.
        code: A short name of the last error; `None` once it was sent.
        message: What there is to say of the last error; without the recipient's address.
        category: What the last error means; `None` where it is a temporary fault, or not a provider's.
        reason: Why it was skipped.

    Raises:
        ValueError: Where state and fields don't fit.
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
        """Bring moments to what MongoDB keeps, and refuse what can't be."""
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
            raise ValueError(f"these fields are none of a delivery that is {self.state}")

    @classmethod
    def from_document(cls, document: Mapping[str, Any]) -> Self:
        """Read what `to_document` made; its moments with a zone, as a client with `tz_aware` gives them.

        Raises:
            KeyError: Where something is missing.
            ValueError: Where it is no delivery.
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
        """Return what names the message at its provider and in the logs: at every attempt the same, and no other's."""
        return digest(notification_id, self.channel, self.device)

    def to_document(self) -> dict[str, Any]:
        """Return it as it stands in the item of the queue; what is `None` is left out."""
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
    """Return what a device is called where its token is nobody's business."""
    return sha256(token.encode(errors="surrogatepass")).hexdigest()[:16]


def plan(channel: Channel, now: datetime, *, at: datetime | None = None, device: str | None = None) -> Delivery:
    """Make a delivery that is to be tried: now, or not before `at`."""
    return Delivery(channel=channel, device=device, state="waiting", since=now, next_attempt_at=at or now)


def store(now: datetime) -> Delivery:
    """Make the delivery in the application: the stored notification is what arrives, so there is nothing to try."""
    return Delivery(channel="inApp", state="delivered", since=now)


def is_due(delivery: Delivery, now: datetime) -> bool:
    """Whether the delivery is to be tried now, if its notification has not expired."""
    return delivery.next_attempt_at is not None and delivery.next_attempt_at <= _as_kept(now)


def expired(expires_at: datetime | None, now: datetime) -> bool:
    """Whether a notification is past its time, so that what still waits is skipped instead of sent."""
    return expires_at is not None and expires_at <= now


def begin(delivery: Delivery, provider: str, now: datetime) -> Delivery:
    """Begin an attempt, which counts from here. This is written durably before the provider gets anything.

    Raises:
        IllegalTransition: Where it does not wait, or not until now only.
    """
    if delivery.state == "waiting" and not is_due(delivery, now):
        raise IllegalTransition(f"begin: the delivery waits until {delivery.next_attempt_at}")
    attempts = delivery.attempts + 1
    return _move("begin", delivery, "sending", now, attempts=attempts, provider=provider, provider_id=None)


def settle(delivery: Delivery, outcome: Outcome, policy: RetryPolicy, now: datetime, chance: Random) -> Delivery:
    """End an attempt by what came of it.

    What is throttled or refused for our own fault does not count as an attempt, `MOST_GIVEN_BACK` times at most. The
    first waits for as long as the provider asked for. The second is due at once, for the next provider: the circuit
    that it opened keeps it from this one, and where no other is left, `postpone` makes it wait for the circuit.

    Where a receipt was quicker than the provider's answer, the receipt holds.

    Raises:
        IllegalTransition: Where no attempt is under way.
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
    """Take up a delivery whose worker lost its lease during an attempt, which counts: it may have arrived.

    It is due at once, as the lease was wait enough; after the last attempt it failed.

    Raises:
        IllegalTransition: Where no attempt was under way.
    """
    error = {"code": INTERRUPTED, "message": INTERRUPTED_MESSAGE, "category": None}
    if delivery.attempts < policy.max_attempts:
        return _wait("recover", delivery, now, now, **error)
    return _move("recover", delivery, "failed", now, **error)


def postpone(delivery: Delivery, until: datetime) -> Delivery:
    """Let it wait longer, for quiet hours, a circuit or a rate limit; never shorter. Counts nothing.

    Raises:
        IllegalTransition: Where it does not wait.
    """
    at = max(until, delivery.next_attempt_at or until)
    return _wait("postpone", delivery, at, delivery.since)


def skip(delivery: Delivery, reason: Reason, now: datetime) -> Delivery:
    """Give up what waits, as it is not to be sent.

    Raises:
        IllegalTransition: Where it does not wait.
    """
    return _move("skip", delivery, "skipped", now, reason=reason)


def cancel(delivery: Delivery, now: datetime) -> Delivery:
    """Give up what waits, as somebody asked for it.

    Raises:
        IllegalTransition: Where it does not wait; what is under way can't be held.
    """
    return _move("cancel", delivery, "skipped", now, reason="cancelled")


def confirm(delivery: Delivery, confirmation: Confirmation, now: datetime) -> Delivery:
    """Take in what a provider reports of a message that it took; opened or clicked is delivered as well.

    Receipts come in any order, more than once, and before the answer to the attempt. What bounced stays so, whatever
    else is reported: servers take messages and give them back later. A message that arrived is not sent again, although
    its attempt looked like a failure.

    A receipt changes nothing where no attempt counts: after `retry` it is about one before that.
    """
    if delivery.attempts == 0 or _is_bounced(delivery):
        return delivery
    if confirmation == "bounced":
        return _move("confirm", delivery, "failed", now, code=BOUNCED, message=_BOUNCED_MESSAGE, category=None)
    if delivery.state == "delivered":
        return delivery
    return _move("confirm", delivery, "delivered", now, code=None, message=None, category=None)


def retry(delivery: Delivery, now: datetime) -> Delivery:
    """Try again what failed, as somebody asked for it, with all its attempts anew.

    Raises:
        IllegalTransition: Where it did not fail.
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
    """Return when the first of the deliveries that wait is to be tried; `None` where none waits."""
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
