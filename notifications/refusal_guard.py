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
"""How many of the latest responses are considered; until there are as many, every refusal is accepted."""

LIMIT = 0.8
"""The share of refusals above which they are attributed to us."""

DIFFERENT_RECIPIENTS = 5
"""If so many recipients get the same reply, with no message accepted in between, the reply is not about them.

Equals the number of failures in a row that opens a circuit. Replies about a mailbox (`gone`, `full`) are not
counted."""

_REPLIES_KEPT = 100
_VARYING = re.compile(r"[^\s<>]*\d[^\s<>]*")


class RefusalGuard:
    """The latest responses of one provider."""

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
        """Return the outcome to act on.

        Args:
            outcome: The outcome of the attempt alone.
            recipient: The recipient.
            now: The current time.
            given_back_at: When an attempt of this message last did not count, because the provider seemed to refuse us;
                `None` if there was none. If the provider has accepted another message since, the refusal is about this
                message.
        """
        if isinstance(outcome, Refused) and not outcome.was_asked:
            return outcome
        taken = self._of_all(outcome, recipient, now)
        if isinstance(taken, Misconfigured) and given_back_at and self._taken_at and self._taken_at > given_back_at:
            return _of_this_message(outcome)
        return taken

    def _of_all(self, outcome: Outcome, recipient: str, now: datetime | None) -> Outcome:
        """Return the outcome in view of the others."""
        if isinstance(outcome, Sent):
            self._were_refused.append(False)
            self._recipients.clear()
            self._taken_at = now
            return outcome
        if isinstance(outcome, Refused):
            self._were_refused.append(True)
            if len(self._were_refused) == SAMPLE and sum(self._were_refused) > SAMPLE * LIMIT:
                said = f"{sum(self._were_refused)} of its last {SAMPLE} responses were refusals, the latest: "
                return Misconfigured(outcome.code, said + outcome.message, category=outcome.category)
        if isinstance(outcome, Refused | Failed) and _may_be_ours(outcome):
            return self._of_its_like(outcome, recipient)
        return outcome

    def _of_its_like(self, outcome: Refused | Failed, recipient: str) -> Outcome:
        """Return the outcome of a reply about one recipient, depending on how many got the same."""
        if self._count(outcome, recipient) < DIFFERENT_RECIPIENTS:
            return outcome
        if isinstance(outcome, Failed) and outcome.category == "transient":
            return replace(outcome, concerns="provider")
        said = f"the same reply for at least {DIFFERENT_RECIPIENTS} recipients: {outcome.message}"
        return Misconfigured(outcome.code, said, category=outcome.category)

    def _count(self, outcome: Failed | Refused, recipient: str) -> int:
        """Return how many recipients got this reply since the last accepted message."""
        reply = f"{outcome.code} {_VARYING.sub('#', outcome.message)}"
        recipients = self._recipients.setdefault(reply, set())
        self._recipients.move_to_end(reply)
        if len(recipients) < DIFFERENT_RECIPIENTS:
            recipients.add(hash(recipient))
        while len(self._recipients) > _REPLIES_KEPT:
            self._recipients.popitem(last=False)
        return len(recipients)


def _may_be_ours(outcome: Refused | Failed) -> bool:
    """Whether a reply about one recipient may be about us if others get the same."""
    if isinstance(outcome, Refused):
        return not outcome.recipient_is_gone
    return outcome.concerns == "recipient" and outcome.category != "full"


def _of_this_message(outcome: Outcome) -> Outcome:
    """Return a refusal of this message alone: it counts as an attempt, opens no circuit and suppresses nobody."""
    match outcome:
        case Misconfigured(code, message):
            return Failed(code, message, may_have_arrived=False, concerns="recipient", category=outcome.category)
        case Refused():
            return replace(outcome, recipient_is_gone=False)
        case _:
            return outcome
