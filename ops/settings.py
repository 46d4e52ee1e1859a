"""Every setting in one class, read from the environment (`INKSTREAM_…`) and from `.env`.

In come environment variables; out goes a frozen, validated `Settings`. A value that cannot be right stops the program
at once, with the variable's name and what it should be.
"""

from datetime import timedelta
from importlib.util import find_spec
from pathlib import Path
from typing import Annotated, Literal

from pydantic import AwareDatetime, Field, SecretStr, model_validator
from pydantic.functional_validators import BeforeValidator
from pydantic_settings import BaseSettings, NoDecode, SettingsConfigDict

ROOT = Path(__file__).resolve().parent.parent
DEVELOPMENT_IP_HASH_KEY = "development-only-key"


def _comma_separated(value: object) -> object:
    return tuple(part.strip() for part in value.split(",") if part.strip()) if isinstance(value, str) else value


def _seconds(value: object) -> object:
    try:
        return float(value) if isinstance(value, str) else value
    except ValueError:
        return value  # ISO 8601, or wrong: pydantic's to tell


Duration = Annotated[timedelta, BeforeValidator(_seconds)]
Names = Annotated[tuple[str, ...], NoDecode, BeforeValidator(_comma_separated)]


class Settings(BaseSettings):
    """What Inkstream can be told. Each field is the variable `INKSTREAM_<NAME>`."""

    model_config = SettingsConfigDict(env_prefix="INKSTREAM_", env_file=".env", frozen=True, extra="ignore")

    environment: Literal["development", "staging", "production"] = Field(
        "development",
        description="Where this runs. Anything but `development` refuses the development secrets.",
    )
    namespace: str = Field(
        "",
        pattern=r"^[a-zA-Z0-9._-]*$",
        description="Put before the name of every topic and consumer group, to share a Kafka: `staging.`",
    )

    kafka_brokers: str = Field(
        "127.0.0.1:19092", description="Kafka's bootstrap servers, `host:port`, separated by commas."
    )
    kafka_security_protocol: Literal["PLAINTEXT", "SSL", "SASL_PLAINTEXT", "SASL_SSL"] = Field(
        "PLAINTEXT",
        description="How to talk to Kafka: encrypted (`SSL`), authenticated (`SASL_…`), or neither.",
    )
    kafka_sasl_mechanism: Literal["PLAIN", "SCRAM-SHA-256", "SCRAM-SHA-512"] = Field(
        "SCRAM-SHA-512", description="How to authenticate to Kafka, where the protocol is `SASL_…`."
    )
    kafka_sasl_username: str | None = Field(None, description="Kafka user, where the protocol is `SASL_…`.")
    kafka_sasl_password: SecretStr | None = Field(None, description="Password of the Kafka user.")
    kafka_ca_file: Path | None = Field(
        None,
        description="Certificate authority that signed Kafka's certificate (PEM); the system's by default.",
    )
    kafka_certificate_file: Path | None = Field(None, description="Our certificate for Kafka (PEM), for mutual TLS.")
    kafka_key_file: Path | None = Field(None, description="Private key of our certificate (PEM).")

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
        (), description="The topics whose agents run in this worker, separated by commas; all where empty."
    )

    ip_hash_key: SecretStr = Field(
        SecretStr(DEVELOPMENT_IP_HASH_KEY),
        description="Secret key of the HMAC-SHA-256 that stands for an IP address. A new key makes all visitors new.",
    )
    geo_database: Path | None = Field(
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

    web_host: str = Field("127.0.0.1", description="Address on which `/metrics`, `/healthz` and `/readyz` are served.")
    web_port: int = Field(16_066, ge=1, le=65_535, description="Port on which they are served.")
    log_level: Literal["debug", "info", "warning", "error"] = Field("info", description="Least level that is logged.")
    log_format: Literal["auto", "json", "console"] = Field(
        "auto",
        description="Log lines as JSON or for people; `auto` is for people where a terminal reads them.",
    )

    @model_validator(mode="after")
    def _refuse_development_secrets(self) -> "Settings":
        if self.environment != "development" and self.ip_hash_key.get_secret_value() == DEVELOPMENT_IP_HASH_KEY:
            raise ValueError(
                f"INKSTREAM_IP_HASH_KEY must be set in {self.environment}: the development key is public, "
                "so hashes made with it can be undone. Make one with `openssl rand -hex 32`."
            )
        if self.kafka_security_protocol.startswith("SASL") and (
            self.kafka_sasl_username is None or self.kafka_sasl_password is None
        ):
            raise ValueError(
                f"INKSTREAM_KAFKA_SECURITY_PROTOCOL={self.kafka_security_protocol} needs "
                "INKSTREAM_KAFKA_SASL_USERNAME and INKSTREAM_KAFKA_SASL_PASSWORD"
            )
        return self

    def geo_database_path(self) -> Path | None:
        """Return the geo database to use: the one set, else in development the one that a package ships, else none."""
        if self.geo_database is not None or self.environment != "development":
            return self.geo_database
        package = find_spec("_maxminddb_geolite2")
        if package is None or package.origin is None:
            return None
        return Path(package.origin).with_name("GeoLite2-City.mmdb")
