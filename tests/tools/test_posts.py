"""The sample blog's posts, as rows of the platform's table."""

from collections import Counter
from datetime import UTC, datetime, timedelta
from itertools import islice
from random import Random

from dev.blog import Blog
from dev.posts import PostRow, row_of
from dev.scenarios import Fact
from dev.traffic import Traffic
from runtime.settings import ROOT
from schemas.topics import load
from sinks import collections

NOON = datetime(2026, 1, 31, 12, tzinfo=UTC)
TOPICS = load(ROOT / "topics.yaml", collections.NAMES).inbound
POST = {"postId": "post", "slug": "a-post", "authorId": "author", "title": "A Post"}


def written(began: datetime) -> list[PostRow]:
    samples = islice(Traffic(TOPICS.values(), began=began, rate=300), 10_000)
    return [sample.post for sample in samples if sample.post is not None]


def test_a_draft_becomes_a_published_post() -> None:
    draft = row_of(Fact("post.created", NOON, "1", {**POST, "sessionId": "session"}))
    assert draft == PostRow("post", "a-post", "A Post", "author", None)
    assert draft.status == "DRAFT"
    published = row_of(Fact("post.published", NOON, "2", POST))
    assert published == PostRow("post", "a-post", "A Post", "author", NOON)
    assert published.status == "PUBLISHED"


def test_other_facts_write_no_post() -> None:
    assert row_of(Fact("post.liked", NOON, "1", {"postId": "post"})) is None


def test_the_blog_is_the_same_every_time_and_its_rows_are_unique() -> None:
    blog = Blog()
    assert blog.posts == Blog().posts
    assert len({post.id for post in blog.posts}) == len({post.slug for post in blog.posts}) == len(blog.posts)
    assert len({person.id for person in blog.people}) == len({person.email for person in blog.people})
    assert len({person.id for person in blog.people}) == len(blog.people)


def test_every_post_that_is_read_is_among_the_blogs() -> None:
    blog, chance = Blog(), Random(1)
    assert {blog.post(chance).id for _ in range(5_000)} <= {post.id for post in blog.posts}


def test_posts_that_are_written_have_authors_of_the_blog() -> None:
    rows = written(NOON)
    assert len(rows) > 20
    assert {row.author_id for row in rows} <= {person.id for person in Blog().people}


def test_two_runs_write_posts_with_other_slugs() -> None:
    ours, theirs = written(NOON), written(NOON + timedelta(seconds=65.536))
    assert not {row.slug for row in ours} & {row.slug for row in theirs}
    of_one_post = Counter(row.slug for row in ours if row.published_at is None)
    assert len(of_one_post) > 10
