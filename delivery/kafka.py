"""How to reach Kafka: one place that turns settings into the options of every client.

In come settings; out go keyword arguments for aiokafka's clients and the credentials of Faust's own connection.
"""

import ssl
from typing import Any

import faust
from aiokafka.admin import AIOKafkaAdminClient
from aiokafka.helpers import create_ssl_context

from ops.settings import Settings


def client_options(settings: Settings) -> dict[str, Any]:
    """Return the connection options that every aiokafka client takes."""
    options: dict[str, Any] = {
        "bootstrap_servers": settings.kafka_brokers,
        "security_protocol": settings.kafka_security_protocol,
        "ssl_context": _ssl_context(settings),
        "client_id": "inkstream",
    }
    if settings.kafka_security_protocol.startswith("SASL"):
        assert settings.kafka_sasl_password is not None  # settings refuse SASL without it
        options |= {
            "sasl_mechanism": settings.kafka_sasl_mechanism,
            "sasl_plain_username": settings.kafka_sasl_username,
            "sasl_plain_password": settings.kafka_sasl_password.get_secret_value(),
        }
    return options


def faust_credentials(settings: Settings) -> faust.SASLCredentials | faust.SSLCredentials | None:
    """Return the credentials of Faust's own connection to Kafka."""
    context = _ssl_context(settings)
    if settings.kafka_security_protocol.startswith("SASL"):
        assert settings.kafka_sasl_password is not None
        return faust.SASLCredentials(
            username=settings.kafka_sasl_username,
            password=settings.kafka_sasl_password.get_secret_value(),
            mechanism=settings.kafka_sasl_mechanism,
            ssl_context=context,
        )
    return None if context is None else faust.SSLCredentials(context=context)


def faust_brokers(settings: Settings) -> list[str]:
    """Return the brokers as Faust wants them: URLs."""
    return [f"kafka://{broker.strip()}" for broker in settings.kafka_brokers.split(",")]


def _ssl_context(settings: Settings) -> ssl.SSLContext | None:
    if not settings.kafka_security_protocol.endswith("SSL"):
        return None
    context: ssl.SSLContext = create_ssl_context(
        cafile=settings.kafka_ca_file, certfile=settings.kafka_certificate_file, keyfile=settings.kafka_key_file
    )
    return context


async def ping(settings: Settings) -> None:
    """Return when a broker answers.

    Raises:
        KafkaError: None did.
    """
    admin = AIOKafkaAdminClient(**client_options(settings), request_timeout_ms=4_000)
    try:
        await admin.start()
    finally:
        await admin.close()
