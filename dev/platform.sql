-- The blog platform's own PostgreSQL tables, as its ORM (Prisma) makes them: a stand-in for development and tests.
-- In production these tables belong to the platform; Inkstream reads a few of them and writes one column.
-- Safe to repeat. Run by the owner of the database blog_platform.

SET client_min_messages = warning;  -- "already exists, skipping" is no news

-- Auth domain

CREATE TABLE IF NOT EXISTS users (
    id              text PRIMARY KEY,
    email           text NOT NULL UNIQUE,
    "passwordHash"  text NOT NULL,
    role            text NOT NULL DEFAULT 'READER',
    status          text NOT NULL DEFAULT 'ACTIVE',
    "emailVerified" boolean NOT NULL DEFAULT false,
    "createdAt"     timestamptz(3) NOT NULL DEFAULT now(),
    "updatedAt"     timestamptz(3) NOT NULL DEFAULT now()
);

CREATE TABLE IF NOT EXISTS profiles (
    id              text PRIMARY KEY,
    "userId"        text NOT NULL UNIQUE REFERENCES users (id) ON DELETE CASCADE,
    username        text NOT NULL UNIQUE,
    "displayName"   text NOT NULL,
    bio             text,
    "avatarUrl"     text,
    locale          text NOT NULL DEFAULT 'en',
    timezone        text NOT NULL DEFAULT 'UTC',
    "createdAt"     timestamptz(3) NOT NULL DEFAULT now(),
    "updatedAt"     timestamptz(3) NOT NULL DEFAULT now()
);

CREATE TABLE IF NOT EXISTS sessions (
    id              text PRIMARY KEY,
    "userId"        text NOT NULL REFERENCES users (id) ON DELETE CASCADE,
    "tokenHash"     text NOT NULL UNIQUE,
    "ipAddress"     text,
    "userAgent"     text,
    "expiresAt"     timestamptz(3) NOT NULL,
    "createdAt"     timestamptz(3) NOT NULL DEFAULT now()
);
CREATE INDEX IF NOT EXISTS "sessions_userId_idx" ON sessions ("userId");

-- Content domain

CREATE TABLE IF NOT EXISTS posts (
    id              text PRIMARY KEY,
    slug            text NOT NULL UNIQUE,
    title           text NOT NULL,
    excerpt         text,
    content         text NOT NULL DEFAULT '',
    status          text NOT NULL DEFAULT 'DRAFT',
    "authorId"      text NOT NULL REFERENCES users (id) ON DELETE CASCADE,
    "viewCount"     integer NOT NULL DEFAULT 0,
    "likeCount"     integer NOT NULL DEFAULT 0,
    "commentCount"  integer NOT NULL DEFAULT 0,
    "publishedAt"   timestamptz(3),
    "createdAt"     timestamptz(3) NOT NULL DEFAULT now(),
    "updatedAt"     timestamptz(3) NOT NULL DEFAULT now()
);
CREATE INDEX IF NOT EXISTS "posts_authorId_idx" ON posts ("authorId");
CREATE INDEX IF NOT EXISTS "posts_status_publishedAt_idx" ON posts (status, "publishedAt" DESC);

CREATE TABLE IF NOT EXISTS categories (
    id              text PRIMARY KEY,
    slug            text NOT NULL UNIQUE,
    name            text NOT NULL,
    description     text,
    "parentId"      text REFERENCES categories (id) ON DELETE SET NULL,
    "createdAt"     timestamptz(3) NOT NULL DEFAULT now()
);

CREATE TABLE IF NOT EXISTS tags (
    id              text PRIMARY KEY,
    slug            text NOT NULL UNIQUE,
    name            text NOT NULL,
    "createdAt"     timestamptz(3) NOT NULL DEFAULT now()
);

CREATE TABLE IF NOT EXISTS post_categories (
    "postId"        text NOT NULL REFERENCES posts (id) ON DELETE CASCADE,
    "categoryId"    text NOT NULL REFERENCES categories (id) ON DELETE CASCADE,
    PRIMARY KEY ("postId", "categoryId")
);

CREATE TABLE IF NOT EXISTS post_tags (
    "postId"        text NOT NULL REFERENCES posts (id) ON DELETE CASCADE,
    "tagId"         text NOT NULL REFERENCES tags (id) ON DELETE CASCADE,
    PRIMARY KEY ("postId", "tagId")
);

CREATE TABLE IF NOT EXISTS comments (
    id              text PRIMARY KEY,
    "postId"        text NOT NULL REFERENCES posts (id) ON DELETE CASCADE,
    "authorId"      text NOT NULL REFERENCES users (id) ON DELETE CASCADE,
    "parentId"      text REFERENCES comments (id) ON DELETE CASCADE,
    content         text NOT NULL,
    status          text NOT NULL DEFAULT 'VISIBLE',
    "createdAt"     timestamptz(3) NOT NULL DEFAULT now(),
    "updatedAt"     timestamptz(3) NOT NULL DEFAULT now()
);
CREATE INDEX IF NOT EXISTS "comments_postId_createdAt_idx" ON comments ("postId", "createdAt");

CREATE TABLE IF NOT EXISTS likes (
    id              text PRIMARY KEY,
    "userId"        text NOT NULL REFERENCES users (id) ON DELETE CASCADE,
    "postId"        text REFERENCES posts (id) ON DELETE CASCADE,
    "commentId"     text REFERENCES comments (id) ON DELETE CASCADE,
    "createdAt"     timestamptz(3) NOT NULL DEFAULT now(),
    UNIQUE ("userId", "postId"),
    UNIQUE ("userId", "commentId"),
    CHECK (("postId" IS NULL) <> ("commentId" IS NULL))
);

CREATE TABLE IF NOT EXISTS bookmarks (
    id              text PRIMARY KEY,
    "userId"        text NOT NULL REFERENCES users (id) ON DELETE CASCADE,
    "postId"        text NOT NULL REFERENCES posts (id) ON DELETE CASCADE,
    "createdAt"     timestamptz(3) NOT NULL DEFAULT now(),
    UNIQUE ("userId", "postId")
);

-- Media domain

CREATE TABLE IF NOT EXISTS media (
    id              text PRIMARY KEY,
    "ownerId"       text NOT NULL REFERENCES users (id) ON DELETE CASCADE,
    "postId"        text REFERENCES posts (id) ON DELETE SET NULL,
    "fileName"      text NOT NULL,
    "mimeType"      text NOT NULL,
    "sizeBytes"     bigint NOT NULL,
    url             text NOT NULL,
    "altText"       text,
    "createdAt"     timestamptz(3) NOT NULL DEFAULT now()
);

CREATE TABLE IF NOT EXISTS media_variants (
    id              text PRIMARY KEY,
    "mediaId"       text NOT NULL REFERENCES media (id) ON DELETE CASCADE,
    name            text NOT NULL,
    width           integer NOT NULL,
    height          integer NOT NULL,
    format          text NOT NULL,
    url             text NOT NULL,
    UNIQUE ("mediaId", name)
);

-- Notifications domain

CREATE TABLE IF NOT EXISTS devices (
    token           text PRIMARY KEY,
    "userId"        text NOT NULL REFERENCES users (id) ON DELETE CASCADE,
    platform        text NOT NULL,
    "createdAt"     timestamptz(3) NOT NULL DEFAULT now()
);
CREATE INDEX IF NOT EXISTS "devices_userId_idx" ON devices ("userId");

CREATE TABLE IF NOT EXISTS notification_preferences (
    "userId"        text PRIMARY KEY REFERENCES users (id) ON DELETE CASCADE,
    preferences     jsonb NOT NULL,
    "updatedAt"     timestamptz(3) NOT NULL DEFAULT now()
);

-- Whom Inkstream can reach where, and what they want; docs/recipients.md says what the view is to be.

CREATE OR REPLACE VIEW notification_recipients AS
SELECT
    users.id AS user_id,
    users.email,
    (
        SELECT
            jsonb_agg(
                jsonb_build_object('platform', lower(device.platform), 'token', device.token)
                ORDER BY device."createdAt" DESC, device.token
            )
        FROM devices AS device
        WHERE device."userId" = users.id
    ) AS devices,
    wanted.preferences
FROM users
LEFT JOIN notification_preferences AS wanted ON wanted."userId" = users.id
WHERE users.status = 'ACTIVE';

-- The worker's role. It reads what it needs to count and to notify, writes the one denormalised count, and makes a
-- schema of its own. The password is for development, where the server listens on loopback.

DO $$
BEGIN
    IF NOT EXISTS (SELECT FROM pg_roles WHERE rolname = 'inkstream') THEN
        CREATE ROLE inkstream LOGIN PASSWORD 'inkstream';
    END IF;
END
$$;

GRANT CONNECT, CREATE ON DATABASE blog_platform TO inkstream;
GRANT USAGE ON SCHEMA public TO inkstream;
GRANT SELECT ON users, profiles, posts, notification_recipients TO inkstream;
GRANT UPDATE ("viewCount") ON posts TO inkstream;
