"""Every setting in one class, read from the environment (`INKSTREAM_…`) and from `.env`.

Input: environment variables. Output: a frozen, validated `Settings`. An invalid value stops the program at once, with
the variable's name and the expected format.
"""

import re
from collections.abc import Collection, Iterator, Mapping
from datetime import timedelta
from importlib.util import find_spec
from ipaddress import IPv6Address
from pathlib import Path
from string import hexdigits
from typing import Annotated, Any, Literal, Self
from urllib.parse import urlsplit

from ada_url import check_url
from email_validator import validate_email
from pydantic import AwareDatetime, Field, SecretStr, ValidationError, model_validator
from pydantic.functional_validators import AfterValidator, BeforeValidator, ModelWrapValidatorHandler
from pydantic_core import ErrorDetails, InitErrorDetails
from pydantic_settings import BaseSettings, NoDecode, SettingsConfigDict

ROOT = Path(__file__).resolve().parent.parent
DEVELOPMENT_IP_HASH_KEY = "development-only-key"
DEVELOPMENT_UNSUBSCRIBE_KEY = "development-only-key"

_SHORTEST_KEY = 22
"""Characters of 16 bytes in base64."""

_SHORTEST_HEXADECIMAL = 32
_FEWEST_CHARACTERS = 8
"""16 random bytes have fewer different characters in one of a million cases."""

_OWN_KEYS: Mapping[str, str] = {
    "ip_hash_key": "hashes of IP addresses could be reversed with it",
    "unsubscribe_key": "anybody could unsubscribe any address with it",
}

NEEDED_ELSEWHERE: Mapping[str, str] = {
    "kafka_brokers": "the default is the development server",
    "mongo_url": "the default is the development server",
    "postgres_url": "the default is the development server, with its public password",
    "redis_url": "the default is the development server",
    "site_url": "links in notifications start with it",
    "site_name": "e-mails and push messages show it",
}
"""Settings whose defaults are for development only, with the reason; elsewhere they must be set."""

_VARIABLE = re.compile(r"\bINKSTREAM_[A-Z_]+")
_HOST = re.compile(r"[^\s/?#@\\]+")
_NAME = re.compile(r"[^\s/?#@\\:\[\]]+")
_BROKER = re.compile(r"(\[(?P<address>[^\s\[\]]+)\]|[^\s/?#@\\:\[\]]+):[0-9]{1,5}")

EmailProvider = Literal["smtp", "sendgrid", "aws-ses", "mailgun"]
_NEEDED: Mapping[EmailProvider, tuple[str, ...]] = {
    "smtp": ("smtp_url",),
    "sendgrid": ("sendgrid_api_key",),
    "aws-ses": ("ses_region",),
    "mailgun": ("mailgun_api_key", "mailgun_domain"),
}
_NEEDED_TOGETHER = (
    ("apns_key_file", "apns_key_id", "apns_team_id", "apns_topic"),
    ("web_push_private_key", "web_push_subject"),
)
_KAFKA_OPTIONS = (
    (("kafka_sasl_username", "kafka_sasl_password"), "SASL", "SASL_SSL"),
    (("kafka_ca_file", "kafka_certificate_file", "kafka_key_file"), "SSL", "SSL or SASL_SSL"),
)
_SMTP = (
    "should be smtp://, smtp+starttls:// or smtps://user:password@host:port, with special characters encoded as in %40"
)


def _comma_separated(value: object) -> object:
    return tuple(part.strip() for part in value.split(",") if part.strip()) if isinstance(value, str) else value


def _seconds(value: object) -> object:
    try:
        return float(value) if isinstance(value, str) else value
    except ValueError:
        return value  # ISO 8601 or invalid: pydantic decides


def _absent_where_empty(value: object) -> object:
    return None if isinstance(value, str) and not value.strip() else value


def _web_address(value: str) -> str:
    """Check that it is a URL to which a path can be appended; return it without a trailing slash."""
    url = urlsplit(value)
    if url.scheme not in ("http", "https") or not url.hostname or url.query or url.fragment or url.username is not None:
        raise ValueError("should be a URL like https://blog.example")
    return value.rstrip("/")


def _weakness(key: str) -> str | None:
    """Return why a secret key is too weak; `None` if it can contain 16 random bytes."""
    if not key.strip():
        return "is empty"
    if key != key.strip():
        return "starts or ends with white space"
    if any(public in key.lower() for public in (DEVELOPMENT_IP_HASH_KEY, DEVELOPMENT_UNSUBSCRIBE_KEY)):
        return "is the public development key"
    if key.startswith(("$(", "${", "{{")) or (key[0], key[-1]) == ("<", ">"):
        return "is a placeholder that was not replaced"
    shortest = _SHORTEST_HEXADECIMAL if set(key) <= set(hexdigits) else _SHORTEST_KEY
    if len(key) < shortest:
        return f"is too short: it has {len(key)} characters, at least {shortest} are required"
    is_repeated = any(key[period:] == key[:-period] for period in range(1, min(shortest, len(key) // 2 + 1)))
    if len(set(key)) < _FEWEST_CHARACTERS or is_repeated:
        return "repeats a few characters, so it can be guessed"
    return None


def _smtp_url(value: SecretStr) -> SecretStr:
    """Check that it is a mail server's URL; the error does not contain it."""
    try:
        url = urlsplit(value.get_secret_value())
        # Reading the port validates it.
        known = url.scheme in ("smtp", "smtp+starttls", "smtps") and url.port != 0
    except ValueError:
        raise ValueError(_SMTP) from None
    if not known or not url.hostname or url.path not in ("", "/") or url.query or url.fragment:
        raise ValueError(_SMTP)
    return value


def _mailbox(value: str) -> str:
    """Check that it is an address, or a name followed by an address in angle brackets."""
    address = value.rpartition("<")[2].strip().removesuffix(">")
    validate_email(address, check_deliverability=False, test_environment=True, globally_deliverable=False)
    return value


def _hosts(value: tuple[str, ...]) -> tuple[str, ...]:
    for host in value:
        if not _HOST.fullmatch(host) or not check_url(f"https://{host}/"):
            raise ValueError("should be hosts like help.blog.example, separated by commas, without https://")
    return value


def _brokers(value: str) -> str:
    """Check that it is a list of hosts and ports, with IPv6 addresses in brackets."""
    brokers = [_BROKER.fullmatch(broker.strip()) for broker in value.split(",")]
    if not all(broker and (broker["address"] is None or _is_ipv6(broker["address"])) for broker in brokers):
        raise ValueError("should be like kafka-1:9092,kafka-2:9092; write an IPv6 address as [::1]:9092")
    return value


def _web_host(value: str) -> str:
    """Check that it is an address or a host name; return it without an IPv6 address's brackets."""
    is_bracketed = value.startswith("[") and value.endswith("]")
    host = value[1:-1] if is_bracketed else value
    if not _is_ipv6(host) and (is_bracketed or not _NAME.fullmatch(host)):
        raise ValueError(
            "should be an address like 127.0.0.1 or ::1, or a host name; set the port in INKSTREAM_WEB_PORT"
        )
    return host


def _is_ipv6(host: str) -> bool:
    try:
        return IPv6Address(host) is not None
    except ValueError:
        return False


def _each_once(value: tuple[str, ...]) -> tuple[str, ...]:
    if len(set(value)) < len(value):
        raise ValueError("should name each provider once")
    return value


Duration = Annotated[timedelta, BeforeValidator(_seconds)]
Names = Annotated[tuple[str, ...], NoDecode, BeforeValidator(_comma_separated)]
EmailProviders = Annotated[
    tuple[EmailProvider, ...], NoDecode, BeforeValidator(_comma_separated), AfterValidator(_each_once)
]
# A Compose file passes an unset variable as an empty string.
Optionally = BeforeValidator(_absent_where_empty)
WebAddress = Annotated[str, AfterValidator(_web_address)]
OptionalText = Annotated[str | None, Optionally]
OptionalSecret = Annotated[SecretStr | None, Optionally]
OptionalPath = Annotated[Path | None, Optionally]


def _variable(name: str) -> str:
    return f"INKSTREAM_{name.upper()}"


def _again(detail: ErrorDetails) -> InitErrorDetails:
    """Convert a reported problem into one to raise."""
    return InitErrorDetails(type=detail["type"], loc=detail["loc"], input=detail["input"], ctx=detail.get("ctx", {}))


def _without(given: Mapping[str, Any], error: ValidationError) -> dict[str, Any]:
    """Return the valid values. If `environment` is invalid, the rules for production apply."""
    kept = dict(given)
    wrong_items: dict[str, set[object]] = {}
    for name, *item in (detail["loc"] for detail in error.errors(include_url=False)):
        if item:
            wrong_items.setdefault(str(name), set()).add(item[0])
        else:
            kept.pop(str(name), None)
    for name, wrong in wrong_items.items():
        values = _comma_separated(given[name])
        assert isinstance(values, tuple), "only a list has items"
        kept[name] = tuple(value for number, value in enumerate(values) if number not in wrong)
    return kept if "environment" in kept or "environment" not in given else kept | {"environment": "production"}


class Settings(BaseSettings):
    """All settings. Each field is the environment variable `INKSTREAM_<NAME>`."""

    model_config = SettingsConfigDict(env_prefix="INKSTREAM_", env_file=".env", frozen=True, extra="ignore")

    environment: Literal["development", "staging", "production"] = Field(
        "development",
        description="Type of environment. Outside of `development`, default secrets and addresses are refused.",
    )
    namespace: str = Field(
        "",
        # MongoDB takes no name with an empty part between two dots.
        pattern=r"^([a-zA-Z0-9_-]+(\.[a-zA-Z0-9_-]+)*\.?)?$",
        description="Separates this installation from others on the same servers. With `staging.`, names of topics, "
        "consumer groups, collections and Redis keys start with `staging.`, and PostgreSQL's schema is "
        "`inkstream_staging`.",
    )

    kafka_brokers: Annotated[str, AfterValidator(_brokers)] = Field(
        "127.0.0.1:19092",
        description="Kafka's bootstrap servers as `host:port`, separated by commas. Write an IPv6 address as "
        "`[::1]:9092`.",
    )
    kafka_security_protocol: Literal["PLAINTEXT", "SSL", "SASL_PLAINTEXT", "SASL_SSL"] = Field(
        "PLAINTEXT",
        description="Kafka's security protocol: encryption (`…SSL`), authentication (`SASL_…`), both or neither.",
    )
    kafka_sasl_mechanism: Literal["PLAIN", "SCRAM-SHA-256", "SCRAM-SHA-512"] = Field(
        "SCRAM-SHA-512", description="Authentication mechanism for Kafka if the protocol is `SASL_…`."
    )
    kafka_sasl_username: OptionalText = Field(None, description="Kafka user if the protocol is `SASL_…`.")
    kafka_sasl_password: OptionalSecret = Field(None, description="Password of the Kafka user.")
    kafka_ca_file: OptionalPath = Field(
        None,
        description="Certificate authority that signed Kafka's certificate (PEM). Default: the system's authorities.",
    )
    kafka_certificate_file: OptionalPath = Field(
        None, description="Client certificate for mutual TLS with Kafka (PEM)."
    )
    kafka_key_file: OptionalPath = Field(None, description="Private key of the client certificate (PEM).")

    mongo_url: SecretStr = Field(
        SecretStr("mongodb://127.0.0.1:27117/blog-platform?replicaSet=rs0"),
        description="MongoDB's connection string, with database, credentials and TLS (`tls=true&tlsCAFile=…`).",
    )
    postgres_url: SecretStr = Field(
        SecretStr("postgresql://inkstream:inkstream@127.0.0.1:15432/blog_platform"),
        description="PostgreSQL's connection string, with credentials and TLS (`sslmode=verify-full`).",
    )
    redis_url: SecretStr = Field(
        SecretStr("redis://127.0.0.1:16379/0"), description="Redis URL; use `rediss://` for TLS."
    )

    topics_file: Path = Field(
        ROOT / "topics.yaml", description="File that declares topics, events and their destinations."
    )
    partitions: int | None = Field(
        None, ge=1, le=1000, description="Partitions of each new topic. Overrides `topics.yaml`."
    )
    replication: int | None = Field(
        None, ge=1, le=15, description="Replicas of each new topic. Overrides `topics.yaml`."
    )
    agents: Names = Field(
        (),
        description="Agents that this worker runs, separated by commas: for example, `page-views` stores that topic, "
        "`notify-domain-events` creates notifications, `deliver` sends them. Empty: all agents.",
    )

    allow_fewer_replicas: bool = Field(
        False,
        description="Allow topics in production with fewer than three replicas, or with `min.insync.replicas` below 2. "
        "Acknowledged events may then be lost with one broker.",
    )
    ip_hash_key: SecretStr = Field(
        SecretStr(DEVELOPMENT_IP_HASH_KEY),
        min_length=1,
        description="Secret key for hashing IP addresses (HMAC-SHA-256), at least 16 random bytes. After a change, "
        "all visitors count as new. A key derived from it signs replayed events, so workers and `inkstream replay` "
        "need the same key.",
    )
    geo_database: OptionalPath = Field(
        None,
        description="City database in MaxMind's format. Default: in development an old one; elsewhere none, so `geo` "
        "is not stored.",
    )

    batch_records: int = Field(2_000, ge=1, le=20_000, description="Maximum number of records in a batch.")
    batches_in_flight: int = Field(
        2,
        ge=1,
        le=8,
        description="Batches that an agent processes at the same time: one is decoded while another is written.",
    )
    ahead_limit: Duration = Field(
        timedelta(hours=24),
        description="If an event's time is later than its Kafka timestamp by more than this, the Kafka timestamp is "
        "used.",
    )
    dead_letter_limit: float = Field(
        0.5,
        gt=0,
        le=1,
        description="Maximum share of a topic's latest records that may become dead letters. Above it, the worker "
        "stops. 1 means no limit.",
    )
    dead_letter_sample: int = Field(
        1_000, ge=1, description="Number of a topic's latest records to which the dead-letter limit applies."
    )
    stop_timeout: Duration = Field(
        timedelta(seconds=10),
        description="How long a stopping worker waits for batches in flight before it abandons them.",
    )

    count_every: Duration = Field(
        timedelta(seconds=3),
        ge=timedelta(milliseconds=100),
        le=timedelta(minutes=5),
        description="How often view counts are updated: windows with new page views are collected for this time, then "
        "counted.",
    )
    count_horizon: Duration = Field(
        timedelta(days=7),
        ge=timedelta(hours=1),
        le=timedelta(days=80),
        description="How long after its end a window is still counted. Must be less than the 90 days that views are "
        "stored.",
    )
    count_since: AwareDatetime | None = Field(
        None,
        description="Views before this time are not counted. Set it if something else counted views before Inkstream.",
    )
    recount_rate: int = Field(
        100_000,
        ge=1_000,
        description="Views per second that counting one window may read on average. With 100,000, a window with a "
        "million views is counted every 10 s.",
    )
    drift_every: Duration = Field(
        timedelta(minutes=5),
        ge=timedelta(seconds=1),
        description="How often a worker compares a small sample of the view counts with the stored views.",
    )
    posts_table: str = Field(
        "posts", min_length=1, description="The platform's table of posts, as `table` or `schema.table`."
    )
    posts_id_column: str = Field("id", min_length=1, description="Column of the posts table with the post's id.")
    view_count_column: str = Field(
        "viewCount",
        min_length=1,
        description="Column of the posts table with the number of views, the only column that Inkstream writes.",
    )
    posts_update_every: Duration = Field(
        timedelta(0),
        ge=timedelta(0),
        le=timedelta(hours=1),
        description="Minimum time between two updates of one post's row; new views wait until then. 0 updates it with "
        "each count.",
    )

    notifications_file: Path = Field(
        ROOT / "notifications.yaml",
        description="File with the notification rules: which events notify whom, on which channels.",
    )
    gather_window: Duration | None = Field(
        None,
        gt=timedelta(0),
        le=timedelta(days=7),
        description="How long similar notifications are grouped into one. Overrides `notifications.yaml`.",
    )
    site_name: str = Field("The Blog", min_length=1, description="The blog's name, shown in e-mails and push messages.")
    site_url: WebAddress = Field(
        "http://127.0.0.1:3000", description="The blog's address. Links in notifications start with it."
    )
    link_hosts: Annotated[Names, AfterValidator(_hosts)] = Field(
        (),
        description="Additional hosts that links in notifications may point to, separated by commas, such as "
        "`help.blog.example`. The host of INKSTREAM_SITE_URL is always allowed.",
    )
    recipients_view: OptionalText = Field(
        "notification_recipients",
        description="The platform's view with users' addresses, devices and preferences, as `view` or `schema.view`. "
        "Empty: none.",
    )
    recipients_kept: Duration = Field(
        timedelta(seconds=60),
        ge=timedelta(seconds=1),
        le=timedelta(hours=1),
        description="How long Redis caches rows of this view. A changed preference takes effect after this time at "
        "the latest.",
    )
    notify_limit: int = Field(
        20,
        ge=1,
        description="Maximum number of e-mails, and of push messages, of one notification type per user in 24 hours.",
    )
    notify_daily_limit: int = Field(
        100,
        ge=1,
        description="Maximum number of e-mails, and of push messages, of all notification types per user in 24 hours.",
    )
    deliver_at_once: int = Field(
        16, ge=1, le=1_000, description="Number of notifications that a worker delivers at the same time."
    )

    email_providers: EmailProviders = Field(
        ("smtp",),
        description="E-mail providers, the preferred one first; the others are used if it fails. Empty, the default "
        "outside of development: no e-mail is sent.",
    )
    email_sender: Annotated[str, AfterValidator(_mailbox)] = Field(
        "The Blog <notifications@blog.example>",
        description="Sender of e-mails: `Name <address>`, or an address. It must be verified with each provider.",
    )
    email_rate: float | None = Field(
        None,
        gt=0,
        description="Maximum e-mails per second for each provider, over all workers. Default: no limit.",
    )
    smtp_url: Annotated[SecretStr, AfterValidator(_smtp_url)] = Field(
        SecretStr("smtp://127.0.0.1:16025"),
        description="SMTP server: `smtps://` uses TLS from the start, `smtp+starttls://` requires STARTTLS, `smtp://` "
        "uses no TLS.",
    )
    sendgrid_api_key: OptionalSecret = Field(None, description="SendGrid: API key with the permission Mail Send.")
    sendgrid_url: WebAddress = Field(
        "https://api.sendgrid.com",
        description="SendGrid: URL of the API. Use `https://api.eu.sendgrid.com` for subusers in the European Union.",
    )
    sendgrid_verification_key: OptionalText = Field(
        None, description="SendGrid: public key that verifies its webhook, copied from SendGrid."
    )
    ses_region: Annotated[Annotated[str, Field(pattern=r"^[a-z0-9-]+$")] | None, Optionally] = Field(
        None, description="Amazon SES: region. Credentials come from AWS's standard credential chain."
    )
    ses_url: Annotated[WebAddress | None, Optionally] = Field(
        None, description="Amazon SES: URL of the API. Default: the region's endpoint."
    )
    ses_configuration_set: OptionalText = Field(
        None,
        description="Amazon SES: configuration set, which defines where events are sent. Default: that of the "
        "identity.",
    )
    ses_topic: Annotated[
        Annotated[str, Field(pattern=r"^arn:aws:sns:[a-z0-9-]+:\d{12}:[\w-]+(\.fifo)?$")] | None, Optionally
    ] = Field(None, description="Amazon SES: ARN of the Amazon SNS topic from which receipts are accepted.")
    mailgun_api_key: OptionalSecret = Field(None, description="Mailgun: API key of the account or the domain.")
    mailgun_domain: Annotated[Annotated[str, Field(pattern=r"^[A-Za-z0-9.-]+$")] | None, Optionally] = Field(
        None, description="Mailgun: sending domain."
    )
    mailgun_url: WebAddress = Field(
        "https://api.mailgun.net",
        description="Mailgun: URL of the API. Use `https://api.eu.mailgun.net` for domains in the European Union.",
    )
    mailgun_signing_key: OptionalSecret = Field(
        None, description="Mailgun: HTTP webhook signing key, which verifies its webhook."
    )
    unsubscribe_url: Annotated[WebAddress | None, Optionally] = Field(
        None,
        description="Public URL of a worker's page `/unsubscribe`. Without it, e-mails have no unsubscribe link.",
    )
    unsubscribe_key: SecretStr = Field(
        SecretStr(DEVELOPMENT_UNSUBSCRIBE_KEY),
        min_length=1,
        description="Secret key that signs unsubscribe links, at least 16 random bytes. After a change, the links in "
        "older e-mails no longer work.",
    )

    push_rate: float | None = Field(
        None,
        gt=0,
        description="Maximum push messages per second for each provider, over all workers. Default: no limit.",
    )
    push_file: OptionalPath = Field(
        None, description="In development: file to which push messages are written as JSON lines instead of being sent."
    )
    fcm_service_account_file: OptionalPath = Field(
        None, description="Android: key file (JSON) of the service account for Firebase Cloud Messaging."
    )
    fcm_url: WebAddress = Field("https://fcm.googleapis.com", description="Android: URL of FCM's API.")
    apns_key_file: OptionalPath = Field(
        None, description="iOS: signing key (`.p8`) for Apple's push service. Requires the next three settings."
    )
    apns_key_id: OptionalText = Field(None, description="iOS: id of the signing key, ten characters.")
    apns_team_id: OptionalText = Field(None, description="iOS: id of the developer team, ten characters.")
    apns_topic: OptionalText = Field(None, description="iOS: bundle id of the application.")
    apns_url: WebAddress = Field(
        "https://api.push.apple.com",
        description="iOS: URL of Apple's push service. Use `https://api.sandbox.push.apple.com` for development "
        "builds.",
    )
    web_push_private_key: OptionalSecret = Field(
        None,
        description="Browsers: VAPID private key, PEM or 32 bytes in base64url. A new key invalidates all "
        "subscriptions.",
    )
    web_push_subject: Annotated[Annotated[str, Field(pattern="^(mailto:.+@|https://).+$")] | None, Optionally] = Field(
        None, description="Browsers: contact for push services, `mailto:` with an address or an `https://` URL."
    )

    web_host: Annotated[str, AfterValidator(_web_host)] = Field(
        "127.0.0.1",
        description="Address on which the worker serves `/metrics`, `/healthz` and `/readyz`: `0.0.0.0` for all IPv4 "
        "addresses, `::` for all IPv6 and IPv4 addresses.",
    )
    web_port: int = Field(16_066, ge=1, le=65_535, description="Port on which the worker serves these pages.")
    log_level: Literal["debug", "info", "warning", "error"] = Field("info", description="Minimum level of log lines.")
    log_format: Literal["auto", "json", "console"] = Field(
        "auto",
        description="Format of log lines: `json`, or `console` for people. `auto` means `console` on a terminal, else "
        "`json`.",
    )

    @model_validator(mode="before")
    @classmethod
    def _send_no_email_unless_told(cls, given: dict[str, Any]) -> dict[str, Any]:
        """Make development's mail server the default in development only."""
        is_elsewhere = given.get("environment", "development") != "development"
        return {"email_providers": (), **given} if is_elsewhere else given

    @model_validator(mode="wrap")
    @classmethod
    def _report_all_at_once(cls, given: dict[str, Any], handler: ModelWrapValidatorHandler[Self]) -> Self:
        """Check each value and the combination of values; report all problems at once."""
        wrong: list[InitErrorDetails] = []
        try:
            settings = handler(given)
        except ValidationError as error:
            wrong = [_again(detail) for detail in error.errors(include_url=False)]
            settings = handler(_without(given, error))
        locations = [detail["loc"] for detail in wrong]
        problems = list(dict.fromkeys(settings.problems(ignored={str(loc[0]) for loc in locations if len(loc) == 1})))
        if problems:
            together = ValueError("\n".join(problems))
            wrong.append(InitErrorDetails(type="value_error", loc=(), input=None, ctx={"error": together}))
        if wrong:
            raise ValidationError.from_exception_data(cls.__name__, wrong, hide_input=True)
        return settings

    def problems(self, ignored: Collection[str] = ()) -> Iterator[str]:
        """Yield the problems of combinations of values, except those about ignored settings."""
        ignored_variables = set(map(_variable, ignored))
        for problem in (
            *self._problems_of_defaults(),
            *self._problems_of_keys(),
            *self._problems_of_kafka(),
            *self._problems_of_email(),
            *self._problems_of_push(),
        ):
            if ignored_variables.isdisjoint(_VARIABLE.findall(problem)):
                yield problem

    def _problems_of_defaults(self) -> Iterator[str]:
        for name, reason in NEEDED_ELSEWHERE.items():
            if self._is_of_development(name):
                yield f"{_variable(name)} must be set in {self.environment}: {reason}"

    def _problems_of_keys(self) -> Iterator[str]:
        if self.environment == "development":
            return
        keys = {name: getattr(self, name).get_secret_value() for name in _OWN_KEYS}
        for name, risk in _OWN_KEYS.items():
            if weakness := _weakness(keys[name]):
                yield (
                    f"{_variable(name)} {weakness}; in {self.environment}, {risk}. "
                    "Generate one with `openssl rand -hex 32`."
                )
        if self.mailgun_signing_key and (weakness := _weakness(self.mailgun_signing_key.get_secret_value())):
            yield (
                f"{_variable('mailgun_signing_key')} {weakness}; anybody could report bounces with it. "
                "Copy the HTTP webhook signing key from Mailgun's account security settings."
            )
        others = [*(self._secrets() - _OWN_KEYS.keys()), *_OWN_KEYS]
        for name, key in keys.items():
            others.remove(name)  # to compare each pair of own keys once
            for other in sorted(others):
                if key == getattr(self, other).get_secret_value() and not _weakness(key):
                    yield (
                        f"{_variable(name)} is the same as {_variable(other)}; each needs its own secret. "
                        "Generate one with `openssl rand -hex 32`."
                    )

    def _secrets(self) -> set[str]:
        """Return the names of the secrets that are set."""
        return {name for name in type(self).model_fields if isinstance(getattr(self, name), SecretStr)}

    def _problems_of_kafka(self) -> Iterator[str]:
        if self.kafka_security_protocol.startswith("SASL") and (
            self.kafka_sasl_username is None or self.kafka_sasl_password is None
        ):
            yield (
                f"INKSTREAM_KAFKA_SECURITY_PROTOCOL={self.kafka_security_protocol} needs "
                "INKSTREAM_KAFKA_SASL_USERNAME and INKSTREAM_KAFKA_SASL_PASSWORD"
            )
        for names, part, protocols in _KAFKA_OPTIONS:
            given = [name for name in names if getattr(self, name) is not None]
            if given and part not in self.kafka_security_protocol:
                yield (
                    f"{_variable(given[0])} has no effect with INKSTREAM_KAFKA_SECURITY_PROTOCOL="
                    f"{self.kafka_security_protocol}: set that to {protocols}, or remove {_variable(given[0])}"
                )

    def _problems_of_email(self) -> Iterator[str]:
        for provider in self.email_providers:
            for name in _NEEDED[provider]:
                if getattr(self, name) is None or (name == "smtp_url" and self._is_of_development(name)):
                    yield f"INKSTREAM_EMAIL_PROVIDERS names {provider}: set {_variable(name)}, or remove {provider}"
        if self.email_providers and self._is_of_development("email_sender"):
            yield f"{_variable('email_sender')} must be set in {self.environment}: e-mails are sent from it"
        url = urlsplit(self.smtp_url.get_secret_value())
        if self.environment != "development" and url.scheme == "smtp" and url.password:
            yield "INKSTREAM_SMTP_URL would send its password unencrypted: use smtp+starttls:// or smtps://"

    def _problems_of_push(self) -> Iterator[str]:
        for names in _NEEDED_TOGETHER:
            missing = [name for name in names if getattr(self, name) is None]
            if missing and len(missing) < len(names):
                given = next(name for name in names if name not in missing)
                yield f"{_variable(given)} is set: also set {' and '.join(map(_variable, missing))}, or remove it"
        if self.push_file and self.environment != "development":
            yield f"INKSTREAM_PUSH_FILE must not be set in {self.environment}: push messages would not be sent"

    def _is_of_development(self, name: str) -> bool:
        """Whether a setting has its development default in another environment."""
        return self.environment != "development" and name not in self.model_fields_set

    def geo_database_path(self) -> Path | None:
        """Return the configured geo database; in development, by default that of an installed package; else `None`."""
        if self.geo_database is not None or self.environment != "development":
            return self.geo_database
        package = find_spec("_maxminddb_geolite2")
        if package is None or package.origin is None:
            return None
        return Path(package.origin).with_name("GeoLite2-City.mmdb")


class DraftSettings(Settings):
    """The settings with each wrong value replaced by its default.

    Used to check the rest of a wrong configuration, never to run with it.
    """

    @model_validator(mode="wrap")
    @classmethod
    def _report_all_at_once(cls, given: dict[str, Any], handler: ModelWrapValidatorHandler[Self]) -> Self:
        try:
            return handler(given)
        except ValidationError as error:
            return handler(_without(given, error))
