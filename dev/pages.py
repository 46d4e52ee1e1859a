"""Write what declarations decide into the pages of docs/: `make docs`.

Input: topics, collections and settings. Output: `docs/topics.md`, `docs/settings.md`, and in `docs/collections.md` the
blocks between `<!-- declared: … -->` and `<!-- end -->`. A collection without a section gets one, after the last.
"""

import re
from collections.abc import Mapping

from ops.commands import settings, topics
from ops.commands.command import reported_errors
from runtime.settings import ROOT
from schemas.topics import Topic, load
from sinks.collections import COLLECTIONS, Collection, FieldType, Index

_END = "<!-- end -->\n"


def main() -> None:
    """Write all pages."""
    with reported_errors():
        declarations = load(ROOT / "topics.yaml", COLLECTIONS)
    docs = ROOT / "docs"
    (docs / "topics.md").write_text(topics.page(declarations), encoding="utf-8")
    (docs / "settings.md").write_text(settings.page(), encoding="utf-8")
    path = docs / "collections.md"
    path.write_text(with_declarations(path.read_text(encoding="utf-8"), declarations.inbound), encoding="utf-8")


def with_declarations(page: str, topics: Mapping[str, Topic]) -> str:
    """Return the page of the collections, with every collection as it is declared."""
    for name, collection in COLLECTIONS.items():
        block = f"<!-- declared: {name} -->\n{declared(collection, topics)}\n{_END}"
        found = re.compile(rf"<!-- declared: {name} -->\n(.*?)\n{_END}", re.DOTALL).search(page)
        if found is None:
            before, _, after = page.rpartition(_END)
            page = f"{before}{_END}\n### {name}\n\n{collection.purpose}\n\n{block}{after}"
        elif found[1].split() != declared(collection, topics).split():  # lines may be wrapped elsewhere
            page = page[: found.start()] + block + page[found.end() :]
    return page


def declared(collection: Collection, topics: Mapping[str, Topic]) -> str:
    """Return what the page says of a collection: where its documents come from, fields, retention, indexes."""
    fields = "\n".join(f"{name}: {_type_text(field_type)}" for name, field_type in collection.fields.items())
    indexes = ", ".join(_index_text(index) for index in collection.indexes)
    return f"{_sources(collection, topics)} {_retention(collection)}\n\n```\n{fields}\n```\n\nIndexes: {indexes}."


def _type_text(field_type: FieldType) -> str:
    match field_type:
        case str():
            return field_type
        case tuple():
            return " | ".join(field_type)
        case list():
            return f"list of {_type_text(field_type[0])}"
        case dict():
            return "{ " + ", ".join(f"{name}: {_type_text(inner)}" for name, inner in field_type.items()) + " }"


def _index_text(index: Index) -> str:
    keys = ", ".join(f"{name}: {direction}" for name, direction in index.keys.items())
    where = "".join(f" where there is a `{name}`" for name in index.only_where)
    return f"`{{ {keys} }}`{where}"


def _sources(collection: Collection, topics: Mapping[str, Topic]) -> str:
    found, updated = [], []
    for topic in topics.values():
        here = sum(collection.name in event.collections for event in topic.events.values())
        if here:
            all_of_it = here == len(topic.events)
            found.append(f"`{topic.name}`" if all_of_it else f"`{topic.name}` ({here} of {len(topic.events)} events)")
        if any(collection.name in event.updates for event in topic.events.values()):
            updated.append(f"`{topic.name}`")
    updates = f" Updated from {', '.join(updated)}." if updated else ""
    return (f"From {', '.join(found)}." if found else "From no topic.") + updates


def _retention(collection: Collection) -> str:
    kept = collection.retention
    if kept is None:
        return "Kept for ever."
    where = ", ".join(f"`{name}` is `{str(value).lower()}`" for name, value in kept.only_where.items())
    until = f"{kept.keep.days} days after `{kept.since}`" if kept.keep else f"at `{kept.since}`"
    return f"Deleted {until}{f', where {where}' if where else ''}."


if __name__ == "__main__":
    main()
