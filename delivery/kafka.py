"""How to reach Kafka: turns settings into the options of every client.

Input: settings. Output: keyword arguments for aiokafka's clients. Keeps no connection open.
"""

import ssl
from typing import Any

from aiokafka.admin import AIOKafkaAdminClient
from aiokafka.helpers import create_ssl_context

from runtime.patches import aiokafka as patch
from runtime.settings import Settings

FEWEST_REPLICAS = 3
"""With so many replicas, `FEWEST_IN_SYNC` of them for each write, a lost broker loses no acknowledged event."""

FEWEST_IN_SYNC = 2


def client_options(settings: Settings) -> dict[str, Any]:
    """Return the connection options of every aiokafka client, and patch its consumers to read every record.

    Raises:
        OSError: A file for TLS can't be read, or is not a certificate or key.
    """
    patch.apply()
    options: dict[str, Any] = {
        "bootstrap_servers": settings.kafka_brokers,
        "security_protocol": settings.kafka_security_protocol,
        "ssl_context": ssl_context(settings),
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


def ssl_context(settings: Settings) -> ssl.SSLContext | None:
    """Return how to encrypt connections to Kafka; `None` if they are not encrypted.

    Raises:
        OSError: A file can't be read, or is not a certificate or key; an `ssl.SSLError` is an `OSError` too.
    """
    if not settings.kafka_security_protocol.endswith("SSL"):
        return None
    context: ssl.SSLContext = create_ssl_context(
        cafile=settings.kafka_ca_file,
        certfile=settings.kafka_certificate_file,
        keyfile=settings.kafka_key_file,
    )
    return context


async def ping(settings: Settings) -> None:
    """Return when a broker answers.

    Raises:
        KafkaError: No broker answers.
    """
    admin = AIOKafkaAdminClient(**client_options(settings), request_timeout_ms=4_000)
    try:
        await admin.start()
    finally:
        await admin.close()
