"""Pathway 0.33: its Kafka connector into its MongoDB connector, both in Rust.

Input: the BENCH_ environment. Output: documents in the default form, a stream of changes, each with an `_id` that
MongoDB made. README.md says what it promises.
"""

import os
from pathlib import Path

import pathway  # type: ignore[import-not-found]

AUTOCOMMIT_MS = 200
"""How long rows are gathered: 1,500 by default, which would be the latency."""

BACKLOG = 20_000
"""How many rows may be on their way at once: without a limit the whole backlog is read into memory."""


class PageView(pathway.Schema):  # type: ignore[misc]
    """The event; its id is the row's key."""

    eventId: str = pathway.column_definition(primary_key=True)  # noqa: N815  # the event's own names
    type: str
    postId: str  # noqa: N815
    postSlug: str  # noqa: N815
    sessionId: str  # noqa: N815
    ipAddress: str  # noqa: N815
    userAgent: str  # noqa: N815
    url: str
    referrer: str | None = pathway.column_definition(default_value=None)
    timestamp: pathway.DateTimeUtc


def main() -> None:
    """Run the pipeline until stopped."""
    url = os.environ["BENCH_MONGO_URL"]
    views = pathway.io.kafka.read(
        {
            "bootstrap.servers": os.environ["BENCH_KAFKA_BROKERS"],
            "group.id": os.environ["BENCH_GROUP"],
            "auto.offset.reset": "earliest",
        },
        os.environ["BENCH_TOPIC"],
        schema=PageView,
        format="json",
        autocommit_duration_ms=AUTOCOMMIT_MS,
        max_backlog_size=BACKLOG,
        name="page-views",
    )
    pathway.io.mongodb.write(
        views,
        connection_string=f"{url}&w=majority&journal=true",
        database=url.partition("?")[0].rpartition("/")[2],
        collection=os.environ["BENCH_COLLECTION"],
        max_batch_size=2_000,
    )
    store = pathway.persistence.Backend.filesystem(Path(os.environ["BENCH_DIRECTORY"]) / "state")
    pathway.run(
        monitoring_level=pathway.MonitoringLevel.NONE,
        persistence_config=pathway.persistence.Config(store),
    )


if __name__ == "__main__":
    main()
