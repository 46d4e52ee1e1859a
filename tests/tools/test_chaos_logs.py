"""What nothing explains is found in the workers' logs, and what an outage brings about is not taken for it."""

import json
from pathlib import Path
from typing import Any

import pytest

from runtime.settings import ROOT
from tests.chaos import logs

ASSIGNED = {"agent": "page-views", "partitions": [0], "event": "partitions assigned", "logger": "delivery.consumer"}
COORDINATOR = "aiokafka.consumer.group_coordinator"
GROUP = "test-b3241a9d33d7.inkstream.page-views"
EXCEPTION = {
    "exc_type": "TypeError",
    "exc_value": "can't compare offset-naive and offset-aware datetimes",
    "frames": [
        {"filename": "/x/lib/python3.11/site-packages/mode/services.py", "lineno": 878, "name": "_execute_task"},
        {"filename": str(ROOT / "agents" / "notifications" / "dispatch.py"), "lineno": 76, "name": "_work"},
    ],
}

# What workers wrote while Kafka was paused, killed and started again.
IN_AN_OUTAGE = [
    ("aiokafka", 'Unable connect to "127.0.0.1:23157": [Errno 111] Connection refused'),
    ("aiokafka", 'Unable connect to "127.0.0.1:23157": '),
    ("aiokafka", "Unable connect to node with id 1: [Errno 111] Connection refused"),
    ("aiokafka", "Unable connect to node with id 1: KafkaConnectionError: Connection at 127.0.0.1:23157 closed"),
    ("aiokafka", "Unable to update metadata from [1]"),
    (
        "aiokafka.consumer.fetcher",
        "Failed fetch messages from 1: KafkaConnectionError: Connection at 127.0.0.1:23157 closed",
    ),
    ("aiokafka.consumer.fetcher", "Failed fetch messages from 1: [Error 7] RequestTimedOutError"),
    (
        COORDINATOR,
        "Error sending HeartbeatRequest to node 1 [NodeNotReadyError: Attempt to send a request to node which is not "
        "ready (node id 1).] -- marking coordinator dead",
    ),
    (
        COORDINATOR,
        "Error sending OffsetCommitRequest to node 1 [[Error 7] RequestTimedOutError] -- marking coordinator dead",
    ),
    (COORDINATOR, "Group Coordinator Request failed: [Error 15] GroupCoordinatorNotAvailableError"),
    (COORDINATOR, "Heartbeat send request failed: [Error 7] RequestTimedOutError. Will retry."),
    (COORDINATOR, "Heartbeat session expired - marking coordinator dead"),
    (
        COORDINATOR,
        f"OffsetCommit failed for group {GROUP} due to group error ([Error 25] UnknownMemberIdError: {GROUP}), "
        "will rejoin",
    ),
    (COORDINATOR, "LeaveGroup request failed: [Error 15] GroupCoordinatorNotAvailableError"),
]


def entry(**fields: Any) -> str:
    return json.dumps({"level": "info", "timestamp": "2026-11-23T18:00:11.478528Z", **fields})


def log(directory: Path, *lines: str, name: str = "worker-1.log") -> Path:
    file = directory / name
    file.write_text("".join(f"{line}\n" for line in lines))
    return file


def problems(directory: Path, *lines: str) -> list[str]:
    check = logs.check([log(directory, entry(**ASSIGNED), *lines)])
    assert (check.found < check.expected) == bool(check.problems)
    return check.problems


def test_a_log_of_ordinary_work_is_in_order(tmp_path: Path) -> None:
    dead_letter = entry(event="dead letter", level="warning", logger="delivery.dead_letters.writer", reason="not-json")
    unwell = entry(
        event="dependency unwell, trying again", level="warning", logger="delivery.retry", problem="AutoReconnect"
    )
    check = logs.check([log(tmp_path, entry(**ASSIGNED), dead_letter, unwell)])
    assert (check.expected, check.found, check.problems) == (3, 3, [])


@pytest.mark.parametrize(("logger", "event"), IN_AN_OUTAGE)
def test_what_a_library_says_in_an_outage_is_ordinary(tmp_path: Path, logger: str, event: str) -> None:
    assert problems(tmp_path, entry(event=event, level="error", logger=logger)) == []
    assert problems(tmp_path, entry(event=event, level="error", logger="agents.notifications.deliver")), (
        "of anybody else it is not"
    )
    if logger == COORDINATOR:
        assert problems(tmp_path, entry(event=f"{event} for ever", level="error", logger=logger)), "nor with more to it"
    assert problems(tmp_path, entry(event=event, level="error", logger=logger, exception=[EXCEPTION]))


def test_each_ordinary_message_has_its_reason() -> None:
    assert all(one.reason for one in logs.ORDINARY)


@pytest.mark.parametrize(
    ("logger", "event"),
    [
        (COORDINATOR, "Unexpected error in join group 'inkstream.page-views' response: UnknownError"),
        (COORDINATOR, "Heartbeat failed: KafkaError('Unexpected exception in heartbeat task: UnknownError()')"),
        (COORDINATOR, "Group Coordinator Request failed: [Error 30] GroupAuthorizationFailedError"),
        (COORDINATOR, "OffsetCommit failed for group g on partition p with offset 1: UnknownError"),
        ("aiokafka.cluster", "Topic page-views not found in cluster metadata"),
        ("aiokafka.consumer.fetcher", "Failed fetch messages from 1: [Error 1] OffsetOutOfRangeError"),
        ("agents.notifications.deliver", "an item of the queue is unreadable"),
    ],
)
def test_any_other_error_is_trouble(tmp_path: Path, logger: str, event: str) -> None:
    (problem,) = problems(tmp_path, entry(event=event, level="error", logger=logger))
    assert problem == f"once, first in worker-1.log by {logger} at level error: {event}"


def test_an_exception_is_told_with_where_it_was_raised(tmp_path: Path) -> None:
    crashed = entry(
        event="[^--Dispatcher]: Crashed", level="error", logger="agents.notifications.dispatch", exception=[EXCEPTION]
    )
    (problem,) = problems(tmp_path, crashed)
    assert problem.splitlines() == [
        "once, first in worker-1.log by agents.notifications.dispatch at level error: [^--Dispatcher]: Crashed",
        "  mode/services.py:878 in _execute_task",
        "  agents/notifications/dispatch.py:76 in _work",
        "  TypeError: can't compare offset-naive and offset-aware datetimes",
    ]


def test_an_exception_is_trouble_at_any_level(tmp_path: Path) -> None:
    assert problems(
        tmp_path, entry(event="odd", level="warning", logger="sinks.redis.recent_views", exception=[EXCEPTION])
    )


def test_what_happened_again_and_again_is_one_problem(tmp_path: Path) -> None:
    events = [
        f"Unclosed AIOKafkaConsumer\nconsumer: <aiokafka.consumer.AIOKafkaConsumer object at 0x7fc65{number:07x}>"
        for number in range(40)
    ]
    (problem,) = problems(tmp_path, *(entry(event=event, level="error", logger="asyncio") for event in events))
    assert problem.startswith("40 times, first in worker-1.log by asyncio at level error: Unclosed AIOKafkaConsumer")


def test_the_same_crash_of_several_agents_is_one_problem(tmp_path: Path) -> None:
    events = [f"[^----Agent*: delivery.pipe[.]{name}]: Crashed reason=CancelledError()" for name in ("a-b", "c-d")]
    lines = [entry(event=event, level="error", logger="faust.agents.actor", exception=[EXCEPTION]) for event in events]
    assert len(problems(tmp_path, *lines)) == 1


def test_different_troubles_are_told_apart_the_most_frequent_first(tmp_path: Path) -> None:
    one = entry(event="a provider refuses us", level="error", logger="agents.notifications.attempt")
    other = entry(event="a message was not sent", level="error", logger="agents.notifications.attempt")
    assert [problem.partition(",")[0] for problem in problems(tmp_path, one, other, other)] == ["2 times", "once"]


@pytest.mark.parametrize(
    "event",
    [
        "Task exception was never retrieved\nfuture: <Task finished exception=ValueError('nobody looks')>",
        "Exception in callback <function callback at 0x7f8ee5690ae0>",
        "Unclosed client session",
    ],
)
def test_what_the_event_loop_complains_of_is_trouble(tmp_path: Path, event: str) -> None:
    assert problems(tmp_path, entry(event=event, level="error", logger="asyncio"))
    assert problems(tmp_path, entry(event=event, level="warning", logger="asyncio"))


def test_what_is_printed_while_faust_has_the_output_is_trouble(tmp_path: Path) -> None:
    # As workers write it: each piece by itself, without those that were there just before.
    pieces = ["Exception in thread", "Thread-1 (thread)", 'File "/x.py", line 14, in thread', "KeyError", "'here'"]
    (problem,) = problems(tmp_path, *(entry(event=piece, level="warning", logger="mode.redirect") for piece in pieces))
    assert problem == "\n".join(["once, first in worker-1.log as printed: Exception in thread", *pieces[1:]])


def test_a_coroutine_that_was_never_awaited_is_trouble(tmp_path: Path) -> None:
    event = "/x.py:13: RuntimeWarning: coroutine 'never' was never awaited\n  never()"
    assert problems(tmp_path, entry(event=event, level="warning", logger="mode.redirect"))
    assert problems(tmp_path, event)


def test_a_traceback_of_a_dying_interpreter_is_one_problem(tmp_path: Path) -> None:
    lines = [
        "Traceback (most recent call last):",
        '  File "<string>", line 1, in <module>',
        "    main()",
        "runtime.settings.SettingsProblem: no such thing",
    ]
    (problem,) = problems(tmp_path, entry(**ASSIGNED), *lines, entry(**ASSIGNED))
    assert problem == "\n".join([f"once, first in worker-1.log as printed: {lines[0]}", *lines[1:]])


@pytest.mark.parametrize(
    "line", ["Fatal Python error: Segmentation fault", "Exception ignored in: <function Bad.__del__>", "Aborted"]
)
def test_a_plain_line_that_says_that_something_broke_is_trouble(tmp_path: Path, line: str) -> None:
    assert problems(tmp_path, line)


def test_a_plain_line_that_the_worker_says_on_purpose_is_not(tmp_path: Path) -> None:
    line = "waiting for Kafka: does not answer at 127.0.0.1:25091: connection refused"
    assert problems(tmp_path, line) == []


def test_half_a_line_of_a_worker_that_was_killed_is_no_trouble(tmp_path: Path) -> None:
    whole = entry(event="Heartbeat failed", level="error", logger=COORDINATOR)
    assert problems(tmp_path, entry(**ASSIGNED)[:57]) == []
    assert len(problems(tmp_path, entry(**ASSIGNED)[:57], whole)) == 1, "and what follows it is read"
    assert len(problems(tmp_path, entry(**ASSIGNED)[:57] + whole)) == 1, "also on the same line"


def test_lines_that_are_no_text_are_read_all_the_same(tmp_path: Path) -> None:
    file = log(tmp_path, entry(**ASSIGNED))
    file.write_bytes(file.read_bytes() + b"\xff\xfe\x00\nTraceback (most recent call last):\n")
    assert logs.check([file]).problems


def test_all_logs_are_read_and_the_example_names_its_own(tmp_path: Path) -> None:
    fine = log(tmp_path, entry(**ASSIGNED), name="worker-1.log")
    bad = log(tmp_path, entry(event="no", level="critical", logger="faust.worker"), name="worker-2.log")
    check = logs.check([fine, bad])
    assert (check.expected, check.found) == (2, 1)
    assert check.problems == ["once, first in worker-2.log by faust.worker at level critical: no"]


def test_logs_that_say_nothing_show_nothing(tmp_path: Path) -> None:
    assert logs.check([]).problems == ["the logs are empty, so they prove nothing"]
    assert logs.check([log(tmp_path)]).problems == ["the logs are empty, so they prove nothing"]


def test_a_long_example_is_cut(tmp_path: Path) -> None:
    (problem,) = problems(tmp_path, entry(event="x" * 10_000, level="error", logger="a"))
    assert len(problem) < 2_100
