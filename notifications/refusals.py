"""The limit on refusals: when a provider refuses most of what it gets, the fault is ours, and not the messages'.

In comes what came of each attempt with one provider; out goes how it is to be taken. A wrong project or a wrong topic
looks like a thousand devices that have gone, and a broken sender like a thousand bad messages: beyond the limit that is
`Misconfigured`, which opens the circuit and burns nothing. The state is this process's own, and is lost with it.
"""

from collections import deque

from notifications.outcome import Misconfigured, Outcome, Refused, Sent

SAMPLE = 50
"""So many of the latest answers are looked at; before there are as many, every refusal is believed."""

LIMIT = 0.8
"""The share of refusals above which none is believed."""


class Refusals:
    """The latest answers of one provider that took a message, or refused it."""

    def __init__(self) -> None:
        self._were_refused: deque[bool] = deque(maxlen=SAMPLE)

    def judge(self, outcome: Outcome) -> Outcome:
        """Return what came of an attempt, as it is to be taken."""
        if not isinstance(outcome, Sent | Refused):
            return outcome
        self._were_refused.append(isinstance(outcome, Refused))
        if isinstance(outcome, Sent) or len(self._were_refused) < SAMPLE:
            return outcome
        if sum(self._were_refused) <= SAMPLE * LIMIT:
            return outcome
        said = f"{sum(self._were_refused)} of its last {SAMPLE} answers were refusals, the latest: {outcome.message}"
        return Misconfigured(outcome.code, said)
