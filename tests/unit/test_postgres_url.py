"""What is said of a URL of PostgreSQL that can't be used; it never repeats a value, which may be a password."""

import psycopg
import pytest

from sinks.postgres.pool import Pool, PostgresUrlError


def problem_of(url: str) -> str:
    with pytest.raises(PostgresUrlError) as raised:
        Pool(url)
    return str(raised.value)


@pytest.mark.parametrize(
    ("query", "says"),
    [
        ("schema=public", "parameter schema: Prisma's; remove it, and name the schema in INKSTREAM_POSTS_TABLE"),
        ("pgbouncer=true", "parameter pgbouncer: Prisma's; remove it: Inkstream works behind PgBouncer"),
        ("connection_limit=5", "parameter connection_limit: Prisma's; remove it: a worker has 4 connections at most"),
        ("sslaccept=strict", "parameter sslaccept: Prisma's; use sslmode=verify-full"),
        ("colour=blue", "parameter colour: not known to PostgreSQL; remove it"),
    ],
)
def test_a_parameter_that_is_not_postgresql_s_is_named_with_what_to_do(query: str, says: str) -> None:
    assert problem_of(f"postgresql://blog:secret@host/blog?{query}").startswith(says)


def test_all_such_parameters_are_named_at_once_and_no_value_is() -> None:
    said = problem_of("postgresql://blog:secret@host/blog?schema=private&sslmode=require&pool_timeout=77&x=")
    assert [part.partition(":")[0] for part in said.split("; parameter ")] == ["parameter schema", "pool_timeout", "x"]
    assert not [value for value in ("secret", "private", "77", "require") if value in said]


@pytest.mark.parametrize("url", ["mysql://host/blog", "host=", "postgresql://[::1/blog", "postgresql://host/blog?%zz"])
def test_what_is_no_url_of_postgresql_is_refused_with_an_example(url: str) -> None:
    assert "secret" not in problem_of(url.replace("host", "secret"))


@pytest.mark.parametrize(
    "url",
    [
        "postgresql://blog:secret@one,two,three/blog?target_session_attrs=read-write",
        "postgresql://one:5432,two:5433/blog",
        "postgresql:///blog?host=/var/run/postgresql",
        "postgresql://%2Fvar%2Frun%2Fpostgresql/blog",
        "postgresql://host/blog?options=-c%20search_path%3Dblog",
        "postgresql:///?service=blog",
        "service=blog",
        "host=127.0.0.1 dbname=blog",
        "postgresql://host/blog?sslmode=verify-full&sslrootcert=system",
    ],
)
def test_every_form_that_postgresql_s_own_clients_read_is_taken(url: str) -> None:
    Pool(url)


async def test_a_pool_that_gets_no_connection_says_why_when_it_is_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(f"{Pool.__module__}._PING_SECONDS", 0.5)
    pool = Pool("postgresql://user:se-cret@postgres.invalid/blog")  # a name that is nowhere (RFC 6761)
    with pytest.raises(psycopg.OperationalError, match=r"postgres\.invalid") as raised:
        await pool.ping()
    assert "se-cret" not in str(raised.value)
    await pool.close()
