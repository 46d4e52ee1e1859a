"""Unsubscribing: the link in an e-mail, the page behind it, and its receipt.

Input: the key of an e-mail's log. Output: a URL with a signed token; of a token, the key. Nobody can make a link for an
e-mail of somebody else. RFC 8058 requires that the URL alone identifies the recipient, so that one click is enough:
https://www.rfc-editor.org/rfc/rfc8058#section-3.1. There is no state.
"""

from datetime import datetime, timedelta
from hashlib import sha256
from pathlib import Path
from typing import Literal

from itsdangerous import BadSignature, TimestampSigner
from jinja2 import Environment, FileSystemLoader, StrictUndefined

from notifications.receipts.receipt import Receipt, Report, receipt

KEPT = timedelta(days=30)
"""How long a link works: as long as `emailLogs` keeps its recipient, and at least as long as laws require."""

PROVIDER = "inkstream"
"""The provider in receipts from our own unsubscribe page."""

PageState = Literal["ask", "done", "bad", "later"]
"""The content of a page: asks for confirmation; confirms; the link is invalid; try again later."""

_PURPOSE = "unsubscribe"  # what else the key may sign one day is no link
_PAGES = Environment(
    loader=FileSystemLoader(Path(__file__).with_name("templates")),
    autoescape=True,
    undefined=StrictUndefined,
    trim_blocks=True,
    lstrip_blocks=True,
)


class BadLink(ValueError):  # noqa: N818  # what it is, not a fault of ours
    """A token with a wrong signature, or an expired one."""


class UnsubscribeLinks:
    """Makes and reads unsubscribe links.

    Args:
        url: The public URL of the page.
        key: The secret key of the signatures.
    """

    def __init__(self, url: str, key: str) -> None:
        self._url = url
        self._signer = TimestampSigner(key, salt=_PURPOSE, digest_method=sha256, key_derivation="hmac")

    def url(self, key: str) -> str:
        """Return the link of the e-mail whose log has the key."""
        return f"{self._url}?token={self._signer.sign(key).decode()}"

    def key(self, token: str) -> str:
        """Return the key of a link.

        Raises:
            BadLink: The signature is wrong, or the link has expired.
        """
        try:
            key: bytes = self._signer.unsign(token, max_age=KEPT // timedelta(seconds=1))
            return key.decode()
        except (BadSignature, UnicodeError):
            raise BadLink("the link is not ours, or too old") from None


def unsubscribed(key: str, now: datetime) -> Receipt:
    """Return the receipt that the recipient of an e-mail unsubscribed; repeated, it is the same."""
    report = Report(
        event_id=f"unsubscribed:{key}",
        kind="unsubscribed",
        timestamp=now,
        provider_id=None,
        given={"key": key},
        recipient=None,
    )
    return receipt(PROVIDER, report)


def page(state: PageState, site_name: str, site_url: str) -> str:
    """Return a page as HTML.

    Args:
        state: The content.
        site_name: The blog's name.
        site_url: The blog's URL.
    """
    return _PAGES.get_template("unsubscribe.html.j2").render(state=state, site_name=site_name, site_url=site_url)
