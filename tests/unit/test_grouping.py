from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from functools import reduce
from random import Random
from typing import Any

import bson
import pytest
from bson.codec_options import CodecOptions
from hypothesis import given
from hypothesis import strategies as st

from notifications.grouping import EXACT, NEWEST, NotificationGroup, merge
from notifications.notice import ACTORS, Gather, Notice, Words, digest, expiry
from schemas.notifications import RelatedEntity

NOON = datetime(2026, 1, 31, 12, tzinfo=UTC)
ZONED: CodecOptions[Mapping[str, Any]] = CodecOptions(tz_aware=True, tzinfo=UTC)
GROUP = digest("alan", "post_liked", "post", "post-1", NOON.isoformat())


def like(
    actor: str, *, at: int = 0, event: str | None = None, name: str | None = None, microseconds: int = 0
) -> Notice:
    """A like of one post, `at` milliseconds after noon."""
    time = NOON + timedelta(milliseconds=at, microseconds=microseconds)
    identity = digest(event or f"{actor}-{at}", "alan", "post_liked")
    return Notice(
        id=identity,
        user_id="alan",
        type="post_liked",
        title=f"{name or actor} liked your post",
        message=f"“Title at {at}”",
        action_url=f"/posts/at-{at}",
        action_text="See the post",
        related_entity=RelatedEntity(id="post-1", type="post"),
        actor_id=actor,
        actor_name=name or actor,
        actor_avatar=f"/avatars/{actor}",
        channels=("inApp",),
        priority="low",
        created_at=time,
        expires_at=expiry(time),
        gather=Gather(GROUP, NOON, f"{ACTORS} liked your post", f"“Title at {at}”"),
    )


def crowd(size: int, *, first: int = 0) -> list[Notice]:
    return [like(f"reader-{number}", at=number) for number in range(first, first + size)]


def gathered(
    notices: Iterable[Notice], stored: NotificationGroup | None = None, *, was_read: bool = False
) -> NotificationGroup:
    for notice in notices:
        before, stored = stored, merge(stored, notice, was_read=was_read)
        # What was read was the generation that was stored; the new one is unread.
        was_read = was_read and stored == before
    assert stored is not None
    return stored


likes = st.lists(
    st.builds(
        lambda actor, at: like(f"reader-{actor}", at=at, name=f"Reader {actor} at {at}"),
        st.integers(0, 8),
        st.integers(0, 5),
    ),
    min_size=1,
    max_size=25,
)


@given(likes, st.randoms(use_true_random=False))
def test_any_order_and_any_repetition_give_the_same_group(notices: list[Notice], random: Random) -> None:
    again = [*notices, *random.choices(notices, k=len(notices))]
    random.shuffle(again)
    assert gathered(again) == gathered(notices)


@given(likes)
def test_everybody_counts_once_and_the_newest_are_named(notices: list[Notice]) -> None:
    state = gathered(notices)
    last = {notice.actor_id: notice for notice in sorted(notices, key=lambda notice: (notice.created_at, notice.id))}
    newest = sorted(last.values(), key=lambda notice: (notice.created_at, notice.id), reverse=True)
    assert state.count == len(last)
    assert state.is_exact
    assert [act.actor_name for act in state.newest] == [notice.actor_name for notice in newest[:NEWEST]]
    assert state.words.message == newest[0].message
    assert state.words.action_url == newest[0].action_url
    assert state.actor_avatar == newest[0].actor_avatar


@given(likes, st.data())
def test_everybody_counts_in_one_generation_alone_whenever_it_is_read(
    notices: list[Notice], data: st.DataObject
) -> None:
    stored: NotificationGroup | None = None
    read_generation = 0
    counted: dict[int, int] = {}
    for notice in notices:
        stored = merge(stored, notice, was_read=stored is not None and read_generation == stored.generation)
        counted[stored.generation] = stored.count
        if data.draw(st.booleans()):
            read_generation = stored.generation
    assert stored is not None
    assert sum(counted.values()) == len({notice.actor_id for notice in notices})
    # And nothing that comes again counts again, read or not.
    for notice in notices:
        again = merge(stored, notice, was_read=read_generation == stored.generation)
        assert (again.generation, again.count) == (stored.generation, stored.count)


@pytest.mark.parametrize(
    ("size", "title"),
    [
        (1, "reader-0 liked your post"),
        (2, "reader-1 and reader-0 liked your post"),
        (3, "reader-2, reader-1 and reader-0 liked your post"),
        (4, "reader-3 and 3 others liked your post"),
        (10, "reader-9 and 9 others liked your post"),
        (1_000, "reader-999 and 999 others liked your post"),
    ],
)
def test_the_title_names_or_counts_people(size: int, title: str) -> None:
    words = gathered(crowd(size)).words
    assert words == Words(title, f"“Title at {size - 1}”", f"/posts/at-{size - 1}", "See the post")


def test_the_first_notice_says_by_itself_what_its_group_says() -> None:
    notice = like("Ada")
    assert merge(None, notice).words == notice.words


def test_an_event_that_was_counted_changes_nothing() -> None:
    state = gathered(crowd(5))
    assert all(merge(state, notice) == state for notice in crowd(5))


def test_somebody_who_likes_again_counts_once_and_is_the_newest() -> None:
    state = gathered([like("ada", at=1), like("grace", at=2), like("ada", at=3)])
    assert (state.count, state.words.title) == (2, "ada and grace liked your post")


def test_an_older_like_that_comes_late_pushes_nobody_out() -> None:
    state = gathered([*crowd(4, first=10), like("ada", at=1), like("reader-13", at=0)])
    assert [act.actor_id for act in state.newest] == ["reader-13", "reader-12", "reader-11"]
    assert state.count == 5


def test_the_next_person_after_a_reading_begins_a_new_notification() -> None:
    first = gathered(crowd(3))
    second = merge(first, like("ada", at=50), was_read=True)
    assert (first.id, second.id) == (f"{GROUP}-1", f"{GROUP}-2")
    assert (second.count, second.words.title) == (1, "ada liked your post")
    third = gathered([like("grace", at=51)], second)
    assert (third.id, third.words.title) == (second.id, "grace and ada liked your post")


def test_a_person_counted_in_an_earlier_generation_is_not_counted_again() -> None:
    first = gathered(crowd(3))
    assert merge(first, like("reader-1", at=1), was_read=True) is first
    assert merge(first, like("reader-1", at=99, event="another"), was_read=True) is first
    second = merge(first, like("ada", at=50), was_read=True)
    assert all(merge(second, notice) is second for notice in crowd(3))
    third = merge(second, like("grace", at=60), was_read=True)
    assert third.generation == 3
    assert all(merge(third, notice, was_read=True) is third for notice in [*crowd(3), like("ada", at=50)])


def test_a_retry_after_a_new_generation_was_stored_finds_itself_counted() -> None:
    second = merge(gathered(crowd(3)), like("ada", at=50), was_read=True)
    assert merge(second, like("ada", at=50)) == second
    assert merge(second, like("ada", at=50), was_read=True) is second


def test_a_thousand_people_are_counted_exactly_in_any_order_and_over_generations() -> None:
    people = crowd(1_000)
    shuffled = [*people, *people]
    Random(1).shuffle(shuffled)
    state = gathered(shuffled)
    assert state == gathered(people)
    assert (state.count, state.is_exact) == (1_000, True)
    second = merge(state, like("ada", at=5_000), was_read=True)
    assert all(merge(second, notice) is second for notice in people)
    assert merge(second, like("grace", at=1)).count == 2


@pytest.mark.parametrize("size", [1_023, 1_024, 1_500, 5_000])
def test_beyond_the_exact_number_the_count_is_near_and_the_state_is_bounded(size: int) -> None:
    people = crowd(size)
    state = gathered(people)
    assert state.is_exact == (size < EXACT)
    assert size * 0.9 <= state.count <= size * 1.1
    assert state.count == size if state.is_exact else state.count >= EXACT
    Random(1).shuffle(people)
    assert gathered([*people, *people[:100]]) == state
    assert ("about" in state.words.title) != state.is_exact


def test_beyond_the_exact_number_nothing_that_came_before_counts_again() -> None:
    people = crowd(3_000)
    first = gathered(people)
    assert all(merge(first, notice, was_read=True) is first for notice in people)
    newcomers = crowd(50, first=3_000)
    second = gathered(newcomers, first, was_read=True)
    assert (second.generation, second.count) == (2, 50)
    assert gathered([*people, *newcomers], second) == second
    assert all(merge(second, notice, was_read=True) is second for notice in [*people, *newcomers])


def test_the_count_only_grows() -> None:
    counts = []
    stored: NotificationGroup | None = None
    for notice in crowd(2_500):
        stored = merge(stored, notice)
        counts.append(stored.count)
    assert counts == sorted(counts)


def bytes_of(state: NotificationGroup) -> bytes:
    return bson.encode(state.document())


def test_a_state_is_bounded_in_bytes() -> None:
    longest = [like("𓀀" * 250 + f"{number:06}", at=number, name="𓀀" * 50) for number in range(3_000)]
    second = gathered(longest[1_500:], gathered(longest[:1_500]), was_read=True)
    assert second.generation == 2
    assert len(bytes_of(second)) < 22_000


@given(likes, st.booleans())
def test_a_state_comes_back_from_mongodb_as_it_was(notices: list[Notice], was_read: bool) -> None:
    state = gathered([*notices, like("ada", at=9, microseconds=999)])
    if was_read:
        state = merge(state, like("grace", at=10, microseconds=1), was_read=True)
    document = bson.decode(bytes_of(state), codec_options=ZONED)
    assert NotificationGroup.from_document({"_id": state.id, **document}) == state


def bare(actor: str, *, at: int) -> Notice:
    """A like by somebody without a name or a picture, that leads nowhere."""
    return replace(like(actor, at=at), actor_name=None, actor_avatar=None, action_url=None, action_text=None)


def test_what_is_unknown_is_left_out_of_the_document() -> None:
    document = merge(None, bare("ada", at=1)).document()
    assert document.keys() == {"group", "generation", "newest", "actors", "earlier", "title", "message"}
    assert document["newest"][0].keys() == {"time", "noticeId", "actorId"}


def test_earlier_until_is_there_once_there_is_an_earlier_generation() -> None:
    first = merge(None, like("ada", at=1))
    second = merge(first, like("grace", at=2), was_read=True)
    assert "earlierUntil" not in first.document()
    assert second.document()["earlierUntil"] == NOON + timedelta(milliseconds=1)


@pytest.mark.parametrize("was_read", [False, True])
def test_a_document_of_an_earlier_release_with_null_for_what_is_unknown_is_read(was_read: bool) -> None:
    state = merge(None, bare("ada", at=1))
    names = ("earlierUntil", "actionUrl", "actionText", "actorAvatar")
    document: dict[str, Any] = {**dict.fromkeys(names), **state.document()}
    document["newest"] = [{**act, "actorName": None} for act in document["newest"]]
    stored = NotificationGroup.from_document(document)
    assert stored == state
    after = merge(stored, like("grace", at=2), was_read=was_read).document()
    assert None not in after.values()


def test_an_event_with_microseconds_equals_itself_after_it_was_stored() -> None:
    notice = like("ada", at=1, microseconds=999)
    stored = NotificationGroup.from_document(bson.decode(bytes_of(merge(None, notice)), codec_options=ZONED))
    assert merge(stored, notice) == stored


def test_a_notice_of_another_group_is_refused() -> None:
    ours, other = like("ada"), like("grace")
    assert other.gather is not None
    other = replace(other, gather=replace(other.gather, group=digest("another")))
    with pytest.raises(ValueError, match="another group"):
        merge(merge(None, ours), other)


@pytest.mark.parametrize("alone", [replace(like("ada"), gather=None), replace(like("ada"), actor_id=None)])
def test_a_notice_that_stands_alone_is_refused(alone: Notice) -> None:
    with pytest.raises(ValueError, match="has no group"):
        merge(None, alone)


def test_nobodys_name_is_in_the_repr() -> None:
    assert "Ada Lovelace" not in repr(merge(None, like("ada", name="Ada Lovelace")))


def test_two_writers_who_merge_in_turns_end_with_the_same() -> None:
    def fold(notices: Sequence[Notice]) -> NotificationGroup:
        first, *others = notices
        return reduce(merge, others, merge(None, first))

    ours, theirs = crowd(6), crowd(6, first=4)
    assert fold([*ours, *theirs]) == fold([*theirs, *ours])
