"""The inbox of development: what it keeps, and what its pages say of it."""

import json
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from email.message import EmailMessage
from html.parser import HTMLParser
from pathlib import Path

import pytest
from aiohttp import web
from aiohttp.test_utils import TestClient, TestServer

from dev.inbox.mailbox import Mailbox
from dev.inbox.pages import ON_ONE_PAGE, Pages
from dev.inbox.push_messages import PushMessages

NOON = datetime(2026, 1, 31, 12, tzinfo=UTC)
Client = TestClient[web.Request, web.Application]
MARKUP = "<script>alert(1)</script>"


@pytest.fixture
def mailbox(tmp_path: Path) -> Mailbox:
    return Mailbox(tmp_path / "mails")


@pytest.fixture
def push_file(tmp_path: Path) -> Path:
    return tmp_path / "push.jsonl"


@pytest.fixture
async def client(mailbox: Mailbox, push_file: Path) -> AsyncIterator[Client]:
    pages = Pages(mailbox, PushMessages(push_file))
    async with TestClient(TestServer(pages.application())) as browser:
        yield browser


def written(subject: str = "Hello", text: str = "Hello there", html: str | None = None) -> bytes:
    message = EmailMessage()
    message["From"] = "The Blog <blog@blog.example>"
    message["To"] = "Ada <ada@mail.example>"
    message["Subject"] = subject
    message["Message-ID"] = "<0123@blog.example>"
    message.set_content(text)
    if html is not None:
        message.add_alternative(html, subtype="html")
    return message.as_bytes()


def add(mailbox: Mailbox, content: bytes, to: str = "ada@mail.example", seconds: int = 0) -> str:
    return mailbox.add("blog@blog.example", [to], content, NOON + timedelta(seconds=seconds))


def push_line(**changes: object) -> str:
    message = {
        "at": NOON.isoformat(),
        "provider": "fcm",
        "key": "0123",
        "platform": "android",
        "token": "device-token",
        "title": "Ada liked your post",
        "body": "“Types”",
        "url": "https://blog.example/posts/types",
        "data": {"type": "post_liked"},
        "expiresAt": None,
        "urgent": False,
    }
    return json.dumps({**message, **changes}) + "\n"


def write(push_file: Path, *lines: str) -> None:
    push_file.write_text("".join(lines))


class Tags(HTMLParser):
    """The tags of a page, with their attributes, and what is written between them."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.found: list[tuple[str, dict[str, str | None]]] = []
        self.texts: list[str] = []
        self.feed(page)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.found.append((tag, dict(attrs)))

    def handle_data(self, data: str) -> None:
        if data.strip():
            self.texts.append(" ".join(data.split()))

    def named(self, name: str) -> list[dict[str, str | None]]:
        return [attributes for tag, attributes in self.found if tag == name]


async def page(client: Client, path: str, status: int = 200) -> Tags:
    answer = await client.get(path)
    assert answer.status == status
    return Tags(await answer.text())


def test_a_mail_stays_byte_for_byte_behind_its_envelope(mailbox: Mailbox) -> None:
    content = written()
    kept = mailbox.raw(add(mailbox, content))
    assert kept == b"Return-Path: <blog@blog.example>\r\nDelivered-To: ada@mail.example\r\n" + content


def test_mails_are_there_again_after_a_restart(mailbox: Mailbox, tmp_path: Path) -> None:
    ids = [add(mailbox, written(str(number)), seconds=number) for number in range(3)]
    again = Mailbox(tmp_path / "mails")
    assert [mail.id for mail in again.newest()] == ids[::-1]
    assert again.newest() == mailbox.newest()


def test_of_too_many_mails_the_oldest_are_deleted(tmp_path: Path) -> None:
    mailbox = Mailbox(tmp_path, kept=2)
    for number in range(4):
        add(mailbox, written(str(number)), seconds=number)
    assert [mail.subject for mail in mailbox.newest()] == ["3", "2"]
    assert len(list(tmp_path.iterdir())) == 2
    assert len(Mailbox(tmp_path, kept=1)) == len(list(tmp_path.iterdir())) == 1


def test_a_mail_is_found_by_a_part_of_its_recipients_address(mailbox: Mailbox) -> None:
    add(mailbox, written(), to="ada@mail.example")
    add(mailbox, written(), to="Grace.Hopper@mail.example")
    assert [mail.recipients for mail in mailbox.newest("grace")] == [("Grace.Hopper@mail.example",)]
    assert len(mailbox.newest(" MAIL ")) == 2


def test_what_somebody_else_put_into_the_directory_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "notes.eml").write_text("mine")
    assert len(Mailbox(tmp_path, kept=0)) == 0
    assert (tmp_path / "notes.eml").exists()


def test_a_mail_that_somebody_deleted_is_not_there(mailbox: Mailbox, tmp_path: Path) -> None:
    id_ = add(mailbox, written())
    (tmp_path / "mails" / f"{id_}.eml").unlink()
    assert mailbox.open(id_) is None
    assert mailbox.newest() == []


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"no header at all",
        b"Subject: =?unknown-8bit?q?=ff?=\r\nContent-Type: text/plain; charset=nonsense\r\n\r\n\xff\xfe",
        b"Subject: =?utf-8?b?!!!?=\r\nContent-Type: multipart/mixed\r\n\r\n",
        "Subject: Grüße\r\nTo: jö@mail.example\r\n\r\nüber".encode(),
        b"Subject: \xff\xfe\r\nContent-Type: text/html\r\nContent-Transfer-Encoding: base64\r\n\r\n%%%",
    ],
)
async def test_whatever_comes_is_shown(mailbox: Mailbox, client: Client, content: bytes) -> None:
    id_ = add(mailbox, content)
    await page(client, "/")
    await page(client, f"/mails/{id_}")
    await page(client, f"/mails/{id_}/raw")


def test_a_subject_in_utf_8_or_encoded_words_is_read(mailbox: Mailbox) -> None:
    add(mailbox, "Subject: Grüße\r\n\r\n".encode())
    add(mailbox, b"Subject: =?utf-8?b?R3LDvMOfZQ==?=\r\n\r\n", seconds=1)
    assert [mail.subject for mail in mailbox.newest()] == ["Grüße", "Grüße"]


async def test_markup_in_a_mail_is_text_on_every_page(mailbox: Mailbox, client: Client, push_file: Path) -> None:
    content = b"Subject: %s\r\nFrom: %s\r\nX-%s: 1\r\n\r\n%s" % ((MARKUP.encode(),) * 4)
    id_ = add(mailbox, content, to=f"{MARKUP}@mail.example")
    write(push_file, push_line(title=MARKUP, body=MARKUP, token=MARKUP, platform=MARKUP, url=MARKUP))
    for path in ("/", f"/mails/{id_}", "/push-messages", f"/?recipient={MARKUP}"):
        shown = await page(client, path)
        assert shown.named("script") == []
        assert MARKUP in " ".join(shown.texts), path
    raw = await client.get(f"/mails/{id_}/raw")
    assert raw.content_type == "text/plain"
    assert raw.headers["X-Content-Type-Options"] == "nosniff"


async def test_a_mails_html_is_in_a_frame_that_runs_and_loads_nothing(mailbox: Mailbox, client: Client) -> None:
    html = f"<html><head></head><body>{MARKUP}<img src='https://tracker.example/'></body></html>"
    id_ = add(mailbox, written(html=html))
    shown = await page(client, f"/mails/{id_}")
    [frame] = shown.named("iframe")
    assert frame["src"] == f"/mails/{id_}/html"
    assert frame["title"]
    assert frame["sandbox"] is not None
    assert "allow-scripts" not in frame["sandbox"]
    assert "allow-same-origin" not in frame["sandbox"]
    assert shown.named("script") == shown.named("img") == []
    answer = await client.get(f"/mails/{id_}/html")
    policy = answer.headers["Content-Security-Policy"]
    assert "default-src 'none'" in policy
    assert f"sandbox {frame['sandbox']}" in policy
    assert "img-src data:;" in policy
    assert await answer.text() == html.replace("<head>", '<head><base target="_blank">') + "\n"


async def test_a_mail_is_shown_with_headers_text_and_source(mailbox: Mailbox, client: Client) -> None:
    id_ = add(mailbox, written(text="See https://blog.example/posts/types"))
    shown = await page(client, f"/mails/{id_}")
    assert shown.named("iframe") == []
    assert "<0123@blog.example>" in shown.texts
    assert "https://blog.example/posts/types" in [link["href"] for link in shown.named("a")]
    assert f"/mails/{id_}/raw" in [link["href"] for link in shown.named("a")]
    assert (await client.get(f"/mails/{id_}/html")).status == 404


async def test_pages_say_when_there_is_nothing(client: Client, mailbox: Mailbox) -> None:
    assert "No mail yet" in (await page(client, "/")).texts
    assert "No push message yet" in (await page(client, "/push-messages")).texts
    add(mailbox, written())
    assert "No mail was sent to such an address." in (await page(client, "/?recipient=nobody")).texts


@pytest.mark.parametrize("path", ["/nothing", "/mails/20260131T120000000000-00000000", "/mails/..%2F..%2Fetc%2Fpasswd"])
async def test_what_is_not_there_is_said_on_a_page(client: Client, path: str) -> None:
    assert "Page not found" in (await page(client, path, status=404)).texts


async def test_many_mails_are_on_several_pages(mailbox: Mailbox, client: Client) -> None:
    for number in range(ON_ONE_PAGE + 1):
        add(mailbox, written(f"Mail {number}"), seconds=number)
    first, second = await page(client, "/?recipient=ada"), await page(client, "/?recipient=ada&page=2")
    assert f"Mail {ON_ONE_PAGE}" in first.texts
    assert "Mail 0" not in first.texts
    assert "Mail 0" in second.texts
    assert "/?recipient=ada&page=2" in [link["href"] for link in first.named("a")]
    assert "/?recipient=ada&page=1" in [link["href"] for link in second.named("a")]
    for asked in ("0", "-1", "99", "x", "9" * 1_000, "²"):
        await page(client, f"/?page={asked}")


async def test_a_list_that_is_followed_is_fetched_again_and_only_then(client: Client) -> None:
    assert not [tag for tag in (await page(client, "/")).named("meta") if tag.get("http-equiv") == "refresh"]
    assert [tag for tag in (await page(client, "/?follow=1")).named("meta") if tag.get("http-equiv") == "refresh"]


async def test_every_page_has_a_title_a_language_one_heading_and_loads_nothing_from_elsewhere(
    mailbox: Mailbox, client: Client, push_file: Path
) -> None:
    id_ = add(mailbox, written(html="<p>Hello</p>"))
    write(push_file, push_line())
    for path, status in (("/", 200), (f"/mails/{id_}", 200), ("/push-messages", 200), ("/nothing", 404)):
        shown = await page(client, path, status)
        assert shown.named("html") == [{"lang": "en"}]
        assert len(shown.named("title")) == len(shown.named("h1")) == len(shown.named("main")) == 1
        assert [link["href"] for link in shown.named("link")] == ["/style.css"]
        labelled = {label["for"] for label in shown.named("label")}
        assert all(entry["id"] in labelled for entry in shown.named("input"))
    style = await client.get("/style.css")
    assert style.content_type == "text/css"
    assert "url(" not in await style.text()


async def test_push_messages_are_listed_with_what_they_say(client: Client, push_file: Path) -> None:
    write(push_file, push_line(), push_line(title="Somebody signed in", urgent=True, url=None))
    shown = await page(client, "/push-messages")
    assert {"Ada liked your post", "Android", "Urgent", "device-token", "post_liked"} <= set(shown.texts)
    assert shown.texts.index("Somebody signed in") < shown.texts.index("Ada liked your post")


def test_lines_that_are_no_push_messages_are_left_out(push_file: Path) -> None:
    push_file.write_bytes(b"[1]\n\xff\n" + push_line().encode() + b'{"at": 1}\n{"title": "half a li')
    messages = PushMessages(push_file)
    assert [message.title for message in messages.newest()] == ["Ada liked your post"]
    with push_file.open("a") as file:
        file.write("\n" + push_line(title="Another"))
    assert [message.title for message in messages.newest()] == ["Another", "Ada liked your post"]
    push_file.unlink()
    assert messages.newest() == []


async def test_programs_can_ask_which_messages_arrived(mailbox: Mailbox, client: Client) -> None:
    add(mailbox, written())
    answer = await client.get("/message-ids")
    assert await answer.text() == "<0123@blog.example>\n"
