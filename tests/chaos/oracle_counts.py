"""Compare view counts in PostgreSQL and in Kafka with the views by people in the event log.

Input: windows with their views, the platform's tables and the records of `post-view-counts`. Output: checks.
Posts begin with no views. If the platform has changed a count itself, that is added to the views.
"""

from collections import Counter
from collections.abc import Iterable, Mapping
from datetime import UTC, datetime
from typing import Any
from urllib.parse import urlsplit

import orjson
from psycopg import AsyncConnection, sql

from enrich.view_windows import Window
from runtime.settings import Settings
from sinks.postgres.pool import schema_of
from tests.chaos.history import Check
from tests.chaos.oracle_findings import Findings
from tests.chaos.oracle_kafka import Record

_DIFFERENT = "are counted wrongly"
_STRANGE = "should not be there"
_MISSING = "are missing"


_WINDOWS = sql.SQL("SELECT post_id, window_start, views FROM {ours}.view_windows")
_COUNTED = sql.SQL("SELECT post_id, views, applied, baseline FROM {ours}.counted_posts")


async def tables_checks(
    owner_url: str, settings: Settings, views: Mapping[Window, int], changed: Mapping[str, int]
) -> list[Check]:
    """Return whether PostgreSQL counts each view by a person once.

    Args:
        owner_url: PostgreSQL, as a role that may read everything.
        settings: As the workers have them; they say which database and which table.
        views: The views of each window.
        changed: By how much the platform itself has changed the counts of its posts.
    """
    database = urlsplit(settings.postgres_url.get_secret_value()).path
    url = urlsplit(owner_url)._replace(path=database).geturl()
    ours = sql.Identifier(schema_of(settings.namespace))
    posts_query = sql.SQL("SELECT {}, {} FROM {}").format(
        sql.Identifier(settings.posts_id_column),
        sql.Identifier(settings.view_count_column),
        sql.Identifier(*settings.posts_table.split(".")),
    )
    async with await AsyncConnection.connect(url) as connection:
        rows = await (await connection.execute(posts_query)).fetchall()
        posts: dict[str, int | None] = {post: count for post, count in rows}  # noqa: C416 - with their types
        windows = await (await connection.execute(_WINDOWS.format(ours=ours))).fetchall()
        counted = await (await connection.execute(_COUNTED.format(ours=ours))).fetchall()
    known = {post: (views, applied, base) for post, views, applied, base in counted}
    of_posts: Counter[str] = Counter()
    for window, count in views.items():
        of_posts[window.post_id] += count
    return [
        posts_check(posts, of_posts, changed),
        windows_check({Window(post, start.astimezone(UTC)): count for post, start, count in windows}, views),
        counted_check(known, of_posts, posts, changed),
    ]


def posts_check(posts: Mapping[str, int | None], views: Mapping[str, int], changed: Mapping[str, int]) -> Check:
    """Return whether every post of the platform's has its views, and what the platform itself has added."""
    findings = Findings('posts."viewCount": each view by a person once', len(posts))
    right = 0
    for post in changed.keys() - posts.keys():
        findings.add(_MISSING, f"post {post} is missing, which the platform has restored")
    for post, count in posts.items():
        should = views.get(post, 0) + changed.get(post, 0)
        right += count == should
        if count != should:
            findings.add(_DIFFERENT, f"post {post} has {count} views, and should have {should}")
    return findings.check(right)


def windows_check(windows: Mapping[Window, int], views: Mapping[Window, int]) -> Check:
    """Return whether our table has each window with its views, and no other."""
    findings = Findings("inkstream.view_windows: every window with its views, and no other", len(views))
    right = _compare(findings, windows, views)
    return findings.check(right)


def counted_check(
    counted: Mapping[str, tuple[int, int, int | None]],
    views: Mapping[str, int],
    posts: Mapping[str, int | None],
    changed: Mapping[str, int],
) -> Check:
    """Return whether what is counted has reached the platform's posts, and waits for those that there are none of.

    Args:
        counted: Of each post that had views its views, what of them is applied, and the count before.
        views: The views of each post that has any.
        posts: The platform's posts.
        changed: By how much the platform itself changed counts. What of that we take for the count before is our
            affair: the platform's count shows whether it is right.
    """
    findings = Findings("inkstream.counted_posts: all is applied, but what waits for its post", len(views))
    right = 0
    for post in {*counted, *views}:
        known = counted.get(post, (0, 0, None))
        if post in changed:
            known = (*known[:2], 0 if known[2] is not None else None)
        count = views.get(post, 0)
        should = (count, count, 0) if post in posts and count else (count, 0, None)
        right += known == should and count > 0
        if known != should:
            findings.add(_DIFFERENT, f"post {post} has views, applied and baseline {known}, and should have {should}")
    return findings.check(right)


def topic_check(records: Iterable[Record], views: Mapping[Window, int]) -> Check:
    """Return whether the highest count of each window that Kafka has is its views.

    A worker that was frozen may send an older count after a newer one: readers take the highest.
    """
    findings = Findings("post-view-counts: the highest count of each window is its views", len(views))
    highest: dict[Window, int] = {}
    for record in records:
        try:
            count: dict[str, Any] = orjson.loads(record.value or b"")
            window = Window(count["postId"], datetime.fromisoformat(count["windowStart"]))
            highest[window] = max(highest.get(window, 0), count["views"])
        except (KeyError, TypeError, ValueError) as error:
            findings.add("can't be read", f"{record.partition}:{record.offset} can't be read: {error!r}")
    return findings.check(_compare(findings, highest, views))


def _compare(findings: Findings, windows: Mapping[Window, int], views: Mapping[Window, int]) -> int:
    """Find what differs; return how many windows are right. A window that has views by bots alone may be there."""
    right = 0
    for window, count in windows.items():
        should = views.get(window, 0)
        right += count == should and should > 0
        if count != should:
            kind = _DIFFERENT if should else _STRANGE
            findings.add(kind, f"{_name(window)} has {count} views, and should have {should}")
    for window, should in views.items():
        if window not in windows:
            findings.add(_MISSING, f"{_name(window)} is missing, with {should} views")
    return right


def _name(window: Window) -> str:
    return f"{window.post_id}/{window.start.isoformat()}"
