"""Which page views come from programs and not from people.

In comes a user agent; out goes the `Bot` with the rule that said so, or `None` for a person. The list of names is
crawlerdetect's; a few rules of our own catch what no list knows yet.
"""

import re
from typing import NamedTuple

from crawlerdetect.providers.crawlers import data as crawler_patterns
from crawlerdetect.providers.exclusions import data as exclusion_patterns
from ua_parser import Domain
from ua_parser.lazy import UserAgentMatcher
from ua_parser.regex import Resolver

from enrich.user_agent import READ, device

_LOOK_AROUND = re.compile(r"\(\?<?[=!]")
_EXCLUSIONS = re.compile("|".join(exclusion_patterns), re.IGNORECASE)
_BROWSER = re.compile(r"Mozilla/|Opera/")
_CONTACT = re.compile(r"https?://[^\s;)]+|\bwww\.[^\s;)]+|[\w.+-]{1,64}@[\w.-]+\.[a-z]{2,}", re.IGNORECASE)

# crawlerdetect joins its 1,462 patterns into one and has `re` try them all at every character: 350 µs for a browser's
# user agent, and over a second for one of 4,000 letters. The engine under ua-parser takes 3 µs, and its time grows only
# with the length. It has no look-around, which a single pattern uses, so that one stays with `re`.
_NAMES = Resolver(
    ([UserAgentMatcher(f"(?i)({pattern})") for pattern in crawler_patterns if not _LOOK_AROUND.search(pattern)], [], [])
)
_NAMES_WITH_LOOK_AROUND = re.compile("|".join(filter(_LOOK_AROUND.search, crawler_patterns)) or r"(?!)", re.IGNORECASE)


class Bot(NamedTuple):
    """A program that reads pages.

    Attributes:
        rule: Which rule said so: `crawlerdetect`, `contact`, `not-a-browser` or `no-user-agent`.
        name: The part of the user agent that gave it away; `None` where there was none.
    """

    rule: str
    name: str | None


def recognise(user_agent: str) -> Bot | None:
    """Tell a program from a person, by the first of these rules that holds.

    1. `no-user-agent`: it is empty. Every browser sends one.
    2. `crawlerdetect`: a name, or a word such as `bot` or `spider`, on crawlerdetect's list.
    3. `contact`: it holds an address of a site or a mailbox, for the owners of sites to complain to. No browser's does.
    4. `not-a-browser`: it neither starts as every browser's has since 1994 (`Mozilla/`, or `Opera/`) nor names an
       operating system, as a platform's own app does.

    A program that sends a browser's user agent is not recognised.
    """
    text = user_agent[:READ].encode(errors="replace").decode().strip()
    if not text:
        return Bot("no-user-agent", None)
    if name := _listed(text):
        return Bot("crawlerdetect", name)
    if contact := _CONTACT.search(text):
        return Bot("contact", contact[0])
    if not _BROWSER.match(text) and device(text).os == "Other":
        return Bot("not-a-browser", re.split(r"[\s/(;]", text, maxsplit=1)[0] or None)
    return None


def _listed(user_agent: str) -> str | None:
    # As crawlerdetect does: what browsers send goes first, so that `Cubot`, a phone, is no `bot`.
    remains = _EXCLUSIONS.sub("", user_agent).strip()
    if found := _NAMES(remains, Domain.USER_AGENT).user_agent:
        return found.family
    match = _NAMES_WITH_LOOK_AROUND.search(remains)
    return match[0] if match else None
