"""Files around the code: each names what exists, and all name the same packages."""

import json
import re
import subprocess
import sys
import tomllib
from fnmatch import fnmatch
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.program import PROGRAM, TOOLS

ROOT = Path(__file__).parents[2]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())
PACKAGES = {*PROGRAM, *TOOLS}
"""Every top-level directory with code, in alphabetical order in each file that names them."""
FORMS = sorted((ROOT / ".github/ISSUE_TEMPLATE").glob("*.yml"))
YAML = sorted([*(ROOT / ".github").rglob("*.yml"), ROOT / ".pre-commit-config.yaml"])


def load(path: Path) -> Any:
    return yaml.safe_load(path.read_text())


def listed(name: str) -> list[str]:
    """Return the words of a variable of the Makefile."""
    found = re.search(rf"^{name} := (.*)$", (ROOT / "Makefile").read_text(), re.MULTILINE)
    assert found is not None
    return found[1].split()


def test_lint_and_types_look_at_every_package() -> None:
    assert set(listed("PACKAGES")) | {"bench", "tests"} == PACKAGES
    assert listed("PACKAGES") == sorted(listed("PACKAGES"))


def test_the_wheel_has_the_program_and_no_tools() -> None:
    include = PROJECT["tool"]["setuptools"]["packages"]["find"]["include"]
    assert include == [f"{name}*" for name in PROGRAM]
    others = {path.name for path in ROOT.iterdir() if path.is_dir()} - set(PROGRAM)
    assert not [name for name in others if any(fnmatch(name, pattern) for pattern in include)]


def test_the_image_has_the_program_and_no_tools() -> None:
    kept = {line[1:] for line in (ROOT / ".dockerignore").read_text().splitlines() if line.startswith("!")}
    assert kept >= set(PROGRAM)
    assert not kept & (TOOLS | {"docs"})


def test_files_of_packages_that_are_not_code_are_in_the_wheel() -> None:
    patterns = PROJECT["tool"]["setuptools"]["package-data"]
    missing = []
    for package in PROGRAM:
        for path in (ROOT / package).rglob("*"):
            name = path.relative_to(ROOT / package).as_posix()
            is_listed = any(fnmatch(name, pattern) for pattern in patterns.get(package, ()))
            if path.is_file() and path.suffix not in {".py", ".pyc"} and not is_listed:
                missing.append(f"{package}/{name}")
    assert not missing, "list them in pyproject.toml under [tool.setuptools.package-data]"


@pytest.mark.parametrize("path", YAML, ids=lambda path: str(path.relative_to(ROOT)))
def test_yaml_files_can_be_read(path: Path) -> None:
    assert isinstance(load(path), dict)


def test_pre_commit_accepts_its_configuration() -> None:
    command = [sys.executable, "-m", "pre_commit", "validate-config", str(ROOT / ".pre-commit-config.yaml")]
    subprocess.run(command, check=True)


def test_hooks_run_programs_that_the_project_has_locked() -> None:
    locked = (ROOT / "requirements/development.txt").read_text()
    local = [part for part in load(ROOT / ".pre-commit-config.yaml")["repos"] if part["repo"] == "local"]
    for hook in local[0]["hooks"]:
        python, option, program, *_ = hook["entry"].split()
        assert (python, option) == (".venv/bin/python", "-m")
        assert re.search(rf"^{program}==", locked, re.MULTILINE)


@pytest.mark.parametrize("path", FORMS, ids=lambda path: path.name)
def test_a_form_for_issues_has_what_the_host_requires(path: Path) -> None:
    form = load(path)
    if path.stem == "config":
        assert form.keys() <= {"blank_issues_enabled", "contact_links"}
        return
    assert {"name", "description", "body"} <= form.keys()
    questions = [part for part in form["body"] if part["type"] != "markdown"]
    assert all(part["type"] in {"textarea", "input", "dropdown", "checkboxes"} for part in questions)
    ids = [part["id"] for part in questions]
    assert len(ids) == len(set(ids))
    assert all(part["attributes"]["label"] for part in questions)


def test_updates_are_proposed_for_all_that_the_project_depends_on() -> None:
    updates = load(ROOT / ".github/dependabot.yml")["updates"]
    assert {update["package-ecosystem"] for update in updates} == {"pip", "github-actions", "docker", "docker-compose"}
    for update in updates:
        for directory in update.get("directories", [update.get("directory")]):
            assert (ROOT / directory.strip("/")).is_dir()


def test_the_workflow_runs_commands_that_exist() -> None:
    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    jobs = load(ROOT / ".github/workflows/ci.yml")["jobs"].values()
    commands = [step["run"] for job in jobs for step in job["steps"] if "run" in step]
    assert any(".ci/run" in command for command in commands)
    assert {target for command in commands for target in re.findall(r"\bmake ([a-z-]+)", command)} <= targets


def test_ci_runs_every_test() -> None:
    script = (ROOT / ".ci/run").read_text()
    assert re.search(r"^step make test\b", script, re.MULTILINE)
    assert re.search(r"^step make test-tools\b", script, re.MULTILINE)
    assert {path.name for path in (ROOT / "tests").iterdir() if any(path.glob("test_*.py"))} == {
        *("contract", "fuzz", "integration", "providers", "tools", "unit")
    }


def test_the_development_container_prepares_what_make_test_needs() -> None:
    container = json.loads((ROOT / ".devcontainer/devcontainer.json").read_text())
    assert "make setup" in container["postCreateCommand"]
    version = re.search(r"python:(3\.\d+)", container["image"])
    assert version is not None
    assert f"Programming Language :: Python :: {version[1]}" in PROJECT["project"]["classifiers"]


def test_the_image_says_its_version_and_revision() -> None:
    dockerfile = (ROOT / "Dockerfile").read_text()
    for argument in ("VERSION", "REVISION"):
        assert re.search(rf"^ARG {argument}=", dockerfile, re.MULTILINE)
        assert f"org.opencontainers.image.{argument.lower()}=${argument}" in dockerfile
