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
