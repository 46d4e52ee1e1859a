"""What a page view becomes: one document in `pageViews`, made by the view and completed by the exit.

In come `page.viewed` and `page.exited`; out go a `Document` and a `Part` of the same `_id`. Of engagement the highest
stays, so an exit before its view, two exits, and a view read again all end in the same document.

The fields are the specification's, and two of our own:

- `bot`, only on views by programs: `rule`, which rule said so, and `name`, the part of the user agent that gave it
  away, if there is one. Human views are those with `{bot: {$exists: false}}`.
- `reportedTimestamp`, only where the producer's time had to be corrected: what it claimed.
"""

from typing import Any

from enrich.bots import recognise
from enrich.context import Context
from enrich.documents import Document, Part, Write
from enrich.ip_address import hash_ip
from enrich.traffic_source import find
from enrich.user_agent import device
from schemas.event import Envelope
from schemas.page_views import PageExited, PageViewed

COLLECTION = "pageViews"


def viewed(event: Envelope[PageViewed], context: Context) -> list[Write]:
    """Make the document of a view.

    The address is hashed after its place was looked up, and goes no further.

    Raises:
        InvalidEvent: `ipAddress` is no IPv4 or IPv6 address.
    """
    view = event.data
    ip_address = view.ip_address
    kind, os, browser = device(view.user_agent)
    source, medium, campaign = find(view.url, view.referrer, view.source, view.medium, view.campaign)
    body: dict[str, Any] = {
        "_id": event.id,
        "postId": view.post_id,
        "postSlug": view.post_slug,
        "sessionId": view.session_id,
        "ipAddress": hash_ip(ip_address, context.ip_hash_key),
        "userAgent": view.user_agent,
        "device": {"type": kind, "os": os, "browser": browser},
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
    if context.geo and (place := context.geo.locate(ip_address)):
        body["geo"] = {"country": place.country, "city": place.city, "timezone": place.timezone}
    if view.exited_at:
        body["exitedAt"] = view.exited_at
    if bot := recognise(view.user_agent):
        body["bot"] = {"rule": bot.rule, "name": bot.name} if bot.name else {"rule": bot.rule}
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
    return [Part(COLLECTION, leaving.view_id, event.time, highest=engagement, added={})]
