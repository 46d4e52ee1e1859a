"""`inkstream settings`: how settings are shown, and the page that describes them."""

from pathlib import Path

import pytest
from pydantic import SecretStr

from ops.commands.settings import EXAMPLES, MASK, effective_settings, masked_url, page, shown, variable_of
from runtime.settings import NEEDED_ELSEWHERE, ROOT, Settings


@pytest.mark.parametrize(
    ("url", "masked"),
    [
        ("redis://127.0.0.1:16379/0", "redis://127.0.0.1:16379/0"),
        ("redis://:secret@redis/0", f"redis://:{MASK}@redis/0"),
        (
            "postgresql://ada:secret@db:5432/blog?sslmode=require",
            f"postgresql://ada:{MASK}@db:5432/blog?sslmode=require",
        ),
        ("postgresql://ada:s/ec@ret@db/blog", f"postgresql://ada:{MASK}@db/blog"),
        ("postgresql://db/blog?user=ada&password=secret", f"postgresql://db/blog?user=ada&password={MASK}"),
        ("host=db user=ada password='se cret' dbname=blog", f"host=db user=ada password={MASK} dbname=blog"),
        (
            "mongodb://ada:secret@a,b/x?tls=true&tlsCertificateKeyFilePassword=secret",
            f"mongodb://ada:{MASK}@a,b/x?tls=true&tlsCertificateKeyFilePassword={MASK}",
        ),
        ("mongodb+srv://ada@cluster/x", "mongodb+srv://ada@cluster/x"),
    ],
)
def test_only_the_secrets_of_a_url_are_masked(url: str, masked: str) -> None:
    assert masked_url(url) == masked
    assert shown("mongo_url", SecretStr(url)) == masked


def test_a_secret_is_shown_as_stars_however_long_it_is() -> None:
    assert shown("ip_hash_key", SecretStr("x")) == MASK


def test_each_setting_says_where_it_comes_from(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / ".env").write_text("INKSTREAM_WEB_PORT=1\nINKSTREAM_LOG_LEVEL=debug\n")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("INKSTREAM_WEB_PORT", "8080")
    monkeypatch.setenv("INKSTREAM_AGENTS", "searches, page-views")
    monkeypatch.delenv("INKSTREAM_LOG_FORMAT", raising=False)
    found = {setting.variable: (setting.value, setting.source) for setting in effective_settings(Settings())}
    assert found["INKSTREAM_WEB_PORT"] == ("8080", "environment")
    assert found["INKSTREAM_AGENTS"] == ("searches,page-views", "environment")
    assert found["INKSTREAM_LOG_LEVEL"] == ("debug", ".env")
    assert found["INKSTREAM_LOG_FORMAT"] == ("auto", "default")
    assert found["INKSTREAM_TOPICS_FILE"][0] == "topics.yaml"


@pytest.mark.parametrize("name", Settings.model_fields)
def test_the_example_of_each_setting_is_valid(name: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)
    needed = {name: EXAMPLES[name] for name in ("ip_hash_key", "unsubscribe_key")}
    for group in ("kafka_sasl_", "ses_region", "sendgrid_", "apns_", "web_push_", *NEEDED_ELSEWHERE):
        needed |= {other: example for other, example in EXAMPLES.items() if other.startswith(group)}
    for other in ("kafka_security_protocol", "kafka_sasl_mechanism"):
        needed[other] = EXAMPLES[other]
    for variable, value in {**needed, name: EXAMPLES[name]}.items():
        monkeypatch.setenv(variable_of(variable), value)
    assert getattr(Settings(), name) is not None


def test_the_page_about_settings_is_up_to_date() -> None:
    written = (ROOT / "docs" / "settings.md").read_text(encoding="utf-8")
    assert written == page(), "run `inkstream settings --markdown > docs/settings.md`"


def test_the_page_contains_no_path_of_this_machine() -> None:
    assert str(ROOT) not in page()
