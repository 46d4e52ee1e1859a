"""View counts from end to end: what was sent is what PostgreSQL says, to the last view."""

import random
from collections import Counter
from datetime import UTC, datetime, timedelta

from tests.integration.pipeline import Message, Pipeline, plain

BROWSER = "Mozilla/5.0 (X11; Linux x86_64; rv:130.0) Gecko/20100101 Firefox/130.0"
BOT = "Mozilla/5.0 (compatible; Googlebot/2.1; +http://www.google.com/bot.html)"
TOPICS = ("page-views", "view-windows", "post-view-counts")


def view(number: int, post_id: str, time: datetime, user_agent: str = BROWSER) -> Message:
    event = plain(
        type="page.viewed",
        eventId=f"view-{number}",
        postId=post_id,
        postSlug=post_id,
        sessionId=f"session-{number % 700}",
        ipAddress=f"81.2.69.{number % 250 + 1}",
        userAgent=user_agent,
        timestamp=time.isoformat(),
    )
    return event._replace(key=post_id.encode())


async def test_views_are_counted_each_once_whatever_their_order(counting: Pipeline) -> None:
    now = datetime.now(UTC)
    posts = [f"post-{number}" for number in range(20)]
    counting.add_posts(posts, view_count=100)
    chance = random.Random(3)
    expected = Counter(dict.fromkeys(posts, 100))
    messages = []
    for number in range(2_000):
        post_id, is_bot = chance.choice(posts), chance.random() < 0.1
        time = now - timedelta(seconds=chance.randint(0, 3_600))
        messages.append(view(number, post_id, time, BOT if is_bot else BROWSER))
        expected[post_id] += not is_bot
    messages += chance.sample(messages, 100)
    chance.shuffle(messages)
    await counting.send("page-views", messages)
    with counting.worker(count_every=0.2):
        await counting.settled(*TOPICS)
    assert counting.view_counts() == expected
