"""Tags, which authors put on posts."""

from typing import ClassVar

from pydantic import ConfigDict

from schemas.domain import DomainEvent
from schemas.fields import Id, Label


class TagEvent(DomainEvent):
    """Something that happened to a tag; `userId` did it, if a person did."""

    entity_type: ClassVar[str] = "tag"
    entity_id_field: ClassVar[str] = "tag_id"
    actor_fields: ClassVar[tuple[str, ...]] = ("user_id",)
    title_field: ClassVar[str | None] = "name"

    tag_id: Id
    name: Label | None = None
    slug: Id | None = None
    user_id: Id | None = None


class TagCreated(TagEvent):
    """A tag was used for the first time."""

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [
                {
                    "tagId": "tag-uuid-34",
                    "name": "TypeScript",
                    "slug": "typescript",
                    "userId": "editor-uuid-012",
                }
            ]
        }
    )

    name: Label
    slug: Id


class TagUpdated(TagEvent):
    """A tag was renamed."""

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [
                {
                    "tagId": "tag-uuid-34",
                    "name": "TypeScript",
                    "slug": "typescript",
                    "userId": "editor-uuid-012",
                    "changes": {"before": {"name": "Typescript"}, "after": {"name": "TypeScript"}},
                }
            ]
        }
    )


class TagDeleted(TagEvent):
    """A tag was deleted."""

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [
                {
                    "tagId": "tag-uuid-34",
                    "name": "TypeScript",
                    "slug": "typescript",
                    "userId": "editor-uuid-012",
                }
            ]
        }
    )
