import re
import shutil
import subprocess
import tomllib
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).parents[2]
MAKEFILE = (ROOT / "Makefile").read_text()
TARGETS = set(re.findall(r"^([a-z-]+):", MAKEFILE, re.MULTILINE))
TEST_TARGETS = {"test", "test-unit", "test-integration", "test-tools"}
EXPECTED = {"run", "up", "down", "clean", "check", "format", "coverage", "bench", "lock", "release"} | TEST_TARGETS
LOCKS = ("runtime", "development")
PAGES = [
    *(".ci/run", ".github/PULL_REQUEST_TEMPLATE.md", "CONTRIBUTING.md", "README.md", "SECURITY.md"),
    *sorted(str(path.relative_to(ROOT)) for path in (ROOT / "docs").rglob("*.md")),
]


def commands_in(text: str) -> set[str]:
    return set(re.findall(r"(?:^|`|^step )make ([a-z-]+)\b", text, re.MULTILINE))


def locked(name: str) -> dict[str, str]:
    lines = (ROOT / "requirements" / f"{name}.txt").read_text().splitlines()
    pins = (re.match(r"([A-Za-z0-9._-]+)==([^ ]+)", line) for line in lines)
    return {canonicalize_name(pin[1]): pin[2] for pin in pins if pin}


def declared() -> dict[str, list[Requirement]]:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    runtime = [Requirement(line) for line in project["dependencies"]]
    extras = [Requirement(line) for lines in project["optional-dependencies"].values() for line in lines]
    return {"runtime": runtime, "development": runtime + extras}


@pytest.mark.skipif(shutil.which("make") is None, reason="there is no make here")
def test_help_lists_every_target_with_what_it_does() -> None:
    printed = subprocess.run(["make", "help"], cwd=ROOT, capture_output=True, check=True, text=True).stdout
    listed = dict(re.findall(r"^  make (\S+) +(\S.*)$", printed, re.MULTILINE))
    assert listed.keys() == TARGETS
    assert TARGETS >= EXPECTED


def test_every_target_is_phony() -> None:
    phony = re.search(r"^\.PHONY: (.*)$", MAKEFILE, re.MULTILINE)
    assert phony is not None
    assert set(phony[1].split()) == TARGETS


@pytest.mark.parametrize("page", PAGES)
def test_the_commands_that_a_page_names_exist(page: str) -> None:
    assert commands_in((ROOT / page).read_text()) <= TARGETS


def test_the_pages_that_a_newcomer_reads_name_commands() -> None:
    assert commands_in((ROOT / ".ci/run").read_text()) > {"check", "test", "test-tools"}
    assert commands_in((ROOT / "README.md").read_text())
    assert commands_in((ROOT / "CONTRIBUTING.md").read_text()) > TEST_TARGETS


@pytest.mark.parametrize("script", ["dev/setup.sh", ".ci/run"])
def test_scripts_are_executable_and_parse(script: str) -> None:
    path = ROOT / script
    assert path.stat().st_mode & 0o111
    shell = path.read_text().splitlines()[0].rpartition("/")[2].removeprefix("env ")
    subprocess.run([shell, "-n", str(path)], check=True)


@pytest.mark.parametrize("name", LOCKS)
def test_the_lock_holds_what_the_project_declares(name: str) -> None:
    pins = locked(name)
    for requirement in declared()[name]:
        version = pins[canonicalize_name(requirement.name)]
        assert requirement.specifier.contains(version), f"{requirement} and the lock's {version}: run `make lock`"


@pytest.mark.parametrize("name", LOCKS)
def test_every_locked_package_has_a_checksum_and_no_registry_is_named(name: str) -> None:
    text = (ROOT / "requirements" / f"{name}.txt").read_text()
    for block in re.split(r"\n(?=[A-Za-z0-9])", text)[1:]:
        assert "--hash=sha256:" in block, block.splitlines()[0]
    assert "://" not in text


def test_the_image_and_development_have_the_same_versions() -> None:
    development = locked("development")
    assert {name: development.get(name) for name in locked("runtime")} == locked("runtime")
