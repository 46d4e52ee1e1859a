"""Serve the inbox's pages: lists of mails and push messages, and one mail with all its parts.

Input: the mailbox and the push messages. Output: pages that need no JavaScript and load nothing from anywhere else.
The text of a mail is escaped, and its HTML is shown in a frame that runs no scripts and loads nothing either.
"""

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

from aiohttp import web
from jinja2 import Environment, FileSystemLoader, StrictUndefined

from dev.inbox.mailbox import Mailbox, OpenMail
from dev.inbox.push_messages import PushMessages

ON_ONE_PAGE = 50
FOLLOWED_EVERY_SECONDS = 3

_FOLDER = Path(__file__).with_name("templates")
_TEMPLATES = Environment(
    loader=FileSystemLoader(_FOLDER),
    autoescape=True,
    undefined=StrictUndefined,
    trim_blocks=True,
    lstrip_blocks=True,
)
_HEADERS = {
    "Content-Security-Policy": "default-src 'none'; style-src 'self'; frame-src 'self'; form-action 'self'; "
    "base-uri 'none'; frame-ancestors 'none'",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
    "Cache-Control": "no-cache",
}
# No scripts, and nothing from the network; a link opens a page of its own.
_SANDBOX = "allow-popups allow-popups-to-escape-sandbox"
_OF_A_MAIL = {
    **_HEADERS,
    "Content-Security-Policy": "default-src 'none'; style-src 'unsafe-inline'; img-src data:; "
    f"frame-ancestors 'self'; sandbox {_SANDBOX}",
}
_HEAD = re.compile(r"<head(\s[^<>]*)?>", re.IGNORECASE)


class Pages:
    """What a browser is shown.

    Args:
        mailbox: The mails.
        push_messages: The push messages.
    """

    def __init__(self, mailbox: Mailbox, push_messages: PushMessages) -> None:
        self._mailbox = mailbox
        self._push_messages = push_messages

    def application(self) -> web.Application:
        """Return the pages as an application."""
        application = web.Application(middlewares=[self._explained])
        application.add_routes(
            [
                web.get("/", self._mails),
                web.get("/mails/{id}", self._mail),
                web.get("/mails/{id}/html", self._html),
                web.get("/mails/{id}/raw", self._raw),
                web.get("/push-messages", self._push),
                web.get("/message-ids", self._message_ids),
                web.get("/style.css", self._style),
            ]
        )
        return application

    async def _mails(self, request: web.Request) -> web.Response:
        recipient = request.query.get("recipient", "").strip()
        return self._list(request, "mails.html.j2", self._mailbox.newest(recipient), recipient=recipient)

    async def _push(self, request: web.Request) -> web.Response:
        return self._list(request, "push_messages.html.j2", self._push_messages.newest())

    async def _mail(self, request: web.Request) -> web.Response:
        return self._page("mail.html.j2", opened=self._opened(request), sandbox=_SANDBOX)

    async def _html(self, request: web.Request) -> web.Response:
        html = self._opened(request).html
        if html is None:
            raise web.HTTPNotFound
        in_new_page = _HEAD.sub(r'\g<0><base target="_blank">', html, count=1)
        return web.Response(text=in_new_page, content_type="text/html", headers=_OF_A_MAIL)

    async def _raw(self, request: web.Request) -> web.Response:
        content = self._mailbox.raw(request.match_info["id"])
        if content is None:
            raise web.HTTPNotFound
        # What is no UTF-8 is shown all the same, and nothing is lost of what is.
        text = content.decode(errors="backslashreplace")
        return web.Response(text=text, content_type="text/plain", headers=_HEADERS)

    async def _message_ids(self, _: web.Request) -> web.Response:
        """Say what is there, for programs: the `Message-ID` of every mail, a line each, the newest first."""
        lines = "".join(f"{mail.message_id}\n" for mail in self._mailbox.newest())
        return web.Response(text=lines, headers=_HEADERS)

    async def _style(self, _: web.Request) -> web.Response:
        style = (_FOLDER / "style.css").read_text(encoding="utf-8")
        return web.Response(text=style, content_type="text/css", headers=_HEADERS)

    def _opened(self, request: web.Request) -> OpenMail:
        opened = self._mailbox.open(request.match_info["id"])
        if opened is None:
            raise web.HTTPNotFound
        return opened

    def _list(self, request: web.Request, template: str, found: Sequence[object], **values: Any) -> web.Response:
        """Show one page of what was found."""
        pages = max(1, -(-len(found) // ON_ONE_PAGE))
        asked = request.query.get("page", "1")
        # No list has a million pages, and a number of a million digits takes long to read.
        page = min(max(1, int(asked)), pages) if asked.isdecimal() and len(asked) < 7 else 1
        follows = page == 1 and "follow" in request.query
        kept = {name: value for name, value in request.query.items() if name == "recipient" and value.strip()}

        def address(**parameters: object) -> str:
            query = urlencode({**kept, **parameters})
            return f"{request.path}?{query}" if query else request.path

        first = (page - 1) * ON_ONE_PAGE
        return self._page(
            template,
            **values,
            shown=found[first : first + ON_ONE_PAGE],
            found=len(found),
            page=page,
            pages=pages,
            newer=address(page=page - 1) if page > 1 else None,
            older=address(page=page + 1) if page < pages else None,
            refresh=FOLLOWED_EVERY_SECONDS if follows else None,
            follow=address() if follows else address(follow=1),
        )

    def _page(self, template: str, *, status: int = 200, **values: Any) -> web.Response:
        everywhere: dict[str, Any] = {
            "mail_count": len(self._mailbox),
            "push_count": len(self._push_messages.newest()),
            "refresh": None,
        }
        text = _TEMPLATES.get_template(template).render(**{**everywhere, **values})
        return web.Response(text=text, status=status, content_type="text/html", headers=_HEADERS)

    @web.middleware
    async def _explained(self, request: web.Request, handler: Any) -> web.StreamResponse:  # noqa: ANN401 - aiohttp's
        """Answer in a page of our own where there is nothing."""
        try:
            response: web.StreamResponse = await handler(request)
        except web.HTTPNotFound:
            return self._page("missing.html.j2", status=404)
        return response
