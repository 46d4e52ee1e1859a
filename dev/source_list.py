"""Make `enrich/data/sources.json` from Matomo's list of search engines, social networks and AI assistants.

Run it after taking a newer copy of the list, and look at the difference before you commit it:

    python -m dev.source_list DIRECTORY > enrich/data/sources.json

Input: a directory with `SearchEngines.yml`, `Socials.yml` and `AIAssistants.yml` of
matomo-org/searchengine-and-social-list. Output: hosts by medium and name.
"""

import json
import re
import sys
from collections.abc import Iterator
from pathlib import Path

import yaml

_FILES = {"organic": "SearchEngines.yml", "social": "Socials.yml", "ai-assistant": "AIAssistants.yml"}


def source_list(directory: Path) -> dict[str, dict[str, list[str]]]:
    """Read Matomo's files: hosts by medium and by name.

    Of a search engine only hosts with its name in them are taken. The others are portals with a search box of that
    engine (`cnn.com` of Google); Matomo tells them apart by the query, which browsers no longer send.
    """
    return {medium: dict(_sources(medium, directory / file)) for medium, file in _FILES.items()}


def _sources(medium: str, file: Path) -> Iterator[tuple[str, list[str]]]:
    for name, entries in sorted(yaml.safe_load(file.read_text()).items()):
        addresses = [address for entry in entries for address in _addresses(entry)]
        hosts = {address.lower().removeprefix("www.") for address in addresses if not re.search(r"[/{]", address)}
        if medium == "organic":
            hosts = {host for host in hosts if _letters(name) in _letters(host)}
        if hosts:
            yield name.lower().rstrip("!"), sorted(hosts)


def _addresses(entry: str | dict[str, list[str]]) -> list[str]:
    return entry["urls"] if isinstance(entry, dict) else [entry]


def _letters(text: str) -> str:
    return re.sub(r"[^a-z0-9]", "", text.lower())


if __name__ == "__main__":
    json.dump(source_list(Path(sys.argv[1])), sys.stdout, ensure_ascii=False, indent=1)
    print()
