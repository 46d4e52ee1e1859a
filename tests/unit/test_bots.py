import json
import time
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from enrich.bots import Bot, recognise

DATA = Path(__file__).parents[1] / "data"
PEOPLE: dict[str, list[str]] = json.loads((DATA / "user_agents.json").read_text())
PROGRAMS: list[str] = json.loads((DATA / "crawlers.json").read_text())

CHROME = "AppleWebKit/537.36 (KHTML, like Gecko) Chrome/131.0.0.0"
IPHONE = "Mozilla/5.0 (iPhone; CPU iPhone OS 18_1 like Mac OS X) AppleWebKit/605.1.15"


def test_nobody_who_uses_a_browser_is_taken_for_a_program() -> None:
    mistaken = {user_agent: bot for kind in PEOPLE.values() for user_agent in kind if (bot := recognise(user_agent))}
    assert mistaken == {}


def test_most_programs_are_recognised() -> None:
    missed = [user_agent for user_agent in PROGRAMS if recognise(user_agent) is None]
    assert len(missed) / len(PROGRAMS) < 0.05, missed


@pytest.mark.parametrize(
    ("user_agent", "expected"),
    [
        ("Mozilla/5.0 (compatible; Googlebot/2.1; +http://www.google.com/bot.html)", Bot("crawlerdetect", "Googlebot")),
        ("python-requests/2.32.3", Bot("crawlerdetect", "python-requests")),
        ("Mozilla/5.0 (compatible; Yandex/1.0)", Bot("crawlerdetect", "Yandex")),
        (f"Mozilla/5.0 (X11; Linux x86_64) {CHROME} HeadlessChrome/131.0.0.0", Bot("crawlerdetect", "Headless")),
        (f"Mozilla/5.0 (X11; Linux x86_64) {CHROME} (+https://new.example/x)", Bot("contact", "https://new.example/x")),
        ("Mozilla/5.0 (compatible; New; me@new.example)", Bot("contact", "me@new.example")),
        ("Datadog/1.0", Bot("not-a-browser", "Datadog")),
        ("", Bot("no-user-agent", None)),
        ("  \t", Bot("no-user-agent", None)),
    ],
)
def test_a_program_is_told_by_the_rule_that_recognised_it(user_agent: str, expected: Bot) -> None:
    assert recognise(user_agent) == expected


@pytest.mark.parametrize(
    "user_agent",
    [
        f"Mozilla/5.0 (Linux; Android 9; CUBOT_X18_Plus) {CHROME} Mobile Safari/537.36",
        f"Mozilla/5.0 (Linux; Android 14; wv) {CHROME} Mobile Safari/537.36 [FB_IAB/FB4A;FBAV/491.0.0.56.81;]",
        f"Mozilla/5.0 (Linux; Android 15; wv) {CHROME} Mobile Safari/537.36 Instagram 406.0.0.58.159 Android (35/15)",
        f"Mozilla/5.0 (Linux; Android 14; wv) {CHROME} Mobile Safari/537.36 musical_ly_2023 BytedanceWebview/d8a21c6",
        f"Mozilla/5.0 (Linux; Android 14) {CHROME} Mobile Safari/537.36 (Ecosia android@131.0.0.0)",
        f"Mozilla/5.0 (Macintosh; Intel Mac OS X 10_15_7) {CHROME} Safari/537.36 OPR/117.0.0.0",
        f"{IPHONE} Mobile/15E148 MicroMessenger/8.0.49",
        f"{IPHONE} Mobile/15E148 Safari Line/14.16.0",
        f"{IPHONE} GSA/342.0 Mobile/15E148 Safari/604.1",
        "Opera/9.80 (Android; Opera Mini/36.2.2254/119.132; U; id) Presto/2.12.423 Version/12.16",
        "BlogApp/2.1 (iPhone; iOS 17.4; Scale/3.00)",
    ],
)
def test_the_browsers_inside_apps_and_the_platforms_own_app_are_people(user_agent: str) -> None:
    assert recognise(user_agent) is None


@given(st.text(st.characters()))
def test_no_text_is_too_strange_to_be_judged(text: str) -> None:
    recognise(text)


def test_a_user_agent_made_to_be_slow_is_not() -> None:
    started = time.process_time()
    for letter in "abcdefghij":
        recognise(letter * 100_000)
    assert time.process_time() - started < 0.5
