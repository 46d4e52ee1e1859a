-- Every query that is more than a migration. Each begins with its name; `sinks.postgres` runs it by that name.

-- name: describe_server
-- What answers, as whom we are there, and what we may do to the platform's posts: null where there is no such table.
SELECT
    current_setting('server_version') AS version,
    current_database() AS database,
    current_user AS role,
    pg_is_in_recovery() AS is_standby,
    has_database_privilege(current_database(), 'CREATE') OR to_regnamespace('inkstream') IS NOT NULL AS has_schema,
    CASE WHEN to_regclass('public.posts') IS NOT NULL
        THEN has_table_privilege('public.posts', 'SELECT')
    END AS may_read_posts,
    (
        SELECT has_column_privilege(attrelid, attnum, 'UPDATE')
        FROM pg_attribute
        WHERE attrelid = to_regclass('public.posts') AND attname = 'viewCount' AND NOT attisdropped
    ) AS may_count_views;

-- name: lock_migrations
-- One at a time, until the transaction ends; the number is arbitrary and ours.
SELECT pg_advisory_xact_lock(7065846142273028461);

-- name: migrations_exist
SELECT to_regclass('inkstream.migrations') IS NOT NULL AS exist;

-- name: applied_migrations
SELECT name, checksum FROM inkstream.migrations ORDER BY name;

-- name: record_migration
INSERT INTO inkstream.migrations (name, checksum) VALUES (%(name)s, %(checksum)s);

-- The queries on view counts. {posts}, {post_id} and {view_count} stand for the platform's table and columns.
-- Whoever changes the windows of posts first locks these posts in the order of their ids, so that no two transactions
-- wait for each other. The platform's posts come last, so that they are locked for the shortest time.

-- name: add_counted_posts
INSERT INTO inkstream.counted_posts (post_id)
SELECT post_id FROM unnest(%(post_ids)s::text[]) AS given (post_id) ORDER BY post_id
ON CONFLICT DO NOTHING;

-- name: lock_counted_posts
SELECT post_id FROM inkstream.counted_posts WHERE post_id = ANY (%(post_ids)s) ORDER BY post_id FOR UPDATE;

-- name: raise_windows
-- The rule of counting: a window's views are the highest count that ever came. So a count that comes twice, or an older
-- one after a newer one, changes nothing. A post's views move by what its windows have risen.
WITH given AS (
    SELECT *
    FROM unnest(%(post_ids)s::text[], %(starts)s::timestamptz[], %(views)s::bigint[], %(as_of)s::timestamptz[])
        AS given (post_id, window_start, views, as_of)
),
risen AS (
    SELECT given.*, given.views - coalesce(known.views, 0) AS difference
    FROM given
    JOIN inkstream.counted_posts AS post USING (post_id)
    LEFT JOIN inkstream.view_windows AS known USING (post_id, window_start)
    WHERE given.window_start >= post.folded_until AND given.views > coalesce(known.views, 0)
),
raised AS (
    INSERT INTO inkstream.view_windows AS known (post_id, window_start, views, as_of)
    SELECT post_id, window_start, views, as_of FROM risen
    ON CONFLICT (post_id, window_start) DO UPDATE SET views = excluded.views, as_of = excluded.as_of
),
moved AS (
    UPDATE inkstream.counted_posts AS post
    SET views = post.views + of_post.difference
    FROM (SELECT post_id, sum(difference) AS difference FROM risen GROUP BY post_id) AS of_post
    WHERE post.post_id = of_post.post_id
)
SELECT post_id, window_start, views, as_of, difference FROM risen;

-- name: folded_windows
-- Those of the given windows that are folded: whether they have risen can't be told any more.
SELECT given.post_id, given.window_start
FROM unnest(%(post_ids)s::text[], %(starts)s::timestamptz[]) AS given (post_id, window_start)
JOIN inkstream.counted_posts AS post USING (post_id)
WHERE given.window_start < post.folded_until;

-- name: move_view_counts
-- Move the platform's count by what it does not have yet. A post that is not there keeps its views, and waits.
WITH pending AS (
    SELECT post_id, views, applied, baseline
    FROM inkstream.counted_posts
    WHERE post_id = ANY (%(post_ids)s) AND views <> applied
),
moved AS (
    UPDATE {posts} AS post
    SET {view_count} = coalesce(post.{view_count}, 0) + pending.views - pending.applied
    FROM pending
    WHERE post.{post_id} = pending.post_id
    RETURNING pending.post_id, pending.views, post.{view_count} - pending.views + pending.applied AS count_before
)
UPDATE inkstream.counted_posts AS post
SET applied = moved.views, baseline = coalesce(post.baseline, moved.count_before)
FROM moved
WHERE post.post_id = moved.post_id
RETURNING post.post_id;

-- name: lock_posts_that_appeared
-- Posts whose views wait, and that are there by now; those that another transaction is busy with are left to it.
SELECT counted.post_id
FROM inkstream.counted_posts AS counted
JOIN {posts} AS post ON post.{post_id} = counted.post_id
WHERE counted.views <> counted.applied
ORDER BY counted.post_id
LIMIT %(most)s
FOR UPDATE OF counted SKIP LOCKED;

-- name: count_missing_posts
SELECT count(*) AS missing
FROM inkstream.counted_posts AS counted
WHERE counted.views <> counted.applied
    AND NOT EXISTS (SELECT FROM {posts} AS post WHERE post.{post_id} = counted.post_id);

-- name: lock_posts_to_fold
SELECT post_id
FROM inkstream.counted_posts
WHERE post_id IN (SELECT DISTINCT post_id FROM inkstream.view_windows WHERE window_start < %(before)s LIMIT %(most)s)
ORDER BY post_id
FOR UPDATE;

-- name: fold_windows
WITH gone AS (
    DELETE FROM inkstream.view_windows
    WHERE post_id = ANY (%(post_ids)s) AND window_start < %(before)s
    RETURNING post_id, views
)
UPDATE inkstream.counted_posts AS post
SET folded = post.folded + of_post.views, folded_until = greatest(post.folded_until, %(before)s)
FROM (SELECT post_id, sum(views) AS views FROM gone GROUP BY post_id) AS of_post
WHERE post.post_id = of_post.post_id;

-- name: windows_since
SELECT post_id, window_start, views, as_of FROM inkstream.view_windows WHERE window_start >= %(start)s;
