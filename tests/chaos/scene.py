"""The scene of a run: everything that a fault may use, as plain data."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from random import Random
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from tests.chaos.bookkeeping import Bookkeeping
    from tests.chaos.proxied import ProxiedPlatform
    from tests.chaos.proxy import Proxy
    from tests.chaos.sender import Sender
    from tests.chaos.workers import Slot, Workers
    from tests.integration.pipeline import Pipeline


@dataclass(frozen=True, slots=True)
class Scene:
    """What a fault may use.

    Attributes:
        workers: The workers.
        platform: The servers.
        proxy: The proxy between workers and servers.
        sender: Sends events; `None` in a run without sample traffic.
        pipeline: The namespace and the database of the run.
        chance: The source of random choices.
        clock: Returns how many seconds ago the run began.
        add_worker: Starts one more worker, and returns its slot.
        directory: Where workers look for orders, and where their logs are.
        bookkeeping: What the platform did to its posts.
    """

    workers: Workers
    platform: ProxiedPlatform
    proxy: Proxy
    sender: Sender | None
    pipeline: Pipeline
    chance: Random
    clock: Callable[[], float]
    add_worker: Callable[[], Slot]
    directory: Path
    bookkeeping: Bookkeeping
