"""`inkstream notifications preview`: the text of each type, without servers."""

import sys
from pathlib import Path

import pytest
import yaml

from runtime.settings import ROOT
from tests.unit.test_command_line import run

TYPES = yaml.safe_load((ROOT / "notifications.yaml").read_text())["rules"]


def test_all_types_are_shown_on_their_channels() -> None:
    ended = run("notifications", "preview", INKSTREAM_SITE_NAME="Ink & Co", INKSTREAM_SITE_URL="https://ink.example")
    assert ended.returncode == 0, ended.stderr
    shown = {part.partition(":")[0]: part for part in ended.stdout.split("\n\n") if not part.startswith(" ")}
    assert list(shown) == list(TYPES)
    assert "https://ink.example/posts/" in ended.stdout
    assert "Ink & Co" in ended.stdout


def test_one_type_is_shown_in_the_application_as_mail_and_as_push_message() -> None:
    lines = run("notifications", "preview", "new_follower").stdout.splitlines()
    assert lines[0] == "new_follower: on user.followed, low, in the application, e-mail, push"
    assert [line.strip() for line in lines if line.startswith("  ") and not line.startswith("   ")] == [
        "in the application",
        "e-mail",
        "push",
        "grouped",
    ]
    assert any(line.startswith("    Subject: ") for line in lines)
    assert any("and 9 others started following you" in line for line in lines)


def test_a_type_without_the_email_channel_shows_no_mail() -> None:
    assert "Subject:" not in run("notifications", "preview", "post_liked").stdout
    ended = run("notifications", "preview", "post_liked", "--open")
    assert ended.returncode == 2
    assert "post_liked is not sent by e-mail" in ended.stderr


def test_an_unknown_type_is_reported_with_the_nearest() -> None:
    ended = run("notifications", "preview", "comment_replay")
    assert ended.returncode == 2
    assert "unknown type comment_replay; did you mean comment_reply?" in ended.stderr


def test_the_html_of_a_mail_is_written_to_a_file(tmp_path: Path) -> None:
    file = tmp_path / "mail.html"
    ended = run("notifications", "preview", "comment_reply", "--html", str(file))
    assert (ended.returncode, ended.stdout) == (0, f"Wrote {file}.\n")
    assert file.read_text(encoding="utf-8").lstrip().startswith("<!DOCTYPE html>")
    ended = run("notifications", "preview", "comment_reply", "--html", str(tmp_path / "none" / "mail.html"))
    assert ended.returncode == 2
    assert "can't be written: No such file or directory" in ended.stderr


def test_the_html_of_a_mail_opens_in_the_browser_that_is_set(tmp_path: Path) -> None:
    seen = tmp_path / "seen"
    browser = tmp_path / "browser"
    browser.write_text(f"#!{sys.executable}\nimport sys; open({str(seen)!r}, 'w').write(sys.argv[1])\n")
    browser.chmod(0o700)
    file = tmp_path / "mail.html"
    ended = run("notifications", "preview", "comment_reply", "--html", str(file), "--open", BROWSER=f"{browser} %s")
    assert ended.returncode == 0, ended.stderr
    assert seen.read_text() == file.as_uri()


@pytest.mark.parametrize("option", ["--open", "--html=mail.html"])
def test_html_needs_one_type(option: str) -> None:
    ended = run("notifications", "preview", option)
    assert ended.returncode == 2
    assert "need a TYPE" in ended.stderr


def test_an_error_in_the_rules_is_reported_with_its_line(tmp_path: Path) -> None:
    file = tmp_path / "notifications.yaml"
    file.write_text((ROOT / "notifications.yaml").read_text().replace("priority: high", "priority: highest", 1))
    ended = run("notifications", "preview", INKSTREAM_NOTIFICATIONS_FILE=str(file))
    assert ended.returncode == 2
    assert ended.stderr.startswith("notifications.yaml:")
