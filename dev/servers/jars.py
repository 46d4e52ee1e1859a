"""Download the jars of a lock list into a shared directory, and verify them.

Input: Maven coordinates with SHA-256. Output: verified files. A jar has its own name only once it is whole and
verified, so an interrupted download leaves nothing that looks like a jar, and several platforms may fetch at the same
time.
"""

from __future__ import annotations

import hashlib
import threading
import uuid
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import dataclass
from pathlib import Path

from maven_artifact import Artifact, Downloader
from tenacity import retry, retry_if_not_exception_type, stop_after_attempt, wait_random_exponential

from dev.servers.server import ServerError

DOWNLOADS_AT_ONCE = 6
_CHUNK_BYTES = 64 * 1024
_CONNECT_AND_READ_SECONDS = (10, 60)


@dataclass(frozen=True)
class Jar:
    """One line of a lock list: ``group:artifact:version`` and the SHA-256 of the file in hexadecimal."""

    coordinates: str
    sha256: str

    @property
    def file_name(self) -> str:
        """The name that Maven gives the file."""
        _, artifact, version = self.coordinates.split(":")
        return f"{artifact}-{version}.jar"


class WrongJarError(ServerError):
    """A downloaded jar is not the one that the lock list names."""


def read_lock(path: Path) -> list[Jar]:
    """The jars of a lock list; empty lines and lines that begin with ``#`` say nothing."""
    lines = (line.strip() for line in path.read_text().splitlines())
    return [Jar(*line.split()) for line in lines if line and not line.startswith("#")]


def fetch(jars: list[Jar], directory: Path, report: Callable[[str], None], abandoned: threading.Event) -> list[Path]:
    """Have every jar in ``directory``, downloading those that are missing, and return their paths.

    Raises `ServerError` when a jar can't be had or differs from its checksum, or when ``abandoned`` is set.
    """
    directory.mkdir(parents=True, exist_ok=True)
    missing = [jar for jar in jars if not (directory / jar.file_name).exists()]
    if missing:
        report(f"kafka: downloading {len(missing)} jars (36 MB in all, once)")
    with ThreadPoolExecutor(DOWNLOADS_AT_ONCE, thread_name_prefix="jar") as pool:
        downloads = [pool.submit(_download, jar, directory, abandoned) for jar in missing]
        try:
            for done, download in enumerate(as_completed(downloads), start=1):
                download.result()
                if done % 10 == 0:
                    report(f"kafka: {done} of {len(missing)} jars")
        except BaseException:
            pool.shutdown(cancel_futures=True)
            raise
    return [directory / jar.file_name for jar in jars]


def _download(jar: Jar, directory: Path, abandoned: threading.Event) -> None:
    partial = directory / f"{jar.file_name}.{uuid.uuid4().hex}.partial"
    try:
        _download_to(partial, jar, abandoned)
        partial.replace(directory / jar.file_name)
    finally:
        partial.unlink(missing_ok=True)


@retry(
    retry=retry_if_not_exception_type(WrongJarError),
    stop=stop_after_attempt(4),
    wait=wait_random_exponential(multiplier=0.5, max=5),
    reraise=True,
)
def _download_to(partial: Path, jar: Jar, abandoned: threading.Event) -> None:
    # Downloader.download prints and asks for a checksum beside the jar; we know the checksum already, and better.
    downloader = Downloader()
    address = downloader.resolver.uri_for_artifact(Artifact.parse(jar.coordinates))
    digest = hashlib.sha256()

    def fail(address: str, error: Exception) -> None:
        raise ServerError(f"{jar.coordinates} could not be downloaded from {address}: {error}")

    with (
        downloader.requestor.request(address, fail, stream=True, timeout=_CONNECT_AND_READ_SECONDS) as response,
        partial.open("wb") as file,
    ):
        for chunk in response.iter_content(_CHUNK_BYTES):
            if abandoned.is_set():
                raise WrongJarError("the download was abandoned")
            digest.update(chunk)
            file.write(chunk)
    if digest.hexdigest() != jar.sha256:
        raise WrongJarError(
            f"{jar.coordinates} from {address} has SHA-256 {digest.hexdigest()}, and the lock list says {jar.sha256}"
        )
