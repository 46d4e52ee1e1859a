"""CONTRIBUTING, followed to the letter in a copy of the tree: a new topic, a new event and a rule, and nothing else."""

import re
import shutil
import subprocess
import sys
from pathlib import Path
from textwrap import dedent, indent

import pytest

from runtime.settings import ROOT

PAGE = (ROOT / "CONTRIBUTING.md").read_text()
NOT_COPIED = (
    *(".git", ".venv", ".stack", ".env", ".hypothesis", ".*_cache", "__pycache__"),
    *("*.egg-info", "build", "htmlcov", "chaos-report*"),
)
FAST = (
    "tests/contract/test_topics.py",
    "tests/contract/test_documents.py",
    "tests/contract/test_pages.py",
    "tests/contract/test_readme.py",
    "tests/unit/test_collection_declarations.py",
    "tests/tools/test_chaos_model.py::test_a_record_is_described_as_a_worker_does",
    "tests/unit/test_notification_rules.py",
    "tests/unit/test_notification_documents.py",
)
"""The tests that read the declarations and need no server."""


def block(after: str) -> str:
    """Return the first block of code after these words."""
    found = re.search(r"^( *)```\w+\n(.*?)^\1```", PAGE[PAGE.index(after) :], re.DOTALL | re.MULTILINE)
    assert found is not None, after
    return dedent(found[2])


def insert(path: Path, after: str, text: str) -> None:
    content = path.read_text()
    assert content.count(after) == 1, f"{path.name}: {after!r}"
    path.write_text(content.replace(after, f"{after}{text}"))


@pytest.fixture(scope="module")
def copy(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of the tree, with the edits of the page."""
    tree = tmp_path_factory.mktemp("contributing") / "tree"
    shutil.copytree(ROOT, tree, ignore=shutil.ignore_patterns(*NOT_COPIED))

    (tree / "schemas/ratings.py").write_text(block("**A class in a new file `schemas/ratings.py`**"))
    insert(tree / "topics.yaml", "\ntopics:\n", "\n" + indent(block("**An entry in `topics.yaml`**"), "  "))
    declaration = block("**A declaration in `sinks/collections.py`**")
    collections = tree / "sinks/collections.py"
    text = collections.read_text()
    collections.write_text(text.replace("COLLECTIONS: dict", f"{declaration}\nCOLLECTIONS: dict", 1))
    insert(collections, "        PERFORMANCE_LOGS,\n", f"        {declaration.partition(' =')[0]},\n")

    posts = tree / "schemas/posts.py"
    posts.write_text(f"{posts.read_text()}\n\n{block('The class goes to the end of `schemas/posts.py`')}")
    entry = block("under the `events:` of `domain-events`")
    insert(tree / "topics.yaml", "The key is the entity's id.\n    events:\n", indent(entry, " " * 6))

    rule = block("A rule in `notifications.yaml`, under `rules:`")
    insert(tree / "notifications.yaml", "\nrules:\n", "\n" + indent(rule, "  "))
    run(tree, "dev.pages")  # make docs
    return tree


def run(tree: Path, *arguments: str) -> str:
    ended = subprocess.run(
        [sys.executable, "-m", *arguments], cwd=tree, capture_output=True, text=True, timeout=300, check=False
    )
    assert ended.returncode == 0, (ended.stdout + ended.stderr)[-8_000:]
    return ended.stdout


def test_the_edits_of_the_page_and_nothing_else_pass_the_fast_tests(copy: Path) -> None:
    run(copy, "pytest", "-q", "-p", "no:cacheprovider", *FAST)


def test_what_the_page_adds_is_in_the_docs_after_make_docs(copy: Path) -> None:
    assert "### post.rated" in (copy / "docs/topics.md").read_text()
    assert "### post.pinned" in (copy / "docs/topics.md").read_text()
    assert "<!-- declared: postRatings -->" in (copy / "docs/collections.md").read_text()


def test_what_the_page_adds_is_linted_and_formatted_as_the_rest(copy: Path) -> None:
    changed = ("schemas/ratings.py", "schemas/posts.py", "sinks/collections.py")
    run(copy, "ruff", "check", "--quiet", *changed)
    run(copy, "ruff", "format", "--check", *changed)
