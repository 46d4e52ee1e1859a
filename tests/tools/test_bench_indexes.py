from collections.abc import Iterator
from random import Random

import pytest

from bench import indexes
from bench.indexes import CANDIDATES, QUESTIONS, Cost, Templates
from sinks.collections import COLLECTIONS
from tests.fuzz.validator import problems

COLLECTIONS_ASKED = sorted({question.collection for question in QUESTIONS})


@pytest.fixture(scope="module")
def templates() -> Iterator[Templates]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(indexes, "_TOLD", 2_000)
        yield Templates()


def test_what_is_declared_beyond_the_specification_is_measured() -> None:
    declared = [each.text for each in CANDIDATES if each.index in COLLECTIONS[each.collection].indexes]
    assert len(declared) == 7
    assert {each.collection for each in CANDIDATES} <= {question.collection for question in QUESTIONS}


@pytest.mark.parametrize("name", COLLECTIONS_ASKED)
def test_the_documents_are_such_as_the_validators_take_and_in_the_order_of_their_times(
    templates: Templates, name: str
) -> None:
    documents = list(templates.documents(name, 200))
    assert [line for body in documents for line in problems(name, body)] == []
    times = [body.get("timestamp") or body["createdAt"] for body in documents]
    assert times == sorted(times)
    assert len({body["_id"] for body in documents}) == 200


def test_a_difference_of_three_is_found_among_disturbances_of_a_hundred() -> None:
    chance = Random(1)

    def measured(true: float) -> list[float]:
        return [true + chance.random() + (chance.random() < 0.5) * chance.uniform(0, 100) for _ in range(100)]

    added = Cost("of the test", measured(30), measured(33), 0).added
    assert 2 < added.median < 4
    assert 1 < added.least <= added.median <= added.most < 6
