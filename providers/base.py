"""What the queue needs of a provider of e-mail or push: one question, answered by an `Outcome`.

In comes a message; out goes what came of it. A provider raises for bugs alone: whatever the network or the other side
does is an outcome.
"""

from dataclasses import replace
from typing import Protocol, TypeVar

from notifications.outcome import Misconfigured, Outcome, Refused

Message = TypeVar("Message", contravariant=True)


def without_asking(outcome: Refused | Misconfigured) -> Outcome:
    """Return an outcome that was clear before the provider was asked."""
    return replace(outcome, was_asked=False) if isinstance(outcome, Refused) else outcome


class Provider(Protocol[Message]):
    """Sends messages of one kind.

    Attributes:
        name: As the logs have it: `sendgrid`, `aws-ses`, `mailgun`, `smtp`, `fcm`, `apns`, `web-push`.
        may_repeat: Whether the provider may deliver twice what it is given twice with the same key.
    """

    name: str
    may_repeat: bool

    async def send(self, message: Message) -> Outcome:
        """Hand a message over; return within the client's time-out."""

    async def close(self) -> None:
        """Let go of connections."""
