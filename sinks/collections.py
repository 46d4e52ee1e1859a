"""The 12 collections of the blog platform: fields, indexes and retention of each, as its specification lists them.

`sinks.mongo.schema_sync` creates and changes the collections accordingly. The fields can be compared with the
specification's TypeScript interfaces line by line:

| here | there | in the validator |
|---|---|---|
| `"userId?"` | `userId?` | may be missing |
| `"string"`, `"number"`, `"boolean"`, `"Date"` | the same | number: int, long, double or decimal; `Date`: a BSON date |
| `"any"` | `any` | any type; may be missing, as JSON omits `undefined` |
| `"object"` | `{ [key: string]: any }` | an object with any content |
| `("low", "high")` | the union of `"low"` and `"high"` | one of these strings |
| `["string"]` | `string[]`, `Array<string>` | an array of these |
| `{...}` | `{...}` | an object with these fields |

Fields that are not listed are allowed everywhere, so that a service may add its own. `_id` is the event's id, a string.

Every index of the specification is here. A few are marked as ours: docs/decisions/0017-indexes-for-analysts.md has the
cost of each for an insert, and those that were left out.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any, Union

FieldType = Union[str, tuple[str, ...], list["FieldType"], dict[str, "FieldType"]]  # noqa: UP007 (recursive)
"""The type of a field, in the notation of the table above."""


@dataclass(frozen=True, slots=True)
class Index:
    """An index: its fields in order, each 1 (ascending), -1 (descending) or "text".

    Attributes:
        keys: The fields.
        only_where: The condition of a partial index; empty for an index of all documents. Other documents cost almost
            nothing, and a query must contain the condition.
    """

    keys: Mapping[str, int | str]
    only_where: Mapping[str, Any] = field(default_factory=dict)

    @property
    def name(self) -> str:
        """The name that MongoDB gives an index by default: `postId_1_timestamp_-1`."""
        return _index_name(self.keys)


@dataclass(frozen=True, slots=True)
class Retention:
    """How long a document stays: MongoDB deletes it when the date in its field `since` is more than `keep` ago.

    A document without that date stays, and so does one that does not match `only_where`.
    """

    since: str
    keep: timedelta
    only_where: Mapping[str, Any] = field(default_factory=dict)

    @property
    def keys(self) -> dict[str, int]:
        """The fields of the TTL index."""
        return {self.since: 1}

    @property
    def name(self) -> str:
        """The name of the TTL index."""
        return _index_name(self.keys)


@dataclass(frozen=True, slots=True)
class LateFields:
    """The fields that a later event may set, perhaps before the document itself (see `enrich.documents.PartialUpdate`).

    Attributes:
        highest: Fields that keep their highest value.
        united: Fields with a list of distinct items; the lists are united.
    """

    highest: tuple[str, ...] = ()
    united: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Collection:
    """One collection, as the platform's specification declares it."""

    name: str
    purpose: str
    fields: dict[str, FieldType]
    indexes: tuple[Index, ...]
    retention: Retention | None = None
    late_fields: LateFields | None = None

    @property
    def validator(self) -> dict[str, Any]:
        """The collection's validator: `{"$jsonSchema": ...}`, in MongoDB's dialect with `bsonType`.

        If a partial update may come before its document, a placeholder is valid too: `incomplete: true`, and the fields
        that have arrived. It has no `postId`, so no query by post finds it.
        """
        document = _object_schema({"_id": "string", **self.fields})
        if self.late_fields is None:
            return {"$jsonSchema": document}
        placeholder = {
            "bsonType": "object",
            "required": ["_id", "timestamp", "incomplete"],
            "properties": {
                **{name: schema for name, schema in document["properties"].items() if self._may_come_early(name)},
                "incomplete": {"enum": [True]},
            },
        }
        complete = {**document, "properties": {**document["properties"], "incomplete": {"enum": [False]}}}
        # The document first: it nearly always matches, and the server stops at the first match.
        return {"$jsonSchema": {"anyOf": [complete, placeholder]}}

    def _may_come_early(self, name: str) -> bool:
        late_fields = self.late_fields or LateFields()
        return name in ("_id", "timestamp", *late_fields.highest, *late_fields.united)


PAGE_VIEWS = Collection(
    name="pageViews",
    purpose="Individual page views with engagement metrics.",
    fields={
        # Post reference (from PostgreSQL)
        "postId": "string",
        "postSlug": "string",
        # User tracking
        "userId?": "string",
        "sessionId": "string",
        # Technical details
        "ipAddress": "string",  # hashed
        "userAgent": "string",
        "device": {"type": ("mobile", "tablet", "desktop"), "os": "string", "browser": "string"},
        # Engagement metrics
        "timeSpent": "number",  # seconds
        "scrollDepth": "number",  # percentage (0-100)
        "interacted": "boolean",
        # Traffic source
        "referrer?": "string",
        "source": "string",
        "campaign?": "string",
        "medium?": "string",
        # Location, optional
        "geo?": {"country": "string", "city": "string", "timezone?": "string"},
        # Timestamps
        "timestamp": "Date",
        "exitedAt?": "Date",
        # Our own: timeSpent or scrollDepth was out of its range
        "clamped?": "boolean",
    },
    # The specification's sharding key is { postId: 1, timestamp: 1 }. An exit that comes before its view knows neither,
    # so its placeholder would live on another shard than the view: before sharding, route exits by post as well.
    indexes=(
        Index({"postId": 1, "timestamp": -1}),
        Index({"userId": 1, "timestamp": -1}),
        Index({"sessionId": 1}),
        Index({"timestamp": -1}),
        Index({"device.type": 1}),
        # Ours: the views of a campaign. Few views have one.
        Index({"campaign": 1, "timestamp": -1}, only_where={"campaign": {"$exists": True}}),
    ),
    retention=Retention("timestamp", timedelta(days=90)),
    late_fields=LateFields(highest=("timeSpent", "scrollDepth", "interacted", "exitedAt", "clamped")),
)

ANALYTICS_EVENTS = Collection(
    name="analyticsEvents",
    purpose="Generic event tracking for custom analytics.",
    fields={
        # Event classification
        "eventType": "string",
        "category": "string",
        # Entity references
        "entityId": "string",
        "entityType": "string",
        # Actor
        "userId?": "string",
        # The specification's interface requires `sessionId`, its own document for `post.published` (§4.1) has none.
        "sessionId?": "string",
        # Event-specific data (flexible)
        "properties": "object",
        # The interface requires `context`, the document of §4.1 has none.
        "context?": {"page": "string", "referrer?": "string", "userAgent": "string"},
        # Timestamps
        "timestamp": "Date",
    },
    indexes=(
        Index({"eventType": 1, "timestamp": -1}),
        Index({"entityId": 1, "timestamp": -1}),
        Index({"userId": 1, "timestamp": -1}),
        Index({"timestamp": -1}),
        Index({"category": 1, "timestamp": -1}),
        # Ours: the events of a session.
        Index({"sessionId": 1}, only_where={"sessionId": {"$exists": True}}),
    ),
    retention=Retention("timestamp", timedelta(days=180)),
)

USER_ACTIVITY = Collection(
    name="userActivity",
    purpose="A user's activity timeline.",
    fields={
        "userId": "string",
        # Activity details
        "activityType": "string",
        "action": "string",
        # Target entity
        "targetId": "string",
        "targetType": "string",
        "targetTitle?": "string",
        # Activity metadata
        "metadata": "object",
        # Visibility
        "isPublic": "boolean",
        # Timestamps
        "timestamp": "Date",
    },
    indexes=(
        Index({"userId": 1, "timestamp": -1}),
        Index({"activityType": 1, "timestamp": -1}),
        Index({"isPublic": 1, "timestamp": -1}),
    ),
    retention=Retention("timestamp", timedelta(days=365)),
)

SEARCH_QUERIES = Collection(
    name="searchQueries",
    purpose="Search behaviour, for analytics and improvements. Kept indefinitely.",
    fields={
        # Query details
        "query": "string",
        "normalizedQuery": "string",
        # User context
        "userId?": "string",
        "sessionId": "string",
        # Results
        "resultsCount": "number",
        "clickedResults": [{"postId": "string", "position": "number", "clickedAt": "Date"}],
        # Performance
        "executionTime": "number",  # milliseconds
        # Filters applied
        "filters?": {
            "categories?": ["string"],
            "tags?": ["string"],
            "dateRange?": {"from": "Date", "to": "Date"},
        },
        "timestamp": "Date",
        # Our own: executionTime was out of its range
        "clamped?": "boolean",
    },
    indexes=(
        Index({"normalizedQuery": 1, "timestamp": -1}),
        Index({"timestamp": -1}),
        Index({"resultsCount": 1}),
        # Text index for query analysis
        Index({"query": "text"}),
        # Ours: the searches of a session and of a user, as searches are kept indefinitely.
        Index({"sessionId": 1}),
        Index({"userId": 1, "timestamp": -1}, only_where={"userId": {"$exists": True}}),
    ),
    late_fields=LateFields(united=("clickedResults",)),
)

NOTIFICATIONS = Collection(
    name="notifications",
    purpose="User notifications (in-app, email, push).",
    fields={
        # Recipient
        "userId": "string",
        # Notification details
        "type": "string",
        "title": "string",
        "message": "string",
        # Action link
        "actionUrl?": "string",
        "actionText?": "string",
        # Related entities
        "relatedEntity?": {"id": "string", "type": "string"},
        # Actor (who triggered this notification)
        "actorId?": "string",
        "actorName?": "string",
        "actorAvatar?": "string",
        # Delivery channels
        "channels": {
            "inApp": {"enabled": "boolean", "read": "boolean", "readAt?": "Date"},
            "email": {"enabled": "boolean", "sent": "boolean", "sentAt?": "Date", "emailId?": "string"},
            "push": {"enabled": "boolean", "sent": "boolean", "sentAt?": "Date", "pushId?": "string"},
        },
        "priority": ("low", "medium", "high", "urgent"),
        # Timestamps
        "createdAt": "Date",
        "expiresAt?": "Date",
    },
    indexes=(
        Index({"userId": 1, "createdAt": -1}),
        Index({"userId": 1, "channels.inApp.read": 1}),
        Index({"type": 1, "createdAt": -1}),
        Index({"priority": 1, "createdAt": -1}),
    ),
    # The document has its own time of expiry: at `expiresAt`, with nothing added.
    retention=Retention("expiresAt", timedelta(0)),
)

NOTIFICATION_QUEUE = Collection(
    name="notificationQueue",
    purpose="The queue of notifications to deliver.",
    fields={
        # Queue metadata
        "status": ("pending", "processing", "completed", "failed"),
        "priority": "number",  # higher = more urgent
        # Notification data
        "notificationId": "string",
        "userId": "string",
        "type": "string",
        # Delivery details
        "channels": [("inApp", "email", "push")],
        # Retry logic
        "attempts": "number",
        "maxAttempts": "number",
        "lastAttemptAt?": "Date",
        "nextRetryAt?": "Date",
        # Error tracking
        "errors": [{"message": "string", "timestamp": "Date"}],
        # Timestamps
        "createdAt": "Date",
        "processedAt?": "Date",
        "completedAt?": "Date",
    },
    indexes=(
        Index({"status": 1, "priority": -1, "createdAt": 1}),
        Index({"nextRetryAt": 1}),
        Index({"userId": 1, "status": 1}),
        # Ours: items that are ready, in the order in which they are claimed, without those that wait.
        Index({"status": 1, "nextRetryAt": 1, "priority": -1, "createdAt": 1}),
    ),
    retention=Retention("completedAt", timedelta(days=7), only_where={"status": "completed"}),
)

EMAIL_LOGS = Collection(
    name="emailLogs",
    purpose="All sent emails, for debugging and compliance.",
    fields={
        # Email details
        "to": "string",
        "from": "string",
        "subject": "string",
        # Template
        "templateId?": "string",
        "templateData?": "object",
        # Provider details
        "provider": ("sendgrid", "aws-ses", "mailgun", "smtp"),  # the last is our own
        "providerId?": "string",
        # Status
        "status": ("queued", "sent", "delivered", "bounced", "failed"),
        # Events
        "events": [
            {
                "type": ("queued", "sent", "delivered", "opened", "clicked", "bounced", "spam"),
                "timestamp": "Date",
                "metadata?": "any",
            }
        ],
        # Related notification
        "notificationId?": "string",
        "userId?": "string",
        # Error tracking
        "error?": {"code": "string", "message": "string"},
        # Timestamps
        "createdAt": "Date",
        "sentAt?": "Date",
        "deliveredAt?": "Date",
    },
    indexes=(
        Index({"to": 1, "createdAt": -1}),
        Index({"userId": 1, "createdAt": -1}),
        Index({"status": 1, "createdAt": -1}),
        Index({"providerId": 1}),
        # Ours: the mail of a notification.
        Index({"notificationId": 1}),
    ),
    retention=Retention("createdAt", timedelta(days=30)),
)

PUSH_NOTIFICATION_LOGS = Collection(
    name="pushNotificationLogs",
    purpose="Push notifications sent to mobile and web.",
    fields={
        # Recipient
        "userId": "string",
        "deviceToken": "string",
        "platform": ("ios", "android", "web"),
        # Notification content
        "title": "string",
        "body": "string",
        "data?": "object",
        # Provider
        "provider": ("fcm", "apns", "web-push"),
        "providerId?": "string",
        # Status
        "status": ("queued", "sent", "delivered", "failed"),
        # Related notification
        "notificationId?": "string",
        # Error tracking
        "error?": {"code": "string", "message": "string"},
        # Timestamps
        "createdAt": "Date",
        "sentAt?": "Date",
        "deliveredAt?": "Date",
    },
    indexes=(
        Index({"userId": 1, "createdAt": -1}),
        Index({"deviceToken": 1, "createdAt": -1}),
        Index({"status": 1, "createdAt": -1}),
        # Ours: the push messages of a notification.
        Index({"notificationId": 1}),
    ),
    retention=Retention("createdAt", timedelta(days=30)),
)

AUDIT_LOGS = Collection(
    name="auditLogs",
    purpose="All important system actions, for compliance and debugging.",
    fields={
        # Actor
        "userId?": "string",
        "userEmail?": "string",
        "userRole?": "string",
        # Action details
        "action": "string",
        "resource": "string",
        "resourceId": "string",
        # Changes (for updates)
        "changes?": {"before": "any", "after": "any"},
        # Context
        "ipAddress": "string",
        "userAgent": "string",
        # Request details
        "method?": "string",
        "endpoint?": "string",
        # Result
        "status": ("success", "failure"),
        "errorMessage?": "string",
        # Timestamps
        "timestamp": "Date",
    },
    indexes=(
        Index({"userId": 1, "timestamp": -1}),
        Index({"action": 1, "timestamp": -1}),
        Index({"resource": 1, "resourceId": 1, "timestamp": -1}),
        Index({"timestamp": -1}),
    ),
    # Compliance: two years.
    retention=Retention("timestamp", timedelta(days=730)),
)

SYSTEM_LOGS = Collection(
    name="systemLogs",
    purpose="Application logs, for debugging and monitoring.",
    fields={
        "level": ("debug", "info", "warn", "error", "fatal"),
        "message": "string",
        # Context
        "service": "string",
        "environment": "string",
        # Error details (if applicable)
        "error?": {"name": "string", "message": "string", "stack": "string"},
        # Additional metadata
        "metadata?": "object",
        # Request context
        "requestId?": "string",
        "userId?": "string",
        # Timestamps
        "timestamp": "Date",
    },
    indexes=(
        Index({"level": 1, "timestamp": -1}),
        Index({"service": 1, "timestamp": -1}),
        Index({"requestId": 1}),
        Index({"timestamp": -1}),
        # Ours: the log lines of a user. Most lines have none.
        Index({"userId": 1, "timestamp": -1}, only_where={"userId": {"$exists": True}}),
    ),
    retention=Retention("timestamp", timedelta(days=30)),
)

ERROR_LOGS = Collection(
    name="errorLogs",
    purpose="Errors in groups, for quick debugging. `_id` is the group's fingerprint.",
    fields={
        # Error details
        "name": "string",
        "message": "string",
        "stack": "string",
        "severity": ("low", "medium", "high", "critical"),
        # Context
        "service": "string",
        "environment": "string",
        # Request context
        "requestId?": "string",
        "userId?": "string",
        "endpoint?": "string",
        "method?": "string",
        # Additional context
        "context?": "object",
        # Resolution
        "resolved": "boolean",
        "resolvedAt?": "Date",
        "resolvedBy?": "string",
        "resolution?": "string",
        # Occurrence tracking
        "firstOccurrence": "Date",
        "lastOccurrence": "Date",
        "occurrenceCount": "number",
        # Timestamps
        "timestamp": "Date",
    },
    indexes=(
        Index({"name": 1, "message": 1, "timestamp": -1}),
        Index({"severity": 1, "resolved": 1, "timestamp": -1}),
        Index({"service": 1, "timestamp": -1}),
        Index({"resolved": 1, "timestamp": -1}),
    ),
    # An unresolved group stays.
    retention=Retention("resolvedAt", timedelta(days=90), only_where={"resolved": True}),
)

PERFORMANCE_LOGS = Collection(
    name="performanceLogs",
    purpose="API performance metrics.",
    fields={
        # Request details
        "method": "string",
        "endpoint": "string",
        "statusCode": "number",
        # Timing
        "duration": "number",  # milliseconds
        # Breakdown
        "timings?": {"database?": "number", "cache?": "number", "external?": "number", "processing?": "number"},
        # Resource usage
        "memoryUsage?": "number",  # MB
        "cpuUsage?": "number",  # percentage
        # Context
        "service": "string",
        "userId?": "string",
        "requestId?": "string",
        # Timestamps
        "timestamp": "Date",
        # Our own: a measurement was out of its range
        "clamped?": "boolean",
    },
    indexes=(
        Index({"endpoint": 1, "timestamp": -1}),
        Index({"duration": -1, "timestamp": -1}),
        Index({"statusCode": 1, "timestamp": -1}),
    ),
    retention=Retention("timestamp", timedelta(days=7)),
)

COLLECTIONS: dict[str, Collection] = {
    collection.name: collection
    for collection in (
        PAGE_VIEWS,
        ANALYTICS_EVENTS,
        USER_ACTIVITY,
        SEARCH_QUERIES,
        NOTIFICATIONS,
        NOTIFICATION_QUEUE,
        EMAIL_LOGS,
        PUSH_NOTIFICATION_LOGS,
        AUDIT_LOGS,
        SYSTEM_LOGS,
        ERROR_LOGS,
        PERFORMANCE_LOGS,
    )
}
"""Every collection, by name."""

NAMES: frozenset[str] = frozenset(COLLECTIONS)


_BSON_TYPES = {"string": "string", "number": "number", "boolean": "bool", "Date": "date", "object": "object"}


def _schema(field_type: FieldType) -> dict[str, Any]:
    if isinstance(field_type, tuple):
        return {"enum": list(field_type)}
    if isinstance(field_type, list):
        return {"bsonType": "array", "items": _schema(field_type[0])}
    if isinstance(field_type, dict):
        return _object_schema(field_type)
    return {} if field_type == "any" else {"bsonType": _BSON_TYPES[field_type]}


def _object_schema(fields: Mapping[str, FieldType]) -> dict[str, Any]:
    schema: dict[str, Any] = {
        "bsonType": "object",
        "properties": {name.removesuffix("?"): _schema(field_type) for name, field_type in fields.items()},
    }
    # MongoDB refuses an empty `required`.
    if required := list(_required(fields)):
        schema["required"] = required
    return schema


def _required(fields: Mapping[str, FieldType]) -> Iterable[str]:
    return (name for name, field_type in fields.items() if not name.endswith("?") and field_type != "any")


def _index_name(keys: Mapping[str, int | str]) -> str:
    return "_".join(f"{name}_{direction}" for name, direction in keys.items())
