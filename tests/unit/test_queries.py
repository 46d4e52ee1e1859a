"""The named queries of `sinks/postgres/queries.sql`."""

import ast

import pytest

from runtime.settings import ROOT
from sinks.postgres.pool import _queries, query


def test_a_query_is_found_by_its_name_with_its_comment() -> None:
    assert query("lock_migrations").startswith("-- One migration at a time")
    assert query("lock_migrations").endswith(";")


def test_a_query_ends_where_the_next_begins() -> None:
    assert "-- name:" not in query("describe_server")


def test_an_unknown_name_is_an_error() -> None:
    with pytest.raises(KeyError):
        query("unknown")


def test_the_code_names_the_queries_that_there_are_and_all_of_them() -> None:
    """The name is the second argument of `fetch`, which no type checker follows."""
    named = set()
    for path in (*(ROOT / "sinks").rglob("*.py"), *(ROOT / "ops").rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Constant) and node.value in _queries():
                named.add(node.value)
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Name | ast.Attribute):
                called = node.func.id if isinstance(node.func, ast.Name) else node.func.attr
                if called == "fetch" and len(node.args) > 1 and isinstance(node.args[1], ast.Constant):
                    assert node.args[1].value in _queries(), f"{path.name}:{node.lineno}: {node.args[1].value!r}"
    assert named == _queries().keys()
