"""What is suggested for a name that nobody knows."""

import pytest

from schemas.nearest import suggestion

MANY = tuple(f"type.number-{number}" for number in range(32))


@pytest.mark.parametrize("name", ["post.publishd", "POST.PUBLISHED", "post_published", "postpublished"])
def test_a_near_name_is_suggested_in_any_case_and_spelling(name: str) -> None:
    assert suggestion(name, ("post.liked", "post.published"), "x") == "did you mean post.published?"


def test_a_few_names_are_listed_where_none_is_near() -> None:
    assert suggestion("zzz", ("schema", "not-json"), "x") == "there are schema, not-json"


def test_many_names_are_not_listed() -> None:
    assert suggestion("zzz", MANY, "`inkstream topics`") == "`inkstream topics` lists all 32"


def test_a_name_of_any_length_is_compared_by_its_beginning() -> None:
    assert suggestion("q" * 1_000_000, MANY, "x") == "x lists all 32"
