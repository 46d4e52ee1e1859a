import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

import enrich.traffic_source
from enrich.traffic_source import TrafficSource, find

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


def test_the_list_is_whole() -> None:
    listed = json.loads((Path(enrich.traffic_source.__file__).parent / "data" / "referrers.json").read_text())
    assert len(listed) > 2000
    for host, entry in listed.items():
        if entry["medium"] == "social" and "." in host:
            assert find(None, f"https://{host}/").medium == "social", host
