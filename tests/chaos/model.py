"""Compute from the event log what must be in each database, with plain dictionaries and no code that writes them.

Input: the records that Kafka acknowledged, in any order.
Output: what a run without faults leaves: documents by id, error groups, gathered notifications, views by window, and
the records that must be dead letters. If copies of an event make different documents, as Kafka got them at different
moments, each of them is right; the database says which one it has, and everything that is counted follows that one.
"""

from bisect import insort
from collections import Counter, defaultdict
from collections.abc import Callable, Collection, Container, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from hashlib import blake2b
from typing import Any, NamedTuple, cast

import bson
from bson.codec_options import CodecOptions

from enrich.documents import Document, GroupedNotification, Occurrence, PartialUpdate, Write
from enrich.enricher import Enricher
from enrich.geo import GeoDatabase
from enrich.notifications import Notifier, notification, queue_item
from enrich.view_windows import Window
from notifications import rules
from notifications.grouping import EXACT, NEWEST, Act, NotificationGroup
from notifications.notice import Notice, Words, expiry
from runtime.settings import Settings
from schemas.cloudevents import Decoder, Record
from schemas.envelope import InvalidEvent
from schemas.topics import Topics
from sinks.collections import (
    COLLECTIONS,
    NOTIFICATION_QUEUE,
    NOTIFICATIONS,
    PAGE_VIEWS,
    SEARCH_QUERIES,
    SYSTEM_LOGS,
)
from tests.chaos.event_log import Entry

REFUSED_BY_STORE = frozenset({"refused-by-store", "too-large"})
"""The reasons that MongoDB decides; all others show when a record is read."""

_CODEC: CodecOptions[Any] = CodecOptions(tz_aware=True)
LATE: Mapping[str, Collection[str]] = {
    PAGE_VIEWS.name: ("timeSpent", "scrollDepth", "interacted", "exitedAt", "clamped"),
    SEARCH_QUERIES.name: ("clickedResults",),
}
"""The fields that other events than the document's own may change."""

_MOVED_BY_DELIVERY = (
    "status",
    "attempts",
    "lastAttemptAt",
    "nextRetryAt",
    "errors",
    "processedAt",
    "completedAt",
    "deliveries",
    "recipient",
    "lease",
    "revision",
    "missingSince",
)
"""The fields of an item of the queue that delivery changes."""

_WINDOW = timedelta(minutes=5)
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_REFUSALS = (bson.errors.BSONError, OverflowError)
"""What is raised where MongoDB can't hold a document."""

_DIGEST_BYTES = 16
"""Enough that no two documents share a digest."""

Body = Mapping[str, Any]
View = tuple[str, int]
"""A view by a person: its post, and the number of its window since 1970."""


def kept(document: Body) -> dict[str, Any]:
    """Return a document as MongoDB keeps it: moments in UTC, to the millisecond.

    Raises:
        BSONError: MongoDB can't hold it.
        OverflowError: It can't hold a number in it.
    """
    return decoded(bson.encode(document))


def decoded(encoded: bytes) -> dict[str, Any]:
    """Return a document that was encoded; its moments have a zone."""
    document: dict[str, Any] = bson.decode(encoded, _CODEC)
    return document


def steady(collection: str, document: Body) -> dict[str, Any]:
    """Return the part of a document that its own event alone decides, the fields in the order of their names."""
    if collection == NOTIFICATIONS.name:
        channels = {name: channel.get("enabled") for name, channel in document.get("channels", {}).items()}
        return dict(sorted({**document, "channels": channels}.items()))
    moved: Container[str] = _MOVED_BY_DELIVERY if collection == NOTIFICATION_QUEUE.name else LATE.get(collection, ())
    return {name: document[name] for name in sorted(document) if name not in moved}


def is_steady(collection: str) -> bool:
    """Return whether a document of the collection is its own event's alone, byte for byte."""
    return collection not in (*LATE, NOTIFICATIONS.name, NOTIFICATION_QUEUE.name)


def digest(encoded: bytes) -> bytes:
    """Return what stands for an encoded document."""
    return blake2b(encoded, digest_size=_DIGEST_BYTES).digest()


def digest_of(collection: str, document: Body) -> bytes:
    """Return what stands for the steady part of a document; of a document that is all steady, for its bytes.

    Raises:
        BSONError: MongoDB can't hold it.
        OverflowError: It can't hold a number in it.
    """
    return digest(bson.encode(document if is_steady(collection) else steady(collection, document)))


# Events ---------------------------------------------------------------------------------------------------------


class Described(NamedTuple):
    """What a record amounts to.

    Attributes:
        writes: What is to be written for it.
        reason: Why it is no valid event; `None` where it is one.
    """

    writes: list[Write]
    reason: str | None

    @property
    def tells(self) -> bool:
        """Whether it notifies anyone."""
        return any(
            not isinstance(write, Occurrence) and write.collection == NOTIFICATIONS.name for write in self.writes
        )


class Describer:
    """Says of each record what is to be written for it, as the agents of a worker do.

    Args:
        settings: As the workers have them.
        topics: As they are declared.

    Attributes:
        notified: The names of the topics of whose events people are told.
    """

    def __init__(self, settings: Settings, topics: Topics) -> None:
        events = {name: event for topic in topics.inbound.values() for name, event in topic.events.items()}
        self._notifier = Notifier(rules.load(settings.notifications_file, events, window=settings.gather_window))
        path = settings.geo_database_path()
        geo = GeoDatabase.open(path) if path and path.exists() else None
        self._enricher = Enricher(ip_hash_key=settings.ip_hash_key.get_secret_value().encode(), geo=geo)
        self.notified = [
            name
            for name, topic in topics.inbound.items()
            if any(event in self._notifier.events for event in topic.events)
        ]
        prefix = settings.namespace
        self._notified = {prefix + name for name in self.notified}
        self._stored = {prefix + name for name, topic in topics.inbound.items() if topic.collections}
        self._decoders = {prefix + name: Decoder(topic, settings.ahead_limit) for name, topic in topics.all.items()}

    def __call__(self, entry: Entry) -> Described:
        """Describe a record."""
        try:
            event = self._decoders[entry.topic].decode(cast("Record", entry))
        except InvalidEvent as error:
            return Described([], error.reason)
        # Who makes notifications looks at no address, so a record may be refused, and tell people all the same.
        told = [*self._notifier.documents(event)] if entry.topic in self._notified else []
        try:
            stored = self._enricher.documents(event) if entry.topic in self._stored else []
        except InvalidEvent as error:
            return Described(told, error.reason)
        return Described([*stored, *told], None)


# Documents ------------------------------------------------------------------------------------------------------


class Attached(NamedTuple):
    """What else is known of a document that one copy of an event makes.

    Attributes:
        late: Its values of the fields that other events may change, in the order of `LATE`.
        view: What it counts for, where it is a view by a person.
        group: Its error's group, encoded, where it is a line that tells of one.
    """

    late: tuple[Any, ...] = ()
    view: View | None = None
    group: bytes | None = None


_NOTHING = Attached()


class Documents:
    """The documents of one collection by id, and of each what every copy of its event makes.

    Hardly any id has two, so the first is kept apart, in little room.
    """

    def __init__(self) -> None:
        self._first: dict[str, bytes] = {}
        self._attached: dict[str, Attached] = {}
        self._others: defaultdict[str, dict[bytes, Attached]] = defaultdict(dict)

    def add(self, document_id: str, its_digest: bytes, attached: Attached = _NOTHING) -> None:
        """Take in what a copy of an event makes; what is known changes nothing."""
        if self._first.setdefault(document_id, its_digest) != its_digest:
            self._others[document_id].setdefault(its_digest, attached)
        elif attached is not _NOTHING:
            self._attached.setdefault(document_id, attached)

    def __len__(self) -> int:
        """Return how many documents there are to be."""
        return len(self._first)

    def __iter__(self) -> Iterator[str]:
        """Yield their ids."""
        return iter(self._first)

    def __contains__(self, document_id: object) -> bool:
        """Return whether such a document must exist."""
        return document_id in self._first

    def is_one_of_several(self, document_id: str) -> bool:
        """Return whether copies of its event make different documents."""
        return document_id in self._others

    def has(self, document_id: str, its_digest: bytes) -> bool:
        """Return whether a copy of an event makes this document."""
        return self._first.get(document_id) == its_digest or its_digest in self._others.get(document_id, ())

    def attached(self, document_id: str, its_digest: bytes | None = None) -> Attached:
        """Return what is known of the document with this digest; of the first one, where none has it."""
        if its_digest is not None and its_digest != self._first.get(document_id):
            other = self._others.get(document_id, {}).get(its_digest)
            if other is not None:
                return other
        return self._attached.get(document_id, _NOTHING)

    def all_attached(self, stored: Mapping[str, bytes]) -> Iterator[Attached]:
        """Yield what is known of each document.

        Args:
            stored: Of ids that several documents may have, the digest of the one that is stored.
        """
        for document_id, attached in self._attached.items():
            if document_id not in self._others:
                yield attached
        for document_id in self._others:
            yield self.attached(document_id, stored.get(document_id))


class _Additions:
    """What events other than its own add to one document."""

    __slots__ = ("added", "highest", "timestamps")

    def __init__(self) -> None:
        self.highest: dict[str, Any] = {}
        self.added: dict[str, list[Any]] = {}
        self.timestamps: list[datetime] = []


class Parts:
    """What later events add to the documents of a collection: the highest value of a field, the union of a list."""

    def __init__(self) -> None:
        self._of: defaultdict[str, _Additions] = defaultdict(_Additions)

    def add(self, part: PartialUpdate) -> None:
        """Take a part in; what is known changes nothing."""
        of_document = self._of[part.id]
        values = kept({"highest": part.highest, "added": part.added, "timestamp": part.timestamp})
        for name, value in values["highest"].items():
            before = of_document.highest.get(name)
            of_document.highest[name] = value if before is None else max(before, value)
        for name, items in values["added"].items():
            union = of_document.added.setdefault(name, [])
            for item in items:
                if item not in union:
                    insort(union, item, key=lambda it: (it["clickedAt"], it["position"], it["postId"]))
        if values["timestamp"] not in of_document.timestamps:
            of_document.timestamps.append(values["timestamp"])

    def __iter__(self) -> Iterator[str]:
        """Yield the ids of the documents that anything is added to."""
        return iter(self._of)

    def merged(self, document_id: str, late: Body) -> dict[str, Any]:
        """Return the late fields of a document together with its parts; an unknown field is missing.

        Args:
            document_id: The document.
            late: What the document's own event says of them; empty where that never came.
        """
        merged = {name: value for name, value in late.items() if value is not None}
        of_document = self._of.get(document_id)
        if of_document is None:
            return merged
        for name, value in of_document.highest.items():
            merged[name] = max(merged[name], value) if name in merged else value
        for name, items in of_document.added.items():
            # What its own event brings is empty, so there is nothing to unite.
            merged[name] = [*merged.get(name, ()), *items]
        return merged

    def placeholders(self, document_id: str) -> list[dict[str, Any]]:
        """Return the documents of which one is there while the event that it belongs to has not come.

        They differ in their time, which is that of whichever part was stored first.
        """
        merged = self.merged(document_id, {})
        timestamps = self._of[document_id].timestamps
        return [{"_id": document_id, "timestamp": when, "incomplete": True, **merged} for when in timestamps]


# Groups ---------------------------------------------------------------------------------------------------------


def grouped_errors(occurrences: Collection[bytes]) -> dict[str, dict[str, Any]]:
    """Return the error groups that lines make, by fingerprint.

    Args:
        occurrences: Of each line the group as it is where this is its only occurrence, encoded.
    """
    latest: dict[str, dict[str, Any]] = {}
    first: dict[str, datetime] = {}
    count = Counter[str]()
    for encoded in occurrences:
        group = decoded(encoded)
        name, moment = group["_id"], group["lastOccurrence"]
        count[name] += 1
        first[name] = min(first.get(name, moment), moment)
        known = latest.get(name)
        if known is None or (moment, group["lastEventId"]) > (known["lastOccurrence"], known["lastEventId"]):
            latest[name] = group
    return {
        name: group
        | {
            "firstOccurrence": first[name],
            "timestamp": group["lastOccurrence"],
            "occurrenceCount": count[name],
        }
        for name, group in latest.items()
    }


@dataclass
class Group:
    """Notices that are gathered in one notification; no one reads in a run, so each group has one.

    Attributes:
        name: The group's.
        newest: The newest notice.
        acts: What each person did last.
        made_at: The moments of all notices: the notification has that of whichever came first, and so has its item.
    """

    name: str
    newest: Notice
    acts: dict[str, Act] = field(default_factory=dict)
    made_at: set[datetime] = field(default_factory=set)

    @property
    def id(self) -> str:
        """The notification's id, and its item's."""
        return f"{self.name}-1"

    def add(self, notice: Notice) -> None:
        """Take a notice in; what is known changes nothing."""
        assert notice.actor_id is not None
        act = Act(_to_milliseconds(notice.created_at), notice.id, notice.actor_id, notice.actor_name)
        self.made_at.add(act.time)
        known = self.acts.get(notice.actor_id)
        if known is None or act.rank > known.rank:
            self.acts[notice.actor_id] = act
        if act.rank > (_to_milliseconds(self.newest.created_at), self.newest.id):
            self.newest = notice

    @property
    def gathered(self) -> NotificationGroup:
        """What it has gathered."""
        gather = self.newest.gather
        assert gather is not None
        people = sorted(blake2b(actor_id.encode(), digest_size=8).digest() for actor_id in self.acts)
        return NotificationGroup(
            group=self.name,
            generation=1,
            newest=tuple(sorted(self.acts.values(), key=lambda act: act.rank, reverse=True)[:NEWEST]),
            actors=tuple(people[:EXACT]),
            earlier=(),
            earlier_until=None,
            pattern=Words(gather.title, gather.message, self.newest.action_url, self.newest.action_text),
            actor_avatar=self.newest.actor_avatar,
        )

    def notification(self, made_at: datetime) -> dict[str, Any]:
        """Return the notification, but for its `gathered.version`, which counts how often it was changed."""
        gathered = self.gathered
        body = notification(self._made(made_at), gathered.words, self.id)
        return kept({**body, "gathered": gathered.document()})

    def item(self, made_at: datetime) -> dict[str, Any]:
        """Return its item in the queue, before anything is delivered."""
        return kept(queue_item(self._made(made_at), self.id))

    def _made(self, made_at: datetime) -> Notice:
        return replace(self.newest, created_at=made_at, expires_at=expiry(made_at))


# All of it ------------------------------------------------------------------------------------------------------


class Model:
    """What must be in the stores.

    Args:
        describe: Says what is to be written for a record.
        views_since: Views before this moment are stored and not counted; `None` where all are counted.

    Attributes:
        documents: What must be there, by collection.
        allowed: What may be there: documents of records that MongoDB refused for another of their documents.
        parts: What is added to documents, by collection.
        groups: What is gathered, by the notification's id.
        dead_letters: The records that must be dead letters, by topic and place.
        disagreements: Records of which the event log says another thing than what reads them, each in a sentence.
        records: How many records it was made of.
    """

    def __init__(self, describe: Callable[[Entry], Described], views_since: datetime | None = None) -> None:
        self._describe = describe
        self._views_since = views_since
        self.documents: dict[str, Documents] = {name: Documents() for name in COLLECTIONS}
        self.allowed: dict[str, Documents] = {name: Documents() for name in COLLECTIONS}
        self.parts: dict[str, Parts] = {name: Parts() for name in LATE}
        self.groups: dict[str, Group] = {}
        self.dead_letters: defaultdict[str, dict[str, Entry]] = defaultdict(dict)
        self.disagreements: list[str] = []
        self.records = 0
        self._interned: dict[Any, Any] = {}

    def take(self, entry: Entry) -> Described:
        """Take a record in; return what it amounts to."""
        described = self._describe(entry)
        self.records += 1
        if entry.reason is not None:
            self.dead_letters[entry.topic][entry.place] = entry
        wanted = None if entry.reason in REFUSED_BY_STORE else entry.reason
        if described.reason != wanted:
            self._disagree(entry, f"is {described.reason or 'valid'} to who reads it")
        elif entry.reason in REFUSED_BY_STORE:
            self._allow(described.writes)
        else:
            self._expect_all(entry, described.writes)
        return described

    def _disagree(self, entry: Entry, what: str) -> None:
        self.disagreements.append(f"{entry.place} {what}, and {entry.reason or 'valid'} to the event log")

    def _allow(self, writes: Collection[Write]) -> None:
        for write in writes:
            if isinstance(write, Document):
                with suppress(*_REFUSALS):
                    self.allowed[write.collection].add(write.body["_id"], digest_of(write.collection, write.body))

    def _expect_all(self, entry: Entry, writes: Collection[Write]) -> None:
        for write in writes:
            try:
                self._expect(write)
            except _REFUSALS as error:
                self._disagree(entry, f"can't be stored ({error!r})")

    def _expect(self, write: Write) -> None:
        match write:
            case Document(collection, body):
                attached = self._attached(collection, body) if collection in LATE else _NOTHING
                self.documents[collection].add(body["_id"], digest_of(collection, body), attached)
            case PartialUpdate(collection):
                self.parts[collection].add(write)
            case Occurrence(line, group):
                attached = Attached(group=bson.encode(group))
                self.documents[SYSTEM_LOGS.name].add(line["_id"], digest_of(SYSTEM_LOGS.name, line), attached)
            case GroupedNotification(_, notice):
                self._gather(notice)

    def _attached(self, collection: str, body: Body) -> Attached:
        late = tuple(_late_value(body.get(name)) for name in LATE[collection])
        view = self._view(body) if collection == PAGE_VIEWS.name and "bot" not in body else None
        # Most views are alike in these.
        return Attached(late if collection == SEARCH_QUERIES.name else self._interned.setdefault(late, late), view)

    def _view(self, body: Body) -> View | None:
        # PostgreSQL's texts have no NUL, so no post has an id with one.
        if "\0" in body["postId"] or (self._views_since and body["timestamp"] < self._views_since):
            return None
        view = (body["postId"], (body["timestamp"] - _EPOCH) // _WINDOW)
        interned: View = self._interned.setdefault(view, view)
        return interned

    def _gather(self, notice: Notice) -> None:
        assert notice.gather is not None
        group = self.groups.setdefault(f"{notice.gather.group}-1", Group(notice.gather.group, notice))
        group.add(notice)

    # What there must be -----------------------------------------------------------------------------------------

    def ids(self, collection: str) -> set[str]:
        """Return the ids of all documents that must be there, but for groups of errors."""
        ids = {*self.documents[collection], *self.parts.get(collection, ())}
        if collection in (NOTIFICATIONS.name, NOTIFICATION_QUEUE.name):
            ids.update(self.groups)
        return ids

    def late(self, collection: str, document_id: str, its_digest: bytes) -> dict[str, Any]:
        """Return the late fields of a document that is complete.

        Args:
            collection: Where it is.
            document_id: Its id.
            its_digest: That of its steady part, as it is stored.
        """
        values = self.documents[collection].attached(document_id, its_digest).late
        return self.parts[collection].merged(document_id, dict(zip(LATE[collection], values, strict=True)))

    def errors(self, stored: Mapping[str, bytes]) -> dict[str, dict[str, Any]]:
        """Return the documents of `errorLogs` by id.

        Args:
            stored: Of lines that several documents may be, the digest of the one in `systemLogs`.
        """
        attached = self.documents[SYSTEM_LOGS.name].all_attached(stored)
        return grouped_errors([one.group for one in attached if one.group is not None])

    def views(self, stored: Mapping[str, bytes]) -> Counter[Window]:
        """Return the views by people of each window that has any.

        Args:
            stored: Of views that several documents may be, the digest of the one in `pageViews`.
        """
        attached = self.documents[PAGE_VIEWS.name].all_attached(stored)
        counts = Counter(one.view for one in attached if one.view is not None)
        return Counter({Window(post, _EPOCH + number * _WINDOW): count for (post, number), count in counts.items()})


def bodies(described: Described) -> Iterator[tuple[str, dict[str, Any]]]:
    """Yield the collection and the body of each document that is an event's own, as MongoDB keeps it if it can."""
    for write in described.writes:
        with suppress(*_REFUSALS):
            match write:
                case Document(collection, body):
                    yield collection, kept(body)
                case Occurrence(line, _):
                    yield SYSTEM_LOGS.name, kept(line)


def expires(collection: str, document: Body, now: datetime) -> bool:
    """Return whether MongoDB may have deleted a document by now, as it has been kept for long enough."""
    retention = COLLECTIONS[collection].retention
    if retention is None or retention.only_where:
        return False
    since = document.get(retention.since)
    return isinstance(since, datetime) and since <= now - retention.keep


def _late_value(value: Any) -> Any:
    return _to_milliseconds(value.astimezone(UTC)) if isinstance(value, datetime) else value


def _to_milliseconds(moment: datetime) -> datetime:
    return moment.replace(microsecond=moment.microsecond // 1000 * 1000)
