"""Inkstream's own events about page views: touched windows, and the views of each window."""

from typing import Annotated

from pydantic import AwareDatetime, ConfigDict, Field

from schemas.event import NO_DIGITS_ALONE, Event, Moment
from schemas.fields import Count, Id

PostId = Annotated[Id, Field(pattern=r"^[^\x00]*$")]
"""The id of a post, as PostgreSQL can have it: its texts have no NUL."""


class WindowTouched(Event):
    """Page views were stored in a five-minute window of a post, so its views must be recounted.

    `views` is how many were written, some of them perhaps repeatedly. `oldestViewAt` is when Kafka got the
    first of them.
    """

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [
                {
                    "postId": "7c9e6679-7425-40de-944b-e07fc1f90ae7",
                    "windowStart": "2026-01-31T12:00:00Z",
                    "views": 3,
                    "oldestViewAt": "2026-01-31T12:03:04.567Z",
                }
            ]
        }
    )

    post_id: PostId
    window_start: Moment
    views: Count
    oldest_view_at: Moment


class ViewsCounted(Event):
    """The views that a post has in a five-minute window of event time, `[windowStart, windowEnd)`, as of a moment.

    `views` is absolute: all views by people, each once, that were stored for the window by `asOf`. It never decreases:
    the higher of two counts of a window is the later one. `windowId` is the record's key, so that Kafka keeps the
    latest count of each window. `oldestViewAt` is when Kafka got the oldest view that made this count necessary.
    """

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [
                {
                    "windowId": "7c9e6679-7425-40de-944b-e07fc1f90ae7/2026-01-31T12:00:00Z",
                    "postId": "7c9e6679-7425-40de-944b-e07fc1f90ae7",
                    "windowStart": "2026-01-31T12:00:00Z",
                    "windowEnd": "2026-01-31T12:05:00Z",
                    "views": 42,
                    "asOf": "2026-01-31T12:03:07.890Z",
                    "oldestViewAt": "2026-01-31T12:03:04.567Z",
                }
            ]
        }
    )

    window_id: Annotated[str, Field(max_length=512)]
    post_id: PostId
    window_start: Moment
    window_end: Annotated[AwareDatetime, NO_DIGITS_ALONE]  # of the last window of all, later than any moment
    views: Count
    as_of: Moment
    oldest_view_at: Moment
