"""Posts: written, published, liked, shared."""

from typing import ClassVar

from pydantic import ConfigDict

from schemas.domain import DomainEvent
from schemas.fields import Id, Name


class PostEvent(DomainEvent):
    """Something that happened to a post."""

    entity_type: ClassVar[str] = "post"
    entity_id_field: ClassVar[str] = "post_id"
    actor_fields: ClassVar[tuple[str, ...]] = ("user_id", "author_id")
    title_field: ClassVar[str | None] = "title"

    post_id: Id
    slug: Id | None = None
    title: str | None = None
    author_id: Id | None = None
    user_id: Id | None = None


class PostCreated(PostEvent):
    """An author began a post; it is not public yet."""

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
    title: str


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
    """A post became public."""

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [
                {
                    "postId": "post-uuid-123",
                    "slug": "introduction-to-typescript",
                    "authorId": "author-uuid-789",
                    "title": "Introduction to TypeScript",
                }
            ]
        }
    )

    slug: Id
    author_id: Id
    title: str


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
    """A reader liked a post."""

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [
                {
                    "postId": "post-uuid-123",
                    "userId": "user-uuid-456",
                    "authorId": "author-uuid-789",
                    "title": "Introduction to TypeScript",
                    "sessionId": "session-abc",
                }
            ]
        }
    )

    user_id: Id


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
    """Someone shared a post; `channel` says where to. A visitor who is not signed in has a `sessionId` only."""

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

    # Not the author: a visitor who is not signed in is nobody we know.
    actor_fields: ClassVar[tuple[str, ...]] = ("user_id",)

    channel: Name | None = None
