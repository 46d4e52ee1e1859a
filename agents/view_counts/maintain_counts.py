"""Maintains the view counts in PostgreSQL at intervals, whether events arrive or not.

Gives posts that have appeared since their views were counted these views, and those whose next update is due; retries
posts whose count PostgreSQL refused to change; notices locks of the platform on its posts; and rolls up old windows
into totals. Each run does all that is due, so the next one makes up for one that fails.
"""

from datetime import UTC, datetime, timedelta
from typing import Any

import structlog
from mode import Service

from runtime.health import Health
from runtime.metrics import POSTS_LOCKED_SECONDS, POSTS_MISSING, POSTS_SET_ASIDE
from sinks.postgres.platform_posts import SetAside
from sinks.postgres.post_locks import LOCKED, PostsLockedError, named
from sinks.postgres.view_counts import ViewCounts

log = structlog.get_logger(__name__)

EVERY = timedelta(seconds=10)
MARGIN = timedelta(days=1)
"""How much longer a window is kept than counted: its last count may still be on its way to PostgreSQL."""
_FEATURE = "view counts"


class MaintainCounts(Service):
    """Maintains the view counts.

    Args:
        counts: The view counts.
        horizon: A window is counted for so long after its end.
        health: Where to show that the platform holds a lock on its posts.
    """

    mundane_level = "debug"  # of the lines that say that a service starts and stops

    def __init__(self, counts: ViewCounts, horizon: timedelta, health: Health, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self._counts = counts
        self._horizon = horizon
        self._health = health
        self._is_locked = False

    @Service.timer(EVERY.total_seconds())
    async def _maintain(self) -> None:
        try:
            waiting = await self._counts.maintain()
            POSTS_MISSING.set(waiting.missing)
            POSTS_SET_ASIDE.set(sum(refused.posts for refused in waiting.set_aside))
            locked = next((refused for refused in waiting.set_aside if refused.code == LOCKED), None)
            if locked is None:
                self._note_lock(None, None)
            else:
                self._note_lock(locked.since, await self._problem_of(locked))
            await self._counts.roll_up(datetime.now(UTC) - self._horizon - MARGIN)
        except PostsLockedError as error:
            self._note_lock(error.since, str(error))
        except Exception as error:
            if not self._counts.is_transient(error):
                raise
            log.warning("view counts not settled, trying again", problem=type(error).__name__)

    async def _problem_of(self, locked: SetAside) -> str:
        posts = "1 post" if locked.posts == 1 else f"{locked.posts:,} posts"
        holders = named(await self._counts.blockers(locked.example))
        return f"the update of view counts waits for the rows of {posts}, as {locked.example}, held by {holders}"

    def _note_lock(self, since: datetime | None, problem: str | None) -> None:
        """Report since when the platform holds a lock, and who holds it; nothing becomes unready by that."""
        POSTS_LOCKED_SECONDS.set((datetime.now(UTC) - since).total_seconds() if since is not None else 0)
        self._health.degraded(_FEATURE, problem)
        if (problem is not None) is not self._is_locked:
            self._is_locked = problem is not None
            if problem is None:
                log.info("posts are no longer locked")
            else:
                log.warning("posts are locked, view counts wait", problem=problem)
