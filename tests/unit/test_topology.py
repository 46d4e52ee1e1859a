"""Which agents there are, as topics.yaml, notifications.yaml and the settings declare them."""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any, cast

import pytest

from agents.store import AfterWrite, Store
from agents.topology import hooks_of, load
from delivery.batch import Record, RecordBatch
from delivery.dead_letters.writer import DeadLetters
from enrich.documents import Document, Write
from runtime.health import Health
from runtime.settings import Settings
from schemas.cloudevents import Decoder
from schemas.declarations import DeclarationError
from sinks.mongo.outcome import Outcome
from sinks.mongo.writer import MongoWriter


def test_each_topic_has_an_agent_and_so_has_each_topic_with_an_event_that_notifies() -> None:
    topology = load(Settings())
    assert topology.reads.keys() == {*topology.topics.all, "notify-domain-events"}
    assert topology.reads["notify-domain-events"] is topology.reads["domain-events"]
    assert topology.running == {*topology.reads, "deliver"}


def test_a_topic_whose_events_only_update_documents_is_not_stored() -> None:
    topology = load(Settings())
    assert topology.topics.inbound.keys() - topology.stored.keys() == {"delivery-receipts"}


def test_a_worker_runs_the_agents_that_its_settings_name() -> None:
    assert load(Settings(agents=("searches", "deliver"))).running == {"searches", "deliver"}


def test_an_agent_that_does_not_exist_is_refused_with_those_that_do() -> None:
    with pytest.raises(
        DeclarationError, match="INKSTREAM_AGENTS: no agent notify-searches; expected some of page-views, "
    ):
        load(Settings(agents=("notify-searches",)))


def test_a_topic_has_the_hooks_of_all_its_collections_each_once() -> None:
    topic = load(Settings()).topics.inbound["page-views"]
    event = replace(topic.events["page.viewed"], collections=("pageViews", "notifications", "notificationQueue"))
    topic = replace(topic, events={event.name: event})
    declared = {"pageViews": ["touch"], "auditLogs": ["no"], "notifications": ["tell"], "notificationQueue": ["tell"]}
    assert hooks_of(topic, declared) == ["touch", "tell"]


async def test_store_runs_every_hook_of_a_batch_before_it_commits() -> None:
    done: list[str] = []

    def hook(name: str) -> AfterWrite:
        async def run(writes: Sequence[Write], _: Outcome, records: Sequence[Record]) -> None:
            done.append(f"{name} {len(writes)} {len(records)}")

        return run

    class Stub:
        name = "mongodb"

        async def write(self, writes: Sequence[Write]) -> Outcome:
            return Outcome({}, {}, [])

        async def send(self, *_: object) -> None:
            done.append("dead letters")

        def decode(self, record: Any) -> Any:
            return record

    class Batch:
        topic = "page-views"
        records = (cast(Any, type("Record", (), {"timestamp": 0, "partition": 0, "offset": 0})()),)

        async def commit(self) -> None:
            done.append("commit")

    async def batches() -> Any:
        yield cast(RecordBatch, Batch())

    stub = Stub()
    store = Store(
        "page-views",
        cast(Decoder, stub),
        lambda _: [Document("pageViews", {"_id": "1"})],
        cast(MongoWriter, stub),
        cast(DeadLetters, stub),
        Health(),
        after_write=[hook("first"), hook("second")],
    )
    await store(batches())
    assert done == ["first 1 1", "second 1 1", "dead letters", "commit"]
