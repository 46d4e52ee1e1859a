"""Which versions of servers are too old, and that README says the same."""

import tomllib
from pathlib import Path

import pytest
import yaml

from ops.supported_versions import OLDEST, is_kafka_too_old, is_too_old

ROOT = Path(__file__).parents[2]
TABLE = (ROOT / "README.md").read_text().partition("## Supported versions\n")[2].partition("\n## ")[0]
WORKFLOW = yaml.safe_load((ROOT / ".github/workflows/ci.yml").read_text())
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]


@pytest.mark.parametrize(
    ("server", "version"),
    [
        ("MongoDB", "5.0.31"),
        ("MongoDB", "4.4.29"),
        ("PostgreSQL", "13.22"),
        ("PostgreSQL", "9.6.24"),
        ("Redis", "6.0.16"),
        ("Redis", "5.0.14"),
    ],
)
def test_a_version_below_the_oldest_is_too_old(server: str, version: str) -> None:
    assert is_too_old(server, version)


@pytest.mark.parametrize(
    ("server", "version"),
    [
        ("MongoDB", "6.0.5"),
        ("MongoDB", "10.0.1"),
        ("PostgreSQL", "14.0"),
        ("PostgreSQL", "16.2 (Debian 16.2-1.pgdg120+2)"),
        ("PostgreSQL", "18beta1"),
        ("Redis", "6.2.14"),
        ("Redis", "7.2.4"),
        ("Redis", "unknown"),
    ],
)
def test_a_version_from_the_oldest_on_and_one_that_cannot_be_read_are_not(server: str, version: str) -> None:
    assert not is_too_old(server, version)


def test_a_broker_is_known_by_the_requests_that_it_takes() -> None:
    assert is_kafka_too_old({0, 1, 3, 18, 60})  # 2.8
    assert not is_kafka_too_old({0, 1, 3, 18, 60, 65, 66})  # 3.0


@pytest.mark.parametrize(("server", "oldest"), OLDEST.items())
def test_the_readme_names_the_oldest_versions(server: str, oldest: str) -> None:
    (row,) = [line for line in TABLE.splitlines() if line.startswith(f"| {server}")]
    assert row.split("|")[2].strip() == oldest


def test_every_version_of_python_that_is_promised_is_tested() -> None:
    tested = WORKFLOW["jobs"]["python"]["strategy"]["matrix"]["python"]
    prefix = "Programming Language :: Python :: "
    promised = [line.removeprefix(prefix) for line in PROJECT["classifiers"] if line.startswith(prefix + "3.")]
    assert tested == promised == ["3.11", "3.12", "3.13", "3.14"]
    assert PROJECT["requires-python"] == f">={tested[0]}"
    assert f"| Python | {tested[0]} |" in TABLE
