"""Inkstream's worker for one topic, as a measured program: runs the program that people run, by the BENCH_ environment.

The consumer group follows from the topic's name, so BENCH_GROUP has no effect; the arena resets the group's offsets.
"""

import os
import sys

from bench.programs import Command
from bench.traffic import namespace_of

WORKER = Command((sys.executable, "-m", "bench.worker"), {})


def main() -> None:
    """Translate the settings, and become the worker."""
    topic = os.environ["BENCH_TOPIC"]
    namespace = namespace_of(topic)
    settings = {
        "INKSTREAM_KAFKA_BROKERS": os.environ["BENCH_KAFKA_BROKERS"],
        "INKSTREAM_MONGO_URL": os.environ["BENCH_MONGO_URL"],
        "INKSTREAM_NAMESPACE": namespace,
        "INKSTREAM_AGENTS": topic.removeprefix(namespace),
        "INKSTREAM_WEB_PORT": os.environ["BENCH_PORTS"].partition(",")[0],
    }
    command = [sys.executable, "-c", "from ops.commands import main; main()", "worker"]
    os.execve(sys.executable, command, os.environ | settings)


if __name__ == "__main__":
    main()
