"""A change to aiohttp 3.14: an application's runner can have a server class of its own.

aiohttp accepts every connection and has no option for a limit. A `Server` of one's own can have one, but `AppRunner`
always makes aiohttp's.

Upstream: https://github.com/aio-libs/aiohttp/issues/675 ("wontfix")

Remove it when the test in tests/unit/test_patch_aiohttp.py says so.
"""

from typing import Any

from aiohttp.web import Application, AppRunner, Server


class Runner(AppRunner):
    """An application's runner that makes its server of a given class.

    Args:
        app: The application.
        server_class: The class of the server.
        options: What aiohttp's runner takes.
    """

    __slots__ = ("_server_class",)

    def __init__(self, app: Application, server_class: type[Server], **options: Any) -> None:
        super().__init__(app, **options)
        self._server_class = server_class

    async def _make_server(self) -> Server:
        made = await super()._make_server()
        return self._server_class(made.request_handler, request_factory=made.request_factory, **self._kwargs)
