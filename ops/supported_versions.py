"""The oldest supported version of each server. README.md lists them with the tested versions."""

import re
from collections.abc import Collection, Mapping

OLDEST: Mapping[str, str] = {"Kafka": "3.0", "MongoDB": "6.0", "PostgreSQL": "14", "Redis": "6.2"}

_OF_KAFKA_3 = 65
"""The API key of `DescribeTransactions`, added in Kafka 3.0: brokers report API keys, but not their version."""


def is_too_old(server: str, version: str) -> bool:
    """Whether a version such as `16.2 (Debian 16.2-1)` or `8.0-rc1` is below the oldest; an unknown format is not.

    Valkey and other servers with Redis's protocol report the version of Redis that they are compatible with.
    """
    found = re.match(r"\d+(\.\d+)?", version)
    return found is not None and _numbers(found[0]) < _numbers(OLDEST[server])


def is_kafka_too_old(requests: Collection[int]) -> bool:
    """Whether a broker that supports these API keys is below the oldest version."""
    return _OF_KAFKA_3 not in requests


def _numbers(version: str) -> tuple[int, ...]:
    return tuple(map(int, version.split(".")))
