"""Reads the type, the operating system and the browser of a device from its user agent.

Input: the header as the browser sent it. Output: a `Device`; for unreadable input, a desktop and `Other`. The names are
ua-parser's (the uap-core list).
"""

import re
from typing import Literal, NamedTuple

import ua_parser

READ = 1024
"""How many characters of a user agent are read. Browsers send 80 to 500; a longer one is no browser's."""

BROWSER = re.compile(r"Mozilla/|Opera/", re.IGNORECASE)
"""How every browser's user agent has begun since 1994; that of an app without a web view begins with its own name."""

_UNKNOWN = "Other"

# Systems as apps name them, where they do it otherwise than browsers: `(ios; 17.4)`, `android/14`.
_SYSTEMS = {
    "android": "Android",
    "chrome os": "Chrome OS",
    "cros": "Chrome OS",
    "fire os": "Fire OS",
    "harmonyos": "HarmonyOS",
    "ios": "iOS",
    "ipad": "iOS",
    "ipados": "iOS",
    "iphone": "iOS",
    "kaios": "KaiOS",
    "macos": "Mac OS X",
    "openharmony": "HarmonyOS",
    "tizen": "Tizen",
    "tvos": "tvOS",
    "visionos": "visionOS",
    "watchos": "watchOS",
    "wear os": "Wear OS",
    "webos": "webOS",
    "windows": "Windows",
}
_SYSTEM = re.compile(rf"(?<![a-z])(?:{'|'.join(_SYSTEMS)})(?![a-z])", re.IGNORECASE)

_TELEVISION_OR_CONSOLE = re.compile(
    r"\bTV\b|SMART-TV|SmartTV|GoogleTV|AppleTV|HbbTV|BRAVIA|Web0S|Roku|CrKey|; AFT|PlayStation (?!Vita)|Nintendo|Xbox"
)
_TABLET = re.compile(r"iPad|Tablet(?! PC)|PlayBook|Kindle|Silk/|Touchpad", re.IGNORECASE)
_MOBILE = re.compile(
    r"Mobi|iPhone|iPod|Opera Mini|Phone|BlackBerry|BB10|Symbian|Series\s?[46]0|KAIOS|MIDP|webOS/1|Vita"
    r"|UP\.Browser|WAP.?Browser|MAUI|DoCoMo"
)
# What an app on a Mac adds to `Darwin`, which iOS has as well.
_MAC = re.compile(r"\(x86_64\)|Mac|PowerBook")


class Device(NamedTuple):
    """A device, as `pageViews.device` has it.

    Attributes:
        type: What is held in the hand: a phone, a tablet, or neither.
        os: The operating system without its version: `Windows`, `Mac OS X`, `iOS`, `Android`, ..., or `Other`.
        browser: The browser without its version: `Chrome`, `Mobile Safari`, `Firefox`, ..., or `Other`.
    """

    type: Literal["mobile", "tablet", "desktop"]
    os: str
    browser: str


def device(user_agent: str) -> Device:
    """Read a user agent.

    The type is decided by the first of these that holds:

    1. a television, a set-top box or a games console is a desktop (the seed has three types, and nobody holds it);
    2. a tablet says so (`iPad`, `Tablet`, `Kindle`, ...);
    3. a phone says so: all of them send `Mobi`, but for some feature phones;
    4. a browser on Android without `Mobi` is a tablet;
    5. an app on Android, iOS or HarmonyOS, which doesn't say, is on a phone;
    6. all else is a desktop.

    An iPad that asks for the desktop site, as it does by default since iPadOS 13, sends a Mac's user agent and counts
    as one: nothing in the header tells them apart.
    """
    user_agent = user_agent[:READ]
    # Half a surrogate pair can stand in a str, and the parser, which is in Rust, takes nothing but Unicode.
    parsed = ua_parser.parse(user_agent.encode(errors="replace").decode())
    os = parsed.os.family if parsed.os else _system(user_agent)
    browser = parsed.user_agent.family if parsed.user_agent else _UNKNOWN
    return Device(_type(user_agent, os), os, browser)


def _type(user_agent: str, os: str) -> Literal["mobile", "tablet", "desktop"]:
    if _TELEVISION_OR_CONSOLE.search(user_agent):
        return "desktop"
    if _TABLET.search(user_agent):
        return "tablet"
    if _MOBILE.search(user_agent):
        return "mobile"
    if os == "Android" and BROWSER.match(user_agent):
        return "tablet"
    if os == "HarmonyOS" and not BROWSER.match(user_agent):
        return "mobile"
    return "mobile" if os == "Android" or (os == "iOS" and not _MAC.search(user_agent)) else "desktop"


def _system(user_agent: str) -> str:
    match = _SYSTEM.search(user_agent)
    return _SYSTEMS[match[0].lower()] if match else _UNKNOWN
