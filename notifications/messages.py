"""An e-mail or a push message that is ready for a provider.

Nothing here is logged, because all of it is personal.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime

from schemas.notifications import Platform


@dataclass(frozen=True, slots=True)
class Email:
    """One e-mail to one person.

    Attributes:
        key: The same at every attempt, and for no other message; 32 hexadecimal digits. Providers that know
            idempotency keys get it as theirs; in SMTP it is in the `Message-ID`.
        to: The recipient's address.
        sender: `Name <address>`, or an address.
        subject: One line.
        text: The plain part.
        html: The HTML part.
        unsubscribe_url: Where RFC 8058's one click goes; `None` on what is transactional.
        metadata: Short names and values that the provider gives back in its receipts, such as the notification's id.
    """

    key: str
    to: str = field(repr=False)
    sender: str
    subject: str = field(repr=False)
    text: str = field(repr=False)
    html: str = field(repr=False)
    unsubscribe_url: str | None = field(repr=False, default=None)
    metadata: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Push:
    """One push message to one device.

    Attributes:
        key: As an e-mail's.
        token: The device's token; for `web` the subscription's JSON as browsers give it (`endpoint`, `keys`).
        platform: What kind of device it is.
        title: In bold.
        body: Below it.
        url: What a touch opens; `None` for the application itself.
        data: More for the application: short texts.
        expires_at: After this the provider is to drop it.
        urgent: Whether it may wake up the device.
    """

    key: str
    token: str = field(repr=False)
    platform: Platform
    title: str = field(repr=False)
    body: str = field(repr=False)
    url: str | None
    data: Mapping[str, str] = field(repr=False, default_factory=dict)
    expires_at: datetime | None = None
    urgent: bool = False
