"""The named queries of `sinks/postgres/queries.sql`."""

import pytest

from sinks.postgres.pool import query


def test_a_query_is_found_by_its_name_with_its_comment() -> None:
    assert query("lock_migrations").startswith("-- One migration at a time")
    assert query("lock_migrations").endswith(";")


def test_a_query_ends_where_the_next_begins() -> None:
    assert "-- name:" not in query("describe_server")


def test_an_unknown_name_is_an_error() -> None:
    with pytest.raises(KeyError):
        query("unknown")
