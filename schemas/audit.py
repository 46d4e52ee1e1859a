"""Audit entries: actions that a service wants recorded for compliance."""

from typing import Literal

from pydantic import ConfigDict

from schemas.event import Event, Moment
from schemas.fields import FreeContent, Id, IpAddress, Link, Name, Prose


class AuditRecorded(Event):
    """An action to record in the audit log, also if it failed. `ipAddress` is sent unhashed."""

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [
                {
                    "userId": "admin-uuid-001",
                    "userEmail": "grace@example.org",
                    "userRole": "admin",
                    "action": "user.deleted",
                    "resource": "user",
                    "resourceId": "user-uuid-456",
                    "changes": {"before": {"status": "active"}, "after": None},
                    "ipAddress": "81.2.69.160",
                    "userAgent": "Mozilla/5.0 (X11; Linux x86_64; rv:140.0) Gecko/20100101 Firefox/140.0",
                    "method": "DELETE",
                    "endpoint": "/api/users/user-uuid-456",
                    "status": "failure",
                    "errorMessage": "The user is the last administrator",
                    "timestamp": "2026-01-31T12:00:00Z",
                }
            ]
        }
    )

    action: Name
    resource: Name
    resource_id: Id
    status: Literal["success", "failure"]
    user_id: Id | None = None
    user_email: Name | None = None
    user_role: Name | None = None
    changes: FreeContent | None = None
    ip_address: IpAddress | None = None
    user_agent: Link | None = None
    method: Name | None = None
    endpoint: Link | None = None
    error_message: Prose | None = None
    timestamp: Moment | None = None
