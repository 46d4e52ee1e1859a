"""`inkstream settings`: which settings are in force, where each comes from, and what there is to set.

In come the environment and `.env`; out comes a table, JSON, or the page `docs/settings.md`. No secret is ever shown.
"""

import json
import os
import re
from collections.abc import Iterator, Mapping
from datetime import timedelta
from pathlib import Path
from typing import Annotated, Any, Literal, NamedTuple, get_args, get_origin

from dotenv import dotenv_values
from faust.cli.base import option
from pydantic import AwareDatetime, SecretStr, TypeAdapter
from pydantic.fields import FieldInfo
from rich.console import Console
from rich.table import Table

from ops.commands.command import InkstreamCommand
from runtime.settings import NEEDED_ELSEWHERE, ROOT
from runtime.settings import Settings as Declared

PREFIX = "INKSTREAM_"
MASK = "********"

EXAMPLES: Mapping[str, str] = {
    "environment": "production",
    "namespace": "staging.",
    "kafka_brokers": "kafka-1:9092,kafka-2:9092,kafka-3:9092",
    "kafka_security_protocol": "SASL_SSL",
    "kafka_sasl_mechanism": "SCRAM-SHA-512",
    "kafka_sasl_username": "inkstream",
    "kafka_sasl_password": "correct-horse-battery-staple",
    "kafka_ca_file": "/etc/inkstream/kafka-ca.pem",
    "kafka_certificate_file": "/etc/inkstream/kafka-client.pem",
    "kafka_key_file": "/etc/inkstream/kafka-client.key",
    "mongo_url": "mongodb://inkstream:password@mongo-1,mongo-2,mongo-3/blog-platform?replicaSet=rs0&tls=true",
    "postgres_url": "postgresql://inkstream:password@postgres:5432/blog_platform?sslmode=verify-full",
    "redis_url": "rediss://:password@redis:6379/0",
    "topics_file": "/etc/inkstream/topics.yaml",
    "partitions": "12",
    "replication": "3",
    "agents": "page-views,searches",
    "allow_fewer_replicas": "true",
    "ip_hash_key": "0f3c1d7e5a9b2846c0e1f2a3b4c5d6e7f8091a2b3c4d5e6f708192a3b4c5d6e7",
    "geo_database": "/var/lib/geo/GeoLite2-City.mmdb",
    "batch_records": "5000",
    "batches_in_flight": "4",
    "ahead_limit": "PT1H",
    "dead_letter_limit": "1",
    "dead_letter_sample": "10000",
    "stop_timeout": "PT30S",
    "count_every": "PT5S",
    "count_horizon": "P14D",
    "count_since": "2026-02-01T00:00:00Z",
    "recount_rate": "500000",
    "drift_every": "PT15M",
    "posts_update_every": "60",
    "posts_table": "blog.posts",
    "posts_id_column": "id",
    "view_count_column": "view_count",
    "notifications_file": "/etc/inkstream/notifications.yaml",
    "gather_window": "PT15M",
    "site_name": "Ada's Blog",
    "site_url": "https://blog.example",
    "link_hosts": "help.blog.example,www.blog.example",
    "recipients_view": "blog.notification_recipients",
    "recipients_kept": "PT5M",
    "notify_limit": "10",
    "notify_daily_limit": "50",
    "deliver_at_once": "64",
    "email_providers": "aws-ses,sendgrid",
    "email_sender": "Ada's Blog <news@blog.example>",
    "email_rate": "14",
    "smtp_url": "smtp+starttls://inkstream:password@mail.blog.example:587",
    "sendgrid_api_key": "SG.correct-horse-battery-staple",
    "sendgrid_url": "https://api.eu.sendgrid.com",
    "sendgrid_verification_key": "MFkwEwYHKoZIzj0CAQYIKoZIzj0DAQcDQgAE…",
    "ses_region": "eu-central-1",
    "ses_url": "https://email-fips.us-east-1.amazonaws.com",
    "ses_configuration_set": "notifications",
    "ses_topic": "arn:aws:sns:eu-central-1:123456789012:ses-receipts",
    "mailgun_api_key": "correct-horse-battery-staple",
    "mailgun_domain": "mail.blog.example",
    "mailgun_url": "https://api.eu.mailgun.net",
    "mailgun_signing_key": "correct-horse-battery-staple",
    "unsubscribe_url": "https://mail.blog.example/unsubscribe",
    "unsubscribe_key": "7d1e0c5b3a294f8e6d7c8b9a0f1e2d3c4b5a69788796a5b4c3d2e1f00f1e2d3c",
    "push_rate": "500",
    "push_file": "push.jsonl",
    "fcm_service_account_file": "/etc/inkstream/firebase.json",
    "fcm_url": "https://fcm.googleapis.com",
    "apns_key_file": "/etc/inkstream/AuthKey_ABC123DEFG.p8",
    "apns_key_id": "ABC123DEFG",
    "apns_team_id": "DEF123GHIJ",
    "apns_topic": "example.blog.reader",
    "apns_url": "https://api.sandbox.push.apple.com",
    "web_push_private_key": "correct-horse-battery-staple",
    "web_push_subject": "mailto:operations@blog.example",
    "web_host": "0.0.0.0",  # noqa: S104 - what a container needs
    "web_port": "8080",
    "log_level": "debug",
    "log_format": "json",
}
"""A value for each setting, as one would write it into the environment."""

_SECRET_PARAMETER = re.compile(r"(?i)(\w{0,64}(?:password|passphrase|token|secret)\w{0,64}=)('[^']*'|[^&\s]+)")
_LIMITS = {"ge": "at least {}", "gt": "more than {}", "le": "at most {}", "lt": "less than {}"}


_INTRODUCTION = """\
# Settings

<!-- Made by `inkstream settings --markdown > docs/settings.md`; a test fails when it is out of date. -->

Everything that Inkstream can be told is an environment variable, or a line in the file `.env` of the directory in which
it is started; the environment comes first. A command that finds settings missing or wrong lists all of them, and ends
with exit code 2. `inkstream settings` shows the effective settings and where each comes from, with secrets masked.

"""


class InForce(NamedTuple):
    """One setting: its variable, the value in force as it may be shown, and where that comes from."""

    variable: str
    value: str
    source: Literal["environment", ".env", "default"]


class Settings(InkstreamCommand):
    """Show the settings in force, and where each comes from.

    Secrets are masked.
    """

    options = [  # noqa: RUF012 - as Faust declares them
        option("--json", "as_json", is_flag=True, help="As one JSON object."),
        option("--markdown", is_flag=True, help="Instead, all there is to set, as the page docs/settings.md."),
    ]

    async def run(self, *args: Any, as_json: bool, markdown: bool) -> int:
        """Print the settings; return the exit code."""
        console = Console(highlight=False)
        if markdown:
            console.print(page(), end="", markup=False, soft_wrap=True)
            return 0
        found = in_force(Declared())
        if as_json:
            listing = {setting.variable: {"value": setting.value, "source": setting.source} for setting in found}
            console.print(json.dumps(listing, indent=2), markup=False, soft_wrap=True)
            return 0
        table = Table("variable", "value", "from", box=None, pad_edge=False)
        for setting in found:
            table.add_row(*setting, style=None if setting.source == "default" else "bold")
        console.print(table)
        return 0


def in_force(settings: Declared) -> list[InForce]:
    """Return all settings in the order of their declaration."""
    environment = {name.upper() for name in os.environ}
    # An empty file name would have it look in all the directories above.
    file = {name.upper() for name in dotenv_values(Path(".env"))}
    return [
        InForce(
            variable := variable_of(name),
            shown(name, getattr(settings, name)),
            "environment" if variable in environment else ".env" if variable in file else "default",
        )
        for name in Declared.model_fields
    ]


def variable_of(name: str) -> str:
    """Return the environment variable of a setting."""
    return PREFIX + name.upper()


def shown(name: str, value: object) -> str:
    """Return a value as one would write it into the environment, without its secrets."""
    match value:
        case None:
            return ""
        case SecretStr():
            return masked_url(value.get_secret_value()) if name.endswith("_url") else MASK
        case bool():
            return str(value).lower()
        case tuple():
            return ",".join(map(str, value))
        case timedelta():
            return str(TypeAdapter(timedelta).dump_python(value, mode="json"))
        case Path() if value.is_relative_to(ROOT):
            return str(value.relative_to(ROOT))
        case _:
            return str(value)


def masked_url(url: str) -> str:
    """Return a connection string with its password masked, and all parameters that sound like one."""
    scheme, separator, rest = url.partition("://")
    # Up to the last @, as a password that was not encoded may hold one.
    credentials, at, address = rest.rpartition("@")
    user, colon, _ = credentials.partition(":")
    masked = f"{scheme}{separator}{user}{colon}{MASK if colon else ''}{at}{address}"
    return _SECRET_PARAMETER.sub(rf"\g<1>{MASK}", masked)


def page() -> str:
    """Return the page `docs/settings.md`."""
    return "\n".join(_page_lines()) + "\n"


def _page_lines() -> Iterator[str]:
    yield from _INTRODUCTION.splitlines()
    yield "| variable | default | |"
    yield "|---|---|---|"
    for name, field in Declared.model_fields.items():
        variable = variable_of(name)
        yield f"| [`{variable}`](#{variable.lower()}) | {_code(_default(name, field))} | {field.description} |"
    for name, field in Declared.model_fields.items():
        yield ""
        yield f"## {variable_of(name)}"
        yield ""
        yield f"{field.description}"
        yield ""
        yield f"- Value: {_expected(field)}"
        yield f"- Default: {_code(_default(name, field)) or 'none'}"
        if reason := NEEDED_ELSEWHERE.get(name):
            yield f"- Outside of development: must be set, as {reason}"
        yield f"- Example: `{variable_of(name)}={EXAMPLES[name]}`"


def _default(name: str, field: FieldInfo) -> str:
    value = field.get_default(call_default_factory=False)
    # A default is no secret: it is in the source.
    return value.get_secret_value() if isinstance(value, SecretStr) else shown(name, value)


def _code(text: str) -> str:
    return f"`{text}`" if text else ""


def _expected(field: FieldInfo) -> str:
    """Describe the values that a setting takes."""
    annotation = field.annotation
    types = [annotation, *map(_unannotated, get_args(annotation))]
    if get_origin(annotation) is Literal:
        return "one of " + _choices(annotation)
    if get_origin(annotation) is tuple and get_origin(types[1]) is Literal:
        return f"some of {_choices(types[1])}, separated by commas"
    limits = [
        words.format(shown("", getattr(constraint, limit)))
        for constraint in field.metadata
        for limit, words in _LIMITS.items()
        if hasattr(constraint, limit)
    ]
    for kind, words in (
        (bool, "`true` or `false`"),
        (int, "a whole number"),
        (float, "a number"),
        (timedelta, "a duration in ISO 8601, as `PT10S`, `PT1H`, `P1D`"),
        (AwareDatetime, "a moment with its zone, as `2026-01-31T12:00:00Z`"),
        (Path, "a path"),
        (SecretStr, "a text, kept secret"),
        (tuple, "names, separated by commas"),
        (str, "a text"),
    ):
        if kind in types or get_origin(annotation) is kind:
            return ", ".join([words, *limits])
    raise TypeError(f"no words for {annotation}")


def _unannotated(kind: Any) -> Any:  # noqa: ANN401 - any type there is
    return get_args(kind)[0] if get_origin(kind) is Annotated else kind


def _choices(literal: object) -> str:
    return ", ".join(f"`{choice}`" for choice in get_args(literal))
