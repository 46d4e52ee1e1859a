"""What a page view becomes: one document in `pageViews`, made by the view and completed by the exit.

In come `page.viewed` and `page.exited`; out go a `Document` and a `Part` of the same `_id`. Of engagement the highest
stays, so an exit before its view, two exits, and a view read again all end in the same document.

The fields are the specification's, and three of our own:

- `bot`, only on views by programs: `rule`, which rule said so, and `name`, the part of the user agent that gave it
  away, if there is one. Human views are those with `{bot: {$exists: false}}`.
- `reportedTimestamp`, only where the producer's time had to be corrected: what it claimed.
- `clamped: true`, only where `timeSpent` or `scrollDepth` was out of its range, and became the nearest value within it.
"""

from typing import Any

from enrich.context import Context
from enrich.documents import Document, Part, Write
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
    """Make the part that an exit adds to its view's document."""
    leaving = event.data
    engagement = {
        "timeSpent": leaving.time_spent,
        "scrollDepth": leaving.scroll_depth,
        "interacted": leaving.interacted,
        "exitedAt": leaving.exited_at,
    }
    if event.clamped:
        engagement["clamped"] = True
    return [Part(COLLECTION, of_producer(leaving.view_id), event.time, highest=engagement, added={})]
