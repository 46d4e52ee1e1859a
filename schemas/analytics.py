"""Custom analytics: events that a team defines, with fields of its own."""

from typing import Self

from pydantic import ConfigDict, Field, model_validator

from schemas.event import Event, Moment
from schemas.fields import UNKNOWN, FreeContent, Id, Link, Name, Value, check_free_content


class PageContext(Value):
    """Where on the site something happened. Other fields are stored unchanged."""

    model_config = ConfigDict(extra="allow")

    page: Link = UNKNOWN
    referrer: Link | None = None
    user_agent: Link = UNKNOWN

    @model_validator(mode="after")
    def _is_within_limits(self) -> Self:
        if self.model_extra:
            check_free_content(self.model_extra)
        return self


class AnalyticsTracked(Event):
    """An event that a team defines; `eventType` is its name, `properties` its data."""

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [
                {
                    "eventType": "newsletter_subscribed",
                    "category": "engagement",
                    "entityId": "newsletter-weekly",
                    "entityType": "newsletter",
                    "userId": "user-uuid-456",
                    "sessionId": "session-abc",
                    "properties": {"placement": "footer", "variant": "B"},
                    "context": {
                        "page": "/posts/introduction-to-typescript",
                        "referrer": "https://www.google.com/",
                        "userAgent": "Mozilla/5.0 (X11; Linux x86_64; rv:140.0) Gecko/20100101 Firefox/140.0",
                    },
                    "timestamp": "2026-01-31T12:00:00Z",
                }
            ]
        }
    )

    event_type: Name
    category: Name
    entity_id: Id
    entity_type: Name
    user_id: Id | None = None
    session_id: Id | None = None
    properties: FreeContent = Field(default_factory=dict)
    context: PageContext | None = None
    timestamp: Moment | None = None
