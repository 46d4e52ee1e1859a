"""Page views: a reader opens a post, and later leaves it."""

from pydantic import ConfigDict

from schemas.event import Event, Moment
from schemas.fields import Amount, Flag, Id, IpAddress, Label, Link, Percentage


class PageViewed(Event):
    """A reader opened a post.

    `ipAddress` is sent unhashed, and only a hash of it is stored. `source`, `medium` and `campaign` are needed only if
    the producer knows more about the traffic source than `url` and `referrer` show. `timeSpent` is in seconds,
    `scrollDepth` in percent.
    """

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [
                {
                    "postId": "7c9e6679-7425-40de-944b-e07fc1f90ae7",
                    "postSlug": "introduction-to-typescript",
                    "sessionId": "session-abc",
                    "userId": "9b2f1c1e-3f6a-4a57-9d1c-0d8a54a5f6a1",
                    "ipAddress": "81.2.69.160",
                    "userAgent": "Mozilla/5.0 (iPhone; CPU iPhone OS 17_4 like Mac OS X) AppleWebKit/605.1.15 "
                    "(KHTML, like Gecko) Version/17.4 Mobile/15E148 Safari/604.1",
                    "url": "https://blog.example/posts/introduction-to-typescript?utm_campaign=spring",
                    "referrer": "https://www.google.com/",
                    "timestamp": "2026-01-31T12:00:00Z",
                }
            ]
        }
    )

    post_id: Id
    post_slug: Id
    session_id: Id
    ip_address: IpAddress
    user_agent: Link
    timestamp: Moment | None = None
    user_id: Id | None = None
    url: Link | None = None
    referrer: Link | None = None
    source: Label | None = None
    medium: Label | None = None
    campaign: Label | None = None
    time_spent: Amount = 0.0
    scroll_depth: Percentage = 0.0
    interacted: Flag = False
    exited_at: Moment | None = None


class PageExited(Event):
    """A reader left a post; completes the document of the view.

    `viewId` is the id of the `page.viewed` event. It may come before that event, or twice: each field keeps its highest
    value.
    """

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [
                {
                    "postId": "7c9e6679-7425-40de-944b-e07fc1f90ae7",
                    "viewId": "0190b3a4-5c6d-7e8f-9a0b-1c2d3e4f5a6b",
                    "timeSpent": 184,
                    "scrollDepth": 92.5,
                    "interacted": True,
                    "exitedAt": "2026-01-31T12:03:04Z",
                }
            ]
        }
    )

    post_id: Id
    view_id: Id
    exited_at: Moment
    time_spent: Amount = 0.0
    scroll_depth: Percentage = 0.0
    interacted: Flag = False
    timestamp: Moment | None = None
