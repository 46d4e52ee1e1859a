"""All metrics, each with what it means and when to look at it. Served as `/metrics` by the worker.

Input: counts from every part of the program. Output: Prometheus families. Labels are bounded: agents, topics,
partitions, collections, reasons and dependencies, never ids. A metric says what this process has seen since it started.
"""

from bisect import bisect_right
from collections.abc import Iterable, Sequence

from prometheus_client import REGISTRY, Counter, Gauge, Histogram
from prometheus_client.core import HistogramMetricFamily, Metric
from prometheus_client.registry import Collector


class BatchHistogram(Collector):
    """A histogram of seconds that takes a batch of observations at once, in milliseconds.

    A client library's histogram costs a microsecond an observation, as much as decoding an event; sorting the batch and
    counting each bucket by bisection costs a twentieth.
    """

    def __init__(self, name: str, documentation: str, label: str, buckets: Sequence[float]) -> None:
        self._name = name
        self._documentation = documentation
        self._label = label
        self._seconds = tuple(buckets)
        self._counts: dict[str, list[int]] = {}
        self._sums: dict[str, float] = {}
        REGISTRY.register(self)

    def observe(self, label: str, milliseconds: Iterable[int]) -> None:
        """Count the values of one batch under the label."""
        ordered = sorted(milliseconds)
        below = [bisect_right(ordered, bound * 1000) for bound in self._seconds] + [len(ordered)]
        counts = self._counts.get(label)
        self._counts[label] = below if counts is None else [a + b for a, b in zip(counts, below, strict=True)]
        self._sums[label] = self._sums.get(label, 0.0) + sum(ordered) / 1000

    def collect(self) -> Iterable[Metric]:
        """Yield the family as Prometheus has it: cumulative counts up to each bound, and up to infinity."""
        family = HistogramMetricFamily(self._name, self._documentation, labels=[self._label])
        bounds = [*(str(bound) for bound in self._seconds), "+Inf"]
        for label, counts in self._counts.items():
            family.add_metric([label], list(zip(bounds, counts, strict=True)), sum_value=self._sums[label])
        yield family


RECORDS_READ = Counter(
    "inkstream_records_read",
    "Records read from Kafka, by agent; a record read again after a crash counts again.",
    ["agent"],
)
DOCUMENTS_WRITTEN = Counter(
    "inkstream_documents_written", "Documents that a write created or changed, by collection.", ["collection"]
)
DOCUMENTS_DUPLICATE = Counter(
    "inkstream_documents_duplicate",
    "Writes that changed nothing, as the document was there already: sent twice, or read again after a crash.",
    ["collection"],
)
STORED_DOCUMENTS_SPOILED = Counter(
    "inkstream_stored_documents_spoiled",
    "Stored documents that something else has changed so that updates fail: repaired, or left and worked around. "
    "The log names each of them.",
    ["collection", "outcome"],
)
DEAD_LETTERS = Counter(
    "inkstream_dead_letters",
    "Records set aside as dead letters, by topic and reason. Rising: a producer's release has broken its events.",
    ["topic", "reason"],
)
RETRIES = Counter(
    "inkstream_retries",
    "Writes retried because a dependency was down or failing over. Rising: look at that dependency.",
    ["dependency"],
)
BATCH_RECORDS = Histogram(
    "inkstream_batch_records",
    "Records in a batch. Large batches under load are good; always full ones mean that the agent is behind.",
    ["agent"],
    buckets=(1, 5, 10, 50, 100, 250, 500, 1_000, 2_000, 5_000, 10_000, 20_000),
)
WRITE_SECONDS = Histogram(
    "inkstream_write_seconds",
    "How long the stores took to make a batch durable, retries included.",
    ["agent"],
    buckets=(0.002, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60),
)
STORED_AFTER_SECONDS = BatchHistogram(
    "inkstream_stored_after_seconds",
    "From an event's Kafka timestamp to its document being durable: how old the newest data is that an analyst sees.",
    "agent",
    buckets=(0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 300, 1_800, 7_200),
)
COUNTED_AFTER_SECONDS = BatchHistogram(
    "inkstream_counted_after_seconds",
    "From the Kafka timestamp of the oldest new view in a count to that count in our tables in PostgreSQL.",
    "agent",
    buckets=(0.5, 1, 2, 3, 4, 5, 6, 8, 10, 12.5, 15, 20, 30, 60, 300, 1_800, 7_200),
)
COUNT_SECONDS = Histogram(
    "inkstream_count_seconds",
    "How long MongoDB took to count the windows that were due, retries included.",
    buckets=(0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60),
)
WINDOWS_COUNTED = Counter("inkstream_windows_counted", "Windows of page views counted; touched again, counted again.")
VIEWS_APPLIED = Counter("inkstream_views_applied", "Views by which counts of posts in PostgreSQL have risen.")
VIEWS_NOT_COUNTED = Counter(
    "inkstream_views_not_counted",
    "Views stored so late that their window is no longer counted. A view that was sent twice counts twice here.",
)
COUNTS_TOO_LATE = Counter(
    "inkstream_counts_too_late",
    "Counts that came after their window was rolled up and changed nothing. Rising: PostgreSQL's agent is days behind.",
)
POSTS_MISSING = Gauge(
    "inkstream_posts_missing",
    "Posts with counted views that are not in the platform's table; they wait until they are.",
)
POSTS_SET_ASIDE = Gauge(
    "inkstream_posts_set_aside",
    "Posts whose view count PostgreSQL refuses to change; they are retried. Above 0: `inkstream doctor` says why.",
)
POSTS_CHANGED_BY_OTHERS = Counter(
    "inkstream_posts_changed_by_others",
    "Updates of a post's view count that found it changed by something else since the last one. Rising for long: "
    "something else counts views as well; `inkstream verify counts` names posts.",
)
POSTS_LOCKED_SECONDS = Gauge(
    "inkstream_posts_locked_seconds",
    "How long view counts have waited for a lock that the platform holds on its posts; 0 while none wait. Above 300: "
    "`/readyz` says who holds it.",
)
VIEW_COUNT_DRIFT = Gauge(
    "inkstream_view_count_drift",
    "Views by which a small sample of the counts differs from what is stored. Above 0: `inkstream verify counts`.",
)
RECENT_VIEWS_UP = Gauge(
    "inkstream_recent_views_up",
    "1 while this worker writes the views of the last hour to Redis, else 0. At 0 nothing else is affected.",
)
CLAIMED = Counter("inkstream_notifications_claimed", "Items that this worker took from the queue of notifications.")
DELIVERING = Gauge("inkstream_notifications_delivering", "Items of the queue that this worker is processing.")
DELIVERY_ATTEMPTS = Counter(
    "inkstream_delivery_attempts",
    "Messages given to a provider, by outcome: sent, refused, throttled, failed or misconfigured.",
    ["provider", "outcome"],
)
REPLIES = Counter(
    "inkstream_replies",
    "Responses that refuse a message, and bounces, by what they mean. Above 0 for `policy`: look at once.",
    ["provider", "category"],
)
DELIVERIES = Counter(
    "inkstream_deliveries",
    "Deliveries that ended, by channel and state: sent, failed or skipped, the last with its reason.",
    ["channel", "state", "reason"],
)
SEND_SECONDS = Histogram(
    "inkstream_send_seconds",
    "How long a provider took to answer.",
    ["provider"],
    buckets=(0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 20),
)
SENT_AFTER_SECONDS = Histogram(
    "inkstream_sent_after_seconds",
    "From the event to its message at a provider, by channel and priority (4 is urgent). Quiet hours count as well.",
    ["channel", "priority"],
    buckets=(0.1, 0.25, 0.5, 1, 2, 5, 10, 30, 60, 300, 1_800, 7_200, 43_200),
)
LEASES_LOST = Counter(
    "inkstream_leases_lost",
    "Items that went to another worker while this one had them. Rising: a store or a provider is very slow.",
)
QUEUE_READY = Gauge(
    "inkstream_queue_ready",
    "Items of the queue of notifications that could be taken now, up to 10,000. Growing: too few workers, or none.",
)
QUEUE_OLDEST_SECONDS = Gauge(
    "inkstream_queue_oldest_seconds",
    "Age of the oldest item that could be taken now, or 0. Above 300 for minutes: nothing is delivered.",
)
CIRCUIT_OPEN = Gauge(
    "inkstream_circuit_open",
    "1 while a provider gets nothing as it failed or refused us; for `web-push`, how many push services get nothing.",
    ["provider"],
)
PREFERENCES_UNREADABLE = Counter(
    "inkstream_preferences_unreadable",
    "Preferences read that hold something unreadable, by part. Above 0: `inkstream doctor` says what; people get less.",
    ["part"],
)
RECEIPTS = Counter(
    "inkstream_receipts",
    "Receipts taken in, by provider and kind. `bounced` or `complained` rising: providers soon refuse what we send.",
    ["provider", "kind"],
)
RECEIPTS_NOT_OURS = Counter(
    "inkstream_receipts_not_ours",
    "Receipts of messages that have no log: others send by the same account, or the log is deleted after 30 days.",
    ["provider"],
)
WEBHOOKS = Counter(
    "inkstream_webhooks",
    "Requests to the pages for providers, by HTTP status. 403 or 406: wrong key, or not the provider; 503: no Kafka.",
    ["provider", "status"],
)
WEB_CONNECTIONS = Gauge("inkstream_web_connections", "Connections to this worker's pages that are open.")
WEB_REFUSED = Counter(
    "inkstream_web_refused",
    "Requests and connections that were refused before a page saw them: compressed, too-large, too-slow, or too-many "
    "at once. Rising fast: somebody tries to hold up the worker; put a proxy with limits before it.",
    ["reason"],
)
REDIS_REFUSED = Counter(
    "inkstream_redis_refused",
    "Commands that Redis refused, by feature and kind: NOPERM is a permission that is missing, OOM no room. The "
    "feature goes on without Redis, limits for each worker alone; `inkstream doctor` names what is missing.",
    ["feature", "problem"],
)
LAG_RECORDS = Gauge(
    "inkstream_lag_records",
    "Records in the partition that are not committed yet, for partitions that this worker owns.",
    ["agent", "partition"],
)
PAUSED_PARTITIONS = Gauge(
    "inkstream_paused_partitions",
    "Partitions not read because their batches in flight cannot be written. Above 0 for long: a store is down.",
    ["agent"],
)
AGENT_UP = Gauge("inkstream_agent_up", "1 while the agent runs in this worker.", ["agent"])
DEPENDENCY_UP = Gauge(
    "inkstream_dependency_up", "1 while the server answers and writes to it succeed, else 0.", ["dependency"]
)
