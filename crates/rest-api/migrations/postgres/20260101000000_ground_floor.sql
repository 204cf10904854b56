-- Times are microseconds since 1970 UTC, JSON is text: jsonb would refuse
-- the escape of U+0000 that a tool may answer.

CREATE TABLE tenants (
    id         UUID    NOT NULL PRIMARY KEY,
    name       TEXT    NOT NULL UNIQUE,
    status     TEXT    NOT NULL,
    created_at BIGINT  NOT NULL
);

CREATE TABLE api_keys (
    id           UUID    NOT NULL PRIMARY KEY,
    tenant_id    UUID    NOT NULL REFERENCES tenants (id),
    name         TEXT    NOT NULL,
    prefix       TEXT    NOT NULL,
    hash         BYTEA   NOT NULL UNIQUE,
    scopes       TEXT    NOT NULL,
    created_at   BIGINT  NOT NULL,
    last_used_at BIGINT,
    expires_at   BIGINT,
    revoked_at   BIGINT
);
CREATE INDEX api_keys_by_time ON api_keys (tenant_id, created_at, id);

CREATE TABLE contexts (
    id         UUID    NOT NULL PRIMARY KEY,
    tenant_id  UUID    NOT NULL REFERENCES tenants (id),
    name       TEXT    NOT NULL,
    kind       TEXT    NOT NULL,
    agent_id   TEXT,
    session_id TEXT,
    metadata   TEXT    NOT NULL,
    status     TEXT    NOT NULL,
    version    BIGINT  NOT NULL,
    item_count BIGINT  NOT NULL,
    size_bytes BIGINT  NOT NULL,
    created_at BIGINT  NOT NULL,
    updated_at BIGINT  NOT NULL,
    expires_at BIGINT
);
CREATE INDEX contexts_by_change ON contexts (tenant_id, updated_at, id);
CREATE INDEX contexts_by_agent ON contexts (tenant_id, agent_id, updated_at, id) WHERE agent_id IS NOT NULL;
CREATE INDEX contexts_by_session ON contexts (tenant_id, session_id, updated_at, id) WHERE session_id IS NOT NULL;
CREATE INDEX contexts_by_expiry ON contexts (expires_at) WHERE expires_at IS NOT NULL;
-- Covers the count of active contexts.
CREATE INDEX contexts_by_status ON contexts (tenant_id, status, expires_at);

CREATE TABLE context_items (
    context_id UUID    NOT NULL REFERENCES contexts (id) ON DELETE CASCADE,
    sequence   BIGINT  NOT NULL,
    role       TEXT    NOT NULL,
    metadata   TEXT    NOT NULL,
    size_bytes BIGINT  NOT NULL,
    created_at BIGINT  NOT NULL,
    content    TEXT    NOT NULL,
    PRIMARY KEY (context_id, sequence)
);

-- What full-text search covers: a context's items, and as sequence 0 its name.
-- Apart from the items, so that listing those never reads it. The words are split by the service, not by the server, so
-- that both databases find the same; the tenant is a word, too, so that the index alone finds one tenant's rows.
CREATE TABLE search_documents (
    context_id UUID     NOT NULL REFERENCES contexts (id) ON DELETE CASCADE,
    sequence   BIGINT   NOT NULL,
    words      TSVECTOR NOT NULL,
    PRIMARY KEY (context_id, sequence)
);
CREATE INDEX search_documents_by_word ON search_documents USING gin (words);

CREATE TABLE idempotency (
    tenant_id      UUID    NOT NULL REFERENCES tenants (id),
    route          TEXT    NOT NULL,
    key            TEXT    NOT NULL,
    fingerprint    BYTEA   NOT NULL,
    context_id     UUID    NOT NULL,
    first_sequence BIGINT  NOT NULL,
    last_sequence  BIGINT  NOT NULL,
    expires_at     BIGINT  NOT NULL,
    PRIMARY KEY (tenant_id, route, key)
);
CREATE INDEX idempotency_by_expiry ON idempotency (expires_at);

CREATE TABLE tools (
    id                 UUID    NOT NULL PRIMARY KEY,
    tenant_id          UUID    NOT NULL REFERENCES tenants (id),
    name               TEXT    NOT NULL,
    description        TEXT    NOT NULL,
    method             TEXT    NOT NULL,
    url                TEXT    NOT NULL,
    headers            TEXT    NOT NULL,
    input_schema       TEXT    NOT NULL,
    timeout_ms         BIGINT  NOT NULL,
    read_only          BOOLEAN NOT NULL,
    idempotent         BOOLEAN NOT NULL,
    destructive        BOOLEAN NOT NULL,
    credentials_key_id TEXT,
    credentials        BYTEA,
    version            BIGINT  NOT NULL,
    revision           BIGINT  NOT NULL,
    created_at         BIGINT  NOT NULL,
    updated_at         BIGINT  NOT NULL,
    UNIQUE (tenant_id, name)
);
CREATE INDEX tools_by_revision ON tools (revision);

-- Removed tools, so that a watch can tell; forgotten after a while.
CREATE TABLE removed_tools (
    tool_id    UUID    NOT NULL PRIMARY KEY,
    tenant_id  UUID    NOT NULL,
    revision   BIGINT  NOT NULL,
    removed_at BIGINT  NOT NULL
);
CREATE INDEX removed_tools_by_revision ON removed_tools (revision);
CREATE INDEX removed_tools_by_time ON removed_tools (removed_at);

-- One row. Whoever changes a tool counts it up first, so revisions become visible in their order.
CREATE TABLE catalogue (
    id       BIGINT  NOT NULL PRIMARY KEY CHECK (id = 1),
    revision BIGINT  NOT NULL
);
INSERT INTO catalogue (id, revision) VALUES (1, 0);

CREATE TABLE executions (
    id               UUID    NOT NULL PRIMARY KEY,
    tenant_id        UUID    NOT NULL REFERENCES tenants (id),
    tool_id          UUID    NOT NULL,
    tool             TEXT    NOT NULL,
    key_id           UUID    NOT NULL,
    status           TEXT    NOT NULL,
    priority         INTEGER NOT NULL DEFAULT 0,
    attempts         INTEGER NOT NULL DEFAULT 0,
    max_attempts     INTEGER NOT NULL DEFAULT 1,
    run_at           BIGINT,
    deadline         BIGINT,
    lease_owner      TEXT,
    lease_expires_at BIGINT,
    fencing_token    BIGINT  NOT NULL DEFAULT 0,
    idempotent       BOOLEAN NOT NULL,
    idempotency_key  TEXT,
    arguments        TEXT    NOT NULL,
    result           TEXT,
    error_code       TEXT,
    error_message    TEXT,
    trace_id         TEXT,
    traceparent      TEXT,
    created_at       BIGINT  NOT NULL,
    started_at       BIGINT,
    finished_at      BIGINT,
    updated_at       BIGINT  NOT NULL
);
CREATE INDEX executions_by_time ON executions (tenant_id, created_at, id);
CREATE INDEX executions_by_tool ON executions (tenant_id, tool, created_at, id);
CREATE INDEX executions_by_lease ON executions (lease_expires_at) WHERE status = 'running';
CREATE INDEX executions_by_turn ON executions (priority, run_at, id) WHERE status = 'queued';
CREATE INDEX executions_by_end ON executions (finished_at) WHERE finished_at IS NOT NULL;

-- What one replica does for all.
CREATE TABLE leases (
    name       TEXT    NOT NULL PRIMARY KEY,
    owner      TEXT    NOT NULL,
    expires_at BIGINT  NOT NULL
);
