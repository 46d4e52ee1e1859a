"""Write `docs/recognition.md`: how many user agents of public sets are recognised correctly, and which are not.

    python -m dev.recognition DIRECTORY > docs/recognition.md

Input: a directory with the sets, laid out as `SETS` says: repositories cloned, packages unpacked. Output: the page.
After taking newer sets, update their versions in `SETS`.
"""

import json
import re
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import yaml

from enrich.bots import recognise
from enrich.user_agent import device


class _Set(NamedTuple):
    """A public set of user agents: its version, its licence and its place in the directory."""

    version: str
    licence: str
    place: str


SETS = {
    "crawler-user-agents": _Set("1.67.0 (PyPI)", "MIT", "crawler-user-agents.json"),
    "user-agents": _Set("2.1.198 (npm)", "BSD-2-Clause", "user-agents.json"),
    "device-detector": _Set("commit 3856a286", "LGPL-3.0", "device-detector/Tests/fixtures"),
    "isbot": _Set("commit 344052da", "Unlicense", "isbot/fixtures"),
    "crawlerdetect": _Set("commit f7926d40", "MIT", "Crawler-Detect/tests/data/user_agent/crawlers.txt"),
    "uap-core": _Set("commit e3c5e634", "Apache-2.0", "uap-core/tests/test_device.yaml"),
}

_TYPES = {
    "smartphone": "mobile",
    "phablet": "mobile",
    "feature phone": "mobile",
    "mobile": "mobile",
    "tablet": "tablet",
    "desktop": "desktop",
    "tv": "desktop",
    "console": "desktop",
}
# Of these the people's programs fetch feeds and sounds, and never open a page.
_NO_PAGES = ("podcasting", "feed_reader", "mediaplayer")

_HEAD = """<!-- Written by `python -m dev.recognition`; don't edit. -->

# How well readers are recognised

Each row holds the rules of `enrich/bots.py` and `enrich/user_agent.py` against a public set of user agents. Equal ones
count once. [A decision](decisions/0009-devices-bots-sources.md) says why the rules are as they are.

Input: the sets below, fetched by hand. None of them is part of this repository; `tests/data/` has small samples.

| set | version | licence |
|---|---|---|
"""

_LIMITS = """
## What is not right, and stays so

- **A program with the user agent of a browser** counts as a person. Nothing in the header tells it apart. Most of the
  programs missed below are such: an unknown name behind `Safari/537.36`.
- **What one set calls a program and another a browser**: apps of feed readers on a phone, DuckDuckGo's app, Google's
  Web Light and editors with a built-in browser (`Code/`, `Cursor/`) count as people, because a person looks at them.
- **Office, Outlook and Slack** count as programs: they fetch pages for a preview.
- **Apps that name no system** (`AntennaPod/2.4.0`), television boxes and devices with a user agent of their own make
  count as programs. An app of the platform itself should name its system: `BlogApp/3.2 (Android 14; Pixel 8)`.
- **An own app on an Android tablet** counts as a phone unless it says `Tablet`. A model alone does not tell.
- **Tablets that send `Mobi`**, as many cheap ones do, count as phones, and **television sets with plain Android** as
  tablets or phones. Only a list of all models tells them apart; one has to be kept, and is slow to search.
- **Text browsers** with `libwww` in their name (Lynx) count as programs.
"""


def page(directory: Path) -> Iterator[str]:
    """Yield the page in pieces."""
    yield _HEAD
    for name, given in SETS.items():
        yield f"| {name} | {given.version} | {given.licence} |\n"
    sets = _Fixtures(directory)
    yield "\n## Programs\n\n| set | programs | recognised |\n|---|---:|---:|\n"
    missed: set[str] = set()
    for name, programs in sets.programs().items():
        missing = {user_agent for user_agent in programs if recognise(user_agent) is None}
        missed |= missing
        yield f"| {name} | {len(programs):,} | {_share(len(programs) - len(missing), len(programs))} |\n"
    yield "\n## People\n\n| set | user agents | taken for programs |\n|---|---:|---:|\n"
    mistaken: dict[str, str] = {}
    for name, people in sets.people().items():
        wrong = {user_agent: bot.rule for user_agent in people if (bot := recognise(user_agent))}
        yield f"| {name} | {len(people):,} | {len(wrong):,} ({_share(len(wrong), len(people))}) |\n"
        if not any(kind in name for kind in _NO_PAGES):
            mistaken |= wrong
    yield "\n## Types of devices\n\n| set | user agents | type is right |\n|---|---:|---:|\n"
    for name, devices in sets.devices().items():
        right = sum(device(user_agent).type == kind for user_agent, kind in devices)
        yield f"| {name} | {len(devices):,} | {_share(right, len(devices))} |\n"
    yield _LIMITS
    yield f"\n## Programs that are missed ({len(missed)})\n\n"
    yield from _listed(dict.fromkeys(missed, ""))
    yield f"\n## People who are taken for programs ({len(mistaken)})\n\n"
    yield "Without players of podcasts and music and readers of feeds, which open no pages. Numbers are written as\n"
    yield "`0`; what is then equal stands here once.\n\n"
    yield from _listed({re.sub(r"\d+", "0", user_agent): rule for user_agent, rule in mistaken.items()})


class _Fixtures:
    """The sets, read from their directory."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._detected = {path.stem: _yaml(path) for path in sorted(self._place("device-detector").glob("*.yml"))}
        self._parsed = _yaml(self._place("uap-core"))["test_cases"]

    def programs(self) -> dict[str, set[str]]:
        crawlers = json.loads(self._place("crawler-user-agents").read_text())
        return {
            "crawler-user-agents": _texts(one for crawler in crawlers for one in crawler["instances"]),
            "device-detector, bots": _texts(entry["user_agent"] for entry in self._detected["bots"]),
            "isbot, crawlers": _texts(one for some in self._isbot("crawlers").values() for one in some),
            "uap-core, spiders": _texts(entry["user_agent_string"] for entry in self._parsed if _is_spider(entry)),
            "crawlerdetect": _texts(self._place("crawlerdetect").read_text().splitlines()),
        }

    def people(self) -> dict[str, set[str]]:
        agents = json.loads(self._place("user-agents").read_text())
        kinds: dict[str, list[str]] = {}
        for name, entries in self._detected.items():
            if name != "bots":
                kind = re.sub(r"-\d+$", "", name)
                kinds.setdefault(f"device-detector, {kind}", []).extend(entry["user_agent"] for entry in entries)
        return {
            "user-agents": _texts(agent["userAgent"] for agent in agents),
            "isbot, browsers": _texts(one for some in self._isbot("browsers").values() for one in some),
            **{name: _texts(user_agents) for name, user_agents in sorted(kinds.items())},
        }

    def devices(self) -> dict[str, set[tuple[str, str]]]:
        agents = json.loads(self._place("user-agents").read_text())
        devices = {"user-agents": {(agent["userAgent"], agent["deviceCategory"]) for agent in agents}}
        for name, entries in self._detected.items():
            for entry in entries if name != "bots" and not name.startswith("clienthints") else ():
                kind = (entry.get("device") or {}).get("type")
                if kind in _TYPES:
                    devices.setdefault(f"device-detector, {kind}", set()).add((entry["user_agent"], _TYPES[kind]))
        return devices

    def _place(self, name: str) -> Path:
        return self._directory / SETS[name].place

    def _isbot(self, name: str) -> dict[str, list[str]]:
        texts: dict[str, list[str]] = _yaml(self._place("isbot") / f"{name}.yml")
        return texts


def _is_spider(entry: dict[str, Any]) -> bool:
    return bool(entry["family"] == "Spider")


def _texts(user_agents: Iterable[str | None]) -> set[str]:
    return {user_agent for user_agent in user_agents if user_agent}


def _share(some: int, of: int) -> str:
    return f"{100 * some / of:.1f} %"


def _listed(user_agents: dict[str, str]) -> Iterator[str]:
    yield "```text\n"
    for user_agent, rule in sorted(user_agents.items()):
        yield f"{rule}{': ' if rule else ''}{' '.join(user_agent.split())[:200]}\n"
    yield "```\n"


def _yaml(path: Path) -> Any:  # noqa: ANN401
    return yaml.load(path.read_text(), yaml.CSafeLoader)


if __name__ == "__main__":
    sys.stdout.writelines(page(Path(sys.argv[1])))
