"""Settings of providers: what is missing or wrong is reported with its setting, and the rest is used."""

import json
from base64 import b64encode
from datetime import UTC, datetime
from pathlib import Path
from secrets import token_bytes, token_hex, token_urlsafe
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.serialization import BestAvailableEncryption, Encoding, NoEncryption, PrivateFormat
from prometheus_client import REGISTRY
from pydantic import SecretStr, ValidationError

from notifications.messages import Push
from notifications.outcome import Misconfigured, Outcome, Sent
from notifications.rate import Rate
from providers import registry
from providers.base import ProviderSettingsError
from providers.email.smtp import Smtp
from providers.push.apns import Apns
from providers.push.fcm import Fcm
from providers.push.file import PushFile
from providers.push.web_push import WebPush
from providers.registry import Providers, Route
from runtime.settings import NEEDED_ELSEWHERE, Settings

NOW = datetime.now(UTC)
REFUSED = Misconfigured("401", "wrong key")
EC_KEY = ec.generate_private_key(ec.SECP256R1())
EC_PEM = EC_KEY.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()).decode()
RSA_PEM = (
    rsa.generate_private_key(65_537, 2_048).private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()).decode()
)
LOCKED_PEM = EC_KEY.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, BestAvailableEncryption(b"hush")).decode()
PRODUCTION: dict[str, Any] = {
    "environment": "production",
    "kafka_brokers": "kafka-1:9092,kafka-2:9092,kafka-3:9092",
    "mongo_url": "mongodb://mongo-1,mongo-2,mongo-3/blog-platform?replicaSet=rs0",
    "postgres_url": "postgresql://inkstream:password@postgres/blog_platform",
    "redis_url": "redis://redis:6379/0",
    "site_name": "The Blog",
    "ip_hash_key": "0f3c1d7e5a9b2846c0e1f2a3b4c5d6e7",
    "unsubscribe_key": "q1M0c0kzTm5jV2hHc0pYdQ",
    "site_url": "https://blog.example",
    "email_sender": "The Blog <news@blog.example>",
}
APNS: dict[str, Any] = {"apns_key_id": "ABC123DEFG", "apns_team_id": "DEF123GHIJ", "apns_topic": "example.blog"}
WEB: dict[str, Any] = {"web_push_private_key": EC_PEM, "web_push_subject": "mailto:push@blog.example"}


@pytest.fixture(autouse=True)
def nothing_from_outside(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Keep settings and credentials of the machine out of the tests."""
    monkeypatch.chdir(tmp_path)
    for variable in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN", "AWS_PROFILE"):
        monkeypatch.delenv(variable, raising=False)
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(tmp_path / "no-credentials"))
    monkeypatch.setenv("AWS_CONFIG_FILE", str(tmp_path / "no-configuration"))


def problem(**changes: Any) -> str:
    """Return what the settings say of themselves."""
    with pytest.raises(ValidationError) as caught:
        Settings(**changes)
    [detail] = caught.value.errors()
    return ".".join(map(str, detail["loc"])) + detail["msg"].removeprefix("Value error, ")


def service_account(path: Path, **changes: str) -> Path:
    content = {
        "type": "service_account",
        "project_id": "blog",
        "private_key_id": "k1",
        "private_key": RSA_PEM,
        "client_email": "inkstream@blog.iam.example",
        "token_uri": "https://oauth2.googleapis.com/token",
    }
    path.write_text(json.dumps({name: value for name, value in (content | changes).items() if value}))
    return path


def subscription(host: str, name: str = "a") -> str:
    return json.dumps({"endpoint": f"https://{host}/{name}", "keys": {"p256dh": "x", "auth": "y"}})


def web(service: str, sent: Providers) -> Route[Push]:
    route = sent.push("web", subscription(service))
    assert route is not None
    return route


def in_metrics(provider: str) -> float | None:
    return REGISTRY.get_sample_value("inkstream_circuit_open", {"provider": provider})


# What the settings themselves say


def test_in_development_mail_goes_to_the_catcher_and_push_nowhere() -> None:
    settings = Settings()
    assert settings.email_providers == ("smtp",)
    sent = Providers.of(settings)
    assert [route.name for route in sent.email] == ["smtp"]
    assert sent.push("android", "token") is None


def test_outside_of_development_nothing_is_sent_by_default() -> None:
    settings = Settings(**PRODUCTION)
    assert settings.email_providers == ()
    assert Providers.of(settings).email == ()


@pytest.mark.parametrize("name", ["ip_hash_key", "unsubscribe_key"])
@pytest.mark.parametrize(
    ("key", "weakness"),
    [
        ("development-only-key", "is the public development key"),
        ("   ", "is empty"),
        ("\t\n", "is empty"),
        ("x", "is too short: it has 1 characters, at least 22 are required"),
        ("a key of our own", "is too short"),
        ("0f3c1d7e5a9b2846c0e1f2a3b4c5d6", "is too short: it has 30 characters, at least 32 are required"),
        ("0f3c1d7e5a9b2846c0e1f2a3b4c5d6e7\n", "starts or ends with white space"),
        ("a" * 64, "repeats a few characters"),
        ("abc" * 20, "repeats a few characters"),
        ("0123456789abcdef" * 4, "repeats a few characters"),
        ("changeme-changeme-changeme", "repeats a few characters"),
        ("qwertzuiopasdfgh!" * 2, "repeats a few characters"),
        ("Development-Only-Key", "is the public development key"),
        ("development-only-key-of-production", "is the public development key"),
        ("$(openssl rand -hex 32)", "is a placeholder that was not replaced"),
        ("${INKSTREAM_IP_HASH_KEY}", "is a placeholder that was not replaced"),
        ("<32 random bytes in hexadecimal>", "is a placeholder that was not replaced"),
    ],
)
@pytest.mark.parametrize("environment", ["production", "staging"])
def test_a_weak_key_is_refused_outside_of_development(name: str, key: str, weakness: str, environment: str) -> None:
    told = problem(**{**PRODUCTION, "environment": environment, name: key})
    assert told.startswith(f"INKSTREAM_{name.upper()} {weakness}")
    assert f"in {environment}, " in told
    assert "Generate one with `openssl rand -hex 32`." in told
    assert len(key) < 3 or key not in told


@pytest.mark.parametrize("name", ["ip_hash_key", "unsubscribe_key"])
@pytest.mark.parametrize("environment", ["development", "production"])
def test_an_empty_key_is_refused_everywhere(name: str, environment: str) -> None:
    assert problem(**{**PRODUCTION, "environment": environment, name: ""}).startswith(name)


@pytest.mark.parametrize("bytes_", [16, 32, 64])
def test_a_random_key_is_accepted_in_every_notation(bytes_: int) -> None:
    for _ in range(100):
        written = (token_hex(bytes_), token_urlsafe(bytes_), b64encode(token_bytes(bytes_)).decode())
        for one, other in zip(written, (*written[1:], written[0]), strict=True):
            Settings(**{**PRODUCTION, "ip_hash_key": one, "unsubscribe_key": other})


def test_in_development_any_key_is_accepted() -> None:
    Settings(ip_hash_key="x", unsubscribe_key="x")


def test_one_secret_for_two_purposes_is_refused() -> None:
    key = PRODUCTION["ip_hash_key"]
    told = problem(**{**PRODUCTION, "unsubscribe_key": key})
    assert told.startswith("INKSTREAM_IP_HASH_KEY is the same as INKSTREAM_UNSUBSCRIBE_KEY; ")
    assert "\n" not in told
    for other in ("mailgun_signing_key", "sendgrid_api_key", "kafka_sasl_password"):
        told = problem(**{**PRODUCTION, other: key})
        assert told.startswith(f"INKSTREAM_IP_HASH_KEY is the same as INKSTREAM_{other.upper()}; ")
        assert key not in told


def test_a_signing_key_that_can_be_guessed_is_refused() -> None:
    told = problem(**{**PRODUCTION, "mailgun_signing_key": "x"})
    assert told.startswith("INKSTREAM_MAILGUN_SIGNING_KEY is too short")
    assert "Copy the HTTP webhook signing key" in told


@pytest.mark.parametrize("name", ["sendgrid_api_key", "mailgun_api_key", "mailgun_signing_key", "web_push_private_key"])
def test_a_secret_of_white_space_alone_is_not_set(name: str) -> None:
    assert getattr(Settings(**{**PRODUCTION, name: " \t"}), name) is None


def test_all_problems_are_reported_at_once() -> None:
    told = problem(environment="production", kafka_security_protocol="SASL_SSL", email_providers="sendgrid")
    variables = [line.split(" ")[0].split("=")[0] for line in told.split("\n")]
    assert variables == [
        "INKSTREAM_KAFKA_BROKERS",
        "INKSTREAM_MONGO_URL",
        "INKSTREAM_POSTGRES_URL",
        "INKSTREAM_REDIS_URL",
        "INKSTREAM_SITE_URL",
        "INKSTREAM_SITE_NAME",
        "INKSTREAM_IP_HASH_KEY",
        "INKSTREAM_UNSUBSCRIBE_KEY",
        "INKSTREAM_KAFKA_SECURITY_PROTOCOL",
        "INKSTREAM_EMAIL_PROVIDERS",
        "INKSTREAM_EMAIL_SENDER",
    ]


def test_wrong_values_do_not_hide_missing_settings() -> None:
    with pytest.raises(ValidationError) as caught:
        Settings(environment="prod", partitions="x", email_providers="sendgrid,hotmail", site_url="blog.example")
    details = {".".join(map(str, detail["loc"])): detail["msg"] for detail in caught.value.errors()}
    assert set(details) == {"environment", "partitions", "email_providers.1", "site_url", ""}
    assert "names sendgrid: set INKSTREAM_SENDGRID_API_KEY" in details[""]
    assert "INKSTREAM_IP_HASH_KEY is the public development key; in production" in details[""]
    assert "INKSTREAM_SITE_URL" not in details[""], "told once, as wrong"


@pytest.mark.parametrize("name", NEEDED_ELSEWHERE)
@pytest.mark.parametrize("environment", ["staging", "production"])
def test_a_development_default_is_refused_elsewhere(name: str, environment: str) -> None:
    given = {**PRODUCTION, "environment": environment}
    del given[name]
    assert problem(**given).startswith(f"INKSTREAM_{name.upper()} must be set in {environment}: ")
    assert Settings(**{**given, "environment": "development"})


@pytest.mark.parametrize("name", NEEDED_ELSEWHERE)
def test_a_default_is_accepted_elsewhere_if_it_is_set(name: str) -> None:
    Settings(**{**PRODUCTION, name: Settings.model_fields[name].default})


@pytest.mark.parametrize(
    ("given", "told"),
    [
        ({"kafka_sasl_username": "inkstream"}, "INKSTREAM_KAFKA_SASL_USERNAME has no effect"),
        ({"kafka_sasl_password": "hush-hush"}, "INKSTREAM_KAFKA_SASL_PASSWORD has no effect"),
        ({"kafka_ca_file": "ca.pem"}, "INKSTREAM_KAFKA_CA_FILE has no effect"),
        ({"kafka_key_file": "a.key", "kafka_security_protocol": "SASL_PLAINTEXT"}, "INKSTREAM_KAFKA_KEY_FILE has no"),
    ],
)
def test_options_that_the_protocol_does_not_use_are_refused(given: dict[str, Any], told: str) -> None:
    assert told in problem(**given)
    assert "hush" not in problem(**given)


@pytest.mark.parametrize("brokers", ["kafka-1", "kafka-1:9092,kafka-2", "kafka://kafka:9092", "", "k:port", "::1:9092"])
def test_an_invalid_list_of_brokers_is_reported(brokers: str) -> None:
    assert problem(kafka_brokers=brokers).startswith("kafka_brokersshould be like kafka-1:9092,kafka-2:9092")


@pytest.mark.parametrize("brokers", ["[::1]:9092", "kafka-1:9092, kafka-2:9092", "10.0.0.1:9092"])
def test_brokers_are_hosts_with_ports(brokers: str) -> None:
    assert Settings(kafka_brokers=brokers)


@pytest.mark.parametrize(
    ("provider", "needed"),
    [
        ("sendgrid", "INKSTREAM_SENDGRID_API_KEY"),
        ("aws-ses", "INKSTREAM_SES_REGION"),
        ("mailgun", "INKSTREAM_MAILGUN_API_KEY"),
    ],
)
def test_a_provider_without_its_required_settings_is_reported(provider: Any, needed: str) -> None:
    first, *_ = problem(email_providers=("smtp", provider)).splitlines()
    assert first == f"INKSTREAM_EMAIL_PROVIDERS names {provider}: set {needed}, or remove {provider}"


def test_a_key_that_is_empty_is_not_set() -> None:
    assert "INKSTREAM_SENDGRID_API_KEY" in problem(email_providers=("sendgrid",), sendgrid_api_key="")


def test_the_development_mail_server_is_not_the_default_elsewhere() -> None:
    assert "set INKSTREAM_SMTP_URL" in problem(**PRODUCTION, email_providers=("smtp",))
    assert Settings(**PRODUCTION, email_providers=("smtp",), smtp_url="smtp://mail.example")


@pytest.mark.parametrize("name", ["email_sender", "site_url"])
def test_the_sender_and_the_site_are_required_outside_of_development(name: str) -> None:
    given = {**PRODUCTION, "email_providers": ("smtp",), "smtp_url": "smtps://mail.example"}
    del given[name]
    assert problem(**given).startswith(f"INKSTREAM_{name.upper()} must be set in production")


def test_outside_of_development_a_password_is_never_sent_unencrypted() -> None:
    told = problem(**PRODUCTION, smtp_url="smtp://ada:hush-hush@mail.example")
    assert told.startswith("INKSTREAM_SMTP_URL would send its password unencrypted")
    assert "hush" not in told


@pytest.mark.parametrize("given", ["smpt", "smtp,smtp"])
def test_an_unknown_or_repeated_provider_is_reported(given: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("INKSTREAM_EMAIL_PROVIDERS", given)
    assert problem().startswith("email_providers")


def test_no_provider_of_email_is_an_empty_list(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("INKSTREAM_EMAIL_PROVIDERS", "")
    assert Settings().email_providers == ()


def test_an_empty_name_is_no_view(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("INKSTREAM_RECIPIENTS_VIEW", "")
    assert Settings().recipients_view is None


@pytest.mark.parametrize(
    "url",
    [
        "http://ada:hush-hush@mail.example",
        "smtp://",
        "smtp://ada:hush-hush@mail.example:99999",
        "smtps://ada:hush/hush@mail.example",
        "mail.example:25",
        "smtps://mail.example?tls=hush-hush",
    ],
)
def test_an_invalid_mail_server_is_reported_without_its_password(url: str) -> None:
    told = problem(smtp_url=url)
    assert told.startswith("smtp_urlshould be smtp://")
    assert "hush" not in told


@pytest.mark.parametrize("url", ["blog.example", "https://", "ftp://blog.example", "https://blog.example?x=1"])
def test_an_invalid_web_address_is_reported(url: str) -> None:
    assert problem(site_url=url) == "site_urlshould be a URL like https://blog.example"


def test_a_web_address_ends_without_a_slash() -> None:
    assert Settings(site_url="https://blog.example/de/").site_url == "https://blog.example/de"


@pytest.mark.parametrize("sender", ["The Blog", "news@", "The Blog <news>"])
def test_a_sender_without_an_address_is_reported(sender: str) -> None:
    assert problem(email_sender=sender).startswith("email_sender")


def test_settings_that_belong_together_are_set_together() -> None:
    told = problem(apns_key_file="AuthKey.p8", apns_topic="example.blog")
    assert told == (
        "INKSTREAM_APNS_KEY_FILE is set: also set INKSTREAM_APNS_KEY_ID and INKSTREAM_APNS_TEAM_ID, or remove it"
    )
    assert "also set INKSTREAM_WEB_PUSH_SUBJECT" in problem(web_push_private_key=EC_PEM)


def test_a_push_file_is_for_development_only() -> None:
    assert problem(**PRODUCTION, push_file="push.jsonl").startswith("INKSTREAM_PUSH_FILE must not be set in production")


def test_push_messages_need_a_site_elsewhere() -> None:
    given = {**PRODUCTION, **WEB}
    del given["site_url"]
    assert problem(**given).startswith("INKSTREAM_SITE_URL must be set in production")


# What comes of them


def test_providers_of_email_are_in_the_order_that_is_set(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "AKIAEXAMPLE")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "hush-hush")
    sent = Providers.of(
        Settings(
            email_providers=("mailgun", "aws-ses", "smtp", "sendgrid"),
            email_rate=0.5,
            mailgun_api_key="key",
            mailgun_domain="mail.blog.example",
            ses_region="eu-central-1",
            sendgrid_api_key="key",
        )
    )
    assert [route.name for route in sent.email] == ["mailgun", "aws-ses", "smtp", "sendgrid"]
    assert [route.provider.name for route in sent.email] == ["mailgun", "aws-ses", "smtp", "sendgrid"]
    assert {route.rate for route in sent.email} == {Rate(0.5, burst=1)}
    assert len({id(route.breaker) for route in sent.email}) == 4


def test_without_credentials_of_aws_its_provider_is_an_error() -> None:
    with pytest.raises(ProviderSettingsError, match=r"names aws-ses, but there are no credentials.*AWS_ACCESS_KEY_ID"):
        Providers.of(Settings(email_providers=("aws-ses",), ses_region="eu-central-1"))


def test_broken_credentials_of_aws_are_reported(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "AKIAEXAMPLE")
    with pytest.raises(ProviderSettingsError, match=r"aws-ses, but credentials of AWS can't be had \(Partial"):
        Providers.of(Settings(email_providers=("aws-ses",), ses_region="eu-central-1"))


@pytest.mark.parametrize(
    ("url", "host", "port", "tls"),
    [
        ("smtp://mail.example", "mail.example", 25, "none"),
        ("smtp+starttls://mail.example", "mail.example", 587, "starttls"),
        ("smtps://mail.example/", "mail.example", 465, "implicit"),
        ("smtps://[::1]:4650", "::1", 4650, "implicit"),
    ],
)
def test_a_mail_server_is_reached_as_its_url_says(url: str, host: str, port: int, tls: str) -> None:
    smtp = Smtp.from_url(SecretStr(url))
    assert (smtp._host, smtp._port, smtp._tls) == (host, port, tls)
    assert (smtp._username, smtp._password) == (None, None)


def test_credentials_in_a_url_may_hold_anything() -> None:
    smtp = Smtp.from_url(SecretStr("smtps://ada%40blog.example:p%2Fw%3A%40d@mail.example"))
    assert isinstance(smtp, Smtp)
    assert smtp._username == "ada@blog.example"
    assert smtp._password == SecretStr("p/w:@d")


def test_each_platform_has_its_provider(tmp_path: Path) -> None:
    key = tmp_path / "AuthKey.p8"
    key.write_text(EC_PEM)
    account = service_account(tmp_path / "firebase.json")
    sent = Providers.of(Settings(apns_key_file=key, fcm_service_account_file=account, push_rate=250, **APNS, **WEB))
    found = {platform: sent.push(platform, subscription("push.example")) for platform in ("android", "ios", "web")}
    assert [type(route.provider) for route in found.values() if route] == [Fcm, Apns, WebPush]
    assert {route.rate for route in found.values() if route} == {Rate(250, burst=250)}


def test_with_a_file_all_platforms_go_there_by_their_own_names(tmp_path: Path) -> None:
    sent = Providers.of(Settings(push_file=tmp_path / "push.jsonl", **WEB))
    found = [sent.push(platform, subscription("push.example")) for platform in ("android", "ios", "web")]
    assert [route.name for route in found if route] == ["fcm", "apns", "web-push"]
    assert all(route and isinstance(route.provider, PushFile) for route in found)


@pytest.mark.parametrize(
    ("content", "told"),
    [
        (None, "can't be read: No such file or directory"),
        ("not JSON hush-hush", "is no service account's key file"),
        ('["hush-hush"]', "is no service account's key file"),
        ({"project_id": ""}, "has no 'project_id'"),
        ({"private_key": "hush-hush"}, "is no service account's key file"),
        ({"private_key": EC_PEM}, "is no service account's key file"),
    ],
)
def test_a_broken_service_account_is_reported(tmp_path: Path, content: str | dict[str, str] | None, told: str) -> None:
    path = tmp_path / "firebase.json"
    if isinstance(content, str):
        path.write_text(content)
    elif content is not None:
        service_account(path, **content)
    with pytest.raises(ProviderSettingsError, match=told) as caught:
        Providers.of(Settings(fcm_service_account_file=path))
    assert str(caught.value).startswith(f"INKSTREAM_FCM_SERVICE_ACCOUNT_FILE: {path}")
    assert "hush" not in str(caught.value)


@pytest.mark.parametrize("content", [b"hush-hush", RSA_PEM.encode(), LOCKED_PEM.encode(), b"\xff\xfe"])
def test_a_broken_signing_key_is_reported(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "AuthKey.p8"
    path.write_bytes(content)
    with pytest.raises(ProviderSettingsError) as caught:
        Providers.of(Settings(apns_key_file=path, **APNS))
    assert str(caught.value).startswith(f"INKSTREAM_APNS_KEY_FILE: {path} is no ")
    assert "hush" not in str(caught.value)


@pytest.mark.parametrize("changes", [{"web_push_private_key": "hush-hush"}, {"web_push_subject": "mailto:@"}])
def test_a_broken_key_of_web_push_is_reported(changes: dict[str, Any]) -> None:
    with pytest.raises((ProviderSettingsError, ValidationError)) as caught:
        Providers.of(Settings(**(WEB | changes)))
    assert "web_push_subject" in str(caught.value).lower()
    assert "hush" not in str(caught.value)


# Circuits


class Service:
    """Takes everything."""

    may_repeat = True

    def __init__(self, name: str) -> None:
        self.name = name
        self.is_closed = False

    async def send(self, message: object) -> Outcome:
        return Sent(None)

    async def close(self) -> None:
        self.is_closed = True


def test_each_push_service_has_a_circuit_of_its_own() -> None:
    sent = Providers(push={"web": Service("web-push")})
    web("down.example", sent).breaker.record(REFUSED, NOW)
    assert not web("down.example", sent).breaker.admit(NOW)
    assert not web("DOWN.example", sent).breaker.admit(NOW)
    assert web("up.example", sent).breaker.admit(NOW)
    assert web("down.example", sent).refusal_guard is web("down.example", sent).refusal_guard


@pytest.mark.parametrize("token", ["", "hush", "[" * 4_000, '{"endpoint": 1}', '{"endpoint": "https://"}', "{}"])
def test_a_subscription_without_a_service_has_nobody_elses_circuit(token: str) -> None:
    sent = Providers(push={"web": Service("web-push")})
    first, second = sent.push("web", token), sent.push("web", token)
    assert first is not None
    assert second is not None
    assert first.breaker is not second.breaker


def test_of_the_push_services_those_are_forgotten_that_were_not_used_for_longest() -> None:
    sent = Providers(push={"web": Service("web-push")})
    kept, forgotten = web("kept.example", sent), web("forgotten.example", sent)
    for number in range(registry.PUSH_SERVICES - 1):
        web(f"p{number}.example", sent)
        web("kept.example", sent)
    assert web("kept.example", sent) is kept
    assert web("forgotten.example", sent) is not forgotten


def test_an_open_circuit_is_in_the_metrics_and_a_push_service_counts_as_one() -> None:
    sent = Providers([Service("smtp"), Service("mailgun")], {"ios": Service("apns"), "web": Service("web-push")})
    assert [in_metrics(name) for name in ("smtp", "mailgun", "apns", "web-push")] == [0, 0, 0, 0]
    sent.email[1].breaker.record(REFUSED, NOW)
    for service in ("one.example", "two.example"):
        web(service, sent).breaker.record(REFUSED, NOW)
    assert [in_metrics(name) for name in ("smtp", "mailgun", "apns", "web-push")] == [0, 1, 0, 2]
    sent.email[1].breaker.admit(datetime.max.replace(tzinfo=UTC, year=2100))
    sent.email[1].breaker.record(Sent(None), NOW)
    assert in_metrics("mailgun") == 0


async def test_all_providers_are_closed() -> None:
    made = [Service("smtp"), Service("apns"), Service("web-push")]
    sent = Providers(made[:1], {"ios": made[1], "web": made[2]})
    await sent.close()
    assert all(service.is_closed for service in made)
