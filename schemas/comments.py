"""Comments on posts. Their text stays in PostgreSQL: the stream carries who said something and where."""

from typing import ClassVar

from pydantic import ConfigDict

from schemas.domain import DomainEvent
from schemas.fields import Id


class CommentEvent(DomainEvent):
    """Something that happened to a comment.

    `authorId` wrote the comment; `parentId` is the comment that it answers.
    """

    entity_type: ClassVar[str] = "comment"
    entity_id_field: ClassVar[str] = "comment_id"
    actor_fields: ClassVar[tuple[str, ...]] = ("user_id", "author_id")

    comment_id: Id
    post_id: Id
    post_title: str | None = None
    parent_id: Id | None = None
    author_id: Id | None = None
    user_id: Id | None = None


class CommentCreated(CommentEvent):
    """A reader commented on a post."""

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [
                {
                    "commentId": "comment-uuid-345",
                    "postId": "post-uuid-123",
                    "postTitle": "Introduction to TypeScript",
                    "authorId": "user-uuid-456",
                    "parentId": "comment-uuid-344",
                    "sessionId": "session-abc",
                    "page": "/posts/introduction-to-typescript",
                    "userAgent": "Mozilla/5.0 (X11; Linux x86_64; rv:140.0) Gecko/20100101 Firefox/140.0",
                }
            ]
        }
    )

    author_id: Id


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
    """A reader liked a comment."""

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


class CommentUnliked(CommentEvent):
    """A reader took a like of a comment back."""

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
