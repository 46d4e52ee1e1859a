"""Posts: written, published, liked, shared.

Names, avatars and followers are used only by the notifications of an event: a field with `exclude=True` is in no other
document.
"""

from typing import Annotated, ClassVar

from pydantic import BeforeValidator, ConfigDict, Field
from pydantic_core import PydanticCustomError

from schemas.domain import DomainEvent
from schemas.fields import Id, Label, Link, Name, Prose

MOST_FOLLOWERS = 100_000
"""In one event: 4 MB of UUIDs, if Kafka is configured for larger records."""


def _check_length(ids: object) -> object:
    """Check the list before its ids are read."""
    if isinstance(ids, list | tuple) and len(ids) > MOST_FOLLOWERS:
        raise PydanticCustomError(
            "followers",
            "should have at most {most} ids; name the others in more events whose continues is this event's id",
            {"most": f"{MOST_FOLLOWERS:,}"},
        )
    return ids


class PostEvent(DomainEvent):
    """Something that happened to a post."""

    entity_type: ClassVar[str] = "post"
    entity_id_field: ClassVar[str] = "post_id"
    actor_fields: ClassVar[tuple[str, ...]] = ("user_id", "author_id")
    title_field: ClassVar[str | None] = "title"

    post_id: Id
    slug: Id | None = None
    title: Label | None = None
    author_id: Id | None = None
    user_id: Id | None = None


class PostCreated(PostEvent):
    """An author created a post; it is not public yet."""

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [
                {
                    "postId": "post-uuid-123",
                    "slug": "introduction-to-typescript",
                    "authorId": "author-uuid-789",
                    "title": "Introduction to TypeScript",
                    "sessionId": "session-abc",
                }
            ]
        }
    )

    author_id: Id
    title: Label


class PostUpdated(PostEvent):
    """A post's text, title or settings changed."""

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [
                {
                    "postId": "post-uuid-123",
                    "slug": "introduction-to-typescript",
                    "authorId": "author-uuid-789",
                    "title": "Introduction to TypeScript",
                    "changes": {"before": {"title": "TypeScript"}, "after": {"title": "Introduction to TypeScript"}},
                }
            ]
        }
    )

    author_id: Id


class PostPublished(PostEvent):
    """A post became public.

    All users in `followerIds` are notified, with `authorName` and `authorAvatar`. The size of the record limits the
    list: Kafka accepts 1 MB by default, about 25,000 UUIDs. Name the other followers in more events of the same post
    whose `continues` is the first event's id (`ce_id`, or `eventId`): such an event notifies its followers and is not
    stored otherwise, and nobody is notified twice of one post.
    """

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [
                {
                    "postId": "post-uuid-123",
                    "slug": "introduction-to-typescript",
                    "authorId": "author-uuid-789",
                    "authorName": "Alan",
                    "authorAvatar": "https://blog.example/avatars/alan.webp",
                    "title": "Introduction to TypeScript",
                    "excerpt": "Types for people who write JavaScript.",
                    "followerIds": ["user-uuid-456", "user-uuid-457"],
                }
            ]
        }
    )

    slug: Id
    author_id: Id
    title: Label
    author_name: Label | None = Field(None, exclude=True, repr=False)
    author_avatar: Link | None = Field(None, exclude=True, repr=False)
    excerpt: Prose | None = Field(None, exclude=True, repr=False)
    follower_ids: Annotated[tuple[Id, ...], Field(fail_fast=True), BeforeValidator(_check_length)] = Field(
        (), exclude=True, repr=False, json_schema_extra={"maxItems": MOST_FOLLOWERS}
    )
    continues: Id | None = Field(None, exclude=True)

    @property
    def continued(self) -> str | None:
        """The id of the event whose list of followers this one continues."""
        return self.continues


class PostUnpublished(PostEvent):
    """A post is no longer public."""

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [
                {
                    "postId": "post-uuid-123",
                    "slug": "introduction-to-typescript",
                    "authorId": "author-uuid-789",
                    "title": "Introduction to TypeScript",
                    "userId": "editor-uuid-012",
                }
            ]
        }
    )

    author_id: Id


class PostDeleted(PostEvent):
    """A post was deleted, by its author or by the person in `userId`."""

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [
                {
                    "postId": "post-uuid-123",
                    "slug": "introduction-to-typescript",
                    "authorId": "author-uuid-789",
                    "title": "Introduction to TypeScript",
                    "userId": "editor-uuid-012",
                    "userRole": "editor",
                    "ipAddress": "81.2.69.160",
                    "userAgent": "Mozilla/5.0 (X11; Linux x86_64; rv:140.0) Gecko/20100101 Firefox/140.0",
                }
            ]
        }
    )

    author_id: Id


class PostLiked(PostEvent):
    """A reader liked a post. Its author, `authorId`, is notified, with `userName` and `userAvatar`."""

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [
                {
                    "postId": "post-uuid-123",
                    "slug": "introduction-to-typescript",
                    "userId": "user-uuid-456",
                    "userName": "Ada",
                    "userAvatar": "https://blog.example/avatars/ada.webp",
                    "authorId": "author-uuid-789",
                    "title": "Introduction to TypeScript",
                    "sessionId": "session-abc",
                }
            ]
        }
    )

    user_id: Id
    user_name: Label | None = Field(None, exclude=True, repr=False)
    user_avatar: Link | None = Field(None, exclude=True, repr=False)


class PostUnliked(PostEvent):
    """A reader took a like back."""

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [
                {
                    "postId": "post-uuid-123",
                    "userId": "user-uuid-456",
                    "authorId": "author-uuid-789",
                    "title": "Introduction to TypeScript",
                }
            ]
        }
    )

    user_id: Id


class PostBookmarked(PostEvent):
    """A reader bookmarked a post."""

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [
                {
                    "postId": "post-uuid-123",
                    "userId": "user-uuid-456",
                    "authorId": "author-uuid-789",
                    "title": "Introduction to TypeScript",
                }
            ]
        }
    )

    user_id: Id


class PostUnbookmarked(PostEvent):
    """A reader removed a bookmark."""

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [
                {
                    "postId": "post-uuid-123",
                    "userId": "user-uuid-456",
                    "authorId": "author-uuid-789",
                    "title": "Introduction to TypeScript",
                }
            ]
        }
    )

    user_id: Id


class PostShared(PostEvent):
    """Someone shared a post, to `channel`. A visitor who is not signed in has only a `sessionId`."""

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [
                {
                    "postId": "post-uuid-123",
                    "userId": "user-uuid-456",
                    "authorId": "author-uuid-789",
                    "title": "Introduction to TypeScript",
                    "channel": "mastodon",
                    "sessionId": "session-abc",
                }
            ]
        }
    )

    # Not the author: a visitor who is not signed in is unknown.
    actor_fields: ClassVar[tuple[str, ...]] = ("user_id",)

    channel: Name | None = None
