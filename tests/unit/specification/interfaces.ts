// pageViews
interface PageView {
  _id: ObjectId;

  // Post reference (from PostgreSQL)
  postId: string; // UUID from PostgreSQL posts table
  postSlug: string; // Denormalized for quick queries

  // User tracking
  userId?: string; // UUID if authenticated
  sessionId: string; // Anonymous session tracking

  // Technical details
  ipAddress: string; // Hashed for privacy
  userAgent: string;
  device: {
    type: "mobile" | "tablet" | "desktop";
    os: string;
    browser: string;
  };

  // Engagement metrics
  timeSpent: number; // seconds
  scrollDepth: number; // percentage (0-100)
  interacted: boolean; // clicked, commented, liked

  // Traffic source
  referrer?: string;
  source: string; // 'google', 'twitter', 'direct', etc.
  campaign?: string; // UTM campaign
  medium?: string; // UTM medium

  // Location (optional)
  geo?: {
    country: string;
    city: string;
    timezone: string;
  };

  // Timestamps
  timestamp: Date;
  exitedAt?: Date;
}

// analyticsEvents
interface AnalyticsEvent {
  _id: ObjectId;

  // Event classification
  eventType: string; // 'post_liked', 'comment_created', 'search_performed'
  category: string; // 'engagement', 'content', 'user'

  // Entity references
  entityId: string; // postId, commentId, userId, etc.
  entityType: string; // 'post', 'comment', 'user'

  // Actor
  userId?: string;
  sessionId: string;

  // Event-specific data (flexible)
  properties: {
    [key: string]: any; // Custom properties per event type
  };

  // Context
  context: {
    page: string;
    referrer?: string;
    userAgent: string;
  };

  // Timestamps
  timestamp: Date;
}

// userActivity
interface UserActivity {
  _id: ObjectId;

  userId: string; // UUID from PostgreSQL

  // Activity details
  activityType: string; // 'post_created', 'comment_posted', 'profile_updated'
  action: string; // 'created', 'updated', 'deleted', 'liked'

  // Target entity
  targetId: string;
  targetType: string; // 'post', 'comment', 'user'
  targetTitle?: string; // Denormalized for display

  // Activity metadata
  metadata: {
    [key: string]: any;
  };

  // Visibility
  isPublic: boolean; // Show in public activity feed?

  // Timestamps
  timestamp: Date;
}

// searchQueries
interface SearchQuery {
  _id: ObjectId;

  // Query details
  query: string;
  normalizedQuery: string; // Lowercase, trimmed

  // User context
  userId?: string;
  sessionId: string;

  // Results
  resultsCount: number;
  clickedResults: Array<{
    postId: string;
    position: number;
    clickedAt: Date;
  }>;

  // Performance
  executionTime: number; // milliseconds

  // Filters applied
  filters?: {
    categories?: string[];
    tags?: string[];
    dateRange?: {
      from: Date;
      to: Date;
    };
  };

  timestamp: Date;
}

// notifications
interface Notification {
  _id: ObjectId;

  // Recipient
  userId: string; // UUID from PostgreSQL

  // Notification details
  type: string; // 'comment_reply', 'post_liked', 'new_follower'
  title: string;
  message: string;

  // Action link
  actionUrl?: string;
  actionText?: string;

  // Related entities
  relatedEntity?: {
    id: string;
    type: string; // 'post', 'comment', 'user'
  };

  // Actor (who triggered this notification)
  actorId?: string;
  actorName?: string; // Denormalized
  actorAvatar?: string; // Denormalized

  // Delivery channels
  channels: {
    inApp: {
      enabled: boolean;
      read: boolean;
      readAt?: Date;
    };
    email: {
      enabled: boolean;
      sent: boolean;
      sentAt?: Date;
      emailId?: string; // Reference to emailLogs
    };
    push: {
      enabled: boolean;
      sent: boolean;
      sentAt?: Date;
      pushId?: string; // Reference to pushNotificationLogs
    };
  };

  // Priority
  priority: "low" | "medium" | "high" | "urgent";

  // Timestamps
  createdAt: Date;
  expiresAt?: Date; // Auto-archive old notifications
}

// notificationQueue
interface NotificationQueueItem {
  _id: ObjectId;

  // Queue metadata
  status: "pending" | "processing" | "completed" | "failed";
  priority: number; // Higher = more urgent

  // Notification data
  notificationId: string; // Reference to notifications collection
  userId: string;
  type: string;

  // Delivery details
  channels: ("inApp" | "email" | "push")[];

  // Retry logic
  attempts: number;
  maxAttempts: number;
  lastAttemptAt?: Date;
  nextRetryAt?: Date;

  // Error tracking
  errors: Array<{
    message: string;
    timestamp: Date;
  }>;

  // Timestamps
  createdAt: Date;
  processedAt?: Date;
  completedAt?: Date;
}

// emailLogs
interface EmailLog {
  _id: ObjectId;

  // Email details
  to: string; // Recipient email
  from: string; // Sender email
  subject: string;

  // Template
  templateId?: string;
  templateData?: {
    [key: string]: any;
  };

  // Provider details
  provider: "sendgrid" | "aws-ses" | "mailgun";
  providerId?: string; // External message ID

  // Status
  status: "queued" | "sent" | "delivered" | "bounced" | "failed";

  // Events
  events: Array<{
    type:
      | "queued"
      | "sent"
      | "delivered"
      | "opened"
      | "clicked"
      | "bounced"
      | "spam";
    timestamp: Date;
    metadata?: any;
  }>;

  // Related notification
  notificationId?: string;
  userId?: string;

  // Error tracking
  error?: {
    code: string;
    message: string;
  };

  // Timestamps
  createdAt: Date;
  sentAt?: Date;
  deliveredAt?: Date;
}

// pushNotificationLogs
interface PushNotificationLog {
  _id: ObjectId;

  // Recipient
  userId: string;
  deviceToken: string;
  platform: "ios" | "android" | "web";

  // Notification content
  title: string;
  body: string;
  data?: {
    [key: string]: any;
  };

  // Provider
  provider: "fcm" | "apns" | "web-push";
  providerId?: string;

  // Status
  status: "queued" | "sent" | "delivered" | "failed";

  // Related notification
  notificationId?: string;

  // Error tracking
  error?: {
    code: string;
    message: string;
  };

  // Timestamps
  createdAt: Date;
  sentAt?: Date;
  deliveredAt?: Date;
}

// auditLogs
interface AuditLog {
  _id: ObjectId;

  // Actor
  userId?: string; // Who performed the action
  userEmail?: string; // Denormalized
  userRole?: string; // Denormalized

  // Action details
  action: string; // 'user.created', 'post.published', 'user.deleted'
  resource: string; // 'user', 'post', 'comment'
  resourceId: string;

  // Changes (for updates)
  changes?: {
    before: any;
    after: any;
  };

  // Context
  ipAddress: string;
  userAgent: string;

  // Request details
  method?: string; // HTTP method
  endpoint?: string; // API endpoint

  // Result
  status: "success" | "failure";
  errorMessage?: string;

  // Timestamps
  timestamp: Date;
}

// systemLogs
interface SystemLog {
  _id: ObjectId;

  // Log level
  level: "debug" | "info" | "warn" | "error" | "fatal";

  // Message
  message: string;

  // Context
  service: string; // 'blogs-api', 'blogs-auth', etc.
  environment: string; // 'development', 'staging', 'production'

  // Error details (if applicable)
  error?: {
    name: string;
    message: string;
    stack: string;
  };

  // Additional metadata
  metadata?: {
    [key: string]: any;
  };

  // Request context
  requestId?: string;
  userId?: string;

  // Timestamps
  timestamp: Date;
}

// errorLogs
interface ErrorLog {
  _id: ObjectId;

  // Error details
  name: string;
  message: string;
  stack: string;

  // Severity
  severity: "low" | "medium" | "high" | "critical";

  // Context
  service: string;
  environment: string;

  // Request context
  requestId?: string;
  userId?: string;
  endpoint?: string;
  method?: string;

  // Additional context
  context?: {
    [key: string]: any;
  };

  // Resolution
  resolved: boolean;
  resolvedAt?: Date;
  resolvedBy?: string;
  resolution?: string;

  // Occurrence tracking
  firstOccurrence: Date;
  lastOccurrence: Date;
  occurrenceCount: number;

  // Timestamps
  timestamp: Date;
}

// performanceLogs
interface PerformanceLog {
  _id: ObjectId;

  // Request details
  method: string;
  endpoint: string;
  statusCode: number;

  // Timing
  duration: number; // milliseconds

  // Breakdown
  timings?: {
    database?: number;
    cache?: number;
    external?: number;
    processing?: number;
  };

  // Resource usage
  memoryUsage?: number; // MB
  cpuUsage?: number; // percentage

  // Context
  service: string;
  userId?: string;
  requestId?: string;

  // Timestamps
  timestamp: Date;
}
