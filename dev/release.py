"""Make a release: set the version, date the changelog, commit and tag.

Input: the version; a clean work tree with entries under `## [Unreleased]` in CHANGELOG.md.
Output: one commit and the annotated tag `vVERSION`. Nothing is pushed.
After a crash: `git restore pyproject.toml CHANGELOG.md` undoes changes that were not committed.
"""

import argparse
import re
import subprocess
import sys
from datetime import UTC, date, datetime
from pathlib import Path

from packaging.version import Version

_VERSION = re.compile(r"(?:0|[1-9]\d*)\.(?:0|[1-9]\d*)\.(?:0|[1-9]\d*)")
_PROJECT_VERSION = re.compile(r'^version = "(.*)"$', re.MULTILINE)
_UNRELEASED = re.compile(r"^## \[Unreleased\]\n(.*?)(?=^## \[|\Z)", re.DOTALL | re.MULTILINE)


class ReleaseError(Exception):
    """The release can't be made; the message says why and what to do."""


def release(root: Path, version: str, today: date, *, dry_run: bool = False) -> str:
    """Make a release, and return its section of the changelog.

    Args:
        root: The repository's root.
        version: Three numbers, as `0.2.0`; above the current version.
        today: The date of the release.
        dry_run: Check everything and change nothing.

    Raises:
        ReleaseError: A check failed and nothing was changed, or `git commit` or `git tag` failed.
    """
    project, changelog = root / "pyproject.toml", root / "CHANGELOG.md"
    new_project = _bumped(project.read_text(), version)
    new_changelog, section = _dated(changelog.read_text(), version, today)
    tag = f"v{version}"
    if changes := _git(root, "status", "--porcelain"):
        raise ReleaseError(f"The work tree has changes; commit or stash them first:\n{changes}")
    if _git(root, "tag", "--list", tag):
        raise ReleaseError(f"The tag {tag} exists already. Choose another version.")
    if dry_run:
        return section
    project.write_text(new_project)
    changelog.write_text(new_changelog)
    _git(root, "commit", "--quiet", "--message", f"Release {version}", "--", project.name, changelog.name)
    _git(root, "tag", "--annotate", "--message", f"Version {version}", tag)
    return section


def _bumped(project: str, version: str) -> str:
    """Return the text of pyproject.toml with the new version."""
    if not _VERSION.fullmatch(version):
        raise ReleaseError(f"{version!r} is not a version. Give three numbers: make release VERSION=0.2.0")
    found = _PROJECT_VERSION.search(project)
    if found is None:
        raise ReleaseError('pyproject.toml has no line `version = "…"`.')
    if Version(version) <= Version(found[1]):
        raise ReleaseError(f"{version} is not above the current version, {found[1]}. Choose a higher one.")
    return f"{project[: found.start(1)]}{version}{project[found.end(1) :]}"


def _dated(changelog: str, version: str, today: date) -> tuple[str, str]:
    """Return the changelog with the unreleased entries under the version, and the version's section."""
    found = _UNRELEASED.search(changelog)
    if found is None:
        raise ReleaseError("CHANGELOG.md has no heading `## [Unreleased]`.")
    if not re.search(r"^- ", found[1], re.MULTILINE):
        raise ReleaseError("CHANGELOG.md has no entries under `## [Unreleased]`. List what users notice.")
    section = f"## [{version}] - {today}\n{found[1]}"
    return f"{changelog[: found.start()]}## [Unreleased]\n\n{section}{changelog[found.end() :]}", section.rstrip()


def _git(root: Path, *arguments: str) -> str:
    ended = subprocess.run(["git", *arguments], cwd=root, capture_output=True, text=True, check=False)  # noqa: S603, S607
    if ended.returncode:
        reason = (ended.stderr or ended.stdout).strip()
        raise ReleaseError(
            f"`git {arguments[0]}` failed: {reason}\n"
            "Fix the cause; `git restore pyproject.toml CHANGELOG.md` undoes what is not committed."
        )
    return ended.stdout.rstrip()


def main(arguments: list[str], root: Path) -> int:
    """Run the command line, and return the exit code."""
    parser = argparse.ArgumentParser(
        prog="make release", description="Set the version, date the changelog, commit, tag."
    )
    parser.add_argument("--dry-run", action="store_true", help="check everything and change nothing")
    parser.add_argument("version", help="three numbers, as 0.2.0")
    options = parser.parse_args(arguments)
    try:
        section = release(root, options.version, datetime.now(UTC).date(), dry_run=options.dry_run)
    except ReleaseError as error:
        print(error, file=sys.stderr)
        return 1
    print(section)
    if options.dry_run:
        print(f"\nThis was a dry run: nothing has changed. The commit would be tagged v{options.version}.")
    else:
        print(f"\nCommitted and tagged. Publish by: git push origin HEAD v{options.version}")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:], Path(__file__).parents[1]))
