"""The scene of a run: all that a fault may lay its hands on. Nothing here does anything."""

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
    from tests.chaos.workers import Post, Workers
    from tests.integration.pipeline import Pipeline


@dataclass(frozen=True, slots=True)
class Scene:
    """What a fault finds.

    Attributes:
        crew: The workers.
        platform: The servers.
        proxy: What stands between the workers and the servers.
        sender: Who sends events.
        pipeline: The namespace and the database of the run.
        chance: Decides what is left to chance.
        clock: Returns how many seconds ago the run began.
        hire: Has one more worker, and returns its post.
        directory: Where workers look for orders, and where their logs are.
        bookkeeping: What the platform did to its posts.
    """

    workers: Workers
    platform: ProxiedPlatform
    proxy: Proxy
    sender: Sender
    pipeline: Pipeline
    chance: Random
    clock: Callable[[], float]
    hire: Callable[[], Post]
    directory: Path
    bookkeeping: Bookkeeping
