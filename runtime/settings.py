"""Every setting in one class, read from the environment (`INKSTREAM_…`) and from `.env`.

In come environment variables; out goes a frozen, validated `Settings`. A value that cannot be right stops the program
at once, with the variable's name and what it should be.
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
"""Of 16 random bytes, fewer different characters come once in a million times."""

_OWN_KEYS: Mapping[str, str] = {
    "ip_hash_key": "hashes of IP addresses could be undone with it",
    "unsubscribe_key": "anybody could unsubscribe anybody with it",
}

NEEDED_ELSEWHERE: Mapping[str, str] = {
    "kafka_brokers": "the default is the development server",
    "mongo_url": "the default is the development server",
    "postgres_url": "the default is the development server, with its public password",
    "redis_url": "the default is the development server",
    "site_url": "links of notifications begin there",
    "site_name": "e-mails and push messages show it",
}
"""Settings whose defaults are meant for development alone, and why; everywhere else they have to be set."""

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
_SMTP = "should be smtp://, smtp+starttls:// or smtps://user:password@host:port, special characters as %40"


def _comma_separated(value: object) -> object:
    return tuple(part.strip() for part in value.split(",") if part.strip()) if isinstance(value, str) else value


def _seconds(value: object) -> object:
    try:
        return float(value) if isinstance(value, str) else value
    except ValueError:
        return value  # ISO 8601, or wrong: pydantic's to tell


def _absent_where_empty(value: object) -> object:
    return None if isinstance(value, str) and not value.strip() else value


def _web_address(value: str) -> str:
    """Check that it is a URL that a path can be put behind; return it without a slash at the end."""
    url = urlsplit(value)
    if url.scheme not in ("http", "https") or not url.hostname or url.query or url.fragment or url.username is not None:
        raise ValueError("should be a URL like https://blog.example")
    return value.rstrip("/")


def _weakness(key: str) -> str | None:
    """Return what is wrong with a secret key; `None` where it may have the 16 random bytes that it should have."""
    if not key.strip():
        return "is empty"
    if key != key.strip():
        return "begins or ends with white space"
    if any(public in key.lower() for public in (DEVELOPMENT_IP_HASH_KEY, DEVELOPMENT_UNSUBSCRIBE_KEY)):
        return "is the public development key"
    if key.startswith(("$(", "${", "{{")) or (key[0], key[-1]) == ("<", ">"):
        return "is a placeholder that nothing has filled in"
    shortest = _SHORTEST_HEXADECIMAL if set(key) <= set(hexdigits) else _SHORTEST_KEY
    if len(key) < shortest:
        return f"is too short: it has {len(key)} characters and needs at least {shortest}"
    is_repeated = any(key[period:] == key[:-period] for period in range(1, min(shortest, len(key) // 2 + 1)))
    if len(set(key)) < _FEWEST_CHARACTERS or is_repeated:
        return "repeats a few characters, so it can be guessed"
    return None


def _smtp_url(value: SecretStr) -> SecretStr:
    """Check that it is a mail server's URL; what is raised does not repeat it."""
    try:
        url = urlsplit(value.get_secret_value())
        # Asked for, the port is checked.
        known = url.scheme in ("smtp", "smtp+starttls", "smtps") and url.port != 0
    except ValueError:
        raise ValueError(_SMTP) from None
    if not known or not url.hostname or url.path not in ("", "/") or url.query or url.fragment:
        raise ValueError(_SMTP)
    return value


def _mailbox(value: str) -> str:
    """Check that it is an address, or a name and an address in angle brackets."""
    address = value.rpartition("<")[2].strip().removesuffix(">")
    validate_email(address, check_deliverability=False, test_environment=True, globally_deliverable=False)
    return value


def _hosts(value: tuple[str, ...]) -> tuple[str, ...]:
    for host in value:
        if not _HOST.fullmatch(host) or not check_url(f"https://{host}/"):
            raise ValueError("should be hosts like help.blog.example, separated by commas, without https://")
    return value


def _brokers(value: str) -> str:
    """Check that it is a list of hosts and ports, an IPv6 address in brackets."""
    brokers = [_BROKER.fullmatch(broker.strip()) for broker in value.split(",")]
    if not all(broker and (broker["address"] is None or _is_ipv6(broker["address"])) for broker in brokers):
        raise ValueError("should be kafka-1:9092,kafka-2:9092, an IPv6 address as [::1]:9092")
    return value


def _web_host(value: str) -> str:
    """Check that it is an address or the name of a host; return it without the brackets of an IPv6 address."""
    is_bracketed = value.startswith("[") and value.endswith("]")
    host = value[1:-1] if is_bracketed else value
    if not _is_ipv6(host) and (is_bracketed or not _NAME.fullmatch(host)):
        raise ValueError("should be an address like 127.0.0.1 or ::1, or a host's name; INKSTREAM_WEB_PORT is the port")
    return host


def _is_ipv6(host: str) -> bool:
    try:
        return IPv6Address(host) is not None
    except ValueError:
        return False


def _each_once(value: tuple[str, ...]) -> tuple[str, ...]:
    if len(set(value)) < len(value):
        raise ValueError("should name each once")
    return value


Duration = Annotated[timedelta, BeforeValidator(_seconds)]
Names = Annotated[tuple[str, ...], NoDecode, BeforeValidator(_comma_separated)]
EmailProviders = Annotated[
    tuple[EmailProvider, ...], NoDecode, BeforeValidator(_comma_separated), AfterValidator(_each_once)
]
# What a Compose file passes on where nothing is set is an empty text.
Optionally = BeforeValidator(_absent_where_empty)
WebAddress = Annotated[str, AfterValidator(_web_address)]
OptionalText = Annotated[str | None, Optionally]
OptionalSecret = Annotated[SecretStr | None, Optionally]
OptionalPath = Annotated[Path | None, Optionally]


def _variable(name: str) -> str:
    return f"INKSTREAM_{name.upper()}"


def _again(detail: ErrorDetails) -> InitErrorDetails:
    """Return a problem that was found as one to report."""
    return InitErrorDetails(type=detail["type"], loc=detail["loc"], input=detail["input"], ctx=detail.get("ctx", {}))


def _without(given: Mapping[str, Any], error: ValidationError) -> dict[str, Any]:
    """Return the values that are right. Where the environment is wrong, what holds in production is asked for."""
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
    """What Inkstream can be told. Each field is the variable `INKSTREAM_<NAME>`."""

    model_config = SettingsConfigDict(env_prefix="INKSTREAM_", env_file=".env", frozen=True, extra="ignore")

    environment: Literal["development", "staging", "production"] = Field(
        "development",
        description="Where this runs. Anything but `development` refuses the development secrets.",
    )
    namespace: str = Field(
        "",
        # MongoDB takes no name with an empty part between two dots.
        pattern=r"^([a-zA-Z0-9_-]+(\.[a-zA-Z0-9_-]+)*\.?)?$",
        description="Keeps this installation apart from others on the same servers: `staging.` begins the names of "
        "topics, consumer groups, collections and keys in Redis, and the schema in PostgreSQL is `inkstream_staging`.",
    )

    kafka_brokers: Annotated[str, AfterValidator(_brokers)] = Field(
        "127.0.0.1:19092",
        description="Kafka's bootstrap servers, `host:port`, separated by commas; an IPv6 address as `[::1]:9092`.",
    )
    kafka_security_protocol: Literal["PLAINTEXT", "SSL", "SASL_PLAINTEXT", "SASL_SSL"] = Field(
        "PLAINTEXT",
        description="How to talk to Kafka: encrypted (`SSL`), authenticated (`SASL_…`), or neither.",
    )
    kafka_sasl_mechanism: Literal["PLAIN", "SCRAM-SHA-256", "SCRAM-SHA-512"] = Field(
        "SCRAM-SHA-512", description="How to authenticate to Kafka, where the protocol is `SASL_…`."
    )
    kafka_sasl_username: OptionalText = Field(None, description="Kafka user, where the protocol is `SASL_…`.")
    kafka_sasl_password: OptionalSecret = Field(None, description="Password of the Kafka user.")
    kafka_ca_file: OptionalPath = Field(
        None,
        description="Certificate authority that signed Kafka's certificate (PEM); the system's by default.",
    )
    kafka_certificate_file: OptionalPath = Field(None, description="Our certificate for Kafka (PEM), for mutual TLS.")
    kafka_key_file: OptionalPath = Field(None, description="Private key of our certificate (PEM).")

    mongo_url: SecretStr = Field(
        SecretStr("mongodb://127.0.0.1:27117/blog-platform?replicaSet=rs0"),
        description="MongoDB, with database, credentials and TLS as in any connection string (`tls=true&tlsCAFile=…`).",
    )
    postgres_url: SecretStr = Field(
        SecretStr("postgresql://inkstream:inkstream@127.0.0.1:15432/blog_platform"),
        description="PostgreSQL, with credentials and TLS as in any connection string (`sslmode=verify-full`).",
    )
    redis_url: SecretStr = Field(SecretStr("redis://127.0.0.1:16379/0"), description="Redis; `rediss://` for TLS.")

    topics_file: Path = Field(ROOT / "topics.yaml", description="The declaration of all that flows.")
    partitions: int | None = Field(
        None, ge=1, le=1000, description="Partitions of each new topic, in place of what `topics.yaml` says."
    )
    replication: int | None = Field(
        None, ge=1, le=15, description="Replicas of each new topic, in place of what `topics.yaml` says."
    )
    agents: Names = Field(
        (),
        description="The agents that run in this worker, separated by commas: `page-views` stores that topic, "
        "`notify-domain-events` makes notifications, `deliver` sends them. All where empty.",
    )

    allow_fewer_replicas: bool = Field(
        False,
        description="Accept in production that topics have fewer than three replicas, or `min.insync.replicas` under "
        "2: when one broker is lost, acknowledged events may be lost with it.",
    )
    ip_hash_key: SecretStr = Field(
        SecretStr(DEVELOPMENT_IP_HASH_KEY),
        min_length=1,
        description="Secret key of the HMAC-SHA-256 that stands for an IP address, at least 16 random bytes. A new key "
        "makes all visitors new. A key made of it signs what `inkstream replay` sends, so it is the same for the "
        "workers and for that command.",
    )
    geo_database: OptionalPath = Field(
        None,
        description="City database in MaxMind's format; by default an old one in development, else none and no `geo`.",
    )

    batch_records: int = Field(2_000, ge=1, le=20_000, description="Most records in one batch.")
    batches_in_flight: int = Field(
        2,
        ge=1,
        le=8,
        description="Batches of one agent handled at once: one is decoded while another is written.",
    )
    ahead_limit: Duration = Field(
        timedelta(hours=24),
        description="An event dated further than this ahead of its Kafka timestamp gets that one (`PT24H`; seconds).",
    )
    dead_letter_limit: float = Field(
        0.5,
        gt=0,
        le=1,
        description="Share of a topic's latest records that may be refused; above it the worker stops. 1: no limit.",
    )
    dead_letter_sample: int = Field(
        1_000, ge=1, description="How many of a topic's latest records the limit on dead letters looks at."
    )
    stop_timeout: Duration = Field(
        timedelta(seconds=10),
        description="How long a stop waits for batches in flight before it abandons them.",
    )

    count_every: Duration = Field(
        timedelta(seconds=3),
        ge=timedelta(milliseconds=100),
        le=timedelta(minutes=5),
        description="How long touched windows of page views are gathered before they are counted.",
    )
    count_horizon: Duration = Field(
        timedelta(days=7),
        ge=timedelta(hours=1),
        le=timedelta(days=80),
        description="A window is counted for so long after its end; less than the 90 days that views are stored.",
    )
    count_since: AwareDatetime | None = Field(
        None, description="Views before this moment are not counted: something else has, before Inkstream did."
    )
    recount_rate: int = Field(
        100_000,
        ge=1_000,
        description="Views a second that counting one window may read on average: a million are counted every 10 s.",
    )
    drift_every: Duration = Field(
        timedelta(minutes=5),
        ge=timedelta(seconds=1),
        description="How often a worker compares a small sample of the view counts with the views that are stored.",
    )
    posts_table: str = Field(
        "posts", min_length=1, description="The platform's table of posts; `schema.table` where needed."
    )
    posts_id_column: str = Field("id", min_length=1, description="Its column of the post's id, a text.")
    view_count_column: str = Field(
        "viewCount", min_length=1, description="Its column of the number of views, the only one written."
    )
    posts_update_every: Duration = Field(
        timedelta(0),
        ge=timedelta(0),
        le=timedelta(hours=1),
        description="Update the row of one post at most once in this time; its views wait until then. 0: update it "
        "with each count.",
    )

    notifications_file: Path = Field(
        ROOT / "notifications.yaml", description="The rules: which events become notifications, for whom."
    )
    gather_window: Duration | None = Field(
        None,
        gt=timedelta(0),
        le=timedelta(days=7),
        description="How long repeated small things are gathered, in place of what `notifications.yaml` says.",
    )
    site_name: str = Field(
        "The Blog", min_length=1, description="The blog's name, as e-mails and push messages have it."
    )
    site_url: WebAddress = Field(
        "http://127.0.0.1:3000", description="The blog's address, where the links of notifications begin."
    )
    link_hosts: Annotated[Names, AfterValidator(_hosts)] = Field(
        (),
        description="Other hosts that links of notifications may lead to, separated by commas, as `help.blog.example`; "
        "the one of INKSTREAM_SITE_URL always is one.",
    )
    recipients_view: OptionalText = Field(
        "notification_recipients",
        description="The platform's view of whom to reach where; `schema.view` where needed. Empty: there is none.",
    )
    recipients_kept: Duration = Field(
        timedelta(seconds=60),
        ge=timedelta(seconds=1),
        le=timedelta(hours=1),
        description="How long Redis keeps what the view said; a changed preference takes effect after so long at most.",
    )
    notify_limit: int = Field(
        20, ge=1, description="How many e-mails and push messages of one type a user gets in 24 hours, each."
    )
    notify_daily_limit: int = Field(
        100, ge=1, description="How many e-mails and push messages of all types a user gets in 24 hours, each."
    )
    deliver_at_once: int = Field(
        16, ge=1, le=1_000, description="How many notifications one worker delivers at the same time."
    )

    email_providers: EmailProviders = Field(
        ("smtp",),
        description="Who sends e-mail, the preferred one first; the others when it fails. Empty, as by default outside "
        "of development: nobody.",
    )
    email_sender: Annotated[str, AfterValidator(_mailbox)] = Field(
        "The Blog <notifications@blog.example>",
        description="From whom e-mails are: `Name <address>`, or an address. The providers must know it as ours.",
    )
    email_rate: float | None = Field(
        None,
        gt=0,
        description="How many e-mails a second each provider is given, by all workers together; by default any.",
    )
    smtp_url: Annotated[SecretStr, AfterValidator(_smtp_url)] = Field(
        SecretStr("smtp://127.0.0.1:16025"),
        description="The mail server: `smtps://` for TLS from the start, `smtp+starttls://` for TLS as it is demanded, "
        "`smtp://` for none.",
    )
    sendgrid_api_key: OptionalSecret = Field(None, description="SendGrid: an API key with the right to send mail.")
    sendgrid_url: WebAddress = Field(
        "https://api.sendgrid.com",
        description="SendGrid: where its API is; `https://api.eu.sendgrid.com` for subusers in the European Union.",
    )
    sendgrid_verification_key: OptionalText = Field(
        None, description="SendGrid: the public key by which its webhook is verified, as SendGrid shows it."
    )
    ses_region: Annotated[Annotated[str, Field(pattern=r"^[a-z0-9-]+$")] | None, Optionally] = Field(
        None, description="Amazon SES: the region. Credentials are found as by all of AWS's tools."
    )
    ses_url: Annotated[WebAddress | None, Optionally] = Field(
        None, description="Amazon SES: where its API is; the region's own by default."
    )
    ses_configuration_set: OptionalText = Field(
        None, description="Amazon SES: the configuration set, which says where events go; the identity's by default."
    )
    ses_topic: Annotated[
        Annotated[str, Field(pattern=r"^arn:aws:sns:[a-z0-9-]+:\d{12}:[\w-]+(\.fifo)?$")] | None, Optionally
    ] = Field(None, description="Amazon SES: ARN of the one topic of Amazon SNS whose receipts are believed.")
    mailgun_api_key: OptionalSecret = Field(None, description="Mailgun: an API key of the account or the domain.")
    mailgun_domain: Annotated[Annotated[str, Field(pattern=r"^[A-Za-z0-9.-]+$")] | None, Optionally] = Field(
        None, description="Mailgun: which of the account's domains sends."
    )
    mailgun_url: WebAddress = Field(
        "https://api.mailgun.net",
        description="Mailgun: where its API is; `https://api.eu.mailgun.net` for domains in the European Union.",
    )
    mailgun_signing_key: OptionalSecret = Field(
        None, description="Mailgun: the HTTP webhook signing key, by which its webhook is verified."
    )
    unsubscribe_url: Annotated[WebAddress | None, Optionally] = Field(
        None,
        description="Where a worker's page `/unsubscribe` is reached from outside; without it no e-mail links there.",
    )
    unsubscribe_key: SecretStr = Field(
        SecretStr(DEVELOPMENT_UNSUBSCRIBE_KEY),
        min_length=1,
        description="Secret key of the links that unsubscribe, at least 16 random bytes. A new key makes the links in "
        "older e-mails void.",
    )

    push_rate: float | None = Field(
        None,
        gt=0,
        description="How many push messages a second each provider is given, by all workers together; by default any.",
    )
    push_file: OptionalPath = Field(
        None, description="In development, push messages are written there as lines of JSON, in place of being sent."
    )
    fcm_service_account_file: OptionalPath = Field(
        None, description="Android: the service account's key file (JSON) for Firebase Cloud Messaging."
    )
    fcm_url: WebAddress = Field("https://fcm.googleapis.com", description="Android: where FCM's API is.")
    apns_key_file: OptionalPath = Field(
        None, description="iOS: the signing key (`.p8`) for Apple's push service; the next three belong to it."
    )
    apns_key_id: OptionalText = Field(None, description="iOS: the signing key's ten characters.")
    apns_team_id: OptionalText = Field(None, description="iOS: the developer team's ten characters.")
    apns_topic: OptionalText = Field(None, description="iOS: the application's bundle id.")
    apns_url: WebAddress = Field(
        "https://api.push.apple.com",
        description="iOS: where Apple's service is; `https://api.sandbox.push.apple.com` for development builds.",
    )
    web_push_private_key: OptionalSecret = Field(
        None, description="Browsers: the VAPID key, PEM or 32 bytes in base64url; a new one voids all subscriptions."
    )
    web_push_subject: Annotated[Annotated[str, Field(pattern="^(mailto:.+@|https://).+$")] | None, Optionally] = Field(
        None, description="Browsers: whom a push service may write to, `mailto:` and an address or an `https://` URL."
    )

    web_host: Annotated[str, AfterValidator(_web_host)] = Field(
        "127.0.0.1",
        description="Address on which `/metrics`, `/healthz` and `/readyz` are served: `0.0.0.0` for all of IPv4, `::` "
        "for all of IPv6 and IPv4.",
    )
    web_port: int = Field(16_066, ge=1, le=65_535, description="Port on which they are served.")
    log_level: Literal["debug", "info", "warning", "error"] = Field("info", description="Least level that is logged.")
    log_format: Literal["auto", "json", "console"] = Field(
        "auto",
        description="Log lines as JSON or for people; `auto` is for people where a terminal reads them.",
    )

    @model_validator(mode="before")
    @classmethod
    def _send_no_email_unless_told(cls, given: dict[str, Any]) -> dict[str, Any]:
        """Let the mail server of development be nobody's default elsewhere."""
        is_elsewhere = given.get("environment", "development") != "development"
        return {"email_providers": (), **given} if is_elsewhere else given

    @model_validator(mode="wrap")
    @classmethod
    def _report_all_at_once(cls, given: dict[str, Any], handler: ModelWrapValidatorHandler[Self]) -> Self:
        """Check each value, and what the values have to be together; report the problems of both at once."""
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
        """Yield what the values can't be together, but for what is about an ignored setting."""
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
                    "Make one with `openssl rand -hex 32`."
                )
        if self.mailgun_signing_key and (weakness := _weakness(self.mailgun_signing_key.get_secret_value())):
            yield (
                f"{_variable('mailgun_signing_key')} {weakness}; anybody could report bounces with it. "
                "Copy the HTTP webhook signing key from Mailgun's account security."
            )
        others = [*(self._secrets() - _OWN_KEYS.keys()), *_OWN_KEYS]
        for name, key in keys.items():
            others.remove(name)  # so that two own keys are compared once
            for other in sorted(others):
                if key == getattr(self, other).get_secret_value() and not _weakness(key):
                    yield (
                        f"{_variable(name)} is the same as {_variable(other)}; each needs a secret of its own. "
                        "Make one with `openssl rand -hex 32`."
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
                    f"{self.kafka_security_protocol}: make that {protocols}, or leave {_variable(given[0])} out"
                )

    def _problems_of_email(self) -> Iterator[str]:
        for provider in self.email_providers:
            for name in _NEEDED[provider]:
                if getattr(self, name) is None or (name == "smtp_url" and self._is_of_development(name)):
                    yield f"INKSTREAM_EMAIL_PROVIDERS names {provider}: set {_variable(name)}, or leave {provider} out"
        if self.email_providers and self._is_of_development("email_sender"):
            yield f"{_variable('email_sender')} must be set in {self.environment}: e-mails are sent from it"
        url = urlsplit(self.smtp_url.get_secret_value())
        if self.environment != "development" and url.scheme == "smtp" and url.password:
            yield "INKSTREAM_SMTP_URL would send its password in the clear: make it smtp+starttls:// or smtps://"

    def _problems_of_push(self) -> Iterator[str]:
        for names in _NEEDED_TOGETHER:
            missing = [name for name in names if getattr(self, name) is None]
            if missing and len(missing) < len(names):
                given = next(name for name in names if name not in missing)
                yield f"{_variable(given)} is set, so {' and '.join(map(_variable, missing))} must be as well, or none"
        if self.push_file and self.environment != "development":
            yield f"INKSTREAM_PUSH_FILE must not be set in {self.environment}: no push message would arrive"

    def _is_of_development(self, name: str) -> bool:
        """Whether a setting has the default that is meant for development alone, and this is not that."""
        return self.environment != "development" and name not in self.model_fields_set

    def geo_database_path(self) -> Path | None:
        """Return the geo database to use: the one set, else in development the one that a package ships, else none."""
        if self.geo_database is not None or self.environment != "development":
            return self.geo_database
        package = find_spec("_maxminddb_geolite2")
        if package is None or package.origin is None:
            return None
        return Path(package.origin).with_name("GeoLite2-City.mmdb")


class DraftSettings(Settings):
    """The settings as far as they are right: a wrong value is replaced by its default, and nothing is refused.

    For checking the rest of a configuration that is known to be wrong, never for running with it.
    """

    @model_validator(mode="wrap")
    @classmethod
    def _report_all_at_once(cls, given: dict[str, Any], handler: ModelWrapValidatorHandler[Self]) -> Self:
        try:
            return handler(given)
        except ValidationError as error:
            return handler(_without(given, error))
