"""What came of handing a message to a provider, in five words that decide what happens next.

In comes whatever a provider answered, or that it did not; out goes one of these. The codes and messages are the
provider's own where it gave any, without the recipient's address.
"""

from dataclasses import dataclass
from datetime import timedelta


@dataclass(frozen=True, slots=True)
class Sent:
    """The provider took it, and has the duty to deliver it.

    Attributes:
        provider_id: What the provider calls the message; receipts name it. `None` where it gives no name.
    """

    provider_id: str | None


@dataclass(frozen=True, slots=True)
class Refused:
    """It will never be taken: not this message, or nothing for this recipient any more.

    Attributes:
        code: A short name of the reason, as `550` or `UNREGISTERED`.
        message: What the provider said.
        recipient_is_gone: Whether the address or the token is the reason, so that nothing may be sent to it again.
    """

    code: str
    message: str
    recipient_is_gone: bool


@dataclass(frozen=True, slots=True)
class Throttled:
    """Too much at once: the provider asks to wait. Says nothing about the message.

    Attributes:
        retry_after: How long it asks to wait; `None` where it does not say.
    """

    code: str
    message: str
    retry_after: timedelta | None


@dataclass(frozen=True, slots=True)
class Failed:
    """It did not work this time, and may the next: the provider is down, or did not answer in time.

    Attributes:
        may_have_arrived: Whether the provider may have taken it all the same, as its answer was lost.
    """

    code: str
    message: str
    may_have_arrived: bool


@dataclass(frozen=True, slots=True)
class Misconfigured:
    """The provider refuses us: a wrong key, a closed account, a sender that is not ours. No message can be sent."""

    code: str
    message: str


Outcome = Sent | Refused | Throttled | Failed | Misconfigured
