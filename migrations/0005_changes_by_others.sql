-- What others did to the platform's counts (a post restored with another count, a reset, an edit), and when a count was
-- moved, so that updates of one post can be grouped.

ALTER TABLE inkstream.counted_posts
    ADD COLUMN changed_by_others  bigint NOT NULL DEFAULT 0,  -- views that others added to the platform's count, or took
    ADD COLUMN changed_at         timestamptz,  -- when such a change was found last
    ADD COLUMN moved_at           timestamptz;  -- when we moved the platform's count last
