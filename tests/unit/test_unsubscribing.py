"""Unsubscribe links, and the page that they open."""

from collections.abc import Iterable
from datetime import UTC, datetime, timedelta
from html.parser import HTMLParser
from urllib.parse import parse_qs, urlsplit

import pytest
from hypothesis import given
from hypothesis import strategies as st
from itsdangerous import TimestampSigner

from notifications.receipts.receipt import Receipt
from notifications.unsubscribing import KEPT, BadLink, UnsubscribeLinks, unsubscribed
from schemas.receipts import DeliveryReceived
from sinks.collections import EMAIL_LOGS
from web.receipt_publisher import NotPublished
from web.unsubscribe_page import UnsubscribePage

KEY = "5f2b1c0a9d8e7f6a5b4c3d2e1f0a9b8c"
LINKS = UnsubscribeLinks("https://blog.example/unsubscribe", "a secret")


class Reported:
    """What would be in Kafka."""

    def __init__(self, problem: Exception | None = None) -> None:
        self.receipts: list[Receipt] = []
        self._problem = problem

    async def __call__(self, receipts: Iterable[Receipt]) -> None:
        if self._problem:
            raise self._problem
        self.receipts += receipts


class Outline(HTMLParser):
    """The tags of a page, and its title."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.texts: dict[str, str] = {}
        self.feed(html)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_data(self, data: str) -> None:
        if self.tags and data.strip():
            self.texts.setdefault(self.tags[-1][0], data.strip())

    def all(self, tag: str) -> list[dict[str, str | None]]:
        return [attributes for name, attributes in self.tags if name == tag]


def token(links: UnsubscribeLinks = LINKS, key: str = KEY) -> str:
    [value] = parse_qs(urlsplit(links.url(key)).query)["token"]
    return value


def page(reported: Reported | None = None, site_name: str = "The Blog") -> UnsubscribePage:
    return UnsubscribePage(LINKS, reported or Reported(), site_name, "https://blog.example")


def test_a_link_leads_to_the_page_and_names_its_mail() -> None:
    url = urlsplit(LINKS.url(KEY))
    assert (url.scheme, url.netloc, url.path) == ("https", "blog.example", "/unsubscribe")
    assert LINKS.key(token()) == KEY


def test_a_link_needs_no_quoting_in_a_header() -> None:
    assert set(token()) <= set("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_.")


@pytest.mark.parametrize(
    "forged",
    [
        "",
        KEY,
        f"{KEY}.",
        token()[:-1],
        token() + "A",
        "0" + token()[1:],
        "ключ",
        "\ud800",
        "\0",
        token(UnsubscribeLinks("https://blog.example/unsubscribe", "another secret")),
        TimestampSigner("a secret").sign(KEY).decode(),  # signed by the same key, for another purpose
    ],
    # Not the tokens themselves: they hold the time, and processes that share the tests must name them alike.
    ids=[
        "empty",
        "no-signature",
        "empty-signature",
        "cut",
        "longer",
        "changed",
        "letters",
        "surrogate",
        "null",
        "another-secret",
        "another-purpose",
    ],
)
def test_a_link_that_is_not_ours_is_refused(forged: str) -> None:
    with pytest.raises(BadLink) as raised:
        LINKS.key(forged)
    assert KEY not in str(raised.value)


@given(st.text())
def test_any_text_is_a_bad_link_and_nothing_else(text: str) -> None:
    with pytest.raises(BadLink):
        LINKS.key(text)


def test_a_link_works_for_as_long_as_it_is_known_whose_it_is(monkeypatch: pytest.MonkeyPatch) -> None:
    assert EMAIL_LOGS.retention is not None
    assert EMAIL_LOGS.retention.keep == KEPT
    made = token()
    signed_at = datetime.now(UTC)
    for ago, works in ((KEPT - timedelta(minutes=1), True), (KEPT + timedelta(minutes=1), False)):
        monkeypatch.setattr(TimestampSigner, "get_timestamp", lambda _, ago=ago: int((signed_at + ago).timestamp()))
        if works:
            assert LINKS.key(made) == KEY
        else:
            with pytest.raises(BadLink):
                LINKS.key(made)


def test_unsubscribing_twice_creates_the_same_receipt() -> None:
    now = datetime(2026, 1, 31, 12, tzinfo=UTC)
    first, second = unsubscribed(KEY, now), unsubscribed(KEY, now + timedelta(seconds=3))
    assert first.id == second.id
    assert (first.data.channel, first.data.kind, first.data.key) == ("email", "unsubscribed", KEY)
    assert DeliveryReceived.model_validate(first.payload()) == first.data


async def test_opening_the_page_changes_nothing_and_shows_one_button() -> None:
    reported = Reported()
    status, html = page(reported).look(token())
    outline = Outline(html)
    assert status == 200
    assert reported.receipts == []
    assert outline.texts["title"] == outline.texts["h1"] == "Unsubscribe from The Blog e-mails?"
    assert outline.all("html") == [{"lang": "en", "dir": "ltr"}]
    assert outline.all("form") == [{"method": "post"}]
    assert outline.all("button") == [{"type": "submit"}]
    assert len(outline.all("main")) == 1


async def test_pressing_the_button_reports_it() -> None:
    reported = Reported()
    status, html = await page(reported).press(token())
    assert status == 200
    assert Outline(html).texts["h1"] == "You have unsubscribed from The Blog e-mails"
    assert [receipt.data.key for receipt in reported.receipts] == [KEY]


async def test_a_bad_link_reports_nothing_and_says_what_to_do() -> None:
    reported = Reported()
    for status, html in (page(reported).look("bad"), await page(reported).press("bad")):
        assert status == 404
        assert Outline(html).texts["h1"] == "This link is no longer valid"
        assert "in your settings" in html
    assert reported.receipts == []


async def test_while_kafka_is_unavailable_the_page_asks_to_try_again() -> None:
    status, html = await page(Reported(NotPublished("TimeoutError"))).press(token())
    assert status == 503
    assert Outline(html).texts["h1"] == "Something went wrong"
    assert len(Outline(html).all("button")) == 1


def test_a_name_is_no_markup_and_nothing_is_loaded() -> None:
    _, html = page(site_name="<script>alert(1)</script>").look(token())
    outline = Outline(html)
    assert not outline.all("script")
    assert not [attributes for _, attributes in outline.tags if "src" in attributes]
    assert KEY not in html
