"""Log lines: kept as they come, and gathered into groups where they tell of an error.

In comes a line, out goes a document for `systemLogs`; with level `error` or `fatal` it also counts in its group in
`errorLogs`, and the two are written together.
"""

from enrich.context import Context
from enrich.documents import Document, Write
from enrich.errors import occurrence
from enrich.verbatim import head, payload
from schemas.envelope import Envelope
from schemas.logs import LogLine

ERROR_LEVELS = frozenset({"error", "fatal"})

# They describe an error, and errorLogs has them; systemLogs has not.
_OF_THE_GROUP = frozenset({"endpoint", "method", "fingerprint", "context"})


def documents(event: Envelope[LogLine], _: Context) -> list[Write]:
    """Describe the line, and its part in a group where it tells of an error."""
    line = head(event) | payload(event.data, without=_OF_THE_GROUP)
    if event.data.level in ERROR_LEVELS:
        return [occurrence(event, line)]
    return [Document("systemLogs", line)]
