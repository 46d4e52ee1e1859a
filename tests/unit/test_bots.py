import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from enrich.bots import Bot, recognise
from enrich.user_agent import device

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
    ("user_agent", "os"),
    [
        ("BlogApp/3.2 (Android 14; Pixel 8) okhttp/4.12.0", "Android"),
        ("com.example.blog/42 (Linux; U; Android 14; de_DE; Pixel 8; Cronet/119.0.6045.31)", "Android"),
        ("BlogApp/3.2 (Android 14) ktor-client/2.3.12", "Android"),
        ("BlogApp/3.2 (Android 14; SM-G991B) Ktor client", "Android"),
        ("BlogApp/3.2 android/14 Dart/3.4 (dart:io)", "Android"),
        ("BlogApp/3.2 (Android 14) react-native/0.74 axios/1.7.2", "Android"),
        ("BlogApp/3.2 (Android 14) volley/0", "Android"),
        ("Dalvik/2.1.0 (Linux; U; Android 14; Pixel 8 Build/UD1A.230803.041)", "Android"),
        ("BlogApp/42 CFNetwork/1494.0.7 Darwin/23.4.0", "iOS"),
        ("%E3%83%96%E3%83%AD%E3%82%B0/42 CFNetwork/1494.0.7 Darwin/23.4.0", "iOS"),
        ("Expo/1017746 CFNetwork/1496.0.7 Darwin/23.5.0", "iOS"),
        ("BlogApp/3.2 (com.example.blog; build:42; iOS 17.4.0) Alamofire/5.9.1", "iOS"),
        ("BlogApp/3.2 (iPhone; iOS 17.4; Scale/3.00) Dart/3.4 (dart:io)", "iOS"),
        ("BlogApp/3 (ios; 17.4) axios/1.7.2", "iOS"),
    ],
)
def test_the_platforms_own_app_is_a_person_whichever_library_it_uses(user_agent: str, os: str) -> None:
    assert recognise(user_agent) is None
    assert (device(user_agent).os, device(user_agent).type) == (os, "mobile")


@pytest.mark.parametrize(
    "system",
    [
        "watchOS 10.2", "AppleTV; tvOS 17.2", "tvOS 17", "visionOS 1.1", "macOS 14.4", "Windows 11",
        "Fire OS 8; KFTRWI", "Wear OS 4", "Chrome OS 120", "KaiOS 3.0", "Tizen 7.0", "webOS 6.0", "HarmonyOS 4.0",
        "OpenHarmony 5.0",
    ],
)  # fmt: skip
@pytest.mark.parametrize("library", ["", "okhttp/4.12.0", "axios/1.7.2", "Dart/3.4 (dart:io)"])
def test_the_platforms_own_app_is_a_person_on_every_system_that_it_can_name(system: str, library: str) -> None:
    assert recognise(f"BlogApp/3.2 ({system}) {library}") is None


def test_an_app_on_harmonyos_is_on_a_phone_unless_it_says_otherwise() -> None:
    assert device("BlogApp/3.2 (HarmonyOS 4.0)").type == "mobile"
    assert device("BlogApp/3.2 (OpenHarmony 5.0; Tablet)").type == "tablet"


@pytest.mark.parametrize(
    "user_agent",
    [
        "okhttp/4.12.0",
        "axios/1.7.2",
        "Dart/3.4 (dart:io)",
        "Ktor client",
        "ktor-client/2.3.12",
        "Alamofire/5.9.1",
        "CFNetwork/1494.0.7 Darwin/23.4.0",
        "python-requests/2.32.3",
        "curl/8.5.0",
        "Apache-HttpClient/4.5.14 (Java/17.0.9)",
        "node-fetch/1.0 (+https://github.com/bitinn/node-fetch)",
        "Go-http-client/2.0",
        "BlogScraper/1.0 okhttp/4.12.0",
        "BlogScraper/1.0 (Linux) okhttp/4.12.0",
        "BlogApp/3.2 (Android 14) python-requests/2.32.3",
        "SomeBot/1.0 (Android 14) okhttp/4.12.0",
    ],
)
def test_a_library_without_an_app_of_a_known_system_is_a_program(user_agent: str) -> None:
    assert recognise(user_agent) is not None


@pytest.mark.parametrize(
    "user_agent",
    [
        f"Mozilla/5.0 (Linux; Android 13; Spider 8) {CHROME} Mobile Safari/537.36",
        f"Mozilla/5.0 (Linux; Android 7.0; C Bot Tab 70) {CHROME} Safari/537.36",
        f"Mozilla/5.0 (Linux; Android 6.0; SMART 4G Speedy 5.0 Plus Build/MRA58K) {CHROME} Mobile Safari/537.36",
        f"Mozilla/5.0 (Linux; U; Android 4.2.2; ru-ru; CRONY-7021 Build/JDQ39) {CHROME} Safari/534.30",
        f"Mozilla/5.0 (Linux; Android 11; AUPO Zeus 10 Pro) {CHROME} Safari/537.36",
        "BlogApp/3.2 (Android 14; Spider 8) okhttp/4.12.0",
        "BlogApp/3.2 (Linux; Android 7.0; C Bot Tab 70) okhttp/4.12.0",
        "Dalvik/2.1.0 (Linux; U; Android 13; Spider 8 Build/UD1A.230803.041)",
    ],
)
def test_a_phone_whose_model_sounds_like_a_crawler_is_a_persons(user_agent: str) -> None:
    assert recognise(user_agent) is None


@pytest.mark.parametrize(
    "user_agent",
    [
        f"Mozilla/5.0 (Linux; Android 6.0.1; Nexus 5X Build/MMB29P) {CHROME} Mobile (compatible; Googlebot/2.1)",
        f"Mozilla/5.0 (Linux; Android 5.0) {CHROME} Mobile Safari/537.36 (compatible; Bytespider; x@example.com)",
        f"Mozilla/5.0 (Windows NT 10.0; Win64; x64) {CHROME} Safari/537.36; Selenium",
        f"Mozilla/5.0 (Windows NT 10.0; Win64; x64) {CHROME} Safari/537.36 Playwright/1.40.0",
        f"Mozilla/5.0 (X11; Linux x86_64; Splunk Synthetics) {CHROME} Safari/537.36",
        "Mozilla/5.0 (X11; Linux x86_64) AppleWebKit/537.36 (KHTML, like Gecko; compatible; pageburst) Chrome/139",
        "Mozilla/5.0 (compatible; SiteAuditor/1.0)",
        "Mozilla/5.0 (Exchange check)",
        "Mozilla/5.0 (compatible; Detect; me[at]new.example)",
    ],
)
def test_a_program_in_the_clothes_of_a_browser_is_told_by_what_it_adds(user_agent: str) -> None:
    assert recognise(user_agent) is not None


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
