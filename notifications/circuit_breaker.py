"""The circuit breaker of a provider: stops attempts while the provider is down or refuses us.

Input: the outcome of each attempt. Output: whether there may be another attempt. The state belongs to this process and
is lost with it: a new process begins with a closed circuit.

As described by Martin Fowler (https://martinfowler.com/bliki/CircuitBreaker.html).
"""

from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Literal

from notifications.outcome import Failed, Misconfigured, Outcome, Refused, Sent, Throttled
from notifications.retry_policy import growing

CircuitState = Literal["closed", "open", "half-open"]


@dataclass(frozen=True, slots=True)
class CircuitPolicy:
    """When a circuit opens, and for how long.

    Attributes:
        failures: How many failures in a row open it.
        pause: How long it stays open the first time. Longer than the provider's time-out, so that what was under way
            when the circuit opened has ended before the probe, and is not taken for it.
        factor: By how much the pause grows each time that the probe fails.
        longest: What the pause never exceeds.
        probe: How long to wait for the result of a probe before the next one: its worker may have crashed.
    """

    failures: int = 5
    pause: timedelta = timedelta(seconds=30)
    factor: float = 2
    longest: timedelta = timedelta(minutes=5)
    probe: timedelta = timedelta(seconds=30)


class CircuitBreaker:
    """Decides whether a provider may get messages.

    Closed, it admits every attempt. A row of failures opens it, or at once a provider that refuses us; then it admits
    none. After the pause it is half-open and admits a single attempt, the probe: success closes it, failure opens it
    again for longer.
    """

    def __init__(self, policy: CircuitPolicy | None = None) -> None:
        self._policy = policy or CircuitPolicy()
        self._failures = 0
        self._openings = 0
        self._is_probing = False
        self._shut_until: datetime | None = None

    def state(self, now: datetime) -> CircuitState:
        """Return the state, for a metric."""
        if self._shut_until is None:
            return "closed"
        return "half-open" if self._is_probing or now >= self._shut_until else "open"

    def admits_at(self, now: datetime) -> datetime:
        """Return when the next attempt may be admitted: `now`, or the end of the pause, or of the wait for a probe."""
        return now if self._shut_until is None else max(now, self._shut_until)

    def admit(self, now: datetime) -> bool:
        """Return whether an attempt may be made now. If so, the caller makes it at once, and records the outcome."""
        if self._shut_until is None:
            return True
        if now < self._shut_until:
            return False
        self._is_probing = True
        self._shut_until = now + self._policy.probe
        return True

    def record(self, outcome: Outcome, now: datetime) -> None:
        """Record the outcome of an attempt.

        `Refused` is about a message and shows that the provider works, as `Sent` does. A failure that concerns one
        recipient neither opens the circuit nor resets the count of failures; after a probe it shows that the provider
        works. `Throttled` has no effect, and neither has a message of which the provider was not asked. While the
        circuit is open, outcomes belong to earlier attempts and have no effect.
        """
        if self._shut_until is not None and not self._is_probing:
            return
        match outcome:
            case Refused() if not outcome.was_asked:
                if self._is_probing:
                    self._is_probing = False
                    self._shut_until = now  # the next message is the probe
            case Sent() | Refused():
                self._close()
            case Failed() if outcome.concerns == "recipient":
                if self._is_probing:
                    self._close()
            case Failed():
                self._failures += 1
                if self._is_probing or self._failures >= self._policy.failures:
                    self._open(now)
            case Misconfigured():
                self._open(now)
            case Throttled():
                pass

    def _close(self) -> None:
        self._failures = self._openings = 0
        self._is_probing = False
        self._shut_until = None

    def _open(self, now: datetime) -> None:
        self._openings += 1
        self._is_probing = False
        policy = self._policy
        self._shut_until = now + growing(self._openings, policy.pause, policy.factor, policy.longest)
