"""What a namespace makes of names, and that none is forgotten where a store is opened."""

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest
from pydantic import ValidationError
from pymongo import AsyncMongoClient

from runtime.settings import ROOT, Settings
from sinks.collections import COLLECTIONS
from sinks.mongo.database import NamespacedDatabase
from sinks.postgres.migrations import read
from sinks.postgres.pool import schema_of


@pytest.mark.parametrize(
    ("namespace", "schema"),
    [
        ("", "inkstream"),
        ("staging.", "inkstream_staging"),
        ("Staging-EU.", "inkstream_staging_eu"),
        ("blog_2.test.", "inkstream_blog_2_test"),
        ("_", "inkstream_"),
    ],
)
def test_the_schema_is_named_by_the_namespace(namespace: str, schema: str) -> None:
    assert schema_of(namespace) == schema


def test_a_schema_has_at_most_63_bytes_and_long_namespaces_differ_all_the_same() -> None:
    names = [schema_of(f"{'a' * 80}{end}.") for end in "bc"]
    assert [len(name) for name in names] == [63, 63]
    assert names[0] != names[1]


async def test_a_collection_is_looked_up_by_its_declared_name() -> None:
    client: AsyncMongoClient[dict[str, object]] = AsyncMongoClient("mongodb://127.0.0.1:9/blog", tz_aware=True)
    for namespace in ("", "staging."):
        database = NamespacedDatabase(client, namespace)
        assert database["pageViews"].name == database.get_collection("pageViews").name == f"{namespace}pageViews"
        assert database.pageViews.name == f"{namespace}pageViews"
        assert database.server_names["pageViews"].name == "pageViews"
        assert database["pageViews"].codec_options.tz_aware
    await client.close()


def test_no_collection_of_one_installation_can_be_that_of_another() -> None:
    ends = {(one, other) for one in COLLECTIONS for other in COLLECTIONS if one != other and one.endswith(other)}
    assert not ends


@pytest.mark.parametrize("namespace", [".staging", "a..b", "staging/", "stäging.", "a b"])
def test_a_namespace_of_which_no_name_can_be_made_is_refused(namespace: str) -> None:
    with pytest.raises(ValidationError, match="namespace"):
        Settings(namespace=namespace)


@pytest.mark.parametrize("namespace", ["", "staging.", "staging", "a.b_c-D."])
def test_other_namespaces_are_taken(namespace: str) -> None:
    assert Settings(namespace=namespace).namespace == namespace


def test_migrations_that_were_released_are_as_they_were() -> None:
    released = {
        migration.name: migration.checksum[:12] for migration in read(ROOT / "migrations") if migration.name < "0005"
    }
    assert released == RELEASED


RELEASED = {
    "0001_schema.sql": "82936344aaad",
    "0002_view_counts.sql": "0adb58490b25",
    "0003_notifications.sql": "f411d93602c0",
    "0004_posts_set_aside.sql": "cec520c2225c",
}


def opened(path: Path) -> Iterator[str]:
    """Yield each call in a file that opens a store."""
    source = path.read_text()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Call):
            called = ast.unparse(node.func)
            if called in ("Mongo.connect", "Pool", "postgres.Pool", "migrations.migrate", "postgres.describe"):
                yield ast.unparse(node)


def test_our_code_opens_no_store_without_its_namespace() -> None:
    calls = [
        call
        for part in ("agents", "dev", "ops", "sinks")
        for path in (ROOT / part).rglob("*.py")
        for call in opened(path)
    ]
    assert len(calls) >= 10
    forgotten = [call for call in calls if "namespace" not in call]
    assert forgotten == []
