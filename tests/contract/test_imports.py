"""Which part may import which: the arrows of the design, read from the source."""

import ast
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]

# settings and metrics are leaves that anyone may import; the rest of ops sits on top of everything.
LEAVES = {"ops.health", "ops.metrics", "ops.settings", "ops.web_address"}

MAY_IMPORT = {
    "schemas": {"schemas"},
    "notifications": {"schemas", "notifications"},
    "enrich": {"schemas", "notifications", "enrich"},
    "sinks": {"schemas", "notifications", "enrich", "sinks"},
    "delivery": {"delivery"},
    "agents": {"schemas", "notifications", "enrich", "sinks", "delivery", "agents", "ops"},
    "ops": {"schemas", "notifications", "enrich", "sinks", "delivery", "agents", "ops"},
}
WORKER = {"faust", "mode", "aiokafka"}
STORE_DRIVERS = {"pymongo", "bson", "gridfs", "motor", "psycopg", "psycopg_pool", "redis"}

SOURCES = sorted(path for part in MAY_IMPORT for path in (ROOT / part).rglob("*.py"))
every_source = pytest.mark.parametrize("path", SOURCES, ids=lambda path: str(path.relative_to(ROOT)))


def imports(path: Path) -> Iterator[str]:
    """Yield the full name of every module and of every name from a module; an import for types alone counts too."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        match node:
            case ast.Import(names):
                yield from (name.name for name in names)
            case ast.ImportFrom(module, names, level):
                assert level == 0, f"{path}:{node.lineno}: imports are absolute here"
                yield from (f"{module}.{name.name}" for name in names)


def part_of(name: str) -> str:
    return name.partition(".")[0]


def is_leaf(name: str) -> bool:
    return any(name == leaf or name.startswith(f"{leaf}.") for leaf in LEAVES)


@every_source
def test_imports_point_one_way(path: Path) -> None:
    part = path.relative_to(ROOT).parts[0]
    wrong = [
        name
        for name in imports(path)
        if part_of(name) in MAY_IMPORT and part_of(name) not in MAY_IMPORT[part] and not is_leaf(name)
    ]
    assert not wrong, f"{part} may not import {', '.join(wrong)}"


@every_source
def test_the_program_does_not_import_its_development_tools(path: Path) -> None:
    assert not {"dev", "tests", "bench"} & {part_of(name) for name in imports(path)}


@every_source
def test_the_worker_and_its_transport_stay_in_three_parts(path: Path) -> None:
    if path.relative_to(ROOT).parts[0] not in {"agents", "delivery", "ops"}:
        assert not WORKER & {part_of(name) for name in imports(path)}


@every_source
def test_a_stores_driver_stays_in_the_sinks(path: Path) -> None:
    if path.relative_to(ROOT).parts[0] != "sinks":
        assert not STORE_DRIVERS & {part_of(name) for name in imports(path)}


@pytest.mark.parametrize("leaf", sorted(LEAVES))
def test_a_leaf_imports_no_other_part(leaf: str) -> None:
    path = ROOT.joinpath(*leaf.split(".")).with_suffix(".py")
    if path.exists():
        assert not [name for name in imports(path) if part_of(name) in MAY_IMPORT and not is_leaf(name)]


@every_source
def test_enrichment_and_schemas_look_at_no_clock_and_no_network(path: Path) -> None:
    if path.relative_to(ROOT).parts[0] in {"schemas", "enrich"}:
        assert not {"time", "socket", "ssl", "asyncio", "http", "urllib.request", "random", "uuid"} & set(
            _with_parents(imports(path))
        )
        source = ast.parse(path.read_text(encoding="utf-8"))
        called = {node.attr for node in ast.walk(source) if isinstance(node, ast.Attribute)}
        assert not {"now", "utcnow", "today"} & called


def _with_parents(names: Iterator[str]) -> Iterator[str]:
    for name in names:
        words = name.split(".")
        yield from (".".join(words[:length]) for length in range(1, len(words) + 1))


def test_no_part_is_named_like_a_module_of_python() -> None:
    assert not set(MAY_IMPORT) & set(sys.stdlib_module_names)
