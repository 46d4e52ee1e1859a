"""The check of the whole configuration: every command reports all problems at once."""

from collections.abc import Mapping
from pathlib import Path

import pytest

from agents import configuration
from agents.configuration import ConfigurationError
from runtime.settings import ROOT, Settings
from tests.unit.test_command_line import run

SERVERS = {
    "INKSTREAM_KAFKA_BROKERS": "kafka-1:9092",
    "INKSTREAM_MONGO_URL": "mongodb://mongo-1/blog-platform?replicaSet=rs0",
    "INKSTREAM_POSTGRES_URL": "postgresql://inkstream:password@postgres/blog_platform",
    "INKSTREAM_REDIS_URL": "redis://redis:6379/0",
}
COMPLETE = {
    **SERVERS,
    "INKSTREAM_ENVIRONMENT": "production",
    "INKSTREAM_REPLICATION": "3",
    "INKSTREAM_IP_HASH_KEY": "0f3c1d7e5a9b2846c0e1f2a3b4c5d6e7",
    "INKSTREAM_UNSUBSCRIBE_KEY": "q1M0c0kzTm5jV2hHc0pYdQ",
    "INKSTREAM_SITE_NAME": "The Blog",
    "INKSTREAM_SITE_URL": "https://blog.example",
}
SENDING = {
    "INKSTREAM_EMAIL_PROVIDERS": "sendgrid,aws-ses",
    "INKSTREAM_EMAIL_SENDER": "news@blog.example",
    "INKSTREAM_SENDGRID_API_KEY": "SG.key",
    "INKSTREAM_SES_REGION": "eu-central-1",
}


@pytest.fixture(autouse=True)
def machine(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """A machine without credentials of AWS, without `.env`."""
    monkeypatch.chdir(tmp_path)
    for variable in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_PROFILE"):
        monkeypatch.delenv(variable, raising=False)
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(tmp_path / "none"))
    monkeypatch.setenv("AWS_CONFIG_FILE", str(tmp_path / "none"))


def told(monkeypatch: pytest.MonkeyPatch, environment: Mapping[str, str]) -> list[str]:
    """Return the problems that the check finds in an environment."""
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    try:
        configuration.check()
    except ConfigurationError as error:
        return error.lines
    return []


def test_a_complete_configuration_is_returned(monkeypatch: pytest.MonkeyPatch) -> None:
    assert told(monkeypatch, COMPLETE) == []
    assert configuration.check() == Settings()


def test_settings_credentials_files_and_declarations_are_reported_together(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    given = {
        "INKSTREAM_ENVIRONMENT": "production",
        "INKSTREAM_EMAIL_PROVIDERS": "sendgrid,aws-ses",
        "INKSTREAM_SES_REGION": "eu-central-1",
        "INKSTREAM_WEB_PORT": "many",
        "INKSTREAM_REDIS_URL": "http://redis",
        "INKSTREAM_NOTIFICATIONS_FILE": str(tmp_path / "rules.yaml"),
        "INKSTREAM_GEO_DATABASE": str(tmp_path / "geo.mmdb"),
        "INKSTREAM_FCM_SERVICE_ACCOUNT_FILE": str(tmp_path / "firebase.json"),
    }
    lines = told(monkeypatch, given)
    for words in (
        "INKSTREAM_WEB_PORT: ",
        "INKSTREAM_KAFKA_BROKERS must be set",
        "INKSTREAM_SITE_URL must be set",
        "set INKSTREAM_SENDGRID_API_KEY",
        "there are no credentials of AWS",
        "INKSTREAM_REDIS_URL: should be redis://",
        "INKSTREAM_NOTIFICATIONS_FILE: ",
        "INKSTREAM_GEO_DATABASE: ",
        "INKSTREAM_FCM_SERVICE_ACCOUNT_FILE: ",
        "INKSTREAM_REPLICATION: ",
    ):
        assert len([line for line in lines if words in line]) == 1, (words, lines)


@pytest.mark.parametrize("left_out", [*(name for name in COMPLETE if name != "INKSTREAM_ENVIRONMENT"), *SENDING])
def test_only_the_missing_setting_is_reported(monkeypatch: pytest.MonkeyPatch, left_out: str) -> None:
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "AKIAEXAMPLE")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "hush-hush")
    lines = told(monkeypatch, {name: value for name, value in (COMPLETE | SENDING).items() if name != left_out})
    expected = left_out != "INKSTREAM_EMAIL_PROVIDERS"  # then nobody sends
    assert [left_out in line for line in lines] == [True] * expected


@pytest.mark.parametrize("command", [("worker",), ("bootstrap",), ("doctor",), ("verify", "counts"), ("topics",)])
def test_every_command_reports_the_same(command: tuple[str, ...]) -> None:
    given = {"INKSTREAM_ENVIRONMENT": "production", "INKSTREAM_EMAIL_PROVIDERS": "aws-ses"}
    ended = run(*command, **given)
    assert ended.returncode == 2
    assert "Traceback" not in ended.stderr
    for words in (
        "INKSTREAM_KAFKA_BROKERS",
        "INKSTREAM_SES_REGION",
        "INKSTREAM_REPLICATION=3",
        "INKSTREAM_IP_HASH_KEY",
    ):
        assert words in ended.stderr


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ({}, ["would have 1 of the 3 replicas", "set INKSTREAM_REPLICATION=3"]),
        ({"INKSTREAM_REPLICATION": "2"}, ["would have 2 of the 3 replicas"]),
        ({"INKSTREAM_ALLOW_FEWER_REPLICAS": "true"}, []),
        ({"INKSTREAM_REPLICATION": "3"}, []),
        ({"INKSTREAM_ENVIRONMENT": "staging"}, []),
    ],
)
def test_fewer_than_three_replicas_are_accepted_in_production_by_name_alone(
    monkeypatch: pytest.MonkeyPatch, given: dict[str, str], words: list[str]
) -> None:
    without = {name: value for name, value in COMPLETE.items() if name != "INKSTREAM_REPLICATION"}
    text = "\n".join(told(monkeypatch, without | given))
    assert [word for word in words if word not in text] == []
    assert bool(text) == bool(words)


def test_a_topic_with_fewer_replicas_of_its_own_is_named(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    file = tmp_path / "topics.yaml"
    file.write_text((ROOT / "topics.yaml").read_text().replace("  searches:\n", "  searches:\n    replication: 2\n"))
    (line,) = told(monkeypatch, {**COMPLETE, "INKSTREAM_TOPICS_FILE": str(file)})
    assert "topics searches would have 2" in line
    assert "raise their `replication` in topics.yaml to 3" in line


@pytest.mark.parametrize(
    ("variable", "content"),
    [
        ("INKSTREAM_KAFKA_CA_FILE", None),
        ("INKSTREAM_KAFKA_CA_FILE", "no certificate"),
        ("INKSTREAM_KAFKA_CERTIFICATE_FILE", "no certificate"),
    ],
)
def test_a_missing_or_invalid_certificate_is_reported_with_its_setting(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, variable: str, content: str | None
) -> None:
    file = tmp_path / "file.pem"
    if content is not None:
        file.write_text(content)
    (line,) = told(monkeypatch, {"INKSTREAM_KAFKA_SECURITY_PROTOCOL": "SSL", variable: str(file)})
    assert line.startswith(f"{variable}: ")


def test_a_worker_that_sends_nothing_needs_no_credentials(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("INKSTREAM_AGENTS", "page-views")
    assert told(monkeypatch, COMPLETE | SENDING) == []
