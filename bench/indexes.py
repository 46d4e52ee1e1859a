"""Measure what an index costs and saves: inserts with and without each index that an analyst might wish for.

The program starts a MongoDB of its own. It fills each collection with the same documents several times: with the
declared indexes alone, and with one more. Then it inserts a few hundred into each in turn, in another order each round,
and reads how much CPU time that took the server. Other work on the machine can make the server slower, never faster, so
the lower quartile of all rounds counts. Beside the difference of two is the interval that it has in nine of ten samples
of the rounds (a bootstrap). Last, it runs ordinary queries on both, and reads what the server had to examine.
Output: tables and, in `docs/benchmarks/`, the figures.
"""

import argparse
import random
import statistics
import sys
import tempfile
import time
import uuid
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime, timedelta
from itertools import islice
from pathlib import Path
from typing import Any, NamedTuple

import uvloop
from aiokafka import ConsumerRecord
from pymongo import AsyncMongoClient, MongoClient, WriteConcern
from pymongo.collection import Collection

from bench import report
from dev.ports import Ports
from dev.servers.mongo import Mongo
from dev.traffic import Traffic
from enrich.documents import Document, Occurrence
from enrich.enricher import Enricher
from enrich.geo import GeoDatabase
from ops.commands.command import quieten_clients
from runtime.settings import ROOT, Settings
from schemas.cloudevents import Decoder
from schemas.topics import load
from sinks.collections import NAMES, Index
from sinks.mongo.database import NamespacedDatabase
from sinks.mongo.schema_sync import sync_schema

Body = dict[str, Any]
Bodies = Collection[Body]

BATCH = 2_000
"""As many as a worker writes at once by default."""

DAYS = 30
"""Over which the documents are spread."""

_TOLD = 20_000
_SAMPLES = 1_000
_USERS, _POSTS = 20_000, 1_000
_PER_SESSION = 4
_TIME: Mapping[str, str] = {"emailLogs": "createdAt", "pushNotificationLogs": "createdAt"}

console = report.console()


@dataclass(frozen=True, slots=True)
class Candidate:
    """An index that an analyst may wish for.

    Attributes:
        collection: Of which collection.
        index: The index.
    """

    collection: str
    index: Index

    @property
    def text(self) -> str:
        """How a page names it."""
        keys = ", ".join(f"{name}: {direction}" for name, direction in self.index.keys.items())
        where = "".join(f", where there is a {name}" for name in self.index.only_where)
        return f"{self.collection} {{ {keys} }}{where}"


def _where_known(name: str, *more: str) -> Index:
    """Return an index of those documents alone that have a field."""
    return Index({name: 1, **dict.fromkeys(more, -1)}, only_where={name: {"$exists": True}})


CANDIDATES: tuple[Candidate, ...] = (
    Candidate("pageViews", Index({"postSlug": 1, "timestamp": -1})),
    Candidate("pageViews", Index({"source": 1, "timestamp": -1})),
    Candidate("pageViews", _where_known("geo.country", "timestamp")),
    Candidate("pageViews", _where_known("campaign", "timestamp")),
    Candidate("analyticsEvents", _where_known("sessionId")),
    Candidate("searchQueries", Index({"sessionId": 1})),
    Candidate("searchQueries", _where_known("userId", "timestamp")),
    Candidate("emailLogs", Index({"notificationId": 1})),
    Candidate("pushNotificationLogs", Index({"notificationId": 1})),
    Candidate("pushNotificationLogs", Index({"providerId": 1})),
    Candidate("systemLogs", _where_known("userId", "timestamp")),
    Candidate("performanceLogs", _where_known("requestId")),
    Candidate("performanceLogs", Index({"service": 1, "timestamp": -1})),
)


class Question(NamedTuple):
    """What an analyst asks, as a filter made of a document that is there.

    Attributes:
        text: The question.
        collection: Of which collection.
        same: The fields in which documents are to be like that one.
        days: How far back to look; `None` is as far as there is.
        around: Instead: how many seconds around that document's time.
    """

    text: str
    collection: str
    same: tuple[str, ...]
    days: float | None = None
    around: float | None = None

    def filter(self, like: Body, newest: datetime) -> Body:
        """Return the filter."""
        wanted = {name: _value(like, name) for name in self.same}
        time_field = _TIME.get(self.collection, "timestamp")
        if self.days is not None:
            wanted[time_field] = {"$gte": newest - timedelta(days=self.days)}
        if self.around is not None:
            reach = timedelta(seconds=self.around)
            wanted[time_field] = {"$gte": like[time_field] - reach, "$lte": like[time_field] + reach}
        return wanted


QUESTIONS: tuple[Question, ...] = (
    Question("The views of a post in the last week", "pageViews", ("postId",), days=7),
    Question("The views of a post by its slug, in the last week", "pageViews", ("postSlug",), days=7),
    Question("The views of a post by id and slug, in the last week", "pageViews", ("postId", "postSlug"), days=7),
    Question("The views from one source in the last week", "pageViews", ("source",), days=7),
    Question("The views from one country in the last week", "pageViews", ("geo.country",), days=7),
    Question("The views of a campaign, ever", "pageViews", ("campaign",)),
    Question("The views of a campaign in the last week", "pageViews", ("campaign",), days=7),
    Question("All views of the last day, to group by source, country or hour", "pageViews", (), days=1),
    Question("What one session read", "pageViews", ("sessionId",)),
    Question("What one session did", "analyticsEvents", ("sessionId",)),
    Question("What one user did in the last week", "analyticsEvents", ("userId",), days=7),
    Question("How often something happened in the last week", "analyticsEvents", ("eventType",), days=7),
    Question("Everything that happened to one post", "analyticsEvents", ("entityId",)),
    Question("What one session searched for", "searchQueries", ("sessionId",)),
    Question("What one user searched for", "searchQueries", ("userId",)),
    Question("How often a query was made in the last week", "searchQueries", ("normalizedQuery",), days=7),
    Question("The mail of one notification", "emailLogs", ("notificationId",)),
    Question("The same, by its user as well", "emailLogs", ("userId", "notificationId")),
    Question("The push messages of one notification", "pushNotificationLogs", ("notificationId",)),
    Question("The same, by their user as well", "pushNotificationLogs", ("userId", "notificationId")),
    Question("A push message by its provider's id", "pushNotificationLogs", ("providerId",)),
    Question("The lines of one request", "systemLogs", ("requestId",)),
    Question("The lines about one user in the last week", "systemLogs", ("userId",), days=7),
    Question("How long one request took", "performanceLogs", ("requestId",)),
    Question("The same, by the time of its log line, ±10 s", "performanceLogs", ("requestId",), around=10),
    Question("The requests of a service in the last hour", "performanceLogs", ("service",), days=1 / 24),
    Question("The requests of an endpoint in the last day", "performanceLogs", ("endpoint",), days=1),
    Question("Who changed one thing", "auditLogs", ("resource", "resourceId")),
    Question("What came from one address in the last week", "auditLogs", ("ipAddress",), days=7),
)


@dataclass(slots=True)
class Variant:
    """A collection that is filled and measured.

    Attributes:
        bodies: The collection.
        candidate: The index that it has beside the declared ones; `None` where it has these alone.
        cpu_us: CPU of the server for an insert, in each round.
    """

    bodies: Bodies
    candidate: Candidate | None
    cpu_us: list[float] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class Cost:
    """What a candidate costs.

    Attributes:
        index: The candidate, as a page names it.
        declared_us: CPU of the server for an insert with the declared indexes alone, in each round.
        with_us: The same with the candidate, in the same rounds.
        bytes_each: The size of the candidate, for each document of the collection.
    """

    index: str
    declared_us: list[float]
    with_us: list[float]
    bytes_each: float

    @property
    def declared(self) -> float:
        """What an insert costs without it."""
        return _lower_quartile(self.declared_us)

    @property
    def added(self) -> report.Spread:
        """How much more an insert costs with it, and between what that lies."""
        chance = random.Random(17)
        rounds = list(zip(self.declared_us, self.with_us, strict=True))
        samples = sorted(_difference(chance.choices(rounds, k=len(rounds))) for _ in range(_SAMPLES))
        return report.Spread(_difference(rounds), samples[_SAMPLES // 20], samples[-_SAMPLES // 20])


def _difference(rounds: Sequence[tuple[float, float]]) -> float:
    return _lower_quartile([ours for _, ours in rounds]) - _lower_quartile([declared for declared, _ in rounds])


def _lower_quartile(values: Sequence[float]) -> float:
    return statistics.quantiles(values, n=4)[0]


@dataclass(frozen=True, slots=True)
class Answer:
    """What the server reads for a question.

    Attributes:
        question: The question.
        collection: Of which collection.
        found: How many documents answer it.
        read: How many documents the server reads with the declared indexes.
        by: The index that it takes, or `every document`.
        candidate: The candidate that would help; empty where there is none.
        read_with: How many documents it reads with that.
    """

    question: str
    collection: str
    found: int
    read: int
    by: str
    candidate: str
    read_with: int | None


class Templates:
    """Documents of a collection as the worker makes them, again and again under ids, keys and times of their own."""

    def __init__(self) -> None:
        self._chance = random.Random(11)
        self._bodies: dict[str, list[Body]] = {"emailLogs": [_EMAIL], "pushNotificationLogs": [_PUSH]}
        for name, body in _enriched(_TOLD):
            self._bodies.setdefault(name, []).append(body)
        self._users = [self._id() for _ in range(_USERS)]
        self._posts = [self._id() for _ in range(_POSTS)]

    def documents(self, collection: str, count: int) -> Iterator[Body]:
        """Yield so many documents in the order of their times, the last of now, the first of a month before."""
        bodies, time_field = self._bodies[collection], _TIME.get(collection, "timestamp")
        span, session = timedelta(days=DAYS), ""
        start = datetime.now(UTC) - span
        for number in range(count):
            body = dict(self._chance.choice(bodies))
            if collection == "systemLogs" and number % 3 == 0:
                body["userId"] = ""  # as services log it; those of the sample blog don't
            if number % _PER_SESSION == 0:
                session = f"session-{self._id()}"
            post = self._posts[min(int(self._chance.paretovariate(0.6)) - 1, _POSTS - 1)]
            fresh: Body = {
                "sessionId": session,
                "userId": self._chance.choice(self._users),
                "postId": post,
                "postSlug": f"a-post-about-{post}",
                "entityId": post,
                "requestId": self._id(),
                "notificationId": self._id(),
                "providerId": self._id(),
                "resourceId": self._chance.choice(self._users),
            }
            body |= {name: value for name, value in fresh.items() if name in body}
            yield body | {"_id": self._id(), time_field: start + span * (number / count)}

    def _id(self) -> str:
        return str(uuid.UUID(int=self._chance.getrandbits(128), version=4))


_AT = datetime(2026, 1, 31, 12, tzinfo=UTC)
_EMAIL: Body = {
    "to": "ada@reader.example",
    "from": "The Blog <notifications@blog.example>",
    "subject": "Ada answered your comment",
    "templateId": "comment_reply",
    "provider": "sendgrid",
    "providerId": "",
    "status": "delivered",
    "events": [{"type": kind, "timestamp": _AT} for kind in ("queued", "sent", "delivered")],
    "notificationId": "",
    "userId": "",
    "createdAt": _AT,
    "sentAt": _AT,
    "deliveredAt": _AT,
}
_PUSH: Body = {
    "userId": "",
    "deviceToken": "d" * 152,
    "platform": "android",
    "title": "Ada answered your comment",
    "body": "“Thank you, that was the missing piece.”",
    "provider": "fcm",
    "providerId": "",
    "status": "sent",
    "notificationId": "",
    "createdAt": _AT,
    "sentAt": _AT,
}


def main() -> None:
    """Run the benchmark."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n\n")[0])
    parser.add_argument("--documents", type=int, default=50_000, help="documents to begin with (default %(default)s)")
    parser.add_argument("--each", type=int, default=500, help="inserts in each round (default %(default)s)")
    parser.add_argument("--rounds", type=int, default=100, help="rounds (default %(default)s)")
    parser.add_argument("--only", nargs="+", choices=sorted(NAMES), help="run only some collections; write no files")
    arguments = parser.parse_args()
    quieten_clients()
    with tempfile.TemporaryDirectory(prefix="inkstream-bench-") as directory:
        mongo = Mongo(Path(directory), Ports.free().mongo)
        try:
            mongo.start()
            _run(mongo, arguments.documents, arguments.each, arguments.rounds, arguments.only)
        except KeyboardInterrupt:
            sys.exit(130)
        finally:
            mongo.forget()


def _run(mongo: Mongo, documents: int, each: int, rounds: int, only: Sequence[str] | None) -> None:
    """Measure, and tell of it; write the figures where this was the whole of it."""
    with MongoClient[Body](mongo.url, tz_aware=True) as client:
        client.admin.command("setParameter", 1, ttlMonitorEnabled=False)
        wanted = dict.fromkeys(question.collection for question in QUESTIONS)
        collections = [name for name in wanted if only is None or name in only]
        console.print("describing the events of sample traffic")
        templates, chance = Templates(), random.Random(5)
        costs: list[Cost] = []
        answers: list[Answer] = []
        for name in collections:
            variants = _variants(client, mongo.url, name)
            console.print(f"{name}: {documents:,} documents, {len(variants)} times")
            bodies = templates.documents(name, documents + rounds * each)
            _fill(variants, list(islice(bodies, documents)))
            for _ in range(rounds):
                _measure(chance.sample(variants, len(variants)), list(islice(bodies, each)), mongo)
            costs += _costs(variants)
            answers += [_answer(question, variants) for question in QUESTIONS if question.collection == name]
            for variant in variants:
                variant.bodies.drop()
        tables = [_cost_table(costs), _answer_table(answers)]
        for table in tables:
            console.print(table.rich())
        if only is None:
            figures = {
                "title": "What an index costs, and what it saves",
                "command": "make bench-indexes",
                **report.circumstances(str(client.server_info()["version"])),
                "documents": documents,
                "each": each,
                "days": DAYS,
                "costs": [asdict(cost) for cost in costs],
                "answers": [asdict(answer) for answer in answers],
            }
            report.save("indexes", figures, tables)


def _enriched(count: int) -> Iterator[tuple[str, Body]]:
    """Yield the documents of so many records of sample traffic, with their collections."""
    settings = Settings()
    path = settings.geo_database_path()
    enricher = Enricher(ip_hash_key=b"of the benchmark", geo=GeoDatabase.open(path) if path and path.exists() else None)
    topics = {name: topic for name, topic in load(ROOT / "topics.yaml", NAMES).inbound.items() if topic.collections}
    decoders = {name: Decoder(topic, settings.ahead_limit) for name, topic in topics.items()}
    run = Traffic(topics.values(), began=datetime.now(UTC) - timedelta(minutes=5), rate=200, seed=3)
    for offset, sample in enumerate(islice(run, count)):
        if sample.outcome != "stored":
            continue
        record: ConsumerRecord[bytes, bytes] = ConsumerRecord(
            topic=sample.topic,
            partition=0,
            offset=offset,
            timestamp=int(datetime.now(UTC).timestamp() * 1000),
            timestamp_type=0,
            key=sample.key,
            value=sample.value,
            checksum=None,
            serialized_key_size=len(sample.key),
            serialized_value_size=len(sample.value or b""),
            headers=tuple(sample.headers),
        )
        for write in enricher.documents(decoders[sample.topic].decode(record)):
            if isinstance(write, Document):
                yield write.collection, write.body
            elif isinstance(write, Occurrence):
                yield "systemLogs", write.line


def _variants(client: MongoClient[Body], url: str, name: str) -> list[Variant]:
    """Return the collection with the declared indexes, and once more for each candidate."""
    candidates = [candidate for candidate in CANDIDATES if candidate.collection == name]
    variants = []
    for number, candidate in enumerate([None, *candidates]):
        database = f"bench-{number}"
        if database not in client.list_database_names():
            uvloop.run(_declare(url.replace("/blog-platform", f"/{database}")))
        bodies = client[database].get_collection(name, write_concern=WriteConcern("majority", j=True))
        # What was decided for is declared, and must not be measured as if it cost nothing.
        found = bodies.index_information()
        for each in candidates:
            if each.index.name in found:
                bodies.drop_index(each.index.name)
        if candidate is not None:
            declaration = {"key": dict(candidate.index.keys), "name": candidate.index.name}
            if candidate.index.only_where:
                declaration["partialFilterExpression"] = dict(candidate.index.only_where)
            bodies.database.command({"createIndexes": name, "indexes": [declaration]})
        variants.append(Variant(bodies, candidate))
    return variants


async def _declare(url: str) -> None:
    async with AsyncMongoClient[Body](url) as client:
        await sync_schema(NamespacedDatabase(client, ""), check=False)


def _fill(variants: Sequence[Variant], documents: Sequence[Body]) -> None:
    for variant in variants:
        for start in range(0, len(documents), BATCH):
            variant.bodies.insert_many(documents[start : start + BATCH], ordered=False)


def _measure(variants: Sequence[Variant], documents: Sequence[Body], mongo: Mongo) -> None:
    """Insert the same documents into all, and write down what each took the server."""
    for variant in variants:
        before = _cpu_seconds(mongo)
        _fill([variant], documents)
        variant.cpu_us.append((_cpu_seconds(mongo) - before) / len(documents) * 1e6)


def _cpu_seconds(mongo: Mongo) -> float:
    """Return the server's CPU time so far, to the nanosecond: by the clock of its process (`clock_getcpuclockid`)."""
    assert mongo.pid is not None
    return time.clock_gettime(~mongo.pid << 3 | 2)


def _costs(variants: Sequence[Variant]) -> Iterator[Cost]:
    declared, *others = variants
    for variant in others:
        assert variant.candidate is not None
        sizes = variant.bodies.database.command("collStats", variant.bodies.name)
        size = sizes["indexSizes"][variant.candidate.index.name] / sizes["count"]
        yield Cost(variant.candidate.text, declared.cpu_us, variant.cpu_us, size)


def _answer(question: Question, variants: Sequence[Variant]) -> Answer:
    declared, *others = variants
    with_field: Body = {name: {"$exists": True} for name in question.same}
    time_field = _TIME.get(question.collection, "timestamp")
    [newest] = declared.bodies.find().sort(time_field, -1).limit(1)
    [like] = declared.bodies.find(with_field).sort(time_field, -1).skip(200).limit(1)
    wanted = question.filter(like, newest[time_field])
    found, read, by = _explained(declared.bodies, wanted)
    # Of the candidates, the one by which least is read.
    tried = [(_explained(each.bodies, wanted)[1], each.candidate.text) for each in others if each.candidate is not None]
    read_with, candidate = min(tried, default=(read, ""))
    helps = read_with < read
    return Answer(
        question.text, question.collection, found, read, by, candidate if helps else "", read_with if helps else None
    )


def _explained(bodies: Bodies, wanted: Body) -> tuple[int, int, str]:
    """Return how many documents answer a filter, how many are read for it, and by which index."""
    explained = bodies.database.command("explain", {"find": bodies.name, "filter": wanted}, verbosity="executionStats")
    stage = explained["queryPlanner"]["winningPlan"]
    while "inputStage" in stage:
        stage = stage["inputStage"]
    stats = explained["executionStats"]
    return stats["nReturned"], stats["totalDocsExamined"], stage.get("indexName", "every document")


def _cost_table(costs: Sequence[Cost]) -> report.Table:
    rows = [
        [
            cost.index,
            f"{cost.declared:.1f}",
            cost.added.text(".1f"),
            f"{cost.added.median / cost.declared:.0%}",
            f"{cost.bytes_each:.0f}",
        ]
        for cost in costs
    ]
    columns = ["index", "declared: µs an insert", "more with it: µs", "share", "bytes a document"]
    return report.Table("What an insert costs mongod", columns, rows)


def _answer_table(answers: Sequence[Answer]) -> report.Table:
    rows = [
        [
            answer.question,
            answer.collection,
            f"{answer.found:,}",
            f"{answer.read:,}",
            answer.by,
            "" if answer.read_with is None else f"{answer.read_with:,}",
            answer.candidate.partition(" ")[2],
        ]
        for answer in answers
    ]
    columns = ["question", "of", "found", "documents read", "by", "with one more", "which"]
    return report.Table("What a question reads", columns, rows, verdicts=True)


def _value(body: Body, name: str) -> object:
    value: Any = body
    for step in name.split("."):
        value = value[step]
    return value


if __name__ == "__main__":
    main()
