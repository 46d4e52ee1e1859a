"""Report a run at the terminal: the ledger by topic, the documents, and a summary of the data.

Input: the ledger and the database. Output: tables and lines. Nothing here writes.
"""

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any, NamedTuple

from pymongo.asynchronous.database import AsyncDatabase
from rich import box
from rich.table import Table
from rich.text import Text

from dev.counts import PostCount
from dev.ledger import EventLedger, TopicLedger
from dev.notifications import Reached

Database = AsyncDatabase[dict[str, Any]]
Stages = list[dict[str, Any]]

_SHOWN = 3
_POSTS_SHOWN = 5
_SHARES_SHOWN = 7
_HUMAN = {"bot": {"$exists": False}, "incomplete": {"$ne": True}}


class Insight(NamedTuple):
    """A summary of documents: a title, and how often each thing occurred."""

    title: str
    lines: list[tuple[str, str]]


def ledger_table(ledger: EventLedger) -> Table:
    """Return a table of what became of the records of each topic."""
    has_losses = any(topic.lost for topic in ledger.topics.values())
    total = TopicLedger()
    for topic in ledger.topics.values():
        total.sent += topic.sent
        total.stored += topic.stored
        total.duplicate += topic.duplicate
        total.dead_lettered += topic.dead_lettered
        total.lost += topic.lost
    table = Table(box=box.SIMPLE, padding=(0, 1), header_style="dim", footer_style="bold", show_footer=True)
    table.add_column("topic", "all", min_width=20)
    headings = ["sent", "stored", "duplicate", "dead letter", "in progress", *(["missing"] if has_losses else [])]
    for heading, sum_of_all in zip(headings, _counts(total, has_losses=has_losses), strict=True):
        table.add_column(heading, sum_of_all, justify="right", min_width=8)
    for name, topic in ledger.topics.items():
        table.add_row(name, *_counts(topic, has_losses=has_losses))
    return table


def documents_table(new: Mapping[str, int], totals: Mapping[str, int], error_groups: int) -> Table:
    """Return a table of how many documents each collection has, from this run and altogether."""
    table = Table(box=box.SIMPLE, padding=(0, 1), header_style="dim")
    table.add_column("collection", min_width=20)
    table.add_column("this run", justify="right", min_width=8)
    table.add_column("in all", justify="right", min_width=8)
    for name, total in totals.items():
        ours = new.get(name, 0)
        shown = f"{error_groups:,} groups" if name == "errorLogs" and error_groups else f"{ours:,}"
        table.add_row(name, shown, f"{total:,}", style="" if total else "dim")
    return table


def view_counts_table(counts: Sequence[PostCount]) -> Table:
    """Return a table of the views of the most read posts, as both databases have them."""
    shown = counts[:_POSTS_SHOWN]
    have_begun_before = any(count.before for count in shown)
    table = Table(box=box.SIMPLE, padding=(0, 1), header_style="dim")
    table.add_column("post", min_width=20)
    table.add_column("viewCount in PostgreSQL", justify="right")
    if have_begun_before:
        table.add_column("from earlier runs", justify="right")
    table.add_column("views in MongoDB", justify="right")
    for count in shown:
        before = [f"{count.before:,}"] if have_begun_before else []
        style = "" if count.agrees else "bold red"
        table.add_row(Text(count.slug), f"{count.view_count:,}", *before, f"{count.stored:,}", style=style)
    return table


def view_counts_problems(counts: Sequence[PostCount]) -> list[str]:
    """Return a line for each of the first posts whose counts disagree."""
    wrong = [count for count in counts if not count.agrees]
    lines = [
        f'{count.slug}: posts."viewCount" is {count.view_count:,}, '
        f"and should be {count.before + count.stored:,}: {count.stored:,} views by people are stored"
        + (f", {count.before:,} are from earlier runs" if count.before else "")
        for count in wrong[:_SHOWN]
    ]
    more = len(wrong) - len(lines)
    return [*lines, f"and {more:,} more posts whose view counts disagree"] if more else lines


def view_counts_lines(
    counts: Sequence[PostCount], counted_within: Sequence[float], trending: Sequence[str]
) -> list[str]:
    """Return a summary of the counts.

    Args:
        counts: Of all posts.
        counted_within: The seconds within which half and 99 of 100 counts came to PostgreSQL; nothing if not known.
        trending: The ids of the posts that trend; nothing if not known.
    """
    read = [count for count in counts if count.stored or count.view_count]
    lines = []
    if all(count.agrees for count in read):
        lines.append(
            f"All {len(read):,} posts that were read agree: viewCount is the number of views by people stored for the "
            "post, each counted once."
        )
    else:
        wrong = sum(not count.agrees for count in read)
        lines.append(f"{wrong:,} of {len(read):,} posts that were read disagree.")
    if counted_within:
        half, most = counted_within
        lines.append(f"Time from Kafka to PostgreSQL: {half:.1f} s (p50), {most:.1f} s (p99).")
    slugs = {count.id: count.slug for count in counts}
    if known := [slugs[post_id] for post_id in trending if post_id in slugs]:
        lines.append(f"Trending now, from Redis: {', '.join(known)}.")
    return lines


_REASONS = {
    "preferences": "turned off by the person",
    "no-address": "without an address or a device",
    "no-provider": "on channels without a provider",
    "suppressed": "to suppressed addresses",
    "throttled": "over a person's daily limit",
    "expired": "expired",
    "cancelled": "cancelled",
}


def notifications_lines(reached: Reached, inbox_url: str) -> list[str]:
    """Return a summary of the run's notifications, and where to read them."""
    lines = [
        f"{reached.in_app:,} in the application, {reached.emails:,} mails (read them at {inbox_url}), "
        f"{reached.pushes:,} push messages ({inbox_url}/push-messages), {reached.waiting:,} waiting."
    ]
    unsent = [f"{count:,} {_REASONS.get(reason, reason)}" for reason, count in sorted(reached.skipped.items())]
    if reached.failed:
        unsent.append(f"{reached.failed:,} that no provider accepted")
    if unsent:
        lines.append(f"Messages that were not sent: {', '.join(unsent)}.")
    if reached.quiet:
        lines.append(f"{reached.quiet:,} notifications wait until quiet hours end.")
    return lines


def insights_table(insights: list[Insight]) -> Table:
    """Return a table of insights, the titles at the left."""
    table = Table(box=None, padding=(0, 1), show_header=False, expand=True)
    table.add_column(style="cyan", width=16)
    table.add_column(justify="right", width=8)
    table.add_column(overflow="ellipsis", no_wrap=True, ratio=1)
    for insight in insights:
        for number, (count, what) in enumerate(insight.lines):
            # As text: what readers type is no markup.
            table.add_row("" if number else insight.title, count, Text(what))
    return table


async def insights(database: Database, since: datetime) -> list[Insight]:
    """Query the collections for what happened since a moment."""
    found = [
        await _posts(database, since),
        await _readers(database, since),
        await _views_by(database, since, "Sources", "$source"),
        await _views_by(database, since, "Countries", "$geo.country"),
        await _searches(database, since, "Searches", {}),
        await _searches(database, since, "Found nothing", {"resultsCount": 0}),
        await _errors(database, since),
        await _requests(database, since),
        await _counted(database["notifications"], {"createdAt": {"$gte": since}}, "Notifications", "$type"),
        await _counted(database["userActivity"], {"timestamp": {"$gte": since}}, "People", "$activityType"),
    ]
    return [insight for insight in found if insight.lines]


async def error_groups(database: Database, since: datetime) -> int:
    """Return how many groups of errors occurred since a moment."""
    return await database["errorLogs"].count_documents({"lastOccurrence": {"$gte": since}})


async def _posts(database: Database, since: datetime) -> Insight:
    rows = await _rows(
        database["pageViews"],
        [
            {"$match": {"timestamp": {"$gte": since}, **_HUMAN}},
            {
                "$group": {
                    "_id": "$postSlug",
                    "count": {"$sum": 1},
                    "stay": {"$avg": {"$cond": [{"$gt": ["$timeSpent", 0]}, "$timeSpent", None]}},
                }
            },
        ],
    )
    return Insight("Top posts", [(f"{row['count']:,}", f"{row['_id']}{_stay(row['stay'])}") for row in rows])


async def _readers(database: Database, since: datetime) -> Insight:
    kinds = {"$cond": [{"$gt": ["$bot", None]}, "bots", "$device.type"]}
    match = {"timestamp": {"$gte": since}, "incomplete": {"$ne": True}}
    return _shares("Devices", await _rows(database["pageViews"], [{"$match": match}, _count(kinds)]))


async def _views_by(database: Database, since: datetime, title: str, field: str) -> Insight:
    match = {"timestamp": {"$gte": since}, **_HUMAN, field.removeprefix("$"): {"$exists": True}}
    every = await _rows(database["pageViews"], [{"$match": match}, _count(field)], limit=1_000)
    return _shares(title, every)


async def _searches(database: Database, since: datetime, title: str, match: Mapping[str, Any]) -> Insight:
    clicked = {"$sum": {"$cond": [{"$gt": [{"$size": "$clickedResults"}, 0]}, 1, 0]}}
    rows = await _rows(
        database["searchQueries"],
        [
            {"$match": {"timestamp": {"$gte": since}, "incomplete": {"$ne": True}, **match}},
            {"$group": {"_id": "$normalizedQuery", "count": {"$sum": 1}, "clicked": clicked}},
        ],
    )
    return Insight(
        title,
        [
            (f"{row['count']:,}", row["_id"] + ("" if match else f"  ({row['clicked'] / row['count']:.0%} clicked)"))
            for row in rows
        ],
    )


async def _errors(database: Database, since: datetime) -> Insight:
    rows = await (
        database["errorLogs"]
        .find({"lastOccurrence": {"$gte": since}})
        .sort({"occurrenceCount": -1, "_id": 1})
        .limit(_SHOWN)
        .to_list()
    )
    return Insight(
        "Errors, in all",
        [
            (
                f"{row['occurrenceCount']:,}",
                f"{row['name']} in {row['service']} ({row['severity']}, last at {row['lastOccurrence']:%H:%M:%S}): "
                f"{row['message']}",
            )
            for row in rows
        ],
    )


async def _requests(database: Database, since: datetime) -> Insight:
    rows = await _rows(
        database["performanceLogs"],
        [
            {"$match": {"timestamp": {"$gte": since}}},
            {
                "$group": {
                    "_id": {"$concat": ["$method", " ", "$endpoint"]},
                    "requests": {"$sum": 1},
                    "count": {"$avg": "$duration"},
                    "failed": {"$sum": {"$cond": [{"$gte": ["$statusCode", 500]}, 1, 0]}},
                }
            },
        ],
    )
    return Insight(
        "Slowest requests",
        [
            (f"{row['count']:,.0f} ms", f"{row['_id']}  ({row['requests']:,} requests, {row['failed']:,} failed)")
            for row in rows
        ],
    )


async def _counted(collection: Any, match: Mapping[str, Any], title: str, field: str) -> Insight:  # noqa: ANN401
    rows = await _rows(collection, [{"$match": match}, _count(field)])
    return Insight(title, [(f"{row['count']:,}", str(row["_id"])) for row in rows])


async def _rows(collection: Any, stages: Stages, limit: int = _SHOWN) -> list[dict[str, Any]]:  # noqa: ANN401
    ordered = [*stages, {"$sort": {"count": -1, "_id": 1}}, {"$limit": limit}]
    rows: list[dict[str, Any]] = await (await collection.aggregate(ordered)).to_list()
    return rows


def _count(field: Any) -> dict[str, Any]:  # noqa: ANN401 - an expression of MongoDB's
    return {"$group": {"_id": field, "count": {"$sum": 1}}}


def _shares(title: str, rows: list[dict[str, Any]]) -> Insight:
    every = sum(row["count"] for row in rows)
    words = [f"{row['_id']} {row['count'] / every:.0%}" for row in rows[:_SHARES_SHOWN]]
    return Insight(title, [(f"{every:,}", " · ".join(words))] if rows else [])


def _stay(seconds: float | None) -> str:
    return "" if seconds is None else f"  ({seconds:.0f} s read on average)"


def _counts(topic: TopicLedger, *, has_losses: bool) -> list[Text]:
    cells = [
        Text(f"{topic.sent:,}"),
        Text(f"{topic.stored:,}", "green"),
        Text(f"{topic.duplicate:,}", "cyan" if topic.duplicate else "dim"),
        Text(f"{topic.dead_lettered:,}", "yellow" if topic.dead_lettered else "dim"),
        Text(f"{topic.open:,}", "" if topic.open else "dim"),
    ]
    return [*cells, Text(f"{len(topic.lost):,}", "bold red" if topic.lost else "dim")] if has_losses else cells
