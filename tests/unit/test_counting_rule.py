"""The protocol of counting, with crashes between any two of its steps: in the end every view is counted once.

The code that decides (`touched`, `PendingWindows`, `start_of`) is the real one; Kafka, MongoDB and PostgreSQL are small
models. The same rule is tried on the real PostgreSQL in `tests/integration/test_counting_sql.py`.
"""

import asyncio
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Generic, NamedTuple, TypeVar

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, precondition, rule

from agents.view_counts.pending_windows import LARGE, PendingWindows
from enrich.documents import Document
from enrich.view_windows import Window, start_of, touched

NOON = datetime(2026, 1, 31, 12, tzinfo=UTC)
RecordT = TypeVar("RecordT")


class View(NamedTuple):
    """A page view, as it is sent."""

    number: int
    post_id: str
    time: datetime
    is_bot: bool

    @property
    def window(self) -> Window:
        return Window(self.post_id, start_of(self.time))


views = st.builds(
    View,
    st.integers(0, 60),
    st.sampled_from(["post-1", "post-2"]),
    st.integers(200, 399).map(lambda seconds: NOON + timedelta(seconds=seconds)),
    st.booleans(),
)


sizes = st.integers(1, 5)


class Count(NamedTuple):
    """A count that is on its way: a record in `post-view-counts`."""

    window: Window
    views: int


@dataclass
class Topic(Generic[RecordT]):
    """A topic of one partition, and what its agent has committed."""

    records: list[RecordT] = field(default_factory=list)
    committed: int = 0

    @property
    def behind(self) -> bool:
        return self.committed < len(self.records)

    def batch(self, size: int) -> list[RecordT]:
        return self.records[self.committed : self.committed + size]


class Protocol(RuleBasedStateMachine):
    """Each rule lets an agent handle a batch, up to where it may die; a dead one may have been frozen, and wake up."""

    def __init__(self) -> None:
        super().__init__()
        self.loop = asyncio.new_event_loop()
        self.now = 0.0
        self.sent: dict[int, View] = {}
        self.page_views: Topic[View] = Topic()
        self.view_windows: Topic[Window] = Topic()
        self.view_counts: Topic[Count] = Topic()
        self.stored: dict[int, View] = {}
        self.pending = PendingWindows(LARGE)
        self.unsent: list[Count] = []
        self.counts: Counter[Window] = Counter()

    @rule(some_views=st.lists(views, min_size=1, max_size=5))
    def send(self, some_views: list[View]) -> None:
        """The platform sends views, some of them again."""
        self.page_views.records += [self.sent.setdefault(view.number, view) for view in some_views]

    @rule(size=sizes, dies=st.sampled_from(["", "stored", "touched"]))
    def store(self, size: int, dies: str) -> None:
        """The agent of page views: store, touch, commit."""
        batch = self.page_views.batch(size)
        for view in batch:
            self.stored.setdefault(view.number, view)
        if dies == "stored":
            return
        self.view_windows.records += touched(
            Document("pageViews", {"_id": view.number, "postId": view.post_id, "timestamp": view.time})
            for view in batch
        )
        if dies == "touched":
            return
        self.page_views.committed += len(batch)

    @rule(size=sizes, dies=st.sampled_from(["", "", "", "read", "counted", "sent"]), look_large=st.booleans())
    def count(self, size: int, dies: str, look_large: bool) -> None:
        """The agent of touched windows: read, count or put off, send, commit; more is touched while it counts."""
        batch = self.view_windows.batch(size)
        done = self.loop.run_until_complete(self._want(batch))
        self.now += 1.0
        if dies == "read":
            return self._forget_windows()
        turn = self.pending.next_due(self.now)
        meanwhile = self.loop.run_until_complete(self._want(batch[:1]))
        due = {**turn.small, **turn.large}
        counts = [Count(window, self._people(window)) for window in due]
        if dies == "counted":
            self.unsent += counts
            return self._forget_windows()
        self.view_windows.records += turn.deferred
        self.view_counts.records += counts
        for recount in (*due.values(), *turn.deferred.values()):
            recount.done.set_result(None)
        for count in counts:
            self.pending.counted(count.window, 5 * LARGE if look_large else count.views, self.now)
        if dies == "sent":
            return self._forget_windows()
        assert all(each.done() for each in done)
        assert not any(each.done() for each in meanwhile), "what was counted may not have it"
        self.view_windows.committed += len(batch)
        return None

    @precondition(lambda self: self.unsent)
    @rule(data=st.data())
    def wake_up_and_send(self, data: st.DataObject) -> None:
        """An agent of touched windows that was taken for dead sends what it had counted long ago."""
        self.view_counts.records.append(data.draw(st.sampled_from(self.unsent)))

    @rule(size=sizes, dies=st.booleans())
    def apply(self, size: int, dies: bool) -> None:
        """The agent of counts: apply, commit."""
        batch = self.view_counts.batch(size)
        for count in batch:
            self._raise(count)
        if not dies:
            self.view_counts.committed += len(batch)

    @precondition(lambda self: self.view_counts.records)
    @rule(data=st.data())
    def apply_again(self, data: st.DataObject) -> None:
        """An agent of counts that was taken for dead applies any count at any time."""
        self._raise(data.draw(st.sampled_from(self.view_counts.records)))

    def teardown(self) -> None:
        """Let every agent come to its end without another crash: then every view by a person counts once."""
        while self.page_views.behind:
            self.store(5, "")
        while self.view_windows.behind:
            self.count(5, "", look_large=True)
        while self.view_counts.behind:
            self.apply(5, dies=False)
        for count in reversed([*self.unsent, *self.view_counts.records]):
            self._raise(count)  # whoever was taken for dead wakes up
        assert +self.counts == Counter(view.window for view in self.sent.values() if not view.is_bot)
        self.loop.close()

    async def _want(self, windows: Sequence[Window]) -> set["asyncio.Future[None]"]:
        return {self.pending.request(window, NOON) for window in windows}

    def _people(self, window: Window) -> int:
        return sum(view.window == window and not view.is_bot for view in self.stored.values())

    def _raise(self, count: Count) -> None:
        if count.views > self.counts[count.window]:
            self.counts[count.window] = count.views

    def _forget_windows(self) -> None:
        self.pending = PendingWindows(LARGE)


TestProtocol = Protocol.TestCase
TestProtocol.settings = settings(max_examples=200, stateful_step_count=40)
