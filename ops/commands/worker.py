"""`inkstream worker`: Faust's worker, with nothing but the log on the terminal.

Runs until a signal stops it. At startup it waits for Kafka, and exits with one line if Kafka does not answer in time;
after startup it retries indefinitely. If `inkstream bootstrap` has not been run, it exits with code 1 and lists what is
missing.
"""

from typing import Any, NoReturn

import mode
from faust.cli.worker import worker as faust_worker
from faust.worker import Worker as FaustWorker
from mode.utils.loops import get_event_loop
from rich.console import Console

from ops.commands.command import PROBLEM, declared_topics, fail, quieten_clients, reported_errors
from runtime.settings import Settings
from runtime.web_address import obstacle

WAIT_FOR_KAFKA_SECONDS = 30.0


class Worker(faust_worker):
    """Run a worker: store events and send notifications.

    Start several workers to share the partitions. SIGTERM or Ctrl-C stops a worker cleanly; after a crash, the next one
    continues from the committed offsets. `INKSTREAM_AGENTS` selects the agents that it runs.
    """

    def __call__(self, *args: Any, **kwargs: Any) -> NoReturn:
        """Wait for Kafka, run until stopped, and exit."""
        from ops.bootstrap import missing, refusal, wait_for_kafka

        quieten_clients()  # until the worker sets up its log
        console = Console(stderr=True, highlight=False, markup=False, soft_wrap=True)
        loop = get_event_loop()
        with reported_errors():
            settings = Settings()  # checked when the application was loaded
            if problem := obstacle(settings.web_host, settings.web_port):
                fail([f"The worker can't start its web server. {problem[:1].upper()}{problem[1:]}."], PROBLEM)
            loop.run_until_complete(wait_for_kafka(settings, seconds=WAIT_FOR_KAFKA_SECONDS, report=console.print))
            if problem := loop.run_until_complete(refusal(settings)):
                fail([problem], PROBLEM)
            topics = {topic.name: topic for topic in declared_topics(settings).all.values()}
            if lacking := loop.run_until_complete(missing(settings, topics)):
                fail([*lacking, "Run `inkstream bootstrap`, then start the worker again."], PROBLEM)
        super().__call__(*args, **kwargs)

    def on_worker_created(self, worker: mode.Worker) -> None:
        """Show neither banner nor spinner: they are not log lines."""
        assert isinstance(worker, FaustWorker)
        worker.spinner = None
