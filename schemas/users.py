"""Users: accounts, sessions, followers.

A follower's name and avatar are used only by the notification of the event: a field with `exclude=True` is in no other
document.
"""

from typing import Any, ClassVar

from pydantic import ConfigDict, Field

from schemas.domain import DomainEvent
from schemas.fields import Id, Label, Link, Name


class UserEvent(DomainEvent):
    """Something that happened to a user's account.

    The user did it, unless `actorId` names someone else. `name` is the public name.
    """

    entity_type: ClassVar[str] = "user"
    entity_id_field: ClassVar[str] = "user_id"
    actor_fields: ClassVar[tuple[str, ...]] = ("actor_id", "user_id")
    title_field: ClassVar[str | None] = "name"

    user_id: Id
    name: Label | None = None
    actor_id: Id | None = None


class UserRegistered(UserEvent):
    """Someone opened an account; `provider` is the way to sign in: `password`, `google`, ..."""

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [
                {
                    "userId": "user-uuid-456",
                    "name": "Ada",
                    "provider": "password",
                    "userEmail": "ada@example.org",
                    "ipAddress": "81.2.69.160",
                    "userAgent": "Mozilla/5.0 (X11; Linux x86_64; rv:140.0) Gecko/20100101 Firefox/140.0",
                }
            ]
        }
    )

    provider: Name | None = None


class UserUpdated(UserEvent):
    """An account or its profile changed."""

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [
                {
                    "userId": "user-uuid-456",
                    "name": "Ada",
                    "changes": {"before": {"bio": ""}, "after": {"bio": "Writes about types."}},
                }
            ]
        }
    )


class UserDeleted(UserEvent):
    """An account was deleted."""

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [
                {
                    "userId": "user-uuid-456",
                    "name": "Ada",
                    "actorId": "admin-uuid-001",
                    "userRole": "admin",
                }
            ]
        }
    )


class UserLoggedIn(UserEvent):
    """A session began."""

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [
                {
                    "userId": "user-uuid-456",
                    "name": "Ada",
                    "provider": "password",
                    "sessionId": "session-abc",
                    "ipAddress": "81.2.69.160",
                    "userAgent": "Mozilla/5.0 (X11; Linux x86_64; rv:140.0) Gecko/20100101 Firefox/140.0",
                }
            ]
        }
    )

    provider: Name | None = None


class UserLoggedOut(UserEvent):
    """A session ended."""

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [
                {
                    "userId": "user-uuid-456",
                    "name": "Ada",
                    "sessionId": "session-abc",
                }
            ]
        }
    )


class UserPasswordChanged(UserEvent):
    """A password was changed or reset."""

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [
                {
                    "userId": "user-uuid-456",
                    "name": "Ada",
                    "ipAddress": "81.2.69.160",
                    "userAgent": "Mozilla/5.0 (X11; Linux x86_64; rv:140.0) Gecko/20100101 Firefox/140.0",
                }
            ]
        }
    )


class UserRoleChanged(UserEvent):
    """A user's role changed."""

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [
                {
                    "userId": "user-uuid-456",
                    "name": "Ada",
                    "actorId": "admin-uuid-001",
                    "role": "editor",
                    "previousRole": "author",
                }
            ]
        }
    )

    role: Name
    previous_role: Name | None = None

    @property
    def audited_changes(self) -> dict[str, Any]:
        """The change of role, if the producer does not send `changes`."""
        before = {} if self.previous_role is None else {"before": {"role": self.previous_role}}
        return self.changes or {**before, "after": {"role": self.role}}


class UserFollowed(UserEvent):
    """The user in `followerId` began to follow the user in `userId`.

    The user who is followed is notified, with `followerName` and `followerAvatar`.
    """

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [
                {
                    "userId": "user-uuid-456",
                    "name": "Ada",
                    "followerId": "user-uuid-457",
                    "followerName": "Grace",
                    "followerAvatar": "https://blog.example/avatars/grace.webp",
                }
            ]
        }
    )

    actor_fields: ClassVar[tuple[str, ...]] = ("follower_id",)

    follower_id: Id
    follower_name: Label | None = Field(None, exclude=True, repr=False)
    follower_avatar: Link | None = Field(None, exclude=True, repr=False)


class UserUnfollowed(UserEvent):
    """The user in `followerId` no longer follows the user in `userId`."""

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [
                {
                    "userId": "user-uuid-456",
                    "name": "Ada",
                    "followerId": "user-uuid-457",
                }
            ]
        }
    )

    actor_fields: ClassVar[tuple[str, ...]] = ("follower_id",)

    follower_id: Id
