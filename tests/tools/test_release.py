"""A release in a repository of the test's own: version, changelog, commit and tag; and what prevents one."""

import subprocess
import tomllib
from datetime import date
from pathlib import Path

import pytest

from dev.release import ReleaseError, main, release

TODAY = date(2026, 12, 1)
CHANGELOG = """# Changelog

## [Unreleased]

### Added

- Ratings.

## [0.1.0] - 2026-01-02

- The first.
"""


def git(root: Path, *arguments: str) -> str:
    return subprocess.run(["git", *arguments], cwd=root, capture_output=True, text=True, check=True).stdout.rstrip()


@pytest.fixture
def repository(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("GIT_CONFIG_GLOBAL", str(tmp_path / "gitconfig"))
    monkeypatch.setenv("GIT_CONFIG_NOSYSTEM", "1")
    for name in ("GIT_DIR", "GIT_WORK_TREE", "GIT_INDEX_FILE"):  # set where tests run in a hook
        monkeypatch.delenv(name, raising=False)
    (tmp_path / "gitconfig").write_text("[user]\n\tname = Ada\n\temail = ada@example.org\n")
    root = tmp_path / "repository"
    root.mkdir()
    git(root, "init", "--quiet")
    (root / "pyproject.toml").write_text('[project]\nname = "inkstream"\nversion = "0.1.0"\n')
    (root / "CHANGELOG.md").write_text(CHANGELOG)
    git(root, "add", ".")
    git(root, "commit", "--quiet", "--message", "First")
    return root


def state(root: Path) -> tuple[str, str, str, str]:
    return (
        git(root, "rev-parse", "HEAD"),
        git(root, "tag"),
        git(root, "status", "--porcelain"),
        (root / "pyproject.toml").read_text() + (root / "CHANGELOG.md").read_text(),
    )


def test_a_release_sets_the_version_dates_the_changelog_commits_and_tags(repository: Path) -> None:
    assert release(repository, "0.2.0", TODAY) == "## [0.2.0] - 2026-12-01\n\n### Added\n\n- Ratings."
    assert tomllib.loads((repository / "pyproject.toml").read_text())["project"]["version"] == "0.2.0"
    assert (repository / "CHANGELOG.md").read_text() == CHANGELOG.replace(
        "## [Unreleased]\n", "## [Unreleased]\n\n## [0.2.0] - 2026-12-01\n"
    )
    assert git(repository, "status", "--porcelain") == ""
    assert git(repository, "log", "-1", "--format=%s") == "Release 0.2.0"
    assert git(repository, "rev-parse", "v0.2.0^{commit}") == git(repository, "rev-parse", "HEAD")
    assert git(repository, "cat-file", "-t", "v0.2.0") == "tag"


def test_the_first_release_is_made_as_the_following_ones(repository: Path) -> None:
    (repository / "CHANGELOG.md").write_text(CHANGELOG.partition("## [0.1.0]")[0])
    git(repository, "commit", "--quiet", "--all", "--message", "Forget the first")
    release(repository, "0.2.0", TODAY)
    assert (repository / "CHANGELOG.md").read_text().endswith("## [0.2.0] - 2026-12-01\n\n### Added\n\n- Ratings.\n\n")


def test_a_second_release_without_new_entries_is_refused(repository: Path) -> None:
    release(repository, "0.2.0", TODAY)
    with pytest.raises(ReleaseError, match="no entries under"):
        release(repository, "0.3.0", TODAY)


def test_a_dry_run_changes_nothing(repository: Path, capsys: pytest.CaptureFixture[str]) -> None:
    before = state(repository)
    assert main(["--dry-run", "0.2.0"], repository) == 0
    assert state(repository) == before
    printed = capsys.readouterr().out
    assert "## [0.2.0] - " in printed
    assert "- Ratings." in printed
    assert "nothing has changed" in printed


@pytest.mark.parametrize("version", ["", "0.2", "v0.2.0", "0.2.0rc1", "00.2.0", "0.2.0\n"])
def test_a_version_is_three_numbers(repository: Path, version: str) -> None:
    with pytest.raises(ReleaseError, match="is not a version"):
        release(repository, version, TODAY)


@pytest.mark.parametrize("version", ["0.1.0", "0.0.9"])
def test_a_version_that_is_not_higher_is_refused(repository: Path, version: str) -> None:
    with pytest.raises(ReleaseError, match=r"not above the current version, 0\.1\.0"):
        release(repository, version, TODAY)


def test_versions_are_compared_as_numbers(repository: Path) -> None:
    release(repository, "0.9.0", TODAY)
    (repository / "CHANGELOG.md").write_text(CHANGELOG)
    git(repository, "commit", "--quiet", "--all", "--message", "More")
    release(repository, "0.10.0", TODAY)


@pytest.mark.parametrize("name", ["pyproject.toml", "new.txt"])
def test_a_work_tree_with_changes_is_refused(repository: Path, name: str) -> None:
    with (repository / name).open("a") as file:
        file.write("\n# changed\n")
    before = state(repository)
    with pytest.raises(ReleaseError, match=f"has changes(?s:.*){name}"):
        release(repository, "0.2.0", TODAY)
    assert state(repository) == before


def test_a_tag_that_exists_is_refused(repository: Path) -> None:
    git(repository, "tag", "v0.2.0")
    before = state(repository)
    with pytest.raises(ReleaseError, match=r"v0\.2\.0 exists already"):
        release(repository, "0.2.0", TODAY)
    assert state(repository) == before


def test_an_error_is_printed_with_what_to_do_and_the_exit_code_is_1(
    repository: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    hook = repository / ".git/hooks/pre-commit"
    hook.parent.mkdir(exist_ok=True)
    hook.write_text("#!/bin/sh\necho no release on Fridays >&2\nexit 1\n")
    hook.chmod(0o755)
    assert main(["0.2.0"], repository) == 1
    printed = capsys.readouterr().err
    assert "no release on Fridays" in printed
    assert "git restore" in printed
    assert git(repository, "tag") == ""
