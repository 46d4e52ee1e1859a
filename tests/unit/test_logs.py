"""Logging: no local variables in tracebacks, and libraries do not flood the log."""

import json
import logging
import logging.config
import subprocess
import sys

from runtime.logs import Sparingly

PROGRAM = """
import logging.config, structlog
from runtime.logs import logging_config
from runtime.settings import Settings
logging.config.dictConfig(logging_config(Settings(log_format="json")))
log = structlog.get_logger("inkstream")
try:
    address = "ann@example.com"
    raise ValueError("no such reader")
except ValueError:
    log.exception("failed", topic="page-views")
"""


def test_a_traceback_tells_where_but_no_values() -> None:
    output = subprocess.run([sys.executable, "-c", PROGRAM], capture_output=True, text=True, check=True).stdout
    assert "ann@example.com" not in output
    line = json.loads(output)
    assert (line["event"], line["topic"], line["level"]) == ("failed", "page-views", "error")
    assert line["exception"][0]["exc_type"] == "ValueError"


def record(logger: str, message: str, seconds: float) -> logging.LogRecord:
    made = logging.LogRecord(logger, logging.ERROR, __file__, 1, message, None, None)
    made.created = seconds
    return made


def test_a_message_of_a_library_is_logged_once_in_ten_seconds() -> None:
    sparingly = Sparingly()
    told = [sparingly.filter(record("aiokafka.client", "no node %s", second)) for second in range(100, 121)]
    assert told.count(True) == 3
    assert sparingly.filter(record("aiokafka.client", "another message", 121))


def test_all_our_own_messages_are_logged() -> None:
    sparingly = Sparingly()
    assert all(sparingly.filter(record("delivery.consumer", "dead letter", 1)) for _ in range(10))
