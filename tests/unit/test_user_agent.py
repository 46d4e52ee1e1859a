import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from enrich.user_agent import Device, device

REAL: dict[str, list[str]] = json.loads((Path(__file__).parents[1] / "data" / "user_agents.json").read_text())

CHROME = "AppleWebKit/537.36 (KHTML, like Gecko) Chrome/131.0.0.0"


@pytest.mark.parametrize("kind", ["mobile", "tablet", "desktop"])
def test_the_type_of_real_devices_is_recognised(kind: str) -> None:
    mistaken = [user_agent for user_agent in REAL[kind] if device(user_agent).type != kind]
    assert mistaken == []


@pytest.mark.parametrize(
    ("user_agent", "expected"),
    [
        (
            "Mozilla/5.0 (iPhone; CPU iPhone OS 17_4 like Mac OS X) AppleWebKit/605.1.15 (KHTML, like Gecko) "
            "Version/17.4 Mobile/15E148 Safari/604.1",
            Device("mobile", "iOS", "Mobile Safari"),
        ),
        (
            f"Mozilla/5.0 (Windows NT 10.0; Win64; x64) {CHROME} Safari/537.36",
            Device("desktop", "Windows", "Chrome"),
        ),
        (
            "Mozilla/5.0 (Android 14; Tablet; rv:132.0) Gecko/132.0 Firefox/132.0",
            Device("tablet", "Android", "Firefox Mobile"),
        ),
        (
            f"Mozilla/5.0 (Linux; Android 13; SM-X906C) {CHROME} Safari/537.36",
            Device("tablet", "Android", "Chrome"),
        ),
        (
            "Mozilla/5.0 (Linux; Android 9; AFTKA) AppleWebKit/537.36 (KHTML, like Gecko) Silk/112.5.1 like "
            "Chrome/112.0 Safari/537.36",
            Device("desktop", "Android", "Amazon Silk"),
        ),
        (
            "Mozilla/5.0 (SMART-TV; Linux; Tizen 7.0) AppleWebKit/537.36 Version/7.0 TV Safari/537.36",
            Device("desktop", "Tizen", "Safari"),
        ),
        (
            f"Mozilla/5.0 (Windows NT 10.0; Win64; x64; Xbox; Xbox Series X) {CHROME} Safari/537.36 Edge/44.18363.8131",
            Device("desktop", "Windows", "Edge"),
        ),
        ("", Device("desktop", "Other", "Other")),
        ("What is a user agent?", Device("desktop", "Other", "Other")),
    ],
)
def test_a_device_has_a_type_an_operating_system_and_a_browser(user_agent: str, expected: Device) -> None:
    assert device(user_agent) == expected


@given(st.text(st.characters()))
def test_no_text_is_too_strange_to_be_read(text: str) -> None:
    assert device(text).type in ("mobile", "tablet", "desktop")


def test_an_endless_user_agent_is_read_no_further_than_a_browser_writes() -> None:
    assert device("x" * 1_000_000 + "iPhone") == Device("desktop", "Other", "Other")
