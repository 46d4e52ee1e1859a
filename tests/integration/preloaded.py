"""Imports all of the product but `agents.app`, which reads the settings; the workers of tests are forked after that."""

import gc
import importlib
import pkgutil
from datetime import timedelta

import uvloop  # noqa: F401 - a worker's event loop

import delivery.consumer

_PACKAGES = (
    "runtime",
    "delivery",
    "schemas",
    "notifications",
    "enrich",
    "sinks",
    "providers",
    "web",
    "ops",
    "agents",
)

for _package in _PACKAGES:
    for _module in pkgutil.walk_packages(importlib.import_module(_package).__path__, f"{_package}."):
        if _module.name != "agents.app":
            importlib.import_module(_module.name)
# The successor of a killed worker waits for as long as this; the tests kill many workers.
delivery.consumer.SESSION_TIMEOUT = timedelta(seconds=3)
delivery.consumer.HEARTBEAT_INTERVAL = timedelta(seconds=1)
gc.freeze()  # so that a worker's collections copy no pages of these
