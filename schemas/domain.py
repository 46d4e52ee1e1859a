"""The common fields of all domain events: an entity, an actor, and the request.

These declarations determine the documents for `analyticsEvents`, `userActivity` and `auditLogs`; see
`enrich/domain_events.py`.
"""

from typing import Any, ClassVar

from schemas.event import Event, Moment
from schemas.fields import FreeContent, Id, IpAddress, Link, Name


class DomainEvent(Event):
    """Something that succeeded in the platform's domain. An attempt that failed is an audit entry instead.

    The fields here describe the request, are all optional, and never become properties of an analytics event. The
    fields of a subclass do, except the entity's id and the actor. `changes` and the details of the request are stored
    only in `auditLogs`: for an event that does not go there, they are not stored.

    Attributes:
        entity_type: The kind of entity: `post`, `comment`, `user`, ...
        entity_id_field: The field with that entity's id.
        actor_fields: The fields that may hold the actor; the first one that is set does. So the author of a post is
            the actor, unless `userId` names someone else.
        title_field: The field with the entity's name for display, if it has one.
    """

    entity_type: ClassVar[str]
    entity_id_field: ClassVar[str]
    actor_fields: ClassVar[tuple[str, ...]]
    title_field: ClassVar[str | None] = None

    timestamp: Moment | None = None
    session_id: Id | None = None
    page: Link | None = None
    referrer: Link | None = None
    ip_address: IpAddress | None = None
    user_agent: Link | None = None
    user_email: Name | None = None
    user_role: Name | None = None
    method: Name | None = None
    endpoint: Link | None = None
    changes: FreeContent | None = None

    @property
    def entity(self) -> str:
        """The entity's id."""
        entity: str = getattr(self, self.entity_id_field)
        return entity

    @property
    def continued(self) -> str | None:
        """The producer's id of the event that this one continues with more people to notify, or `None`."""
        return None

    @property
    def audited_changes(self) -> dict[str, Any] | None:
        """The value of `auditLogs.changes`: `before` and `after`."""
        return self.changes

    @property
    def actor_field(self) -> str | None:
        """The field with the actor, or `None` if no actor is named."""
        return next((field for field in self.actor_fields if getattr(self, field) is not None), None)

    @property
    def actor(self) -> str | None:
        """The id of the actor, or `None` if no actor is named."""
        field = self.actor_field
        return getattr(self, field) if field else None
