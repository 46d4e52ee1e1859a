"""What all events of the platform's domain have in common: an entity, someone who acted, and the request it came by.

From these few declarations follow the documents for `analyticsEvents`, `userActivity` and `auditLogs`; see
`enrich/domain_events.py`.
"""

from typing import Any, ClassVar

from schemas.event import Event, Moment
from schemas.fields import FreeContent, Id, IpAddress, Link, Name


class DomainEvent(Event):
    """Something that succeeded in the platform's domain. An attempt that failed is an audit entry instead.

    The fields here describe the request, are all optional, and never become properties of an analytics event. What a
    subclass adds does, except for the entity's id and the actor. `changes`, and who it was from where, are stored in
    `auditLogs` alone: of an event that does not go there they are not kept.

    Attributes:
        entity_type: What it happened to: `post`, `comment`, `user`, ...
        entity_id_field: The field with that entity's id.
        actor_fields: The fields that may say who did it; the first that came does. So an author acts on their own
            post, unless `userId` names someone else.
        title_field: The field with the entity's name for display, where it has one.
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
        """The id of what it happened to."""
        entity: str = getattr(self, self.entity_id_field)
        return entity

    @property
    def continued(self) -> str | None:
        """The producer's id of the event that this one belongs to, as a part that notifies more people, or `None`."""
        return None

    @property
    def audited_changes(self) -> dict[str, Any] | None:
        """What changed, as `auditLogs.changes` has it: `before` and `after`."""
        return self.changes

    @property
    def actor_field(self) -> str | None:
        """The field that says who did it, or `None` where nobody is named."""
        return next((field for field in self.actor_fields if getattr(self, field) is not None), None)

    @property
    def actor(self) -> str | None:
        """The id of who did it, or `None` where nobody is named."""
        field = self.actor_field
        return getattr(self, field) if field else None
