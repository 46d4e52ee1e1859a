"""Performance samples: the duration and the resources of a request."""

from typing import Annotated

from pydantic import ConfigDict, Field, Strict

from schemas.event import Event, Moment
from schemas.fields import WHOLE, Amount, Id, Link, Name, Value


class Timings(Value):
    """The parts of a request's duration, in milliseconds."""

    database: Amount | None = None
    cache: Amount | None = None
    external: Amount | None = None
    processing: Amount | None = None


class PerformanceSampled(Event):
    """A request was answered.

    `duration` is in milliseconds, `memoryUsage` in MB, `cpuUsage` in percent of one core, so it may exceed 100.
    `endpoint` is best sent as its pattern, `/api/posts/:id`.
    """

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [
                {
                    "method": "GET",
                    "endpoint": "/api/posts/:id",
                    "statusCode": 200,
                    "duration": 38.2,
                    "timings": {"database": 21.5, "cache": 1.5, "processing": 15.25},
                    "memoryUsage": 212.5,
                    "cpuUsage": 17.5,
                    "service": "blogs-api",
                    "userId": "user-uuid-456",
                    "requestId": "request-uuid-901",
                    "timestamp": "2026-01-31T12:00:00Z",
                }
            ]
        }
    )

    method: Name
    endpoint: Link
    status_code: Annotated[int, Strict(), Field(ge=0, le=999), WHOLE]
    duration: Amount
    service: Name
    timings: Timings | None = None
    memory_usage: Amount | None = None
    cpu_usage: Amount | None = None
    user_id: Id | None = None
    request_id: Id | None = None
    timestamp: Moment | None = None
