"""The log: one line per event, as JSON for machines or coloured for people.

Input: log calls of our code and of Faust, aiokafka and pymongo. Output: lines on standard output, without personal
data: the content of a record is never logged, only its place.
"""

import logging
import sys
from typing import Any

import structlog

from runtime.settings import Settings

_PROCESSORS: list[Any] = [
    structlog.contextvars.merge_contextvars,
    structlog.stdlib.add_log_level,
    structlog.stdlib.add_logger_name,
    structlog.processors.TimeStamper(fmt="iso", utc=True),
]
# The values of local variables would be personal data.
_FRAMES = structlog.tracebacks.ExceptionDictTransformer(show_locals=False)
# Libraries that log too much at our own level.
_QUIETER = {
    "aiokafka": "WARNING",
    "delivery.pipeline": "WARNING",
    "faust": "WARNING",
    "mode": "WARNING",
    "pymongo": "WARNING",
    "runtime.patches": "WARNING",
    "aiohttp": "WARNING",
}


class Sparingly(logging.Filter):
    """Limits how often each message of a library is logged: a client without its server logs ten times a second.

    A message is identified by its template, so there are few, and the values in it may differ.
    """

    INTERVAL_SECONDS = 10.0

    def __init__(self) -> None:
        super().__init__()
        self._last_logged: dict[str, float] = {}

    def filter(self, record: logging.LogRecord) -> bool:
        """Whether the record is to be logged."""
        # Printed text comes line by line, and every line of a traceback matters.
        if record.name == "mode.redirect" or record.name.partition(".")[0] not in _QUIETER:
            return True
        message = f"{record.name} {record.msg}"
        if record.created - self._last_logged.get(message, 0.0) < self.INTERVAL_SECONDS:
            return False
        self._last_logged[message] = record.created
        return True


def logging_config(settings: Settings) -> dict[str, Any]:
    """Set up our own loggers, and return the configuration of the standard library's for all others."""
    structlog.configure(
        processors=[
            structlog.stdlib.filter_by_level,
            *_PROCESSORS,
            structlog.stdlib.ProcessorFormatter.wrap_for_formatter,
        ],
        logger_factory=structlog.stdlib.LoggerFactory(),
        cache_logger_on_first_use=True,
    )
    as_json = settings.log_format == "json" or (settings.log_format == "auto" and not sys.stdout.isatty())
    final: list[Any] = (
        [structlog.processors.ExceptionRenderer(_FRAMES), structlog.processors.JSONRenderer()]
        if as_json
        else [structlog.dev.ConsoleRenderer(exception_formatter=structlog.dev.plain_traceback)]
    )
    level = settings.log_level.upper()
    return {
        "version": 1,
        "disable_existing_loggers": False,
        "formatters": {
            "structured": {
                "()": structlog.stdlib.ProcessorFormatter,
                "foreign_pre_chain": _PROCESSORS,
                "processors": [structlog.stdlib.ProcessorFormatter.remove_processors_meta, *final],
            }
        },
        "filters": {"sparingly": {"()": Sparingly}},
        "handlers": {
            "standard_output": {
                "filters": ["sparingly"],
                "class": "logging.StreamHandler",
                "formatter": "structured",
                # Faust redirects sys.stdout into the log; the log itself must not be redirected.
                "stream": sys.__stdout__,
            }
        },
        "root": {"handlers": ["standard_output"], "level": level},
        "loggers": {name: {"level": quieter} for name, quieter in _QUIETER.items()},
    }
