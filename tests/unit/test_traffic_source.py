import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

import enrich.traffic_source
from enrich.traffic_source import TrafficSource, app_of, find

PAGE = "https://www.blog.example/posts/introduction"


@pytest.mark.parametrize(
    ("referrer", "source", "medium"),
    [
        ("https://www.google.com/", "google", "organic"),
        ("https://www.google.co.uk/search?q=typescript", "google", "organic"),
        ("https://de.search.yahoo.com/", "yahoo", "organic"),
        ("https://duckduckgo.com/", "duckduckgo", "organic"),
        ("https://t.co/abc", "twitter", "social"),
        ("https://x.com/", "twitter", "social"),
        ("https://lm.facebook.com/l.php?u=x", "facebook", "social"),
        ("https://out.reddit.com/", "reddit", "social"),
        ("https://news.ycombinator.com/item?id=1", "hacker news", "social"),
        ("https://chatgpt.com/", "chatgpt", "ai-assistant"),
        ("https://www.perplexity.ai/search/x", "perplexity", "ai-assistant"),
        ("https://claude.ai/chat/1", "claude", "ai-assistant"),
        ("https://gemini.google.com/app", "gemini", "ai-assistant"),
        ("https://copilot.microsoft.com/", "copilot", "ai-assistant"),
        ("https://mail.google.com/", "gmail", "email"),
        ("android-app://com.google.android.gm/", "gmail", "email"),
        ("https://docs.google.com/document/d/1", "docs.google.com", "referral"),
        ("https://user:secret@Other.Example.:8443/a", "other.example", "referral"),
        ("https://blog.example/posts/another", "internal", "internal"),
    ],
)
def test_a_referrer_has_a_name_and_a_medium(referrer: str, source: str, medium: str) -> None:
    assert find(PAGE, referrer) == TrafficSource(source, medium, None)


@pytest.mark.parametrize(
    ("source", "medium", "hosts"),
    [
        ("yandex", "organic", "ya.ru yandex.kz yandex.com.tr yandex.uz yandex.eu m.yandex.by"),
        ("bing", "organic", "ntp.msn.com cn.bing.com www2.bing.com bing.de cc.bingj.com"),
        ("google", "organic", "google.dz google.co.jp google.com.br google.cat lens.google.com x.cdn.ampproject.org"),
        ("pinterest", "social", "pinterest.de pinterest.co.uk pinterest.com.au at.pinterest.com pin.it pinterest.nz"),
        ("yahoo", "organic", "search.yahoo.co.jp uk.search.yahoo.com r.search.yahoo.com"),
        ("facebook", "social", "m.facebook.com lm.facebook.com l.facebook.com web.facebook.com fb.me"),
        ("instagram", "social", "l.instagram.com instagram.com"),
        ("threads", "social", "l.threads.com l.threads.net"),
        ("messenger", "social", "l.messenger.com m.me"),
        ("reddit", "social", "out.reddit.com old.reddit.com np.reddit.com redd.it"),
        ("twitter", "social", "t.co mobile.twitter.com x.com"),
        ("linkedin", "social", "lnkd.in de.linkedin.com"),
        ("youtube", "social", "youtu.be m.youtube.com"),
        ("hacker news", "social", "news.ycombinator.com hn.algolia.com"),
        ("vkontakte", "social", "away.vk.com m.vk.ru"),
        ("mastodon", "social", "chaos.social fosstodon.org mstdn.jp"),
        ("telegram", "social", "t.me web.telegram.org webk.telegram.org"),
        ("baidu", "organic", "www.baidu.com m.baidu.com"),
        ("naver", "organic", "m.search.naver.com naver.com"),
        ("duckduckgo", "organic", "html.duckduckgo.com lite.duckduckgo.com"),
        ("seznam", "organic", "search.seznam.cz"),
        ("sogou", "organic", "m.sogou.com"),
        ("wikipedia", "referral", "en.m.wikipedia.org be-tarask.wikipedia.org"),
        ("gmail", "email", "mail.google.com"),
        ("yahoo! mail", "email", "mail.yahoo.com mail.yahoo.co.uk de.mail.yahoo.com"),
        ("docs.google.com", "referral", "docs.google.com docs.google.de"),
        ("chatgpt", "ai-assistant", "chatgpt.com labs.openai.com"),
    ],
)
def test_all_hosts_of_a_source_have_one_name(source: str, medium: str, hosts: str) -> None:
    found = {host: find(PAGE, f"https://{host}/") for host in hosts.split()}
    assert found == dict.fromkeys(found, TrafficSource(source, medium))


@pytest.mark.parametrize(
    "host",
    [
        "google.evil.de",
        "mygoogle.de",
        "pinterest.evil.example",
        "facebook.com.evil.example",
        "yandex.example",
        "xx.com",
    ],
)
def test_a_host_that_only_looks_like_one_of_a_source_keeps_its_own_name(host: str) -> None:
    assert find(PAGE, f"https://{host}/") == TrafficSource(host, "referral")


@pytest.mark.parametrize(
    ("app", "source", "medium"),
    [
        ("com.reddit.frontpage", "reddit", "social"),
        ("com.linkedin.android", "linkedin", "social"),
        ("com.pinterest", "pinterest", "social"),
        ("com.twitter.android", "twitter", "social"),
        ("com.instagram.android", "instagram", "social"),
        ("com.zhiliaoapp.musically", "tiktok", "social"),
        ("com.Slack", "slack", "social"),
        ("com.google.android.googlequicksearchbox", "google", "organic"),
        ("ru.yandex.searchplugin", "yandex", "organic"),
        ("com.microsoft.office.outlook", "outlook", "email"),
        ("com.example.reader", "com.example.reader", "referral"),
    ],
)
def test_an_app_of_android_has_the_name_of_its_source(app: str, source: str, medium: str) -> None:
    assert find(PAGE, f"android-app://{app}/") == TrafficSource(source, medium)


@pytest.mark.parametrize(
    ("spelling", "source", "medium"),
    [
        *((spelling, "facebook", "social") for spelling in ("fb", "FB", "facebook.com", "m.facebook.com", "Facebook")),
        *(
            (spelling, "facebook", "social")
            for spelling in ("Facebook_Mobile_Feed", "Facebook_Right_Column", "fb-post")
        ),
        *((spelling, "facebook", "cpc") for spelling in ("fbads", "fb-ads", "Facebook Ads", "facebook_ad", "FB-Paid")),
        *(
            (spelling, "instagram", "social")
            for spelling in ("ig", "IG", "Instagram_Stories", "insta", "instagram.com")
        ),
        *((spelling, "google", "cpc") for spelling in ("google-ads", "adwords", "gads", "googleads", "google_ads")),
        *((spelling, "bing", "cpc") for spelling in ("bingads", "Microsoft Ads", "msads")),
        *((spelling, "twitter", "social") for spelling in ("tw", "x", "X", "x.com", "twitter", "t.co")),
        *((spelling, "linkedin", "social") for spelling in ("li", "linkedin", "www.linkedin.com", "lnkd.in")),
        *((spelling, "youtube", "social") for spelling in ("yt", "YouTube", "youtu.be")),
        *((spelling, "tiktok", "social") for spelling in ("tiktok", "tik tok", "tik.tok", "TikTok")),
        ("hn", "hacker news", "social"),
        ("yandex.kz", "yandex", "organic"),
        ("newsletter", "newsletter", None),
        ("Newsletter", "newsletter", None),
    ],
)
def test_all_spellings_of_a_source_have_one_name(spelling: str, source: str, medium: str | None) -> None:
    assert find(PAGE, None, spelling) == TrafficSource(source, medium)


@pytest.mark.parametrize("name", ["fb_ig", "x-ray", "google news", "microsoft", "an", "g", "badads", "weekly-digest"])
def test_a_name_that_only_begins_like_a_spelling_stays_as_it_is(name: str) -> None:
    assert find(PAGE, None, name) == TrafficSource(name)


def test_a_medium_in_the_url_wins_over_that_of_the_spelling() -> None:
    assert find(f"{PAGE}?utm_source=fb&utm_medium=paid", None) == TrafficSource("facebook", "paid")


@pytest.mark.parametrize(
    ("source", "token"),
    [
        ("facebook", "[FBAN/FBIOS;FBAV/491.0.0.56.81;FBBV/1]"),
        ("facebook", "[FB_IAB/FB4A;FBAV/491.0.0.56.81;]"),
        ("messenger", "[FBAN/MessengerForiOS;FBAV/400.0]"),
        ("messenger", "[FB_IAB/Orca-Android;FBAV/400.0;]"),
        ("instagram", "Instagram 406.0.0.58.159 Android (35/15; 420dpi)"),
        ("threads", "Barcelona 300.0.0.33.109 (iPhone16,1)"),
        ("tiktok", "musical_ly_2023 BytedanceWebview/d8a21c6"),
        ("twitter", "Twitter for iPhone/10.60"),
        ("pinterest", "[Pinterest/iOS]"),
        ("linkedin", "[LinkedInApp]/9.29"),
        ("snapchat", "Snapchat/12.0 (like Safari/8615.3, panda)"),
        ("line", "Safari Line/14.16.0"),
        ("wechat", "MicroMessenger/8.0.49"),
        ("kakaotalk", "KAKAOTALK/25.2.1"),
        ("naver", "NAVER(inapp; search; 1140; 12.9.2; 15)"),
        ("baidu", "baiduboxapp/13.5.0.10 (Baidu; P1 14)"),
        ("bing", "BingSapphire/27.1.400"),
        ("yandex", "YaApp_Android/23.90/apad YaSearchBrowser/23.90"),
        ("yandex", "YaApp_iOS/2403.0"),
    ],
)
def test_the_browser_inside_an_app_names_the_source_where_nothing_else_does(source: str, token: str) -> None:
    app = app_of(f"Mozilla/5.0 (iPhone; CPU iPhone OS 18_1 like Mac OS X) AppleWebKit/605.1.15 Mobile/15E148 {token}")
    assert app is not None
    assert find(PAGE, None, app=app).source == source
    assert find(PAGE, "about:blank", app=app).source == source
    assert find(PAGE, "https://www.google.com/", app=app).source == "google"
    assert find(PAGE, "https://other.example/", app=app).source == "other.example"
    assert find(PAGE, "https://blog.example/", app=app).source == "internal"
    assert find(f"{PAGE}?utm_source=newsletter", None, app=app).source == "newsletter"


def test_a_browser_is_no_app() -> None:
    assert app_of("Mozilla/5.0 (Windows NT 10.0) AppleWebKit/537.36 Chrome/131.0.0.0 Safari/537.36") is None
    assert app_of("Mozilla/5.0 (Macintosh; Intel Mac OS X 10.15; rv:132.0) Gecko/20100101 Firefox/132.0") is None
    assert app_of("") is None


@pytest.mark.parametrize(
    "referrer",
    [
        None,
        "",
        "null",
        "about:blank",
        "www.google.com",
        "http://[::1",
        "http://",
        "file:///x",
        "chrome-extension://abc/",
    ],
)
def test_where_nothing_is_known_it_is_direct(referrer: str | None) -> None:
    assert find(PAGE, referrer) == TrafficSource("direct", None, None)
    assert find(None, referrer) == TrafficSource("direct", None, None)


@pytest.mark.parametrize(
    ("query", "expected"),
    [
        ("utm_source=Newsletter&utm_medium=Email&utm_campaign=Spring", TrafficSource("newsletter", "email", "Spring")),
        ("UTM_Source=a&utm_source=b", TrafficSource("a", None, None)),
        ("utm_source=chatgpt.com", TrafficSource("chatgpt", "ai-assistant", None)),
        ("utm_source=twitter.com&utm_medium=post", TrafficSource("twitter", "post", None)),
        ("utm_source=%20&utm_campaign=", TrafficSource("bing", "organic", None)),
        ("utm_campaign=spring", TrafficSource("bing", "organic", "spring")),
        ("utm_campaign=spring&gclid=abc", TrafficSource("google", "cpc", "spring")),
        ("gclid=", TrafficSource("bing", "organic", None)),
        ("msclkid=abc&utm_source=partner", TrafficSource("partner", None, None)),
        ("ttclid=abc&utm_medium=video", TrafficSource("tiktok", "video", None)),
        ("fbclid=abc", TrafficSource("bing", "organic", None)),
        ("utm_source=%ff%00%ed%a0%80", TrafficSource("\ufffd\0\ufffd\ufffd\ufffd", None, None)),
    ],
)
def test_the_pages_url_says_more_than_the_referrer(query: str, expected: TrafficSource) -> None:
    assert find(f"{PAGE}?{query}", "https://www.bing.com/") == expected


def test_what_the_producer_says_outright_wins() -> None:
    url = f"{PAGE}?utm_source=a&utm_medium=b&utm_campaign=c"
    assert find(url, "https://t.co/", "Partner", " Banner ", "Launch") == TrafficSource("partner", "banner", "Launch")
    assert find(url, "https://t.co/", "Partner") == TrafficSource("partner", "b", "c")
    assert find(None, "https://t.co/", None, None, "Launch") == TrafficSource("twitter", "social", "Launch")
    assert find(url, None, "", " ", "") == TrafficSource("a", "b", "c")


def test_an_id_on_every_link_says_less_than_a_known_referrer_and_more_than_an_unknown_one() -> None:
    shared = f"{PAGE}?fbclid=abc"
    assert find(shared, "https://l.instagram.com/").source == "instagram"
    assert find(shared, "https://shortener.example/").source == "facebook"
    assert find(shared, None) == TrafficSource("facebook", "social", None)


def test_a_page_without_a_host_still_has_tags() -> None:
    assert find("/posts/introduction?utm_source=rss", None) == TrafficSource("rss", None, None)


ANYTHING = st.none() | st.text(st.characters()) | st.text("htps:/[]@?&=#%.utm_sorce").map("https://".__add__)


@given(ANYTHING, ANYTHING, ANYTHING, ANYTHING, ANYTHING)
def test_no_text_is_too_strange_to_be_read(
    url: str | None, referrer: str | None, source: str | None, medium: str | None, campaign: str | None
) -> None:
    assert find(url, referrer, source, medium, campaign).source


def test_each_source_has_one_name_in_both_lists() -> None:
    listed = json.loads((Path(enrich.traffic_source.__file__).parent / "data" / "sources.json").read_text())
    for medium in ("social", "ai-assistant"):
        for source, hosts in listed[medium].items():
            names = {find(None, f"https://{host}/").source for host in hosts}
            assert len(names) == 1, (source, hosts, names)


def test_the_list_is_whole() -> None:
    listed = json.loads((Path(enrich.traffic_source.__file__).parent / "data" / "referrers.json").read_text())
    assert len(listed) > 2000
    for host, entry in listed.items():
        if entry["medium"] == "social" and "." in host:
            assert find(None, f"https://{host}/").medium == "social", host


@pytest.mark.parametrize(
    ("source", "name", "medium"),
    [
        ("https://www.facebook.com/", "facebook", "social"),
        ("http://google.de", "google", "organic"),
        ("https://l.instagram.com/?u=x", "instagram", "social"),
        ("https://new.example/x", "new.example", None),
        ("android-app://com.linkedin.android", "linkedin", "social"),
    ],
)
def test_a_source_that_is_a_url_has_the_name_of_its_host(source: str, name: str, medium: str | None) -> None:
    assert find(f"https://blog.example/p?utm_source={source}", None) == TrafficSource(name, medium)
    assert find(None, None, source) == TrafficSource(name, medium)


@pytest.mark.parametrize(
    ("source", "medium"),
    [("gmail", "email"), ("Baidu", "organic"), ("naver", "organic"), ("slack", "social"), ("weibo", "social")],
)
def test_a_name_of_the_list_has_its_medium_however_it_comes(source: str, medium: str) -> None:
    assert find(f"https://blog.example/p?utm_source={source}", None) == TrafficSource(source.lower(), medium)


@pytest.mark.parametrize("nothing", ["null", "undefined", "(not set)", "(none)", "(direct)", "NULL"])
def test_a_tag_that_says_that_there_is_nothing_is_not_there(nothing: str) -> None:
    url = f"https://blog.example/p?utm_source={nothing}&utm_medium={nothing}"
    assert find(url, "https://ya.ru/") == TrafficSource("yandex", "organic")
    assert find(None, None, nothing, nothing) == TrafficSource("direct")


@pytest.mark.parametrize("escaped", ["?a=1&amp;utm_source=fb", "?amp;utm_source=fb", "?a=1&AMP;UTM_SOURCE=fb"])
def test_a_tag_of_a_url_that_was_escaped_for_html_is_read(escaped: str) -> None:
    assert find(f"https://blog.example/p{escaped}", None) == TrafficSource("facebook", "social")
