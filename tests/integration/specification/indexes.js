db.pageViews.createIndex({ postId: 1, timestamp: -1 });
db.pageViews.createIndex({ userId: 1, timestamp: -1 });
db.pageViews.createIndex({ sessionId: 1 });
db.pageViews.createIndex({ timestamp: -1 });
db.pageViews.createIndex({ "device.type": 1 });

// TTL index - auto-delete after 90 days
db.pageViews.createIndex({ timestamp: 1 }, { expireAfterSeconds: 7776000 });

db.analyticsEvents.createIndex({ eventType: 1, timestamp: -1 });
db.analyticsEvents.createIndex({ entityId: 1, timestamp: -1 });
db.analyticsEvents.createIndex({ userId: 1, timestamp: -1 });
db.analyticsEvents.createIndex({ timestamp: -1 });
db.analyticsEvents.createIndex({ category: 1, timestamp: -1 });

// TTL index - auto-delete after 180 days
db.analyticsEvents.createIndex(
  { timestamp: 1 },
  { expireAfterSeconds: 15552000 }
);

db.userActivity.createIndex({ userId: 1, timestamp: -1 });
db.userActivity.createIndex({ activityType: 1, timestamp: -1 });
db.userActivity.createIndex({ isPublic: 1, timestamp: -1 });

// TTL index - auto-delete after 1 year
db.userActivity.createIndex({ timestamp: 1 }, { expireAfterSeconds: 31536000 });

db.searchQueries.createIndex({ normalizedQuery: 1, timestamp: -1 });
db.searchQueries.createIndex({ timestamp: -1 });
db.searchQueries.createIndex({ resultsCount: 1 });

// Text index for query analysis
db.searchQueries.createIndex({ query: "text" });

db.notifications.createIndex({ userId: 1, createdAt: -1 });
db.notifications.createIndex({ userId: 1, "channels.inApp.read": 1 });
db.notifications.createIndex({ type: 1, createdAt: -1 });
db.notifications.createIndex({ priority: 1, createdAt: -1 });

// TTL index - auto-delete after 90 days
db.notifications.createIndex({ expiresAt: 1 }, { expireAfterSeconds: 0 });

db.notificationQueue.createIndex({ status: 1, priority: -1, createdAt: 1 });
db.notificationQueue.createIndex({ nextRetryAt: 1 });
db.notificationQueue.createIndex({ userId: 1, status: 1 });

// TTL index - auto-delete completed items after 7 days
db.notificationQueue.createIndex(
  { completedAt: 1 },
  {
    expireAfterSeconds: 604800,
    partialFilterExpression: { status: "completed" },
  }
);

db.emailLogs.createIndex({ to: 1, createdAt: -1 });
db.emailLogs.createIndex({ userId: 1, createdAt: -1 });
db.emailLogs.createIndex({ status: 1, createdAt: -1 });
db.emailLogs.createIndex({ providerId: 1 });

// TTL index - auto-delete after 30 days
db.emailLogs.createIndex({ createdAt: 1 }, { expireAfterSeconds: 2592000 });

db.pushNotificationLogs.createIndex({ userId: 1, createdAt: -1 });
db.pushNotificationLogs.createIndex({ deviceToken: 1, createdAt: -1 });
db.pushNotificationLogs.createIndex({ status: 1, createdAt: -1 });

// TTL index - auto-delete after 30 days
db.pushNotificationLogs.createIndex(
  { createdAt: 1 },
  { expireAfterSeconds: 2592000 }
);

db.auditLogs.createIndex({ userId: 1, timestamp: -1 });
db.auditLogs.createIndex({ action: 1, timestamp: -1 });
db.auditLogs.createIndex({ resource: 1, resourceId: 1, timestamp: -1 });
db.auditLogs.createIndex({ timestamp: -1 });

// Keep audit logs for 2 years (compliance)
db.auditLogs.createIndex({ timestamp: 1 }, { expireAfterSeconds: 63072000 });

db.systemLogs.createIndex({ level: 1, timestamp: -1 });
db.systemLogs.createIndex({ service: 1, timestamp: -1 });
db.systemLogs.createIndex({ requestId: 1 });
db.systemLogs.createIndex({ timestamp: -1 });

// TTL index - auto-delete after 30 days
db.systemLogs.createIndex({ timestamp: 1 }, { expireAfterSeconds: 2592000 });

db.errorLogs.createIndex({ name: 1, message: 1, timestamp: -1 });
db.errorLogs.createIndex({ severity: 1, resolved: 1, timestamp: -1 });
db.errorLogs.createIndex({ service: 1, timestamp: -1 });
db.errorLogs.createIndex({ resolved: 1, timestamp: -1 });

// TTL index - auto-delete resolved errors after 90 days
db.errorLogs.createIndex(
  { resolvedAt: 1 },
  { expireAfterSeconds: 7776000, partialFilterExpression: { resolved: true } }
);

db.performanceLogs.createIndex({ endpoint: 1, timestamp: -1 });
db.performanceLogs.createIndex({ duration: -1, timestamp: -1 });
db.performanceLogs.createIndex({ statusCode: 1, timestamp: -1 });

// TTL index - auto-delete after 7 days
db.performanceLogs.createIndex(
  { timestamp: 1 },
  { expireAfterSeconds: 604800 }
);
