-- View counts: what each window of each post has, and what of it the platform's posts."viewCount" has got.

CREATE TABLE inkstream.counted_posts (
    post_id       text PRIMARY KEY,
    views         bigint NOT NULL DEFAULT 0,  -- of all its windows: folded + those in view_windows
    folded        bigint NOT NULL DEFAULT 0,  -- of the windows that are no longer in view_windows
    folded_until  timestamptz NOT NULL DEFAULT '-infinity',  -- windows that start before this are folded
    applied       bigint NOT NULL DEFAULT 0,  -- what of the views is in the platform's count
    baseline      bigint  -- what the platform's count was before; null until something is applied
);

-- Views that wait for their post to appear.
CREATE INDEX counted_posts_pending ON inkstream.counted_posts (post_id) WHERE views <> applied;

CREATE TABLE inkstream.view_windows (
    post_id       text NOT NULL REFERENCES inkstream.counted_posts,
    window_start  timestamptz NOT NULL,  -- a window is five minutes of event time
    views         bigint NOT NULL,
    as_of         timestamptz NOT NULL,  -- when they were counted
    PRIMARY KEY (post_id, window_start)
);

CREATE INDEX view_windows_start ON inkstream.view_windows (window_start);
