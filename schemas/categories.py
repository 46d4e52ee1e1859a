"""Categories, which editors sort posts into."""

from typing import ClassVar

from pydantic import ConfigDict

from schemas.domain import DomainEvent
from schemas.fields import Id, Label


class CategoryEvent(DomainEvent):
    """Something that happened to a category; `userId` did it, if a person did."""

    entity_type: ClassVar[str] = "category"
    entity_id_field: ClassVar[str] = "category_id"
    actor_fields: ClassVar[tuple[str, ...]] = ("user_id",)
    title_field: ClassVar[str | None] = "name"

    category_id: Id
    name: Label | None = None
    slug: Id | None = None
    user_id: Id | None = None


class CategoryCreated(CategoryEvent):
    """A category was created."""

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [
                {
                    "categoryId": "category-uuid-21",
                    "name": "Web development",
                    "slug": "web-development",
                    "userId": "editor-uuid-012",
                    "parentId": "category-uuid-20",
                }
            ]
        }
    )

    name: Label
    slug: Id
    parent_id: Id | None = None


class CategoryUpdated(CategoryEvent):
    """A category was renamed or moved."""

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [
                {
                    "categoryId": "category-uuid-21",
                    "name": "Web development",
                    "slug": "web-development",
                    "userId": "editor-uuid-012",
                    "changes": {"before": {"name": "Web"}, "after": {"name": "Web development"}},
                }
            ]
        }
    )


class CategoryDeleted(CategoryEvent):
    """A category was deleted."""

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [
                {
                    "categoryId": "category-uuid-21",
                    "name": "Web development",
                    "slug": "web-development",
                    "userId": "editor-uuid-012",
                }
            ]
        }
    )
