"""Imports all of the product but `agents.app`, which reads the settings; the workers of tests are forked after that."""

import gc
from datetime import timedelta

import uvloop  # noqa: F401 - a worker's event loop

import delivery.consumer
from tests.program import import_all

import_all()
# The successor of a killed worker waits for as long as this; the tests kill many workers.
delivery.consumer.SESSION_TIMEOUT = timedelta(seconds=3)
delivery.consumer.HEARTBEAT_INTERVAL = timedelta(seconds=1)
gc.freeze()  # so that a worker's collections copy no pages of these
