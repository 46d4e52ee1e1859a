"""The ladder of imports: which room may import which, read from the source. docs/architecture.md has it as a figure."""

import ast
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.program import PROGRAM

ROOT = Path(__file__).parents[2]

PURE = {"schemas", "notifications", "enrich"}
MAY_IMPORT = {
    "schemas": {"schemas"},
    "notifications": {"schemas", "notifications"},
    "enrich": {"schemas", "notifications", "enrich"},
    "runtime": {"runtime"},
    "delivery": {"runtime", "delivery"},
    "sinks": {*PURE, "runtime", "delivery", "sinks"},
    "providers": {*PURE, "runtime", "delivery", "providers"},
    "web": {*PURE, "runtime", "delivery", "sinks", "providers", "web"},
    "agents": {*PURE, "runtime", "delivery", "sinks", "providers", "web", "agents"},
    "ops": {*PURE, "runtime", "delivery", "sinks", "providers", "web", "agents", "ops"},
}
WORKER = {"faust", "mode", "aiokafka"}
STORE_DRIVERS = {"pymongo", "bson", "gridfs", "motor", "psycopg", "psycopg_pool", "redis"}
IMPURE = {"time", "socket", "ssl", "asyncio", "http", "urllib.request", "random", "uuid"}

SOURCES = sorted(path for room in MAY_IMPORT for path in (ROOT / room).rglob("*.py"))
every_source = pytest.mark.parametrize("path", SOURCES, ids=lambda path: str(path.relative_to(ROOT)))


def module_of(path: Path) -> str:
    return ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")


MODULES = {module_of(path): path for path in SOURCES}


def imports(path: Path) -> Iterator[str]:
    """Yield the full name of every module and of every name from a module; an import for types alone counts too."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        match node:
            case ast.Import(names):
                yield from (name.name for name in names)
            case ast.ImportFrom(module, names, level):
                assert level == 0, f"{path}:{node.lineno}: imports are absolute here"
                yield from (f"{module}.{name.name}" for name in names)


def room_of(name: str) -> str:
    return name.partition(".")[0]


def imported_modules(path: Path) -> set[str]:
    """Return those of our modules that a module imports, in whole or a name of them."""
    names = set(imports(path))
    return {name if name in MODULES else name.rpartition(".")[0] for name in names} & MODULES.keys()


@every_source
def test_imports_run_one_way(path: Path) -> None:
    room = path.relative_to(ROOT).parts[0]
    wrong = [name for name in imports(path) if room_of(name) in MAY_IMPORT and room_of(name) not in MAY_IMPORT[room]]
    assert not wrong, f"{room} may not import {', '.join(wrong)}"


def test_no_modules_import_each_other_in_a_circle() -> None:
    open_modules = {module: imported_modules(path) - {module} for module, path in MODULES.items()}
    while leaves := [module for module, needs in open_modules.items() if not needs & open_modules.keys()]:
        for module in leaves:
            del open_modules[module]
    assert not open_modules, f"a circle among {', '.join(sorted(open_modules))}"


@every_source
def test_the_program_does_not_import_its_development_tools(path: Path) -> None:
    assert not {"dev", "tests", "bench"} & {room_of(name) for name in imports(path)}


def is_in(path: Path, *places: str) -> bool:
    return any(path.is_relative_to(ROOT / place) for place in places)


@every_source
def test_faust_and_aiokafka_are_imported_by_four_rooms_and_the_patches(path: Path) -> None:
    if not is_in(path, "agents", "delivery", "web", "ops", "runtime/patches"):
        assert not WORKER & {room_of(name) for name in imports(path)}


@every_source
def test_a_stores_driver_is_imported_by_the_sinks_and_the_patches(path: Path) -> None:
    if not is_in(path, "sinks", "runtime/patches"):
        assert not STORE_DRIVERS & {room_of(name) for name in imports(path)}


@every_source
def test_schemas_and_enrichment_have_no_clock_and_no_network(path: Path) -> None:
    if path.relative_to(ROOT).parts[0] in {"schemas", "enrich"}:
        assert not IMPURE & set(_with_parents(imports(path)))
        source = ast.parse(path.read_text(encoding="utf-8"))
        called = {node.attr for node in ast.walk(source) if isinstance(node, ast.Attribute)}
        assert not {"now", "utcnow", "today"} & called


def _with_parents(names: Iterator[str]) -> Iterator[str]:
    for name in names:
        words = name.split(".")
        yield from (".".join(words[:length]) for length in range(1, len(words) + 1))


def test_the_ladder_has_every_package() -> None:
    assert sorted(MAY_IMPORT) == PROGRAM


def test_no_room_is_named_like_a_module_of_python() -> None:
    assert not set(MAY_IMPORT) & set(sys.stdlib_module_names)
