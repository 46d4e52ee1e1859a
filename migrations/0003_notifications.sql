-- Notifications: e-mail addresses and devices that nothing may be sent to any more.

CREATE TABLE inkstream.suppressions (
    channel  text NOT NULL CHECK (channel IN ('email', 'push')),
    digest   text NOT NULL,  -- SHA-256 of the address: a browser's is too long for a key
    address  text NOT NULL,  -- an e-mail address in lower case, or a device's token
    reason   text NOT NULL,  -- bounced, complained, gone, unsubscribed, or what an operator wrote
    since    timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (channel, digest)
);

CREATE INDEX suppressions_since ON inkstream.suppressions (since);
