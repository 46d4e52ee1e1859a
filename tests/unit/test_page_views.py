from datetime import UTC, datetime
from importlib.resources import files
from pathlib import Path
from typing import Any
from unittest.mock import sentinel

import pytest
from hypothesis import given
from hypothesis import strategies as st

from enrich import page_views
from enrich.context import Context
from enrich.documents import Document, PartialUpdate
from enrich.geo import GeoDatabase
from enrich.ip_address import hash_ip
from schemas.envelope import Envelope
from schemas.page_views import PageExited, PageViewed

NOON = datetime(2026, 1, 31, 12, tzinfo=UTC)
KEY = b"a key of thirty-two random bytes"
CONTEXT = Context(ip_hash_key=KEY, geo=GeoDatabase.open(Path(str(files("_maxminddb_geolite2") / "GeoLite2-City.mmdb"))))
IPHONE = (
    "Mozilla/5.0 (iPhone; CPU iPhone OS 17_4 like Mac OS X) AppleWebKit/605.1.15 (KHTML, like Gecko) "
    "Version/17.4 Mobile/15E148 Safari/604.1"
)
LEAST = {
    "postId": "post-1",
    "postSlug": "introduction",
    "sessionId": "session-1",
    "ipAddress": "81.2.69.160",
    "userAgent": IPHONE,
}


def view(reported_time: datetime | None = None, /, **fields: Any) -> dict[str, Any]:
    event = Envelope("view-1", sentinel.type, NOON, reported_time, PageViewed.model_validate(LEAST | fields))
    [document] = page_views.viewed(event, CONTEXT)
    assert isinstance(document, Document)
    assert document.collection == "pageViews"
    return document.body


def test_a_view_that_says_the_least_has_every_field_the_specification_requires() -> None:
    assert view() == {
        "_id": "view-1",
        "postId": "post-1",
        "postSlug": "introduction",
        "sessionId": "session-1",
        "ipAddress": hash_ip("81.2.69.160", KEY),
        "userAgent": IPHONE,
        "device": {"type": "mobile", "os": "iOS", "browser": "Mobile Safari"},
        "timeSpent": 0,
        "scrollDepth": 0,
        "interacted": False,
        "source": "direct",
        "geo": {"country": "GB", "city": "Willesden", "timezone": "Europe/London"},
        "timestamp": NOON,
    }


def test_a_view_that_says_everything_keeps_it() -> None:
    document = view(
        userId="user-1",
        url="https://blog.example/posts/introduction?utm_campaign=spring",
        referrer="https://www.google.com/",
        timeSpent=12.5,
        scrollDepth=80,
        interacted=True,
        exitedAt="2026-01-31T13:00:00+01:00",
    )
    expected = {
        "userId": "user-1",
        "referrer": "https://www.google.com/",
        "source": "google",
        "medium": "organic",
        "campaign": "spring",
        "timeSpent": 12.5,
        "scrollDepth": 80,
        "interacted": True,
        "exitedAt": NOON,
    }
    assert document.items() >= expected.items()


def test_no_field_is_null_and_the_address_is_nowhere() -> None:
    document = view(userId=None, referrer="", ipAddress="192.168.1.77")
    assert None not in document.values()
    assert not {"userId", "referrer", "geo", "bot", "reportedTimestamp"} & document.keys()
    assert "192.168.1.77" not in repr(document)


def test_without_a_database_there_is_no_geo() -> None:
    event = Envelope("view-1", sentinel.type, NOON, None, PageViewed.model_validate(LEAST))
    [document] = page_views.viewed(event, Context(ip_hash_key=KEY, geo=None))
    assert isinstance(document, Document)
    assert "geo" not in document.body


def test_a_program_is_marked_with_the_rule_that_recognised_it() -> None:
    googlebot = "Mozilla/5.0 (compatible; Googlebot/2.1; +http://www.google.com/bot.html)"
    assert view(userAgent=googlebot)["bot"] == {"rule": "crawlerdetect", "name": "Googlebot"}
    assert view(userAgent="")["bot"] == {"rule": "no-user-agent"}


def test_a_corrected_time_is_marked() -> None:
    claimed = datetime(2036, 1, 31, tzinfo=UTC)
    assert view(claimed)["reportedTimestamp"] == claimed


def test_an_exit_is_a_part_of_its_views_document() -> None:
    payload = {"postId": "post-1", "viewId": "view-1", "timeSpent": 184, "scrollDepth": 92.5, "exitedAt": NOON}
    event = Envelope("exit-1", sentinel.type, NOON, None, PageExited.model_validate(payload))
    highest = {"timeSpent": 184, "scrollDepth": 92.5, "interacted": False, "exitedAt": NOON}
    assert page_views.exited(event, CONTEXT) == [PartialUpdate("pageViews", "view-1", NOON, highest, {})]


@pytest.mark.parametrize("address", ["somewhere", "", "unknown", "81.2.69", "081.2.69.160", "_hidden, -"])
def test_a_view_counts_where_its_address_can_not_be_read(address: str) -> None:
    document = view(ipAddress=address)
    assert document["ipAddress"] == "unknown"
    assert "geo" not in document


@pytest.mark.parametrize(
    "address", ["81.2.69.160:51344", " 81.2.69.160", "[::ffff:81.2.69.160]:443", "81.2.69.160, 10.0.0.1"]
)
def test_an_address_is_the_same_in_whatever_form_a_proxy_wrote_it(address: str) -> None:
    assert view(ipAddress=address) == view(ipAddress="81.2.69.160")
    assert "81.2.69.160" not in repr(view(ipAddress=address))


def test_a_measurement_that_was_out_of_its_range_is_marked_in_the_view_and_by_the_exit() -> None:
    seen = Envelope("view-1", sentinel.type, NOON, None, PageViewed.model_validate(LEAST), clamped=True)
    [document] = page_views.viewed(seen, CONTEXT)
    assert isinstance(document, Document)
    assert document.body["clamped"] is True
    assert "clamped" not in view()
    payload = {"postId": "post-1", "viewId": "view-1", "exitedAt": NOON}
    left = Envelope("exit-1", sentinel.type, NOON, None, PageExited.model_validate(payload), clamped=True)
    [part] = page_views.exited(left, CONTEXT)
    assert isinstance(part, PartialUpdate)
    assert part.highest["clamped"] is True


TEXT = st.text(max_size=100)


@given(st.ip_addresses(), TEXT, TEXT, TEXT, TEXT, TEXT, TEXT)
def test_no_text_is_too_strange_to_become_a_document(
    ip: object, user_agent: str, url: str, referrer: str, source: str, medium: str, campaign: str
) -> None:
    document = view(
        ipAddress=str(ip),
        userAgent=user_agent,
        url=url,
        referrer=referrer,
        source=source,
        medium=medium,
        campaign=campaign,
    )
    assert document["source"]
    assert None not in document.values()


def test_a_view_in_the_platforms_own_app_is_a_persons() -> None:
    document = view(userAgent="BlogApp/3.2 (Android 14; Pixel 8) okhttp/4.12.0")
    assert "bot" not in document
    assert (document["device"]["type"], document["device"]["os"]) == ("mobile", "Android")
    assert view(userAgent="okhttp/4.12.0")["bot"]["rule"] == "crawlerdetect"


@pytest.mark.parametrize(
    ("fields", "source", "medium"),
    [
        ({"referrer": "https://ya.ru/"}, "yandex", "organic"),
        ({"referrer": "https://www.pinterest.de/pin/1"}, "pinterest", "social"),
        ({"url": "https://blog.example/p?utm_source=fb&utm_medium=paid"}, "facebook", "paid"),
        ({"source": "IG"}, "instagram", "social"),
        ({"userAgent": f"{IPHONE} [FBAN/FBIOS;FBAV/491.0.0.56.81]"}, "facebook", "social"),
        ({"userAgent": f"{IPHONE} Instagram 406.0.0.58.159 (iPhone16,1)"}, "instagram", "social"),
        ({"userAgent": f"{IPHONE} Instagram 406.0.0.58.159", "referrer": "https://t.co/a"}, "twitter", "social"),
    ],
)
def test_a_view_has_the_one_name_of_its_source(fields: dict[str, str], source: str, medium: str) -> None:
    document = view(**fields)
    assert (document["source"], document["medium"]) == (source, medium)
