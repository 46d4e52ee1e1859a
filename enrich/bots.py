"""Recognises page views by programs.

Input: a user agent. Output: a `Bot` with the rule that matched, or `None` for a person. The list of names is
crawlerdetect's; a few rules of our own match what no list has yet. `docs/recognition.md` has the share of
public sets of user agents that they recognise, and those that they don't.
"""

import re
from typing import NamedTuple

from crawlerdetect.providers.crawlers import data as crawler_patterns
from crawlerdetect.providers.exclusions import data as exclusion_patterns
from ua_parser import Domain
from ua_parser.lazy import UserAgentMatcher
from ua_parser.regex import Resolver

from enrich.user_agent import BROWSER, READ, device

_LOOK_AROUND = re.compile(r"\(\?<?[=!]")
_EXCLUSIONS = re.compile("|".join(exclusion_patterns), re.IGNORECASE)
_CONTACT = re.compile(
    r"https?://[^\s;)]+|\bwww\.[^\s;)]+|\+[\w-]{1,63}(?:\.[\w-]{1,63}){0,9}\.[a-z]{2,}"
    r"|[\w.+-]{1,64}(?:@|\[at\])[\w.-]{1,255}\.[a-z]{2,}",
    re.IGNORECASE,
)

# What every browser writes since 1998: its engine. Those of feature phones, consoles and televisions are among them.
_ENGINE = re.compile(
    r"AppleWebKit/|Gecko/|Trident/|MSIE|Presto/|KHTML|Goanna/|Servo/|NetFront|Obigo|UP\.Browser|UCWEB|MIDP|MAUI|HbbTV"
    r"|ANTGalio|SEMC-Browser|WAP.?Browser|BlackBerry|DoCoMo|Nokia|Opera|PlayStation|Nintendo|Roku|ViziOS|Amiga|\bFBAN/"
    r"|Dillo/|NetSurf/|^(?:Lynx|Links|ELinks|w3m)\b",
    re.IGNORECASE,
)

# HTTP libraries of apps that are on the list of crawlers, as scrapers use them too; and those that alone name a system.
_LIBRARIES = re.compile(
    r"\b(?:okhttp\d?|axios|cronet|dart|node-fetch|undici|cfnetwork|darwin)\b(?:/[\w.-]*)?(?: ?\(dart:io\))?",
    re.IGNORECASE,
)
# Systems that people hold in their hands or sit before. A Linux without a browser is a server, nearly always.
_OF_PEOPLE = frozenset({
    "Android", "Chrome OS", "Fire OS", "HarmonyOS", "KaiOS", "Mac OS X", "Tizen", "Wear OS", "Windows", "iOS", "tvOS",
    "visionOS", "watchOS", "webOS",
    # As ua-parser calls tvOS and watchOS.
    "ATV OS X", "WatchOS",
})  # fmt: skip

# The model of an Android device can have any name, such as `Spider 8` or `C Bot Tab 70`.
_MODEL = re.compile(r"(\((?:Linux; )?(?:U; )?Android [\d.]{1,9};)(?: [a-z]{2}[-_][a-z]{2};)?[^;()]*", re.IGNORECASE)

# crawlerdetect joins its 1,462 patterns into one and has `re` try them all at every character: 350 µs for a browser's
# user agent, and over a second for one of 4,000 letters. The engine under ua-parser takes 3 µs, and its time grows only
# with the length. It has no look-around, which a single pattern uses, so that one stays with `re`.
_NAMES = Resolver(
    ([UserAgentMatcher(f"(?i)({pattern})") for pattern in crawler_patterns if not _LOOK_AROUND.search(pattern)], [], [])
)
_NAMES_WITH_LOOK_AROUND = re.compile("|".join(filter(_LOOK_AROUND.search, crawler_patterns)) or r"(?!)", re.IGNORECASE)

# Tools that test, watch and scan sites in a browser of their own, of which crawlerdetect's list lacks some.
_TOOLS = Resolver(
    (
        [
            UserAgentMatcher(
                r"(?i)(Catchpoint|Cypress/|DejaClick|\bDevin/|Dotcom-Monitor|Functionize|GoogleAgent|\bHydra\b|Manus-User"
                r"|MarketGoo|\bPTST/|Playwright|\bRigor\b|\bSelenium\b|SecurityHeaders|Silktide|Sparkler/|TagInspector"
                r"|ThousandEyes|\bsplash Version|Synthetics)"
            ),
            # `CamScanner` is an app with a browser in it.
            UserAgentMatcher(r"(?i)(?:^|[^m])(Scan(?:ner)?\b)"),
        ],
        [],
        [],
    )
)
# Browsers say `(KHTML, like Gecko)`. What a tool adds to it is its name.
_ADDED = re.compile(r"KHTML, like Gecko; (?!googleweblight)(?:compatible; ?)?([\w./-]{1,40})")


class Bot(NamedTuple):
    """A program that reads pages.

    Attributes:
        rule: Which rule said so: `crawlerdetect`, `contact`, `tool`, `not-a-browser` or `no-user-agent`.
        name: The part of the user agent that gave it away; `None` where there was none.
    """

    rule: str
    name: str | None


def recognise(user_agent: str) -> Bot | None:
    """Tell a program from a person, by the first of these rules that holds.

    1. `no-user-agent`: it is empty. Every browser sends one.
    2. `crawlerdetect`: a name, or a word such as `bot` or `spider`, on crawlerdetect's list. The model of an Android
       device doesn't count, nor does the HTTP library (`okhttp`, `axios`, ...) of an app that names its system.
    3. `contact`: it holds an address of a site or a mailbox, for the owners of sites to complain to. No browser's does.
    4. `tool`: it names a tool that tests or scans sites.
    5. `not-a-browser`: it names neither a browser's engine nor an operating system, as a platform's own app does; or
       nothing but an HTTP library.

    A program that sends a browser's user agent is not recognised.
    """
    text = user_agent[:READ].encode(errors="replace").decode().strip()
    if not text:
        return Bot("no-user-agent", None)
    browser = bool(BROWSER.match(text))
    remains = _MODEL.sub(r"\1", text)
    if not browser and device(text).os in _OF_PEOPLE:
        remains = _LIBRARIES.sub("", remains)
        if not re.search(r"\w", remains):
            return Bot("not-a-browser", _first_word(text))
    if name := _listed(remains):
        return Bot("crawlerdetect", name)
    if contact := _CONTACT.search(text):
        return Bot("contact", contact[0])
    if tool := _tool(text):
        return Bot("tool", tool)
    if "AppleWebKit/" not in text and not _ENGINE.search(text) and device(text).os == "Other":
        return Bot("not-a-browser", _first_word(text))
    return None


def _first_word(user_agent: str) -> str | None:
    return re.split(r"[\s/(;]", user_agent, maxsplit=1)[0] or None


def _listed(user_agent: str) -> str | None:
    # As crawlerdetect does: what browsers send goes first, so that `Cubot`, a phone, is no `bot`.
    remains = _EXCLUSIONS.sub("", user_agent).strip()
    if found := _NAMES(remains, Domain.USER_AGENT).user_agent:
        return found.family
    match = _NAMES_WITH_LOOK_AROUND.search(remains)
    return match[0] if match else None


def _tool(user_agent: str) -> str | None:
    if found := _TOOLS(user_agent, Domain.USER_AGENT).user_agent:
        return found.family
    added = _ADDED.search(user_agent)
    return added[1] if added else None
