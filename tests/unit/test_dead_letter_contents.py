"""Which letters of a dead-letter topic are waiting, and which a replay takes."""

from collections import Counter
from datetime import UTC, datetime, timedelta

from ops.dead_letters import Contents, Letter
from ops.replay import Plan, Selection
from ops.settings import ROOT
from schemas.topics import load
from sinks.collections import NAMES

TIME = datetime(2026, 1, 31, tzinfo=UTC)


def letter(origin: int, *, hours: int = 0, reason: str = "schema", timestamp: int = 0) -> Letter:
    return Letter(0, origin, f"searches:0:{origin}", reason, "", TIME + timedelta(hours=hours), timestamp)


def test_letters_come_oldest_first_each_origin_once() -> None:
    contents = Contents([letter(2, hours=2), letter(1, hours=1), letter(2, hours=3)])
    assert contents.distinct() == [letter(1, hours=1), letter(2, hours=2)]


def test_what_was_replayed_does_not_wait() -> None:
    contents = Contents([letter(1), letter(2)], replayed={"searches:0:1"})
    assert contents.waiting() == [letter(2)]


def test_a_letter_written_again_after_its_replay_does_not_wait_either() -> None:
    contents = Contents([letter(1), letter(1, hours=5)], replayed={"searches:0:1"})
    assert contents.waiting() == []


def test_a_selection_without_conditions_takes_all() -> None:
    assert Selection().takes(letter(1))


def test_a_selection_takes_from_its_beginning_up_to_before_its_end() -> None:
    selection = Selection(since=TIME, until=TIME + timedelta(hours=1))
    taken = [selection.takes(letter(1, hours=hours)) for hours in (-1, 0, 1)]
    assert taken == [False, True, False]


def test_records_older_than_their_topic_keeps_are_counted_before_they_are_sent() -> None:
    topic = load(ROOT / "topics.yaml", NAMES).inbound["searches"]
    now_ms = int(TIME.timestamp() * 1000)
    kept_ms = topic.retention // timedelta(milliseconds=1)
    letters = [
        letter(1, timestamp=now_ms - kept_ms - 1),
        letter(2, timestamp=now_ms - kept_ms),
        letter(3, timestamp=-1),
    ]
    assert Plan(letters, Counter(), Counter(), 0).expired(topic, TIME) == 1
