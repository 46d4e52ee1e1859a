-- Posts whose count PostgreSQL refused to change: they are set aside and tried again, so that others go on.

ALTER TABLE inkstream.counted_posts
    ADD COLUMN refused_code   text,         -- SQLSTATE, or not-updated where the row was silently left as it is
    ADD COLUMN refused_since  timestamptz,  -- when it was refused first, of the refusals in a row
    ADD COLUMN refusals       integer NOT NULL DEFAULT 0,  -- in a row
    ADD COLUMN retry_at       timestamptz;  -- not to be tried before

CREATE INDEX counted_posts_refused ON inkstream.counted_posts (refused_code) WHERE refused_code IS NOT NULL;
