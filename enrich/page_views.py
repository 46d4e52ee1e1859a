"""Turns a page view and its exit into one document in `pageViews`.

Input: `page.viewed` and `page.exited`. Output: a `Document` and a `PartialUpdate` with the same `_id`. Engagement keeps
its highest value, so an exit before its view, two exits, and a view read again all result in the same document.

The fields are the specification's, and three of our own:

- `bot`, only on views by programs: `rule`, the rule that matched, and `name`, the matching part of the user agent, if
  there is one. Views by people are those with `{bot: {$exists: false}}`.
- `reportedTimestamp`, only if the producer's time had to be corrected: the time that it sent.
- `clamped: true`, only if `timeSpent` or `scrollDepth` was out of its range, and was set to the nearest valid value.
"""

from typing import Any

from enrich.context import Context
from enrich.documents import Document, PartialUpdate, Write
from enrich.traffic_source import find
from schemas.envelope import Envelope
from schemas.identity import of_producer
from schemas.page_views import PageExited, PageViewed

COLLECTION = "pageViews"


def viewed(event: Envelope[PageViewed], context: Context) -> list[Write]:
    """Make the document of a view."""
    view = event.data
    address = context.address(view.ip_address)
    user_agent = context.user_agent(view.user_agent)
    source, medium, campaign = find(view.url, view.referrer, view.source, view.medium, view.campaign, user_agent.app)
    body: dict[str, Any] = {
        "_id": event.id,
        "postId": view.post_id,
        "postSlug": view.post_slug,
        "sessionId": view.session_id,
        "ipAddress": address.hash,
        "userAgent": view.user_agent,
        "device": user_agent.device,
        "timeSpent": view.time_spent,
        "scrollDepth": view.scroll_depth,
        "interacted": view.interacted,
        "source": source,
        "timestamp": event.time,
    }
    if event.reported_time:
        body["reportedTimestamp"] = event.reported_time
    if view.user_id:
        body["userId"] = view.user_id
    if view.referrer:
        body["referrer"] = view.referrer
    if medium:
        body["medium"] = medium
    if campaign:
        body["campaign"] = campaign
    if address.geo:
        body["geo"] = address.geo
    if view.exited_at:
        body["exitedAt"] = view.exited_at
    if user_agent.bot:
        body["bot"] = user_agent.bot
    if event.clamped:
        body["clamped"] = True
    return [Document(COLLECTION, body)]


def exited(event: Envelope[PageExited], _: Context) -> list[Write]:
    """Return the partial update that an exit makes to its view's document."""
    leaving = event.data
    engagement = {
        "timeSpent": leaving.time_spent,
        "scrollDepth": leaving.scroll_depth,
        "interacted": leaving.interacted,
        "exitedAt": leaving.exited_at,
    }
    if event.clamped:
        engagement["clamped"] = True
    return [PartialUpdate(COLLECTION, of_producer(leaving.view_id), event.time, highest=engagement, added={})]
