"""Turns events into documents: the table of the function for each class of event.

Input: a validated event. Output: its writes. They are deterministic: no clock, no network.
"""

from collections.abc import Callable
from typing import Any

from enrich import audit, domain_events, logs, notifications, page_views, searches, verbatim
from enrich.context import Context
from enrich.documents import Write
from enrich.geo import GeoDatabase
from notifications.links import DEVELOPMENT_SITE, Site
from schemas.audit import AuditRecorded
from schemas.domain import DomainEvent
from schemas.envelope import Envelope
from schemas.event import Event
from schemas.logs import LogLine
from schemas.notifications import NotificationRequested
from schemas.page_views import PageExited, PageViewed
from schemas.searches import SearchPerformed, SearchResultClicked

Describe = Callable[[Envelope[Any], Context], list[Write]]

DESCRIBED_BY: dict[type[Event], Describe] = {
    PageViewed: page_views.viewed,
    PageExited: page_views.exited,
    DomainEvent: domain_events.documents,
    SearchPerformed: searches.performed,
    SearchResultClicked: searches.result_clicked,
    LogLine: logs.documents,
    AuditRecorded: audit.documents,
    NotificationRequested: notifications.documents,
    Event: verbatim.documents,
}
"""Which function describes the events of a class and of its subclasses; the nearest class counts."""


class Enricher:
    """Turns events into documents.

    Args:
        ip_hash_key: The secret key under which IP addresses are hashed.
        geo: Where IP addresses are looked up; without it documents have no `geo`.
        site: Where links of notifications may lead.
    """

    def __init__(self, *, ip_hash_key: bytes, geo: GeoDatabase | None, site: Site = DEVELOPMENT_SITE) -> None:
        self._context = Context(ip_hash_key=ip_hash_key, geo=geo, site=site)
        self._described_by: dict[type[Event], Describe] = {}

    def documents(self, event: Envelope[Event]) -> list[Write]:
        """Describe everything that is to be written for an event.

        Raises:
            InvalidEvent: A value can't be what its field says.
        """
        schema = type(event.data)
        describe = self._described_by.get(schema)
        if describe is None:
            describe = self._described_by[schema] = _described_by(schema)
        return describe(event, self._context)


def _described_by(schema: type[Event]) -> Describe:
    return next(DESCRIBED_BY[ancestor] for ancestor in schema.__mro__ if ancestor in DESCRIBED_BY)
