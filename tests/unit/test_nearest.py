"""Suggestions for unknown names."""

import pytest

from schemas.nearest import suggestion

MANY = tuple(f"type.number-{number}" for number in range(32))


@pytest.mark.parametrize("name", ["post.publishd", "POST.PUBLISHED", "post_published", "postpublished"])
def test_a_near_name_is_suggested_in_any_case_and_spelling(name: str) -> None:
    assert suggestion(name, ("post.liked", "post.published"), "x") == "did you mean post.published?"


def test_a_few_names_are_listed_where_none_is_near() -> None:
    assert suggestion("zzz", ("schema", "not-json"), "x") == "there are schema, not-json"


def test_the_first_of_many_names_are_listed_where_nothing_lists_them_all() -> None:
    assert suggestion("zzz", MANY).endswith(", type.number-10, type.number-11 and 20 more")


def test_many_names_are_not_listed_where_a_command_lists_them() -> None:
    assert suggestion("zzz", MANY, "`inkstream topics`") == "`inkstream topics` lists all 32"


def test_a_name_of_any_length_is_compared_by_its_beginning() -> None:
    assert suggestion("q" * 1_000_000, MANY, "x") == "x lists all 32"
