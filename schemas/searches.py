"""Searches, and clicks on their results."""

from typing import Annotated

from pydantic import ConfigDict, Field

from schemas.event import Event, Moment
from schemas.fields import Amount, Count, Id, Label, Value

_Labels = Annotated[list[Label], Field(max_length=1_000, fail_fast=True)]


class DateRange(Value):
    """The range of dates of a search."""

    start: Annotated[Moment, Field(alias="from")]
    end: Annotated[Moment, Field(alias="to")]


class SearchFilters(Value):
    """The filters of a search."""

    categories: _Labels | None = None
    tags: _Labels | None = None
    date_range: DateRange | None = None


class SearchPerformed(Event):
    """A reader searched; `executionTime` is in milliseconds."""

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [
                {
                    "query": "  React Hooks   tutorial ",
                    "sessionId": "session-abc",
                    "userId": "user-uuid-456",
                    "resultsCount": 15,
                    "executionTime": 42.5,
                    "filters": {
                        "categories": ["web-development"],
                        "tags": ["react"],
                        "dateRange": {"from": "2025-01-01T00:00:00Z", "to": "2026-01-31T00:00:00Z"},
                    },
                    "timestamp": "2026-01-31T12:00:00Z",
                }
            ]
        }
    )

    query: Annotated[str, Field(max_length=10_000)]
    session_id: Id
    results_count: Count
    execution_time: Amount
    user_id: Id | None = None
    filters: SearchFilters | None = None
    timestamp: Moment | None = None


class SearchResultClicked(Event):
    """A reader opened a result of a search.

    `searchId` is the id of the `search.performed` event; `position` counts the results as the page showed them.
    """

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [
                {
                    "searchId": "0190b3a4-5c6d-7e8f-9a0b-1c2d3e4f5a6b",
                    "sessionId": "session-abc",
                    "userId": "user-uuid-456",
                    "postId": "post-uuid-123",
                    "position": 3,
                    "timestamp": "2026-01-31T12:00:09Z",
                }
            ]
        }
    )

    search_id: Id
    session_id: Id
    post_id: Id
    position: Count
    user_id: Id | None = None
    timestamp: Moment | None = None
