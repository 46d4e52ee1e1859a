"""Links: a notification leads to the site, in whichever way a link is written."""

from typing import Any
from urllib.parse import urlsplit

import pytest
from ada_url import URL
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from enrich.documents import Document
from enrich.enricher import Enricher
from notifications.links import ForeignLink, Site, picture
from notifications.notice import Words
from notifications.rendering import Renderer
from runtime.settings import Settings
from schemas.envelope import InvalidEvent
from tests.unit.test_cloudevents import decode

REQUESTED = [("ce_type", b"notification.requested"), ("ce_id", b"n-1"), ("ce_specversion", b"1.0"), ("ce_source", b"/")]
SITE = Site("https://blog.example", ["help.blog.example", "forum.blog.example:8443"])

ELSEWHERE = [
    "https://blog.example@evil.example/login",
    "https://blog.example:443@evil.example/",
    "https://user:password@blog.example/",
    "https://user@blog.example/",
    "//evil.example/",
    "///evil.example/",
    "/\\evil.example/",
    "\\\\evil.example/",
    "\\/evil.example/",
    "/\t/evil.example/",
    "/\n\\evil.example/",
    "\t//evil.example/",
    "\u0000//evil.example/",
    "https:evil.example",
    "https:/evil.example",
    "https:///evil.example",
    "https:\\\\evil.example",
    "HTTPS://EVIL.example/",
    "hTTps:/\\evil.example",
    "https://evil.example\\@blog.example/",
    "https://evil.example#@blog.example/",
    "https://evil.example?blog.example",
    "https://blog.example.evil.example/",
    "https://blog.example.",
    "https://evilblog.example/",
    "https://sub.blog.example/",
    "https://blog.example%2f@evil.example/",
    "https://blog.example%2eevil.example/",
    "https://blog.example%252f@evil.example/",
    "https://blog.example%00.evil.example/",
    "https://bl\u043eg.example/",
    "https://blog\u2024example.evil.example/",
    "https://blog.example\u3002evil.example/",
    "https://blog.example:8443/",
    "https://forum.blog.example/",
    "http://blog.example:3000/",
    "https://blog.example:80/",
    "javascript:alert(1)",
    "JaVaScRiPt:alert(1)",
    " javascript:alert(1)",
    "java\nscript:alert(1)",
    "\u0001javascript:alert(1)",
    "javascript://blog.example/%0aalert(1)",
    "data:text/html,<script>alert(1)</script>",
    "vbscript:msgbox(1)",
    "blob:https://blog.example/1",
    "file:///etc/passwd",
    "ftp://blog.example/",
    "mailto:eve@evil.example",
    "intent://blog.example#Intent;scheme=https;end",
    "https://",
    "https://[::1]/",
    "https://127.1/",
    "half of a pair \ud800",
]


@pytest.mark.parametrize("link", ELSEWHERE, ids=ascii)
def test_a_link_to_another_site_is_refused_without_showing_it(link: str) -> None:
    for read in (SITE.absolute, SITE.stored):
        with pytest.raises(ForeignLink) as raised:
            read(link)
        assert "evil" not in str(raised.value)


@pytest.mark.parametrize(
    ("link", "stored", "absolute"),
    [
        ("/posts/types#c-1", "/posts/types#c-1", "https://blog.example/posts/types#c-1"),
        ("posts/types", "/posts/types", "https://blog.example/posts/types"),
        ("?page=2", "/?page=2", "https://blog.example/?page=2"),
        (" /posts ", "/posts", "https://blog.example/posts"),
        ("/grüße?q=ä b", "/gr%C3%BC%C3%9Fe?q=%C3%A4%20b", "https://blog.example/gr%C3%BC%C3%9Fe?q=%C3%A4%20b"),
        (
            "/a?to=https://evil.example/",
            "/a?to=https://evil.example/",
            "https://blog.example/a?to=https://evil.example/",
        ),
        ("https://blog.example/x", "https://blog.example/x", "https://blog.example/x"),
        ("https://BLOG.example:443/x", "https://blog.example/x", "https://blog.example/x"),
        ("http://blog.example/x", "http://blog.example/x", "http://blog.example/x"),
        ("https://help.blog.example/", "https://help.blog.example/", "https://help.blog.example/"),
        ("https://forum.blog.example:8443/", *["https://forum.blog.example:8443/"] * 2),
        ("https://blog.example\\@evil.example/", *["https://blog.example/@evil.example/"] * 2),
        ("https://blog.exa\nmple/x", "https://blog.example/x", "https://blog.example/x"),
        # As a path it would lead to another host.
        ("/.//evil.example/", "https://blog.example//evil.example/", "https://blog.example//evil.example/"),
        ("/x/..//evil.example/", "https://blog.example//evil.example/", "https://blog.example//evil.example/"),
    ],
)
def test_what_leads_to_the_site_has_one_form(link: str, stored: str, absolute: str) -> None:
    assert (SITE.stored(link), SITE.absolute(link)) == (stored, absolute)
    assert SITE.absolute(stored) == absolute
    assert SITE.stored(stored) == stored


PARTS = [
    *["https:", "http:", "/", "\\", "@", "blog.example", "evil.example", ":"],
    *["\t", "\n", "%2f", "#", "?", ".", "x", " "],
]


@given(st.lists(st.sampled_from(PARTS), max_size=9).map("".join) | st.text(max_size=30))
def test_whatever_is_taken_leads_to_the_site_by_every_reading(link: str) -> None:
    try:
        stored, absolute = SITE.stored(link), SITE.absolute(link)
    except ForeignLink:
        return
    for whole in (absolute, URL(stored, "https://blog.example/").href):
        assert urlsplit(whole).netloc in ("blog.example", "help.blog.example", "forum.blog.example:8443")
        assert urlsplit(whole).scheme in ("http", "https")
        assert URL(whole).host == urlsplit(whole).netloc
    assert not stored.startswith("//")
    assert absolute.isascii()
    assert not set(absolute) & set('\r\n\t \\"<>')


EXAMPLE: dict[str, Any] = {
    "eventId": "n-1",
    "userId": "ada",
    "type": "comment_reply",
    "title": "t",
    "message": "m",
    "timestamp": "2026-01-31T12:00:00Z",
}


def notification(**fields: Any) -> dict[str, Any]:
    """Return the document of a request, by the real decoder."""
    enricher = Enricher(ip_hash_key=b"key", geo=None, site=SITE)
    [document, _] = enricher.documents(decode("notifications", EXAMPLE | fields, REQUESTED))
    assert isinstance(document, Document)
    return document.body


@pytest.mark.parametrize("link", ELSEWHERE[:20], ids=ascii)
def test_a_request_whose_link_leads_elsewhere_is_a_dead_letter_that_says_so(link: str) -> None:
    with pytest.raises(InvalidEvent, match="actionUrl: should be a path of the site") as raised:
        notification(actionUrl=link)
    assert raised.value.reason == "schema"
    assert "evil" not in raised.value.message


@pytest.mark.parametrize("link", [None, "", "  "])
def test_a_request_without_a_link_leads_nowhere(link: str | None) -> None:
    assert "actionUrl" not in notification(actionUrl=link)


def test_a_request_has_its_link_in_one_form() -> None:
    assert notification(actionUrl="/posts/x y")["actionUrl"] == "/posts/x%20y"
    assert notification(actionUrl="HTTPS://blog.example/x")["actionUrl"] == "https://blog.example/x"


@pytest.mark.parametrize(
    ("link", "stored"),
    [
        ("https://blog.example/ada.webp", "https://blog.example/ada.webp"),
        ("https://cdn.example.net/a b.png", "https://cdn.example.net/a%20b.png"),
        ("//cdn.example.net/a.png", "https://cdn.example.net/a.png"),
        ("/avatars/ada.webp", "/avatars/ada.webp"),
        ("javascript:alert(1)", None),
        (" java\tscript:alert(1)", None),
        ("data:image/svg+xml,<svg onload=alert(1)>", None),
        ("https://blog.example@evil.example/a.png", None),
        ("/.//evil.example/a.png", None),
        ("https://", None),
        ("\ud800", None),
        ("", None),
    ],
)
def test_a_picture_may_be_anywhere_and_one_that_is_none_costs_the_notification_nothing(
    link: str, stored: str | None
) -> None:
    assert notification(actorAvatar=link).get("actorAvatar") == stored if link != "\ud800" else picture(link) is None


@pytest.mark.parametrize("link", ELSEWHERE, ids=ascii)
def test_what_an_earlier_release_stored_leads_nowhere_in_a_mail_or_a_push_message(link: str) -> None:
    wording = Renderer("The Blog", "https://blog.example")
    words = Words("Title", "Message", link, "Open")
    assert wording.push(words).url is None
    email = wording.email(words, unsubscribe_url="https://mail.blog.example/unsubscribe?token=1")
    assert "evil" not in email.text + email.html
    assert "https://mail.blog.example/unsubscribe?token=1" in email.text


@pytest.mark.parametrize("hosts", ["https://help.blog.example", "a/b", "user@blog.example", "a b", "x:port", "a\\b"])
def test_a_setting_that_names_no_host_is_refused(hosts: str) -> None:
    with pytest.raises(ValidationError, match="should be hosts like"):
        Settings(_env_file=None, link_hosts=hosts)


def test_other_hosts_of_the_site_can_be_named() -> None:
    settings = Settings(_env_file=None, link_hosts="help.blog.example, forum.blog.example:8443")
    assert settings.link_hosts == ("help.blog.example", "forum.blog.example:8443")
