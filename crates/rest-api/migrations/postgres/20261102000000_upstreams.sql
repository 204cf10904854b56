-- Other MCP servers. Their tools are rows of `tools` that name them.

CREATE TABLE upstreams (
    id                 UUID    NOT NULL PRIMARY KEY,
    tenant_id          UUID    NOT NULL REFERENCES tenants (id),
    name               TEXT    NOT NULL,
    url                TEXT    NOT NULL,
    timeout_ms         BIGINT  NOT NULL,
    max_result_bytes   BIGINT,
    tools              TEXT    NOT NULL,
    enabled            BOOLEAN NOT NULL,
    credentials_key_id TEXT,
    credentials        BYTEA,
    version            BIGINT  NOT NULL,
    created_at         BIGINT  NOT NULL,
    updated_at         BIGINT  NOT NULL,
    next_refresh_at    BIGINT,
    asked_at           BIGINT,
    answered_at        BIGINT,
    error_code         TEXT,
    error_message      TEXT,
    learnt             TEXT    NOT NULL DEFAULT '{}',
    UNIQUE (tenant_id, name)
);
CREATE INDEX upstreams_by_turn ON upstreams (next_refresh_at) WHERE enabled;

-- NULL: an HTTP API that the tenant registered. What else an upstream's tool is stands in columns of its own: earlier versions
-- take every tool for an HTTP API, and would post to the server and show it the credentials. In the columns that they
-- read, its address leads nowhere, and there are neither options nor credentials.
ALTER TABLE tools ADD COLUMN upstream_id UUID;
ALTER TABLE tools ADD COLUMN upstream_url TEXT;
ALTER TABLE tools ADD COLUMN upstream_options TEXT;
ALTER TABLE tools ADD COLUMN upstream_credentials_key_id TEXT;
ALTER TABLE tools ADD COLUMN upstream_credentials BYTEA;
CREATE INDEX tools_by_upstream ON tools (upstream_id) WHERE upstream_id IS NOT NULL;
