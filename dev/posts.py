"""Write the sample blog into the platform's own PostgreSQL tables, as the platform's services would.

Input: the blog's people and posts, and posts as they are written during the traffic. Output: rows of `users`, `posts`,
`devices` and `notification_preferences`, each once however often it is written. What PostgreSQL does not accept now is
written with the next rows.
"""

import contextlib
from datetime import datetime
from typing import NamedTuple

import psycopg
from psycopg import AsyncConnection
from psycopg.types.json import Jsonb

from dev.blog import Blog
from dev.scenarios import Fact
from notifications.preferences import DEFAULTS

_CONNECT_TIMEOUT_SECONDS = 2

_ADD_USER = """
INSERT INTO users (id, email, "passwordHash", role) VALUES (%s, %s, '', %s)
ON CONFLICT DO NOTHING
"""  # nobody signs in with an empty hash
_ADD_DEVICE = """
INSERT INTO devices (token, "userId", platform) VALUES (%s, %s, upper(%s))
ON CONFLICT DO NOTHING
"""
_ADD_PREFERENCES = """
INSERT INTO notification_preferences ("userId", preferences) VALUES (%s, %s)
ON CONFLICT DO NOTHING
"""
_ADD_POST = """
INSERT INTO posts (id, slug, title, "authorId", status, "publishedAt") VALUES (%s, %s, %s, %s, 'PUBLISHED', now())
ON CONFLICT DO NOTHING
"""
# The events of a post may come twice, and the draft after what was published.
_WRITE_POST = """
INSERT INTO posts (id, slug, title, "authorId", status, "publishedAt")
VALUES (%(id)s, %(slug)s, %(title)s, %(author_id)s, %(status)s, %(published_at)s)
ON CONFLICT (id) DO UPDATE SET status = excluded.status, "publishedAt" = excluded."publishedAt"
WHERE posts."publishedAt" IS NULL
"""


class PostRow(NamedTuple):
    """A row of `posts`; `published_at` is `None` for a draft."""

    id: str
    slug: str
    title: str
    author_id: str
    published_at: datetime | None

    @property
    def status(self) -> str:
        """The platform's word for how far the post is."""
        return "DRAFT" if self.published_at is None else "PUBLISHED"


def row_of(fact: Fact) -> PostRow | None:
    """Return the row that the platform's service writes before it tells of a fact; `None` where it writes no post."""
    if fact.type not in ("post.created", "post.published"):
        return None
    post = fact.data
    published_at = fact.time if fact.type == "post.published" else None
    return PostRow(post["postId"], post["slug"], post["title"], post["authorId"], published_at)


def add_blog(owner_url: str, blog: Blog) -> None:
    """Write the blog's people and posts into the platform's tables; what is there stays as it is.

    Args:
        owner_url: PostgreSQL, as the owner of the platform's tables.
        blog: The blog.

    Raises:
        psycopg.Error: PostgreSQL does not answer, or does not take them.
    """
    authors = {post.author.id for post in blog.posts}
    with psycopg.connect(owner_url, connect_timeout=_CONNECT_TIMEOUT_SECONDS) as connection:
        cursor = connection.cursor()
        cursor.executemany(
            _ADD_USER,
            [(person.id, person.email, "AUTHOR" if person.id in authors else "READER") for person in blog.people],
        )
        cursor.executemany(
            _ADD_DEVICE,
            [(device.token, person.id, device.platform) for person in blog.people for device in person.devices],
        )
        cursor.executemany(
            _ADD_PREFERENCES,
            [
                (person.id, Jsonb(person.preferences.model_dump(mode="json", by_alias=True, exclude_defaults=True)))
                for person in blog.people
                if person.preferences != DEFAULTS
            ],
        )
        cursor.executemany(_ADD_POST, [(post.id, post.slug, post.title, post.author.id) for post in blog.posts])


class WrittenPosts:
    """Posts that are written during the traffic, on their way to the platform's table.

    Args:
        owner_url: PostgreSQL, as the owner of the platform's tables.
    """

    def __init__(self, owner_url: str) -> None:
        self._owner_url = owner_url
        self._rows: list[PostRow] = []

    def add(self, row: PostRow) -> None:
        """Take a row, for the next `write`."""
        self._rows.append(row)

    @property
    def waiting(self) -> int:
        """How many rows are still to be written."""
        return len(self._rows)

    async def write(self) -> None:
        """Write the rows that wait; they go on waiting while PostgreSQL is down.

        Raises:
            psycopg.Error: PostgreSQL does not take a row for what it is.
        """
        waiting = [{**row._asdict(), "status": row.status} for row in self._rows]
        if not waiting:
            return
        with contextlib.suppress(psycopg.OperationalError):
            async with await AsyncConnection.connect(
                self._owner_url, connect_timeout=_CONNECT_TIMEOUT_SECONDS
            ) as connection:
                await connection.cursor().executemany(_WRITE_POST, waiting)
            del self._rows[: len(waiting)]
