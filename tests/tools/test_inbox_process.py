"""The inbox as a process: what is sent by SMTP is on its page, and stays there."""

import smtplib
import socket
import urllib.error
import urllib.request
from collections.abc import Iterator
from email.message import EmailMessage
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from dev.ports import Ports
from dev.servers.inbox import Inbox
from dev.servers.server import ServerError
from notifications.messages import Email, Push
from notifications.outcome import Sent
from providers.registry import Providers
from runtime.settings import Settings


@pytest.fixture
def inbox(tmp_path: Path) -> Iterator[Inbox]:
    ports = Ports.free()
    server = Inbox(tmp_path, ports.inbox, ports.smtp)
    server.start()
    yield server
    server.stop()


def read(inbox: Inbox, path: str) -> str:
    with urllib.request.urlopen(f"{inbox.url}{path}", timeout=5) as answer:
        page: str = answer.read().decode()
        return page


def send(inbox: Inbox, subject: str, *recipients: str) -> None:
    message = EmailMessage()
    message["From"] = "blog@blog.example"
    message["To"] = ", ".join(recipients)
    message["Subject"] = subject
    message.set_content("Hello")
    with smtplib.SMTP("127.0.0.1", inbox.ports["smtp"], timeout=5) as server:
        assert server.send_message(message) == {}


def test_a_mail_that_is_sent_is_on_the_page_and_stays_after_a_restart(inbox: Inbox) -> None:
    assert "No mail yet" in read(inbox, "/")
    send(inbox, "To both of you", "ada@mail.example", "grace@mail.example")
    assert "To both of you" in read(inbox, "/")
    assert "To both of you" in read(inbox, "/?recipient=grace")
    inbox.kill()
    with pytest.raises(urllib.error.URLError):
        read(inbox, "/")
    inbox.start()
    assert "To both of you" in read(inbox, "/?recipient=ada")
    inbox.stop()
    inbox.forget()
    inbox.start()
    assert "No mail yet" in read(inbox, "/")


async def test_what_the_worker_sends_by_the_settings_of_development_is_on_the_page(inbox: Inbox) -> None:
    values = {name.removeprefix("INKSTREAM_").lower(): value for name, value in inbox.environment.items()}
    providers = Providers.of(Settings.model_validate(values))
    email = Email(
        key="0" * 32,
        to="ädä@mail.example",
        sender="The Blog <blog@blog.example>",
        subject="Grüße",
        text="Hello",
        html="<p>Hello</p>",
        unsubscribe_url="https://blog.example/unsubscribe",
    )
    push = Push(key="1" * 32, token="token", platform="ios", title="A push message", body="Hello", url=None)
    route = providers.push(push.platform, push.token)
    assert route is not None
    assert isinstance(await providers.email[0].provider.send(email), Sent)
    assert isinstance(await route.provider.send(push), Sent)
    await providers.close()
    assert "Grüße" in read(inbox, "/?recipient=ädä".replace("ä", "%C3%A4"))
    assert read(inbox, "/message-ids") == f"<{'0' * 32}@blog.example>\n"
    assert "A push message" in read(inbox, "/push-messages")


def test_a_taken_port_for_mail_is_named_with_the_setting_that_moves_it(tmp_path: Path) -> None:
    with socket.socket() as stranger:
        stranger.bind(("127.0.0.1", 0))
        stranger.listen()
        port = stranger.getsockname()[1]
        with pytest.raises(ServerError, match=f"port {port}.*INKSTREAM_STACK_SMTP_PORT"):
            Inbox(tmp_path, Ports.free().inbox, port).start()


def test_it_ends_at_once_when_it_is_stopped_while_a_browser_is_connected(inbox: Inbox) -> None:
    address = urlsplit(inbox.url)
    with socket.create_connection((address.hostname or "", address.port or 0)) as browser:
        browser.sendall(b"GET / HTTP/1.1\r\nHost: inbox\r\n\r\n")
        assert browser.recv(4)
        inbox.stop()
        assert not inbox.is_running
