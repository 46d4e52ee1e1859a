"""All stores that the agents read and write, as the settings name them.

Input: settings. Output: stores. Nothing connects before it is used, and `close` closes what was opened.
"""

import random
from os import getpid
from socket import gethostname

from runtime.health import Health
from runtime.settings import Settings
from sinks.mongo.client import Mongo
from sinks.mongo.clock import MongoClock
from sinks.mongo.delivery_logs import DeliveryLogs
from sinks.mongo.notification_queue import NotificationQueue
from sinks.mongo.notifications import Notifications
from sinks.mongo.page_view_counts import StoredViews
from sinks.mongo.writer import MongoWriter
from sinks.postgres.platform_posts import PlatformTable
from sinks.postgres.pool import Pool
from sinks.postgres.recipients import Recipients
from sinks.postgres.suppressions import Suppressions
from sinks.postgres.view_counts import ViewCounts
from sinks.redis.in_app import InApp
from sinks.redis.rate_limits import RateLimits
from sinks.redis.recent_views import RecentViews
from sinks.redis.refusals import RedisRefusals
from sinks.redis.wakeups import WakeUps


class Stores:
    """The stores of one worker.

    Args:
        settings: Where the servers are.
        health: Where to show what Redis refuses.

    Attributes:
        mongo: The connection to MongoDB.
        writer: Writes to MongoDB what events became.
        clock: The time that all workers share.
        stored_views: The page views in MongoDB, for counting.
        view_counts: The counts of views in PostgreSQL.
        recent_views: The views of the last hour in Redis.
        queue: The queue of notifications in MongoDB.
        notifications: The notifications themselves.
        delivery_logs: The logs of e-mails and push messages.
        suppressions: In PostgreSQL, what nothing may be sent to any more.
        recipients: In PostgreSQL and Redis, where people can be reached.
        rate_limits: In Redis, how much may go at once.
        wake_ups: In Redis, what wakes those who deliver.
        in_app: In Redis, what tells people's applications.
    """

    def __init__(self, settings: Settings, health: Health | None = None) -> None:
        redis_url, prefix = settings.redis_url.get_secret_value(), f"{settings.namespace}inkstream:"
        self.mongo = Mongo.connect(settings.mongo_url.get_secret_value(), settings.namespace)
        self.writer = MongoWriter(self.mongo)
        self.clock = MongoClock(self.mongo.database)
        self.stored_views = StoredViews(self.mongo.database, settings.count_since)
        self.queue = NotificationQueue(self.mongo.database, f"{gethostname()}-{getpid()}", random.SystemRandom())
        self.notifications = Notifications(self.mongo.database)
        self.delivery_logs = DeliveryLogs(self.mongo.database)

        pool = Pool(settings.postgres_url.get_secret_value(), settings.namespace)
        self.view_counts = ViewCounts(pool, PlatformTable.of(settings), settings.posts_update_every)
        self.suppressions = Suppressions(pool)

        refusals = RedisRefusals(health)
        self.recent_views = RecentViews(redis_url, prefix, refusals)
        self.recipients = Recipients(
            pool, settings.recipients_view, redis_url, prefix, settings.recipients_kept, refusals=refusals
        )
        self.rate_limits = RateLimits(redis_url, prefix, refusals=refusals)
        self.wake_ups = WakeUps(redis_url, prefix, refusals)
        self.in_app = InApp(self.mongo.database, redis_url, prefix, refusals)

        in_redis = (self.recent_views, self.recipients, self.rate_limits, self.wake_ups, self.in_app)
        self._connected = (*in_redis, self.suppressions, pool, self.mongo)

    async def close(self) -> None:
        """Close all connections; nobody may use them any more."""
        for store in self._connected:
            await store.close()
