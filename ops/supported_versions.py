"""The oldest version of each server that is supported. README.md lists them beside the versions that are tested."""

import re
from collections.abc import Collection, Mapping

OLDEST: Mapping[str, str] = {"Kafka": "3.0", "MongoDB": "6.0", "PostgreSQL": "14", "Redis": "6.2"}

_OF_KAFKA_3 = 65
"""The number of `DescribeTransactions`, which came with Kafka 3.0: brokers tell what they can do, and no version."""


def is_too_old(server: str, version: str) -> bool:
    """Whether a server's version is below the oldest; one that can't be read is not: `16.2 (Debian 16.2-1)`, `8.0-rc1`.

    Valkey, and what else speaks Redis's protocol, tells the version of Redis that it is compatible with.
    """
    found = re.match(r"\d+(\.\d+)?", version)
    return found is not None and _numbers(found[0]) < _numbers(OLDEST[server])


def is_kafka_too_old(requests: Collection[int]) -> bool:
    """Whether a broker that takes these requests, by their numbers, is below the oldest."""
    return _OF_KAFKA_3 not in requests


def _numbers(version: str) -> tuple[int, ...]:
    return tuple(map(int, version.split(".")))
