"""The outcome of sending a message to a provider: five classes that decide what happens next.

Input: a provider's response, or its absence. Output: one of the classes. Codes and messages are the provider's own if
it gave any, without the recipient's address.
"""

from dataclasses import dataclass, field
from datetime import timedelta
from typing import Literal

Category = Literal["gone", "refused", "content", "full", "throttled", "policy", "configuration", "transient"]
"""Why a message was not taken; `notifications.replies` says what follows from each.

It says how an outcome is read, and not what came of the attempt: so two outcomes that differ in it alone are equal.
"""


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
        category: `gone`, `refused` or `content`.
        was_asked: Whether the provider was; where we knew without, the outcome says nothing about the provider.
    """

    code: str
    message: str
    recipient_is_gone: bool
    category: Category = field(default="refused", compare=False)
    was_asked: bool = field(default=True, compare=False)


@dataclass(frozen=True, slots=True)
class Throttled:
    """Too much at once: the provider asks to wait. Says nothing about the message.

    Attributes:
        retry_after: How long it asks to wait; `None` where it does not say.
        category: `throttled`.
    """

    code: str
    message: str
    retry_after: timedelta | None
    category: Category = field(default="throttled", compare=False)


@dataclass(frozen=True, slots=True)
class Failed:
    """It did not work this time, and may the next: the provider is down, or did not answer in time.

    Attributes:
        may_have_arrived: Whether the provider may have taken it all the same, as its answer was lost.
        concerns: Whom it is about, as far as this one attempt shows. What concerns a recipient, such as a full mailbox,
            says nothing about the next message, and is no outage of the provider.
        category: `transient`, `full`, `policy` or `configuration`.
    """

    code: str
    message: str
    may_have_arrived: bool
    concerns: Literal["provider", "recipient"] = field(default="provider", compare=False)
    category: Category = field(default="transient", compare=False)


@dataclass(frozen=True, slots=True)
class Misconfigured:
    """The provider refuses us: a wrong key, a closed account, a sender that is not ours. No message can be sent.

    Attributes:
        category: `configuration` or `policy`; else what it is of one message, where most messages meet it.
    """

    code: str
    message: str
    category: Category = field(default="configuration", compare=False)


Outcome = Sent | Refused | Throttled | Failed | Misconfigured
