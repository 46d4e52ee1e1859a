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
        key: Unique, and the same at every attempt; 32 hexadecimal digits. It is the idempotency key for providers that
            have one, and part of the `Message-ID` in SMTP.
        to: The recipient's address.
        sender: `Name <address>`, or an address.
        subject: One line.
        text: The plain part.
        html: The HTML part.
        unsubscribe_url: The one-click URL of RFC 8058; `None` for transactional e-mails.
        metadata: Short names and values that the provider returns in its receipts, such as the notification's id.
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
        key: As for an e-mail.
        token: The device's token; for `web` the subscription's JSON as browsers give it (`endpoint`, `keys`).
        platform: The device's platform.
        title: The title.
        body: The text below the title.
        url: What a tap opens; `None` for the application itself.
        data: Short texts for the application.
        expires_at: When the provider drops it.
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
