"""Which letters of a dead-letter topic are waiting, and which a replay takes."""

from collections import Counter
from datetime import UTC, datetime, timedelta

from ops.dead_letters import Contents, Letter, Selection
from ops.replay import Plan
from runtime.settings import ROOT
from schemas.topics import load
from sinks.collections import NAMES

TIME = datetime(2026, 1, 31, tzinfo=UTC)


def letter(
    origin: int,
    *,
    hours: int = 0,
    reason: str = "schema",
    timestamp: int = 0,
    first: int | None = None,
    claimed: int | None = None,
    attempts: int = 0,
    content: bytes = b"same",
) -> Letter:
    place = f"searches:0:{origin}"
    proven = "" if first is None else f"searches:0:{first}"
    unproven = "" if claimed is None else f"searches:0:{claimed}"
    time = TIME + timedelta(hours=hours)
    return Letter(0, origin, place, reason, "", time, timestamp, proven, unproven, attempts, content)


def test_letters_come_oldest_first_each_origin_once() -> None:
    contents = Contents([letter(2, hours=2), letter(1, hours=1), letter(2, hours=3)])
    assert contents.distinct() == [letter(1, hours=1), letter(2, hours=2)]


def test_what_was_replayed_does_not_wait() -> None:
    contents = Contents([letter(1), letter(2)], replayed={"searches:0:1"})
    assert contents.waiting() == [letter(2)]


def test_a_letter_written_again_after_its_replay_does_not_wait_either() -> None:
    contents = Contents([letter(1), letter(1, hours=5)], replayed={"searches:0:1"})
    assert contents.waiting() == []


def test_a_letter_refused_again_is_the_same_letter_with_its_newest_reason() -> None:
    again = letter(5, hours=1, reason="refused-by-store", first=1, attempts=1)
    contents = Contents([again, letter(1)], replayed={"searches:0:1"})
    assert contents.distinct() == contents.waiting() == [again]


def test_however_often_it_is_refused_it_is_one_letter() -> None:
    letters = [letter(1), *(letter(1 + number, hours=number, first=1, attempts=number) for number in range(1, 6))]
    replayed = {f"searches:0:{number}" for number in range(1, 6)}
    assert Contents(letters, replayed).waiting() == letters[-1:]
    assert Contents(letters, {*replayed, "searches:0:6"}).waiting() == []
    assert Contents(letters, {*replayed, "searches:0:6"}).distinct() == letters[-1:]


def test_a_letter_refused_again_by_a_worker_whose_clock_is_behind_still_waits() -> None:
    first, again = letter(1, hours=2), letter(5, hours=1, first=1, attempts=1)
    contents = Contents([first, again], replayed={"searches:0:1"})
    assert contents.distinct() == contents.waiting() == [again]
    claimed = letter(5, hours=1, claimed=1, attempts=1)
    assert [found.origin for found in Contents([first, claimed], {"searches:0:1"}).waiting()] == ["searches:0:5"]


def test_a_letter_whose_first_one_was_deleted_is_one_letter_too() -> None:
    last = letter(9, hours=2, first=1, attempts=2)
    assert Contents([letter(5, hours=1, first=1, attempts=1), last]).distinct() == [last]


def test_a_batch_read_again_after_the_next_refusal_does_not_bring_back_the_old_reason() -> None:
    again = letter(5, hours=1, reason="refused-by-store", first=1, attempts=1)
    assert Contents([letter(1), again, letter(1, hours=2)]).distinct() == [again]


def test_what_a_header_claims_is_believed_where_the_letter_of_that_place_says_the_same() -> None:
    contents = Contents([letter(1), letter(5, hours=1, claimed=1, attempts=1)])
    assert contents.distinct() == [letter(5, hours=1, claimed=1, first=1, attempts=1)]


def test_what_a_header_claims_hides_no_other_letter() -> None:
    others = [
        letter(1),
        letter(5, hours=1, claimed=1, attempts=7, content=b"other"),
        letter(6, hours=2, claimed=3, attempts=7),
    ]
    found = Contents(others).distinct()
    assert [(one.origin, one.first, one.attempts) for one in found] == [
        ("searches:0:1", "", 0),
        ("searches:0:5", "", 0),
        ("searches:0:6", "", 0),
    ]


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
