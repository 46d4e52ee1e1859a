"""Creates the documents of searches, and of clicks on their results.

Input: a search or a click. Output: the search's document in `searchQueries`, or the click's update of it, and in either
case an event for `analyticsEvents`. A click may come before its search, or twice.
"""

import unicodedata

from enrich.analytics import analytics_event
from enrich.context import Context
from enrich.documents import Document, PartialUpdate, Write
from enrich.verbatim import clamped, head, payload
from schemas.envelope import Envelope
from schemas.identity import of_producer
from schemas.searches import SearchPerformed, SearchResultClicked

COLLECTION = "searchQueries"

_MOST_MARKS = 30
"""How many marks may stand on one letter, by Unicode's stream-safe format: https://unicode.org/reports/tr15/#UAX15-D3

More are in no script. Sorting them, which is a part of NFKC, takes a time that grows with the square of their number.
"""


def performed(event: Envelope[SearchPerformed], _: Context) -> list[Write]:
    """Describe a search."""
    search = event.data
    query = head(event) | payload(search) | clamped(event)
    query["normalizedQuery"] = normalized(search.query)
    query["clickedResults"] = []
    return [
        Document(COLLECTION, query),
        analytics_event(
            event,
            entity_id=event.id,
            entity_type="search",
            user_id=search.user_id,
            session_id=search.session_id,
            properties={"query": search.query, "resultsCount": search.results_count},
        ),
    ]


def result_clicked(event: Envelope[SearchResultClicked], _: Context) -> list[Write]:
    """Describe what a click adds to its search."""
    click = event.data
    search_id = of_producer(click.search_id)
    clicked = {"postId": click.post_id, "position": click.position, "clickedAt": event.time}
    return [
        PartialUpdate(COLLECTION, search_id, event.time, highest={}, added={"clickedResults": [clicked]}),
        analytics_event(
            event,
            entity_id=search_id,
            entity_type="search",
            user_id=click.user_id,
            session_id=click.session_id,
            properties={"postId": click.post_id, "clickedResultPosition": click.position},
        ),
    ]


def normalized(query: str) -> str:
    """Return the form in which equal searches are equal: lower case, Unicode NFKC, single spaces, none at the ends.

    Normalising the result again changes nothing. Of more than 30 marks on one letter, the first 30 stay.
    """
    query = query if query.isascii() else _with_few_marks(query)
    # Composed once more after lowering: the lower case of a composed letter may be a decomposed one.
    lowered = unicodedata.normalize("NFKC", query).lower()
    return " ".join(unicodedata.normalize("NFKC", lowered).split())


def _with_few_marks(text: str) -> str:
    kept: list[str] = []
    marks = 0
    for character in text:
        marks = marks + 1 if unicodedata.combining(character) else 0
        if marks <= _MOST_MARKS:
            kept.append(character)
    return "".join(kept)
