-- The schema that is ours in the platform's database, and the list of the migrations that made it what it is.
-- A schema that the database's owner has made for us is taken as it is, so that we need no right to make one.
DO $$
BEGIN
    IF to_regnamespace('inkstream') IS NULL THEN
        CREATE SCHEMA inkstream;
    END IF;
END
$$;

CREATE TABLE inkstream.migrations (
    name        text PRIMARY KEY,
    checksum    text NOT NULL,  -- SHA-256 of the file as it was applied
    applied_at  timestamptz NOT NULL DEFAULT now()
);
