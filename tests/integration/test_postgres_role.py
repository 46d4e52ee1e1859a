"""The rights that the docs give to the role in PostgreSQL: their SQL, as it stands, is all that Inkstream needs."""

import asyncio
import json
import re
from collections.abc import AsyncIterator, Iterator, Sequence
from pathlib import Path

import psycopg
import pytest

from dev.ports import Ports
from dev.servers.postgres import DATABASE, Postgres
from dev.stack import Platform
from runtime.settings import ROOT
from sinks.postgres.pool import schema_of
from tests.command_line import inkstream
from tests.integration.pipeline import Pipeline, plain, until

PAGE = (ROOT / "docs/deploy.md").read_text()
PLATFORM = (ROOT / "dev/platform.sql").read_text().partition("-- The worker's role.")[0]
BROWSER = "Mozilla/5.0 (X11; Linux x86_64; rv:130.0) Gecko/20100101 Firefox/130.0"


def statements(name: str) -> str:
    """Return a block of SQL of the page, as it stands there."""
    found = re.search(rf"<!-- {name} -->\n```sql\n(.*?)```", PAGE, re.DOTALL)
    assert found is not None, name
    return found[1]


class EmptyPostgres(Postgres):
    """A PostgreSQL with nothing in it; `database` makes what a platform has."""

    def settle(self) -> None:
        """Leave it empty."""

    def ready(self) -> bool:
        """Whether it answers."""
        return self._selects_one("postgres")

    ours = "inkstream"
    """The schema that stands for `inkstream` in the docs' statements, as the test's namespace names it."""

    def run(self, role: str, sql: str, database: str = DATABASE) -> list[tuple[object, ...]]:
        """Run statements as a role; return the rows of the last one."""
        sql = re.sub(r"\bSCHEMA inkstream\b", f"SCHEMA {self.ours}", sql)
        with psycopg.connect(self._address(role, database), autocommit=True) as connection:
            cursor = connection.execute(sql.encode())
            while cursor.nextset():
                pass
            return cursor.fetchall() if cursor.description else []


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[EmptyPostgres]:
    directory: Path = tmp_path_factory.mktemp("postgres")
    alone = EmptyPostgres(directory, Ports.free().postgres)
    try:
        alone.start()
        yield alone
    finally:
        alone.forget()


@pytest.fixture
def database(server: EmptyPostgres) -> Iterator[EmptyPostgres]:
    """The platform's database and roles that are no superusers, one for the database and one for the tables."""
    server.run("platform", "CREATE ROLE dba LOGIN CREATEROLE PASSWORD 'dba'", "postgres")
    server.run("platform", "CREATE ROLE blog LOGIN PASSWORD 'blog'", "postgres")
    server.run("platform", f"CREATE DATABASE {DATABASE} OWNER dba", "postgres")
    yield server
    server.run("platform", f"DROP DATABASE {DATABASE} WITH (FORCE)", "postgres")
    for role in ("inkstream", "blog", "dba"):
        server.run("platform", f"DROP ROLE IF EXISTS {role}", "postgres")


@pytest.fixture
async def inkstreams(platform: Platform, database: EmptyPostgres) -> AsyncIterator[Pipeline]:
    """An Inkstream that connects as the docs' role, with the docs' password."""
    pipeline = Pipeline(platform)
    url = f"postgresql://inkstream:change-me@127.0.0.1:{database.port}/{DATABASE}"
    pipeline.environment["INKSTREAM_POSTGRES_URL"] = url
    database.ours = schema_of(pipeline.namespace)
    yield pipeline
    await pipeline.forget()


def viewed(post_id: str) -> object:
    return plain(
        type="page.viewed",
        eventId=f"view-of-{post_id}",
        postId=post_id,
        postSlug=post_id,
        sessionId="session-1",
        ipAddress="81.2.69.1",
        userAgent=BROWSER,
    )._replace(key=post_id.encode())


async def counts_and_is_content(it: Pipeline, server: EmptyPostgres, posts: str = "posts") -> None:
    """Bootstrap, count a view, notify, and have doctor and verify find nothing wrong, all as the docs' role."""
    author = "INSERT INTO {}users (id, email, \"passwordHash\") VALUES ('a', 'a@example.org', '')"
    schema = posts.removesuffix("posts")
    server.run("platform", author.format(schema))
    server.run("platform", f"INSERT INTO {posts} (id, slug, title, \"authorId\") VALUES ('post-1', 's', 't', 'a')")

    ended = await inkstream(it.environment, "bootstrap")
    assert ended.code == 0, ended
    with it.worker() as worker:
        await worker.until_ready()
        await it.send("page-views", [viewed("post-1")])  # type: ignore[list-item]

        async def is_counted() -> bool:
            row = await asyncio.to_thread(server.run, "platform", f'SELECT "viewCount" FROM {posts}')
            return row == [(1,)]

        await until(is_counted, "the view is counted")
        doctor = await inkstream(it.environment, "doctor", "--json")
        verify = await inkstream(it.environment, "verify", "counts")
        suppressed = await inkstream(
            it.environment, "suppressions", "add", "email", "gone@example.org", "--reason", "test"
        )
        listed = await inkstream(it.environment, "suppressions", "list", "--full")
    found = json.loads(doctor.output)["findings"]
    assert [finding for finding in found if finding["state"] == "problem"] == []
    states = {finding["subject"]: finding["state"] for finding in found}
    assert states["view counts"] == states["recipients"] == states["tables"] == "well"
    assert verify.code == 0, verify
    assert suppressed.code == 0, suppressed
    assert "gone@example.org" in listed.output, listed


async def test_the_sql_of_the_docs_is_enough_in_a_database_as_postgresql_makes_it(
    inkstreams: Pipeline, database: EmptyPostgres
) -> None:
    database.run("dba", statements("role"))
    database.run("dba", PLATFORM)
    database.run("dba", statements("schema") + statements("tables"))
    await counts_and_is_content(inkstreams, database)


async def test_it_is_enough_where_public_has_lost_all_its_rights(inkstreams: Pipeline, database: EmptyPostgres) -> None:
    database.run("platform", f"REVOKE ALL ON DATABASE {DATABASE} FROM PUBLIC; REVOKE ALL ON SCHEMA public FROM PUBLIC")
    database.run("dba", statements("role"))
    database.run("dba", PLATFORM)
    database.run("dba", statements("schema") + statements("tables"))
    await counts_and_is_content(inkstreams, database)


async def test_it_is_enough_where_the_tables_have_another_owner(inkstreams: Pipeline, database: EmptyPostgres) -> None:
    database.run("dba", statements("role"))
    database.run("platform", "ALTER SCHEMA public OWNER TO blog")
    database.run("blog", PLATFORM)
    database.run("dba", statements("schema"))
    database.run("blog", statements("tables"))
    await counts_and_is_content(inkstreams, database)


async def test_it_is_enough_where_the_tables_are_in_another_schema(
    inkstreams: Pipeline, database: EmptyPostgres
) -> None:
    database.run("platform", "REVOKE ALL ON SCHEMA public FROM PUBLIC; CREATE SCHEMA blog AUTHORIZATION blog")
    database.run("dba", statements("role"))
    database.run("blog", PLATFORM)  # the schema of a role's own name comes first
    database.run("dba", statements("schema"))
    database.run("blog", statements("tables in a schema of their own"))
    sentence = re.search(r"set `(INKSTREAM_POSTS_TABLE)=(\S+)` and\n`(INKSTREAM_RECIPIENTS_VIEW)=(\S+)`", PAGE)
    assert sentence is not None
    inkstreams.environment |= {sentence[1]: sentence[2], sentence[3]: sentence[4]}
    await counts_and_is_content(inkstreams, database, posts="blog.posts")


@pytest.mark.parametrize(
    ("left_out", "told"),
    [
        ("GRANT USAGE, CREATE ON SCHEMA inkstream", "no right to create tables in it; as its owner: GRANT"),
        ("GRANT SELECT (id", "no permission to read id and"),
        ("GRANT SELECT ON notification_recipients", "GRANT SELECT ON notification_recipients TO inkstream"),
    ],
)
async def test_doctor_names_a_right_that_was_left_out(
    inkstreams: Pipeline, database: EmptyPostgres, left_out: str, told: str
) -> None:
    database.run("dba", statements("role"))
    database.run("dba", PLATFORM)
    lines: Sequence[str] = (statements("schema") + statements("tables")).splitlines()
    assert any(line.startswith(left_out) for line in lines)
    database.run("dba", "\n".join(line for line in lines if not line.startswith(left_out)))
    ended = await inkstream(inkstreams.environment, "doctor", "--json")
    found = json.loads(ended.output)["findings"]
    assert [
        finding
        for finding in found
        if finding["state"] == "problem" and told in f"{finding['what']}; {finding['advice']}"
    ]
