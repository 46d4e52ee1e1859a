"""Log lines of the platform's services."""

from typing import Literal

from pydantic import ConfigDict

from schemas.event import Event, Moment
from schemas.fields import FreeContent, Id, Link, LogText, Name, Value


class LoggedError(Value):
    """An error as a service's runtime reports it."""

    name: Name = "Error"
    message: LogText = ""
    stack: LogText = ""


class LogLine(Event):
    """A line that a service logged.

    `endpoint`, `method` and `context` describe the request that an error broke; `fingerprint` names the group that the
    service wants the error in. They are kept with errors only; for other lines `metadata` is the place. A line of
    level `error` or `fatal` needs no `error`: it is then grouped by its message.
    """

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [
                {
                    "level": "error",
                    "message": "Could not publish the post",
                    "service": "blogs-api",
                    "environment": "production",
                    "error": {
                        "name": "TypeError",
                        "message": "Cannot read properties of undefined (reading 'slug')",
                        "stack": "TypeError: Cannot read properties of undefined (reading 'slug')\n"
                        "    at publishPost (/app/src/posts/publish.ts:42:17)\n"
                        "    at async handle (/app/src/server.ts:118:5)",
                    },
                    "requestId": "request-uuid-901",
                    "userId": "author-uuid-789",
                    "endpoint": "/api/posts/:id/publish",
                    "method": "POST",
                    "context": {"postId": "post-uuid-123"},
                    "timestamp": "2026-01-31T12:00:00Z",
                },
                {
                    "level": "info",
                    "message": "Listening on port 3000",
                    "service": "blogs-api",
                    "environment": "production",
                    "metadata": {"port": 3000},
                    "timestamp": "2026-01-31T12:00:00Z",
                },
            ]
        }
    )

    level: Literal["debug", "info", "warn", "error", "fatal"]
    message: LogText
    service: Name
    environment: Name
    error: LoggedError | None = None
    metadata: FreeContent | None = None
    request_id: Id | None = None
    user_id: Id | None = None
    endpoint: Link | None = None
    method: Name | None = None
    fingerprint: Name | None = None
    context: FreeContent | None = None
    timestamp: Moment | None = None
