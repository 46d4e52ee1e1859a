"""The packages of the program, as they are in the tree."""

import importlib
import pkgutil
from pathlib import Path

_ROOT = Path(__file__).parents[1]
TOOLS = {"bench", "dev", "tests"}

PROGRAM = sorted({path.parent.name for path in _ROOT.glob("[a-z]*/*.py")} - TOOLS)
"""The top-level packages of the program, without its tools."""


def import_all() -> None:
    """Import every module of the program but `agents.app`, which reads the settings: each worker has its own."""
    for package in PROGRAM:
        for module in pkgutil.walk_packages(importlib.import_module(package).__path__, f"{package}."):
            if module.name != "agents.app":
                importlib.import_module(module.name)
