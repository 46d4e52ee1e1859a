"""The outcome of sending a message to a provider: five classes that decide what happens next.

Input: a provider's response, or its absence. Output: one of the classes. Codes and messages are the provider's own if
it gave any, without the recipient's address.
"""

from dataclasses import dataclass, field
from datetime import timedelta
from typing import Literal

Category = Literal["gone", "refused", "content", "full", "throttled", "policy", "configuration", "transient"]
"""Why a message was not accepted; `notifications.replies` says what follows from each.

Two outcomes that differ only in the category are equal.
"""


@dataclass(frozen=True, slots=True)
class Sent:
    """The provider accepted the message, and is responsible for its delivery.

    Attributes:
        provider_id: The provider's id of the message, which receipts name; `None` if it has none.
    """

    provider_id: str | None


@dataclass(frozen=True, slots=True)
class Refused:
    """The provider will never accept it: this message, or any message for this recipient.

    Attributes:
        code: The code of the reason, such as `550` or `UNREGISTERED`.
        message: The provider's text.
        recipient_is_gone: Whether the address or the token does not exist any more, so nothing may be sent to it.
        category: `gone`, `refused` or `content`.
        was_asked: Whether the provider was asked; if not, the outcome says nothing about the provider.
    """

    code: str
    message: str
    recipient_is_gone: bool
    category: Category = field(default="refused", compare=False)
    was_asked: bool = field(default=True, compare=False)


@dataclass(frozen=True, slots=True)
class Throttled:
    """Too many messages: the provider asks us to wait. Says nothing about the message.

    Attributes:
        retry_after: The requested wait; `None` if it names none.
        category: `throttled`.
    """

    code: str
    message: str
    retry_after: timedelta | None
    category: Category = field(default="throttled", compare=False)


@dataclass(frozen=True, slots=True)
class Failed:
    """A temporary failure: the provider is down, or did not respond in time.

    Attributes:
        may_have_arrived: Whether the provider may have accepted it and its response was lost.
        concerns: Whom the failure is about, as far as one attempt shows. A failure of one recipient, such as a full
            mailbox, says nothing about the next message, and is no outage of the provider.
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
        category: `configuration` or `policy`; or the category of one message, if most messages get it.
    """

    code: str
    message: str
    category: Category = field(default="configuration", compare=False)


Outcome = Sent | Refused | Throttled | Failed | Misconfigured
