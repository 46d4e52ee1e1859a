"""Comments on posts: who commented, and where. Their text stays in PostgreSQL.

Names, avatars and excerpts are used only by the notifications of an event: a field with `exclude=True` is in no other
document.
"""

from typing import ClassVar

from pydantic import ConfigDict, Field

from schemas.domain import DomainEvent
from schemas.fields import Id, Label, Link, Prose


class CommentEvent(DomainEvent):
    """Something that happened to a comment.

    `authorId` wrote the comment; `parentId` is the comment that it answers; `postSlug` is the post's slug.
    """

    entity_type: ClassVar[str] = "comment"
    entity_id_field: ClassVar[str] = "comment_id"
    actor_fields: ClassVar[tuple[str, ...]] = ("user_id", "author_id")

    comment_id: Id
    post_id: Id
    post_title: Label | None = None
    post_slug: Id | None = None
    parent_id: Id | None = None
    author_id: Id | None = None
    user_id: Id | None = None


class CommentCreated(CommentEvent):
    """A reader commented on a post.

    `postAuthorId` wrote the post and `parentAuthorId` the comment that is answered: both are notified, with
    `authorName`, `authorAvatar` and `excerpt`, the comment's first words.
    """

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [
                {
                    "commentId": "comment-uuid-345",
                    "postId": "post-uuid-123",
                    "postTitle": "Introduction to TypeScript",
                    "postSlug": "introduction-to-typescript",
                    "postAuthorId": "author-uuid-789",
                    "authorId": "user-uuid-456",
                    "authorName": "Ada",
                    "authorAvatar": "https://blog.example/avatars/ada.webp",
                    "parentId": "comment-uuid-344",
                    "parentAuthorId": "user-uuid-457",
                    "excerpt": "Thank you, that was the missing piece.",
                    "sessionId": "session-abc",
                    "page": "/posts/introduction-to-typescript",
                    "userAgent": "Mozilla/5.0 (X11; Linux x86_64; rv:140.0) Gecko/20100101 Firefox/140.0",
                }
            ]
        }
    )

    author_id: Id
    post_author_id: Id | None = None
    parent_author_id: Id | None = None
    author_name: Label | None = Field(None, exclude=True, repr=False)
    author_avatar: Link | None = Field(None, exclude=True, repr=False)
    excerpt: Prose | None = Field(None, exclude=True, repr=False)


class CommentUpdated(CommentEvent):
    """A comment's text changed."""

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [
                {
                    "commentId": "comment-uuid-345",
                    "postId": "post-uuid-123",
                    "postTitle": "Introduction to TypeScript",
                    "authorId": "user-uuid-456",
                }
            ]
        }
    )

    author_id: Id


class CommentDeleted(CommentEvent):
    """A comment was deleted, by its author or by the person in `userId`."""

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [
                {
                    "commentId": "comment-uuid-345",
                    "postId": "post-uuid-123",
                    "postTitle": "Introduction to TypeScript",
                    "authorId": "user-uuid-456",
                    "userId": "editor-uuid-012",
                    "ipAddress": "81.2.69.160",
                    "userAgent": "Mozilla/5.0 (X11; Linux x86_64; rv:140.0) Gecko/20100101 Firefox/140.0",
                }
            ]
        }
    )

    author_id: Id


class CommentLiked(CommentEvent):
    """A reader liked a comment. Its author, `authorId`, is notified, with `userName` and `userAvatar`."""

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [
                {
                    "commentId": "comment-uuid-345",
                    "postId": "post-uuid-123",
                    "postTitle": "Introduction to TypeScript",
                    "postSlug": "introduction-to-typescript",
                    "authorId": "user-uuid-456",
                    "userId": "user-uuid-457",
                    "userName": "Grace",
                    "userAvatar": "https://blog.example/avatars/grace.webp",
                }
            ]
        }
    )

    user_id: Id
    user_name: Label | None = Field(None, exclude=True, repr=False)
    user_avatar: Link | None = Field(None, exclude=True, repr=False)


class CommentUnliked(CommentEvent):
    """A reader removed a like from a comment."""

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [
                {
                    "commentId": "comment-uuid-345",
                    "postId": "post-uuid-123",
                    "postTitle": "Introduction to TypeScript",
                    "authorId": "user-uuid-456",
                    "userId": "user-uuid-457",
                }
            ]
        }
    )

    user_id: Id
