"""aiohttp's runner: whether it still has neither a limit on connections nor a choice of the server."""

import inspect

from aiohttp.web import Application, AppRunner, Server

from runtime.patches.aiohttp import Runner


async def test_aiohttp_still_has_no_limit_on_connections() -> None:
    options = {*inspect.signature(AppRunner).parameters, *inspect.signature(Server).parameters}
    assert not {name for name in options if "connections" in name or "server" in name}, (
        "remove me: aiohttp may limit connections, or take a server of one's own"
    )


async def test_a_runner_makes_a_server_of_the_class_that_it_is_given() -> None:
    class Limited(Server):
        pass

    runner = Runner(Application(), Limited)
    await runner.setup()
    assert type(runner.server) is Limited
    await runner.cleanup()
