"""Install each peer into an environment of its own under `.stack/peers`.

Input: requirement files and lock lists. Output: programs that run.
Each peer is installed once. A marker, written last, holds what it was made from, so a changed requirement or an
interrupted installation is repeated. Nothing of a peer gets into this project's own environment.
"""

import hashlib
import json
import shutil
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from dev.servers.jars import Jar, fetch, read_lock
from dev.servers.server import ServerError

ROOT = Path(__file__).resolve().parents[2]
PEERS = ROOT / ".stack/peers"
PLATFORM_JARS = ROOT / ".stack/jars"
PYTHON_PEERS = ("quix", "bytewax", "pathway")
_SOURCES = Path(__file__).resolve().parent
_MARKER = "installed.json"


class InstallError(Exception):
    """A peer can't be installed here; the message is one line that says why."""


@dataclass(frozen=True)
class ClassifiedJar(Jar):
    """A jar whose coordinates are ``group:artifact:jar:classifier:version``."""

    @property
    def file_name(self) -> str:
        """The name that Maven gives the file."""
        _, artifact, _, classifier, version = self.coordinates.split(":")
        return f"{artifact}-{version}-{classifier}.jar"


def python(peer: str) -> str:
    """Return the path of the interpreter in a peer's environment, whether or not it is installed yet."""
    return str(PEERS / peer / "bin/python")


def install_python(peer: str) -> None:
    """Make the environment of a peer in Python from its `requirements.txt`. Raises `InstallError`."""
    requirements = _SOURCES / peer / "requirements.txt"
    _once(peer, requirements.read_bytes(), lambda directory: _python_environment(directory, requirements))


def install_kafka_connect() -> None:
    """Fetch the jars of Kafka Connect and of its MongoDB connector. Raises `InstallError`."""
    locks = [_SOURCES / "kafka_connect" / name for name in ("worker.jars", "plugins.jars")]
    _once("kafka_connect", b"".join(lock.read_bytes() for lock in locks), lambda directory: _jars(directory, *locks))


def _once(peer: str, made_from: bytes, make: Callable[[Path], None]) -> None:
    directory = PEERS / peer
    digest = hashlib.sha256(made_from).hexdigest()
    marker = directory / _MARKER
    if marker.exists() and json.loads(marker.read_text())["made_from"] == digest:
        return
    shutil.rmtree(directory, ignore_errors=True)
    directory.mkdir(parents=True)
    began = time.monotonic()
    make(directory)
    seconds = round(time.monotonic() - began, 1)
    files = [file for file in directory.rglob("*") if file.is_file() and not file.is_symlink()]
    size = sum(file.stat().st_size for file in files) // 2**20
    marker.write_text(json.dumps({"made_from": digest, "seconds": seconds, "mebibytes": size}))


def _python_environment(directory: Path, requirements: Path) -> None:
    uv = str(Path(sys.executable).with_name("uv"))
    python = str(directory / "bin/python")
    _run([uv, "venv", "--quiet", "--allow-existing", "--python", sys.executable, str(directory)])
    install = [uv, "pip", "install", "--quiet", "--compile-bytecode", "--python", python]
    _run([*install, "--requirement", str(requirements)])


def _run(command: list[str]) -> None:
    try:
        finished = subprocess.run(command, capture_output=True, text=True, check=False)
    except OSError as error:
        raise InstallError(f"{command[0]} does not run: {error}") from error
    if finished.returncode != 0:
        reason = " ".join(finished.stderr.split())
        raise InstallError(f"{' '.join(command[1:3])} failed: {reason}")


def _jars(directory: Path, worker: Path, plugins: Path) -> None:
    plugin_jars: list[Jar] = [ClassifiedJar(jar.coordinates, jar.sha256) for jar in read_lock(plugins)]
    try:
        classpath = fetch(read_lock(worker), PLATFORM_JARS, lambda _: None, threading.Event())
        fetch(plugin_jars, directory / "plugins", lambda _: None, threading.Event())
    except (ServerError, OSError) as error:
        raise InstallError(" ".join(str(error).split())) from error
    (directory / "classpath").write_text(":".join(map(str, classpath)))


def main() -> int:
    """Install every peer; print a line for each; exit code 1 where one is missing."""
    installs: dict[str, Callable[[], None]] = {"kafka_connect": install_kafka_connect}
    installs |= {peer: lambda peer=peer: install_python(peer) for peer in PYTHON_PEERS}  # type: ignore[misc]
    missing = 0
    for peer, install in installs.items():
        try:
            install()
        except InstallError as error:
            missing += 1
            print(f"{peer}: left out: {error}")
            continue
        made = json.loads((PEERS / peer / _MARKER).read_text())
        print(f"{peer}: {made['mebibytes']} MiB, installed in {made['seconds']} s")
    return 1 if missing else 0


if __name__ == "__main__":
    sys.exit(main())
