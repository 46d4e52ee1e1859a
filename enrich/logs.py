"""Creates the documents of log lines, and groups those that report an error.

Input: a line. Output: a document for `systemLogs`; a line of level `error` or `fatal` is also counted in its group in
`errorLogs`, and both are written together.
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
    """Return the line's document, with its group if it reports an error."""
    line = head(event) | payload(event.data, without=_OF_THE_GROUP)
    if event.data.level in ERROR_LEVELS:
        return [occurrence(event, line)]
    return [Document("systemLogs", line)]
