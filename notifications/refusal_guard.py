"""The refusal guard: decides from all responses of one provider whether a refusal is about the message or about us.

Input: the outcome of each attempt with one provider. Output: the outcome to act on. One reply to one recipient says
nothing about the next; the same reply to many recipients, or a refusal of most messages, does. A wrong project looks
like a thousand devices that do not exist, and a server that does not relay for us like a thousand closed mailboxes:
beyond a limit the outcome is `Misconfigured`, which opens the circuit and suppresses nobody. The state belongs to this
process and is lost with it.
"""

import re
from collections import OrderedDict, deque
from dataclasses import replace
from datetime import datetime

from notifications.outcome import Failed, Misconfigured, Outcome, Refused, Sent

SAMPLE = 50
"""So many of the latest answers are looked at; before there are as many, every refusal is believed."""

LIMIT = 0.8
"""The share of refusals above which none is believed."""

DIFFERENT_RECIPIENTS = 5
"""So many recipients that get the same reply, and nobody is sent anything in between: then it is not about them.

As many as failures in a row open a circuit. What is about a mailbox by its code (`gone`, `full`) is never counted."""

_REPLIES_KEPT = 100
_VARYING = re.compile(r"[^\s<>]*\d[^\s<>]*")


class RefusalGuard:
    """The latest answers of one provider that took a message, or refused it."""

    def __init__(self) -> None:
        self._were_refused: deque[bool] = deque(maxlen=SAMPLE)
        self._recipients: OrderedDict[str, set[int]] = OrderedDict()
        self._taken_at: datetime | None = None

    def judge(
        self,
        outcome: Outcome,
        recipient: str = "",
        now: datetime | None = None,
        given_back_at: datetime | None = None,
    ) -> Outcome:
        """Return what came of an attempt, as it is to be taken.

        Args:
            outcome: What came of it by itself.
            recipient: Whom it was to.
            now: The present moment.
            given_back_at: When this message was given back last, as the provider seemed to refuse us; `None` where it
                was not. If the provider has taken another message since, the fault is this message's after all.
        """
        if isinstance(outcome, Refused) and not outcome.was_asked:
            return outcome
        taken = self._of_all(outcome, recipient, now)
        if isinstance(taken, Misconfigured) and given_back_at and self._taken_at and self._taken_at > given_back_at:
            return _of_this_message(outcome)
        return taken

    def _of_all(self, outcome: Outcome, recipient: str, now: datetime | None) -> Outcome:
        """Return what an outcome is in the light of the others."""
        if isinstance(outcome, Sent):
            self._were_refused.append(False)
            self._recipients.clear()
            self._taken_at = now
            return outcome
        if isinstance(outcome, Refused):
            self._were_refused.append(True)
            if len(self._were_refused) == SAMPLE and sum(self._were_refused) > SAMPLE * LIMIT:
                said = f"{sum(self._were_refused)} of its last {SAMPLE} answers were refusals, the latest: "
                return Misconfigured(outcome.code, said + outcome.message, category=outcome.category)
        if isinstance(outcome, Refused | Failed) and _may_be_ours(outcome):
            return self._of_its_like(outcome, recipient)
        return outcome

    def _of_its_like(self, outcome: Refused | Failed, recipient: str) -> Outcome:
        """Return what a verdict on one recipient is, as others got the same, or not."""
        if self._count(outcome, recipient) < DIFFERENT_RECIPIENTS:
            return outcome
        if isinstance(outcome, Failed) and outcome.category == "transient":
            return replace(outcome, concerns="provider")
        said = f"the same to {DIFFERENT_RECIPIENTS} recipients and more: {outcome.message}"
        return Misconfigured(outcome.code, said, category=outcome.category)

    def _count(self, outcome: Failed | Refused, recipient: str) -> int:
        """Return how many recipients got this reply since a message was taken."""
        reply = f"{outcome.code} {_VARYING.sub('#', outcome.message)}"
        recipients = self._recipients.setdefault(reply, set())
        self._recipients.move_to_end(reply)
        if len(recipients) < DIFFERENT_RECIPIENTS:
            recipients.add(hash(recipient))
        while len(self._recipients) > _REPLIES_KEPT:
            self._recipients.popitem(last=False)
        return len(recipients)


def _may_be_ours(outcome: Refused | Failed) -> bool:
    """Whether a verdict on one recipient can be one on us, when others get the same."""
    if isinstance(outcome, Refused):
        return not outcome.recipient_is_gone
    return outcome.concerns == "recipient" and outcome.category != "full"


def _of_this_message(outcome: Outcome) -> Outcome:
    """Return a refusal of us as one of this message: it counts as an attempt, opens no circuit, suppresses nobody."""
    match outcome:
        case Misconfigured(code, message):
            return Failed(code, message, may_have_arrived=False, concerns="recipient", category=outcome.category)
        case Refused():
            return replace(outcome, recipient_is_gone=False)
        case _:
            return outcome
