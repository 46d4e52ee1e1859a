"""The chaos harness reaches into the product from outside: whatever it replaces there must be there."""

import signal
import subprocess
import sys
from collections import Counter
from random import Random

import pytest

from runtime.settings import ROOT
from tests.chaos import points
from tests.chaos.defects import DEFECTS
from tests.chaos.faults import FAULTS, draw

_TWICE = """
from tests.chaos import points
points.apply()
from aiokafka import TopicPartition
from delivery.commit import OffsetTracker
tracker = OffsetTracker()
tracker.revoke([TopicPartition("page-views", 0)])
points.die_at("during-revoke-after-drain", 2)
for passing in range(3):
    tracker.revoke([TopicPartition("page-views", 0)])
    tracker.revoke([])
    print(f"passed {passing}", flush=True)
"""


def python(code: str) -> subprocess.CompletedProcess[str]:
    """Run it in a process of its own, as what it replaces stays replaced."""
    return subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=False)


def test_every_point_is_in_the_product_as_it_is() -> None:
    result = python("from tests.chaos import points; points.apply()")
    assert (result.stderr, result.returncode) == ("", 0)


def test_every_defect_can_be_had_in_the_product_as_it_is() -> None:
    result = python("from tests.chaos import defects\nfor name in defects.DEFECTS: defects.apply(name)")
    assert (result.stderr, result.returncode) == ("", 0)


@pytest.mark.parametrize("place", ["Mongo.writes", "Mango.write", "no_function"])
def test_a_place_that_is_gone_ends_the_worker_and_is_named(place: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        points.wrap("sinks.mongo.writer", place, lambda original: original)
    assert f"replace {place} in sinks.mongo.writer" in capsys.readouterr().err


def test_a_process_dies_at_the_passing_that_is_ordered_and_at_no_other() -> None:
    result = python(_TWICE)
    assert result.returncode == -signal.SIGKILL
    assert result.stdout.splitlines() == ["passed 0"]


def test_an_order_for_no_point_is_refused() -> None:
    with pytest.raises(KeyError, match="no point nowhere"):
        points.die_at("nowhere", 1)


def test_every_defect_says_what_it_breaks() -> None:
    assert all(defect.__doc__ for defect in DEFECTS.values())


def test_the_same_seed_draws_the_same_faults() -> None:
    def names(seed: int) -> list[list[str]]:
        chance = Random(seed)
        return [[fault.name for fault in draw(chance, FAULTS)] for _ in range(100)]

    assert names(7) == names(7)
    assert names(7) != names(8)


def test_the_order_in_which_faults_are_named_changes_nothing() -> None:
    some = ["worker-killed", "mongo-killed", "redis-flushed", "kafka-paused"]

    def names(given: list[str]) -> list[list[str]]:
        chance = Random(3)
        return [[fault.name for fault in draw(chance, given)] for _ in range(50)]

    assert names(some) == names(some[::-1])


def test_faults_that_touch_the_same_never_go_together() -> None:
    chance = Random(1)
    drawn = [draw(chance, FAULTS) for _ in range(5_000)]
    assert {len(faults) for faults in drawn} == {1, 2}
    for faults in drawn:
        touched = Counter(what for fault in faults for what in fault.touches)
        assert max(touched.values()) == 1
    together = sum(len(faults) == 2 for faults in drawn) / len(drawn)
    assert 0.25 < together < 0.35
    assert {fault.name for faults in drawn for fault in faults} == set(FAULTS)


def test_only_what_is_named_is_drawn() -> None:
    chance = Random(1)
    drawn = {fault.name for _ in range(200) for fault in draw(chance, ["mongo-killed", "connections-cut-mongo"])}
    assert drawn == {"mongo-killed", "connections-cut-mongo"}
    with pytest.raises(KeyError, match="no fault mongo-eaten"):
        draw(chance, ["mongo-killed", "mongo-eaten"])
