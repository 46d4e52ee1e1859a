-- All queries except migrations. Each begins with its name; `sinks.postgres.pool` runs it by that name.
-- {ours} is the schema of this installation, named by its namespace; {ours_name} is that name as a text.

-- name: describe_server
-- The server, and our role on it. Names are quoted if SQL requires it.
SELECT
    current_setting('server_version') AS version,
    quote_ident(current_database()) AS database,
    quote_ident(current_user) AS role,
    pg_is_in_recovery() AS is_standby,
    CASE
        WHEN to_regnamespace({ours_name}) IS NULL THEN has_database_privilege(current_database(), 'CREATE')
        ELSE has_schema_privilege({ours_name}, 'CREATE') AND has_schema_privilege({ours_name}, 'USAGE')
    END AS has_schema;

-- name: find_tables
-- Whether the schema exists, has tables of ours and names its owner, as far as we may read it. Always one row.
SELECT
    to_regnamespace({ours_name}) IS NOT NULL AS schema_exists,
    coalesce(bool_or(relname = 'migrations'), false) AS has_tables,
    coalesce(bool_or(relname = 'installation'), false) AS has_owner
FROM pg_class
WHERE relnamespace = to_regnamespace({ours_name})
    AND CASE WHEN relname IN ('migrations', 'installation')
        THEN has_schema_privilege(relnamespace, 'USAGE') AND has_table_privilege(oid, 'SELECT') END;

-- name: find_owner
SELECT namespace FROM {ours}.installation;

-- name: claim_schema
INSERT INTO {ours}.installation (namespace) VALUES (%(namespace)s) ON CONFLICT DO NOTHING;

-- name: may_rename_schema
-- Whether we may rename the schema: it must be ours, and we need the permission to create a schema.
SELECT
    pg_has_role(nspowner, 'USAGE') AND has_database_privilege(current_database(), 'CREATE') AS may_rename
FROM pg_namespace
WHERE nspname = {ours_name};

-- name: rename_schema
ALTER SCHEMA {ours} RENAME TO {name};

-- name: describe_posts
-- The platform's posts, and our permissions on them. Always one row, also if there is no such table; the table is
-- looked up in the catalog, because to_regclass fails in a schema that we may not use.
WITH found AS (
    SELECT posts.oid, posts.relowner, posts.relnamespace, row_security_active(posts.oid) AS row_security
    FROM pg_class AS posts
    JOIN pg_namespace AS schema ON schema.oid = posts.relnamespace
    WHERE posts.relname = %(table)s
        AND posts.relkind IN ('r', 'p', 'v', 'f')
        AND CASE WHEN %(schema)s::text IS NULL THEN pg_table_is_visible(posts.oid) ELSE schema.nspname = %(schema)s END
),
columns AS (
    SELECT attrelid, attnum, attname, atttypid, format_type(atttypid, atttypmod) AS type
    FROM pg_attribute
    JOIN found ON found.oid = attrelid
    WHERE attnum > 0 AND NOT attisdropped
)
SELECT
    concat_ws('.', quote_ident(%(schema)s), quote_ident(%(table)s)) AS "table",
    (SELECT quote_ident(nspname) FROM pg_namespace WHERE oid = found.relnamespace) AS schema,
    quote_ident(%(id_column)s) AS id_column,
    quote_ident(%(view_count_column)s) AS view_count_column,
    quote_ident(current_user) AS role,
    coalesce(pg_has_role(found.relowner, 'USAGE'), false) AS is_owner,
    ARRAY(SELECT attname::text FROM columns ORDER BY attnum) AS columns,
    id.type AS id_type,
    coalesce((SELECT typcategory = 'S' FROM pg_type WHERE oid = id.atttypid), false) AS id_is_text,
    view_count.attnum IS NOT NULL AS has_view_count,
    view_count.type AS view_count_type,
    coalesce(found.row_security, false) AS row_security,
    ARRAY(
        SELECT CASE polcmd WHEN 'r' THEN 'SELECT' WHEN 'w' THEN 'UPDATE' ELSE 'ALL' END
        FROM pg_policy
        WHERE polrelid = found.oid AND polpermissive AND polcmd IN ('r', 'w', '*')
            AND (polroles = '{{0}}' OR EXISTS (SELECT FROM unnest(polroles) AS of (role) WHERE pg_has_role(role, 'USAGE')))
    ) AS policies,
    coalesce(has_schema_privilege(found.relnamespace, 'USAGE'), false) AS may_use_schema,
    coalesce(
        has_column_privilege(found.oid, id.attnum, 'SELECT')
            AND has_column_privilege(found.oid, view_count.attnum, 'SELECT'),
        false
    ) AS may_read,
    coalesce(has_column_privilege(found.oid, view_count.attnum, 'UPDATE'), false) AS may_count,
    ARRAY(
        SELECT quote_ident(attname)
        FROM columns
        WHERE attname <> %(view_count_column)s AND has_column_privilege(attrelid, attnum, 'UPDATE')
        ORDER BY attnum
    ) AS also_writable,
    EXISTS (
        SELECT
        FROM pg_class AS counted
        WHERE counted.relname = 'counted_posts'
            AND counted.relnamespace = to_regnamespace({ours_name})
            AND has_schema_privilege(counted.relnamespace, 'USAGE')
            AND has_table_privilege(counted.oid, 'SELECT')
    ) AS may_read_counts
FROM (VALUES (1)) AS always
LEFT JOIN found ON true
LEFT JOIN columns AS id ON id.attname = %(id_column)s
LEFT JOIN columns AS view_count ON view_count.attname = %(view_count_column)s;

-- name: lock_migrations
-- One migration at a time, until the transaction ends; the number is arbitrary.
SELECT pg_advisory_xact_lock(7065846142273028461);

-- name: applied_migrations
SELECT name, checksum FROM {ours}.migrations ORDER BY name;

-- name: record_migration
INSERT INTO {ours}.migrations (name, checksum) VALUES (%(name)s, %(checksum)s);

-- The queries on view counts. {posts}, {post_id} and {view_count} are the platform's table and columns; {key} is
-- `counted.post_id` cast to the type of {post_id}, or null if it can't be cast.
-- A transaction that changes windows first locks their posts in the order of the ids, so that no two transactions wait
-- for each other. The platform's posts come last, so that they are locked for the shortest time.

-- name: limit_idle_time
-- A worker that is frozen, or disconnected, within its transaction must not keep posts locked: PostgreSQL rolls it back.
SELECT set_config('idle_in_transaction_session_timeout', %(limit)s, true);

-- name: check_constraints_immediately
-- Otherwise a deferred constraint of the platform could refuse one post at the commit, and with it all others.
SET CONSTRAINTS ALL IMMEDIATE;

-- name: limit_lock_wait
-- Don't wait long for the platform's posts: a migration of the platform may wait for us, and all readers of posts for
-- that migration.
SELECT
    set_config('lock_timeout', %(milliseconds)s || 'ms', true),
    set_config('idle_in_transaction_session_timeout', '5s', true);

-- name: wait_for_table_lock
-- Take the lock that an update of the platform's table takes, but update nothing: no trigger fires.
EXPLAIN UPDATE {posts} SET {view_count} = {view_count};

-- name: wait_for_row_lock
-- Lock one post as an update does.
SELECT FROM {posts} AS post
JOIN (VALUES (%(post_id)s::text)) AS counted (post_id) ON post.{post_id} = {key}
FOR NO KEY UPDATE OF post;

-- name: backend_pid
-- The server's session; behind a pooler it is not the connection's.
SELECT pg_backend_pid() AS pid;

-- name: blocking_sessions
-- The sessions that a session waits for. Their queries are not selected: they may contain personal data. A prepared
-- transaction has the number 0.
SELECT DISTINCT pid, coalesce(nullif(application_name, ''), 'no application name') AS application
FROM unnest(pg_blocking_pids(%(pid)s)) AS blocking (pid)
LEFT JOIN pg_stat_activity USING (pid)
ORDER BY pid;

-- name: add_counted_posts
INSERT INTO {ours}.counted_posts (post_id)
SELECT post_id FROM unnest(%(post_ids)s::text[]) AS given (post_id) ORDER BY post_id
ON CONFLICT DO NOTHING;

-- name: lock_counted_posts
SELECT post_id FROM {ours}.counted_posts WHERE post_id = ANY (%(post_ids)s) ORDER BY post_id FOR UPDATE;

-- name: raise_windows
-- The rule of counting: a window has its highest count. So applying a count twice, or an older one after a newer one,
-- changes nothing. A post's views rise by the increase of its windows.
WITH given AS (
    SELECT *
    FROM unnest(%(post_ids)s::text[], %(starts)s::timestamptz[], %(views)s::bigint[], %(as_of)s::timestamptz[])
        AS given (post_id, window_start, views, as_of)
),
risen AS (
    SELECT given.*, given.views - coalesce(known.views, 0) AS difference
    FROM given
    JOIN {ours}.counted_posts AS post USING (post_id)
    LEFT JOIN {ours}.view_windows AS known USING (post_id, window_start)
    WHERE given.window_start >= post.folded_until AND given.views > coalesce(known.views, 0)
),
raised AS (
    INSERT INTO {ours}.view_windows AS known (post_id, window_start, views, as_of)
    SELECT post_id, window_start, views, as_of FROM risen
    ON CONFLICT (post_id, window_start) DO UPDATE SET views = excluded.views, as_of = excluded.as_of
),
moved AS (
    UPDATE {ours}.counted_posts AS post
    SET views = post.views + of_post.difference
    FROM (SELECT post_id, sum(difference) AS difference FROM risen GROUP BY post_id) AS of_post
    WHERE post.post_id = of_post.post_id
)
SELECT post_id, window_start, views, as_of, difference FROM risen;

-- name: rolled_up_windows
-- The given windows that are already rolled up, so that an increase can't be calculated.
SELECT given.post_id, given.window_start
FROM unnest(%(post_ids)s::text[], %(starts)s::timestamptz[]) AS given (post_id, window_start)
JOIN {ours}.counted_posts AS post USING (post_id)
WHERE given.window_start < post.folded_until;

-- name: move_view_counts
-- Add to the platform's current count the views that it lacks. If others lowered the count and a repair lowers it too, it
-- stops at 0. If the count is not the one that we left, others have changed it: the difference is kept. A missing post
-- keeps its views, which wait. A row that another transaction holds is skipped. Returns the posts that others have
-- changed, and those that exist and were not updated.
WITH counted AS (
    SELECT post_id, views, views - applied AS difference, baseline + changed_by_others + applied AS left_there
    FROM {ours}.counted_posts
    WHERE post_id = ANY (%(post_ids)s) AND views <> applied
        AND (
            %(at_once)s
            OR coalesce(retry_at <= now(), true)
            -- A time in the future comes from a clock that was set back since.
            AND coalesce(moved_at NOT BETWEEN clock_timestamp() - %(every)s AND clock_timestamp(), true)
        )
),
free AS (
    SELECT counted.post_id, coalesce(post.{view_count}, 0) AS count_before
    FROM counted
    JOIN {posts} AS post ON post.{post_id} = {key}
    FOR NO KEY UPDATE OF post SKIP LOCKED
),
moved AS (
    UPDATE {posts} AS post
    SET {view_count} = greatest(free.count_before + counted.difference, least(free.count_before, 0))
    FROM counted
    JOIN free USING (post_id)
    WHERE post.{post_id} = {key}
    RETURNING counted.post_id, counted.views, free.count_before,
        coalesce(free.count_before - counted.left_there, 0) AS changed
),
applied AS (
    UPDATE {ours}.counted_posts AS post
    SET applied = moved.views, baseline = coalesce(post.baseline, moved.count_before),
        changed_by_others = post.changed_by_others + moved.changed,
        changed_at = CASE WHEN moved.changed = 0 THEN post.changed_at ELSE now() END,
        moved_at = clock_timestamp(), refused_code = NULL, refused_since = NULL, refusals = 0, retry_at = NULL
    FROM moved
    WHERE post.post_id = moved.post_id
)
SELECT post_id, 'changed' AS outcome FROM moved WHERE changed <> 0
UNION ALL
SELECT counted.post_id, CASE WHEN free.post_id IS NULL THEN 'not-free' ELSE 'not-updated' END
FROM counted
JOIN {posts} AS post ON post.{post_id} = {key}
LEFT JOIN free ON free.post_id = counted.post_id
WHERE NOT EXISTS (SELECT FROM moved WHERE moved.post_id = counted.post_id);

-- name: lock_posts_to_update
-- Lock the posts that an update can see; an error if another transaction holds one of them.
SELECT counted.post_id
FROM unnest(%(post_ids)s::text[]) AS counted (post_id)
JOIN {posts} AS post ON post.{post_id} = {key}
FOR NO KEY UPDATE OF post NOWAIT;

-- name: set_post_aside
-- Retry the post later: after 10 s, then twice as long each time, an hour at most; if another transaction holds its row,
-- after 5 s.
UPDATE {ours}.counted_posts
SET refused_code = %(code)s,
    refused_since = coalesce(refused_since, now()),
    refusals = refusals + 1,
    retry_at = now() + CASE
        WHEN %(code)s = '55P03' THEN interval '5 seconds'
        ELSE least(interval '10 seconds' * 2 ^ least(refusals, 10), interval '1 hour')
    END
WHERE post_id = %(post_id)s
RETURNING refusals;

-- name: lock_due_posts
-- Existing posts whose views wait and are due; posts that another transaction has locked are skipped.
SELECT counted.post_id
FROM {ours}.counted_posts AS counted
JOIN {posts} AS post ON post.{post_id} = {key}
WHERE counted.views <> counted.applied
    AND coalesce(counted.retry_at <= now(), true)
    AND coalesce(counted.moved_at NOT BETWEEN clock_timestamp() - %(every)s AND clock_timestamp(), true)
ORDER BY counted.post_id
LIMIT %(most)s
FOR UPDATE OF counted SKIP LOCKED;

-- name: count_missing_posts
SELECT count(*) AS missing
FROM {ours}.counted_posts AS counted
WHERE counted.views <> counted.applied AND NOT EXISTS (SELECT FROM {posts} AS post WHERE post.{post_id} = {key});

-- name: count_posts_set_aside
-- By the reason for which PostgreSQL refuses their counts; a post that the platform has deleted since counts as missing,
-- and one whose row was held only for a moment is not counted.
SELECT counted.refused_code AS code, count(*) AS posts, min(counted.refused_since) AS since,
    min(counted.post_id) AS example
FROM {ours}.counted_posts AS counted
JOIN {posts} AS post ON post.{post_id} = {key}
WHERE counted.refused_code IS NOT NULL AND (counted.refused_code <> '55P03' OR counted.refusals > 1)
GROUP BY 1
ORDER BY 2 DESC, 1;

-- name: highest_view_count
SELECT max({view_count}) AS highest FROM {posts};

-- name: lock_posts_to_roll_up
SELECT post_id
FROM {ours}.counted_posts
WHERE post_id IN (SELECT DISTINCT post_id FROM {ours}.view_windows WHERE window_start < %(before)s LIMIT %(most)s)
ORDER BY post_id
FOR UPDATE;

-- name: roll_up_windows
WITH gone AS (
    DELETE FROM {ours}.view_windows
    WHERE post_id = ANY (%(post_ids)s) AND window_start < %(before)s
    RETURNING post_id, views
)
UPDATE {ours}.counted_posts AS post
SET folded = post.folded + of_post.views, folded_until = greatest(post.folded_until, %(before)s)
FROM (SELECT post_id, sum(views) AS views FROM gone GROUP BY post_id) AS of_post
WHERE post.post_id = of_post.post_id;

-- The queries of a reconciliation, which reads the counts while they change, and of a repair.

-- name: windows_between
SELECT post_id, window_start, views
FROM {ours}.view_windows
WHERE window_start >= %(start)s
    AND (%(end)s::timestamptz IS NULL OR window_start < %(end)s)
    AND (%(post_ids)s::text[] IS NULL OR post_id = ANY (%(post_ids)s));

-- name: views_of_windows
-- The given windows that are not rolled up, with their counts.
SELECT given.post_id, given.window_start, coalesce(known.views, 0) AS views
FROM unnest(%(post_ids)s::text[], %(starts)s::timestamptz[]) AS given (post_id, window_start)
LEFT JOIN {ours}.counted_posts AS post USING (post_id)
LEFT JOIN {ours}.view_windows AS known USING (post_id, window_start)
WHERE post.post_id IS NULL OR given.window_start >= post.folded_until;

-- name: sample_windows
-- Some windows that start together: the first after a random moment. That reads one index entry for each window there.
WITH moment AS MATERIALIZED (
    SELECT %(since)s::timestamptz + random() * (now() - %(since)s::timestamptz) AS moment
),
chosen AS MATERIALIZED (
    SELECT coalesce(
        (SELECT min(window_start) FROM {ours}.view_windows WHERE window_start >= (SELECT moment FROM moment)),
        (SELECT min(window_start) FROM {ours}.view_windows WHERE window_start >= %(since)s)
    ) AS window_start
)
SELECT post_id, window_start, views
FROM {ours}.view_windows
WHERE window_start = (SELECT window_start FROM chosen)
ORDER BY random()
LIMIT %(most)s;

-- name: counts_of_posts
-- One statement sees one moment: all changes of a transaction, or none.
SELECT
    counted.post_id,
    counted.views,
    counted.folded + coalesce(of_windows.views, 0) AS views_of_windows,
    counted.applied,
    counted.baseline,
    counted.changed_by_others,
    coalesce(counted.moved_at BETWEEN clock_timestamp() - %(every)s AND clock_timestamp(), false) AS is_grouped,
    CASE WHEN post.{post_id} IS NOT NULL THEN coalesce(post.{view_count}, 0) END AS view_count,
    counted.refused_code
FROM (
    SELECT *
    FROM {ours}.counted_posts
    WHERE post_id > %(after)s AND (%(post_ids)s::text[] IS NULL OR post_id = ANY (%(post_ids)s))
    ORDER BY post_id
    LIMIT %(most)s
) AS counted
LEFT JOIN LATERAL (
    SELECT sum(views)::bigint AS views FROM {ours}.view_windows AS known WHERE known.post_id = counted.post_id
) AS of_windows ON true
LEFT JOIN {posts} AS post ON post.{post_id} = {key}
ORDER BY counted.post_id;

-- name: set_windows
-- Only for a repair, which may lower a count.
WITH given AS (
    SELECT *
    FROM unnest(%(post_ids)s::text[], %(starts)s::timestamptz[], %(views)s::bigint[], %(as_of)s::timestamptz[])
        AS given (post_id, window_start, views, as_of)
),
changed AS (
    SELECT given.*, coalesce(known.views, 0) AS views_before
    FROM given
    JOIN {ours}.counted_posts AS post USING (post_id)
    LEFT JOIN {ours}.view_windows AS known USING (post_id, window_start)
    WHERE given.window_start >= post.folded_until AND given.views <> coalesce(known.views, 0)
),
written AS (
    INSERT INTO {ours}.view_windows AS known (post_id, window_start, views, as_of)
    SELECT post_id, window_start, views, as_of FROM changed
    ON CONFLICT (post_id, window_start) DO UPDATE SET views = excluded.views, as_of = excluded.as_of
)
SELECT post_id, window_start, views_before, views FROM changed ORDER BY post_id, window_start;

-- name: sum_windows
UPDATE {ours}.counted_posts AS post
SET views = of_post.views
FROM (
    SELECT counted.post_id, counted.folded + coalesce(sum(known.views), 0)::bigint AS views
    FROM {ours}.counted_posts AS counted
    LEFT JOIN {ours}.view_windows AS known USING (post_id)
    WHERE counted.post_id = ANY (%(post_ids)s)
    GROUP BY counted.post_id
) AS of_post
WHERE post.post_id = of_post.post_id AND post.views <> of_post.views;

-- name: set_view_counts
-- For a repair that overrules the platform: its count becomes its baseline plus our views. Returns the posts that exist
-- and were not updated.
WITH counted AS (
    SELECT post_id, views, baseline FROM {ours}.counted_posts WHERE post_id = ANY (%(post_ids)s)
),
moved AS (
    UPDATE {posts} AS post
    SET {view_count} = coalesce(counted.baseline, post.{view_count}, 0) + counted.views
    FROM counted
    WHERE post.{post_id} = {key}
    RETURNING counted.post_id, counted.views, post.{view_count} - counted.views AS count_before
),
applied AS (
    UPDATE {ours}.counted_posts AS post
    SET applied = moved.views, baseline = moved.count_before, changed_by_others = 0, changed_at = NULL,
        moved_at = clock_timestamp(), refused_code = NULL, refused_since = NULL, refusals = 0, retry_at = NULL
    FROM moved
    WHERE post.post_id = moved.post_id
)
SELECT counted.post_id, 'not-updated' AS outcome
FROM counted
JOIN {posts} AS post ON post.{post_id} = {key}
WHERE NOT EXISTS (SELECT FROM moved WHERE moved.post_id = counted.post_id);

-- name: correct_applied
-- Correct how many views the platform's count includes.
UPDATE {ours}.counted_posts AS post
SET applied = given.applied
FROM unnest(%(post_ids)s::text[], %(applied)s::bigint[]) AS given (post_id, applied)
WHERE post.post_id = given.post_id;

-- name: add_suppression
-- Suppress an address. The first reason stays, also if an earlier release wrote the address in another form.
INSERT INTO {ours}.suppressions (channel, digest, address, reason)
SELECT %(channel)s, %(digest)s, %(address)s, %(reason)s
WHERE NOT EXISTS (
    SELECT FROM {ours}.suppressions WHERE channel = %(channel)s AND digest = ANY(%(earlier)s::text[])
)
ON CONFLICT DO NOTHING
RETURNING since;

-- name: remove_suppression
DELETE FROM {ours}.suppressions WHERE channel = %(channel)s AND digest = ANY(%(digests)s) RETURNING since;

-- name: remove_suppressed_device
-- Of a device, by the beginning of its token's digest.
DELETE FROM {ours}.suppressions WHERE channel = 'push' AND starts_with(digest, %(name)s) RETURNING since;

-- name: suppressions
-- The latest, newest first.
SELECT channel, address, reason, since
FROM {ours}.suppressions
WHERE %(channel)s::text IS NULL OR channel = %(channel)s
ORDER BY since DESC
LIMIT %(limit)s;

-- name: suppressions_among
-- Which of the addresses are suppressed, and why.
SELECT digest, reason FROM {ours}.suppressions WHERE channel = %(channel)s AND digest = ANY(%(digests)s);

-- name: find_recipients
-- Users' addresses and preferences, from the platform's view. As texts, so that no value fails to be read.
SELECT user_id::text, email::text, devices::text, preferences::text FROM {view}
WHERE user_id::text = ANY (%(user_ids)s);

-- name: sample_preferences
-- The preferences of some people, from the platform's view.
SELECT preferences::text FROM {view} WHERE preferences IS NOT NULL LIMIT %(most)s;

-- name: limit_statement_time
-- The platform's view may be slow, or its tables locked: it is better to fail and retry.
SET LOCAL statement_timeout = '5s';
