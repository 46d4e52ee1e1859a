"""Checks the whole configuration: settings, the files that they name, and the declarations.

Every command runs this check first, so that all problems are reported at once and all commands accept the same
configuration. It contacts no server, except AWS for credentials if e-mail is sent by Amazon SES.
"""

from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

from pydantic import ValidationError
from pydantic_settings import SettingsError

from agents.server_problems import first_line
from delivery.kafka import FEWEST_REPLICAS, ssl_context
from enrich.geo import GeoDatabase, GeoDatabaseError
from notifications import rules
from providers import registry
from runtime.settings import DraftSettings, Settings
from schemas.declarations import DeclarationError
from schemas.topics import Topics, load
from sinks.collections import NAMES
from sinks.mongo.client import Mongo
from sinks.postgres import pool
from sinks.postgres.pool import PostgresUrlError
from sinks.redis import connection
from sinks.redis.connection import RedisUrlError
from sinks.servers import MongoUrlError

_NAMED = 3


class ConfigurationError(ValueError):
    """The configuration is wrong. `lines` has one line for each problem, without values of secrets."""

    def __init__(self, lines: list[str]) -> None:
        super().__init__("\n".join(lines))
        self.lines = lines


def check(*, with_providers: bool = True) -> Settings:
    """Return the settings if the whole configuration is valid.

    Args:
        with_providers: Whether the providers of e-mail and push are checked as well.

    Raises:
        ConfigurationError: Something is missing or wrong; the error lists every problem.
    """
    lines = []
    try:
        settings = Settings()
    except ValidationError as error:
        lines = list(problems_of(error))
        settings = DraftSettings()
    except SettingsError as error:
        raise ConfigurationError([str(error)]) from None
    lines += problems(settings)
    if with_providers:
        lines += problems_of_providers(settings)
    if lines:
        raise ConfigurationError(list(dict.fromkeys(lines)))
    return settings


def problems_of(error: ValidationError) -> Iterator[str]:
    """Yield a line for each wrong setting, without values of secrets."""
    for detail in error.errors(include_url=False):
        message = detail["msg"].removeprefix("Value error, ")
        if not detail["loc"]:
            yield from message.splitlines()
            continue
        name = str(detail["loc"][0])
        field = Settings.model_fields.get(name)
        is_secret = field is None or "Secret" in str(field.annotation)
        given = "" if is_secret or detail["type"] == "missing" else f"; got {detail['input']!r}"
        yield f"INKSTREAM_{name.upper()}: {message[:1].lower()}{message[1:]}{given}"


def problems(settings: Settings) -> Iterator[str]:
    """Yield the problems of everything that the settings refer to: URLs, files, declarations."""
    yield from _problems_of_kafka_files(settings)
    addresses: Mapping[str, Callable[[], object]] = {
        "INKSTREAM_MONGO_URL": lambda: Mongo.connect(settings.mongo_url.get_secret_value(), settings.namespace),
        "INKSTREAM_POSTGRES_URL": lambda: pool.check_url(settings.postgres_url.get_secret_value()),
        "INKSTREAM_REDIS_URL": lambda: connection.connect(settings.redis_url.get_secret_value(), timeout_seconds=1),
        "INKSTREAM_GEO_DATABASE": lambda: settings.geo_database and GeoDatabase.open(settings.geo_database),
    }
    for setting, use in addresses.items():
        try:
            use()
        except (MongoUrlError, PostgresUrlError, RedisUrlError, GeoDatabaseError) as error:
            yield f"{setting}: {first_line(error)}"
        except OSError as error:  # a file that the URL names
            yield f"{setting}: {error.filename or 'a file'} cannot be read: {error.strerror}"
    yield from _problems_of_declarations(settings)


def problems_of_providers(settings: Settings) -> list[str]:
    """Return what is missing or wrong of the providers, a line for each; none where this worker does not deliver."""
    return registry.problems(settings) if not settings.agents or "deliver" in settings.agents else []


def _problems_of_kafka_files(settings: Settings) -> Iterator[str]:
    named = ("kafka_ca_file", "kafka_certificate_file", "kafka_key_file")
    missing = False
    for name in named:
        path: Path | None = getattr(settings, name)
        if path is not None and (problem := _problem_of_file(path)):
            missing = True
            yield f"INKSTREAM_{name.upper()}: {problem}"
    if not missing:
        try:
            ssl_context(settings)
        except (OSError, ValueError) as error:  # SSLError is an OSError
            variables = ", ".join(f"INKSTREAM_{name.upper()}" for name in named if getattr(settings, name) is not None)
            yield f"{variables}: should be a matching certificate and key in PEM format: {error}"


def _problem_of_file(path: Path) -> str | None:
    try:
        path.read_bytes()
    except OSError as error:
        return f"{path} cannot be read: {error.strerror}"
    return None


def _problems_of_declarations(settings: Settings) -> Iterator[str]:
    files = {"INKSTREAM_TOPICS_FILE": settings.topics_file, "INKSTREAM_NOTIFICATIONS_FILE": settings.notifications_file}
    unreadable = {variable: problem for variable, path in files.items() if (problem := _problem_of_file(path))}
    yield from (f"{variable}: {problem}" for variable, problem in unreadable.items())
    if "INKSTREAM_TOPICS_FILE" in unreadable:
        return
    try:
        topics = load(settings.topics_file, NAMES, partitions=settings.partitions, replication=settings.replication)
    except DeclarationError as error:
        yield str(error)  # rules can't be checked without topics
        return
    yield from _problems_of_replicas(settings, topics)
    if "INKSTREAM_NOTIFICATIONS_FILE" not in unreadable:
        events = {name: event for topic in topics.inbound.values() for name, event in topic.events.items()}
        try:
            rules.load(settings.notifications_file, events, window=settings.gather_window)
        except DeclarationError as error:
            yield str(error)


def _problems_of_replicas(settings: Settings, topics: Topics) -> Iterator[str]:
    few = [topic for topic in topics.all.values() if topic.replication < FEWEST_REPLICAS]
    if not few or settings.environment != "production" or settings.allow_fewer_replicas:
        return
    names = ", ".join(topic.name for topic in few[:_NAMED]) + (f" and {len(few) - _NAMED} more" if few[_NAMED:] else "")
    if settings.replication is not None and settings.replication >= FEWEST_REPLICAS:
        remedy = f"raise their `replication` in {settings.topics_file.name} to {FEWEST_REPLICAS}"
    else:
        remedy = f"set INKSTREAM_REPLICATION={FEWEST_REPLICAS}, which needs as many brokers"
    yield (
        f"INKSTREAM_REPLICATION: topics {names} would have {min(topic.replication for topic in few)} of the "
        f"{FEWEST_REPLICAS} replicas that production needs: {remedy}. To accept the loss of events with a broker, set "
        "INKSTREAM_ALLOW_FEWER_REPLICAS=true"
    )
