-- Whose this schema is. Two namespaces may have a schema of the same name; only the one that is here may use it.

CREATE TABLE inkstream.installation (
    namespace   text NOT NULL,  -- INKSTREAM_NAMESPACE; empty where there is none
    claimed_at  timestamptz NOT NULL DEFAULT now()
);

CREATE UNIQUE INDEX installation_is_one ON inkstream.installation ((true));
