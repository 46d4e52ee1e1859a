"""`inkstream worker`: Faust's worker, quiet on the terminal but for the log.

Runs until a signal stops it. At the start it waits for Kafka, and ends with one line when Kafka does not answer in
time; after startup it retries indefinitely. Where `inkstream bootstrap` has not been run, it ends at once with exit
code 1 and says what is missing.
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
    """Read the topics, store their events and tell people of them, until stopped.

    Start as many as there are partitions to share; each takes its part. SIGTERM or Ctrl-C stops it cleanly, and after a
    crash the next one continues where it was. `INKSTREAM_AGENTS` picks the agents that it runs.
    """

    def __call__(self, *args: Any, **kwargs: Any) -> NoReturn:
        """Wait for Kafka, then run until stopped, and exit."""
        from ops.bootstrap import missing, refusal, wait_for_kafka

        quieten_clients()  # until the worker sets up its log
        console = Console(stderr=True, highlight=False, markup=False, soft_wrap=True)
        loop = get_event_loop()
        with reported_errors():
            settings = Settings()  # checked when the application was loaded
            if problem := obstacle(settings.web_host, settings.web_port):
                fail([f"The worker can't serve its pages. {problem[:1].upper()}{problem[1:]}."], PROBLEM)
            loop.run_until_complete(wait_for_kafka(settings, seconds=WAIT_FOR_KAFKA_SECONDS, report=console.print))
            if problem := loop.run_until_complete(refusal(settings)):
                fail([problem], PROBLEM)
            topics = {topic.name: topic for topic in declared_topics(settings).all.values()}
            if lacking := loop.run_until_complete(missing(settings, topics)):
                fail([*lacking, "Run `inkstream bootstrap`, then start the worker again."], PROBLEM)
        super().__call__(*args, **kwargs)

    def on_worker_created(self, worker: mode.Worker) -> None:
        """Show no banner and no spinner, which are no lines of a log."""
        assert isinstance(worker, FaustWorker)
        worker.spinner = None
