"""The worker's page `/unsubscribe`, which the link in an e-mail opens.

Input: the token of a link. Output: a page with one button and, after a click, a receipt in Kafka. Opening the page
changes nothing, as mail scanners open every link. A mail client may send the form itself after its user clicked
"Unsubscribe" there: https://www.rfc-editor.org/rfc/rfc8058.
"""

from datetime import UTC, datetime
from typing import Final, NamedTuple

import faust
from faust.web import Request, Response, View

from notifications.unsubscribing import BadLink, PageState, UnsubscribeLinks, page, unsubscribed
from runtime.settings import Settings
from web.receipt_publisher import NotPublished
from web.webhooks import Publish

HEADERS: Final = {
    "Cache-Control": "no-store",
    "Content-Security-Policy": "default-src 'none'; style-src 'unsafe-inline'; form-action 'self'; base-uri 'none'; "
    "frame-ancestors 'none'",
    "Referrer-Policy": "no-referrer",  # the token is in the URL
    "X-Content-Type-Options": "nosniff",
}

_STATUSES: Final[dict[PageState, int]] = {"ask": 200, "done": 200, "bad": 404, "later": 503}


class Shown(NamedTuple):
    """A rendered page: HTTP status and HTML."""

    status: int
    html: str


class UnsubscribePage:
    """The page's behaviour, independent of the web server.

    Args:
        links: Reads tokens.
        publish: Stores receipts durably.
        site_name: The blog's name.
        site_url: Its address.
    """

    def __init__(self, links: UnsubscribeLinks, publish: Publish, site_name: str, site_url: str) -> None:
        self._links = links
        self._publish = publish
        self._site_name = site_name
        self._site_url = site_url

    def look(self, token: str) -> Shown:
        """Show the button."""
        try:
            self._links.key(token)
        except BadLink:
            return self._shown("bad")
        return self._shown("ask")

    async def press(self, token: str) -> Shown:
        """Unsubscribe the address to which the link was sent."""
        try:
            key = self._links.key(token)
            await self._publish([unsubscribed(key, datetime.now(UTC))])
        except BadLink:
            return self._shown("bad")
        except NotPublished:
            return self._shown("later")
        return self._shown("done")

    def _shown(self, state: PageState) -> Shown:
        return Shown(_STATUSES[state], page(state, self._site_name, self._site_url))


def serve(app: faust.App, settings: Settings, publish: Publish) -> None:
    """Add the page if unsubscribe links are enabled."""
    if settings.unsubscribe_url is None:
        return
    links = UnsubscribeLinks(settings.unsubscribe_url, settings.unsubscribe_key.get_secret_value())
    unsubscribe = UnsubscribePage(links, publish, settings.site_name, settings.site_url)

    @app.page("/unsubscribe", name="unsubscribe")
    class Page(View):
        async def get(self, request: Request) -> Response:
            shown = unsubscribe.look(request.query.get("token", ""))
            return self.html(shown.html, status=shown.status, headers=dict(HEADERS))

        async def post(self, request: Request) -> Response:
            shown = await unsubscribe.press(request.query.get("token", ""))
            return self.html(shown.html, status=shown.status, headers=dict(HEADERS))
