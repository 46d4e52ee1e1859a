"""Media: images and files that authors upload."""

from typing import ClassVar

from pydantic import ConfigDict

from schemas.domain import DomainEvent
from schemas.fields import Count, Id, Label, Name


class MediaEvent(DomainEvent):
    """Something that happened to an uploaded file; `userId` did it."""

    entity_type: ClassVar[str] = "media"
    entity_id_field: ClassVar[str] = "media_id"
    actor_fields: ClassVar[tuple[str, ...]] = ("user_id",)
    title_field: ClassVar[str | None] = "filename"

    media_id: Id
    user_id: Id
    filename: Label | None = None


class MediaUploaded(MediaEvent):
    """An author uploaded a file of `size` bytes; `postId` is the post that it belongs to."""

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [
                {
                    "mediaId": "media-uuid-678",
                    "userId": "author-uuid-789",
                    "filename": "cover.webp",
                    "mimeType": "image/webp",
                    "size": 184320,
                    "postId": "post-uuid-123",
                }
            ]
        }
    )

    filename: Label
    mime_type: Name
    size: Count
    post_id: Id | None = None


class MediaDeleted(MediaEvent):
    """An uploaded file was deleted."""

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [
                {
                    "mediaId": "media-uuid-678",
                    "userId": "author-uuid-789",
                    "filename": "cover.webp",
                }
            ]
        }
    )
