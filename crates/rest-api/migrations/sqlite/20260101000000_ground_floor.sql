-- Times are microseconds since 1970 UTC, identifiers UUIDs of 16 bytes, JSON is text.

CREATE TABLE tenants (
    id         BLOB    NOT NULL PRIMARY KEY,
    name       TEXT    NOT NULL UNIQUE,
    status     TEXT    NOT NULL,
    created_at INTEGER NOT NULL
) STRICT;

CREATE TABLE api_keys (
    id           BLOB    NOT NULL PRIMARY KEY,
    tenant_id    BLOB    NOT NULL REFERENCES tenants (id),
    name         TEXT    NOT NULL,
    prefix       TEXT    NOT NULL,
    hash         BLOB    NOT NULL UNIQUE,
    scopes       TEXT    NOT NULL,
    created_at   INTEGER NOT NULL,
    last_used_at INTEGER,
    expires_at   INTEGER,
    revoked_at   INTEGER
) STRICT;
CREATE INDEX api_keys_by_time ON api_keys (tenant_id, created_at, id);

CREATE TABLE contexts (
    id         BLOB    NOT NULL PRIMARY KEY,
    tenant_id  BLOB    NOT NULL REFERENCES tenants (id),
    name       TEXT    NOT NULL,
    kind       TEXT    NOT NULL,
    agent_id   TEXT,
    session_id TEXT,
    metadata   TEXT    NOT NULL,
    status     TEXT    NOT NULL,
    version    INTEGER NOT NULL,
    item_count INTEGER NOT NULL,
    size_bytes INTEGER NOT NULL,
    created_at INTEGER NOT NULL,
    updated_at INTEGER NOT NULL,
    expires_at INTEGER
) STRICT;
CREATE INDEX contexts_by_change ON contexts (tenant_id, updated_at, id);
CREATE INDEX contexts_by_agent ON contexts (tenant_id, agent_id, updated_at, id) WHERE agent_id IS NOT NULL;
CREATE INDEX contexts_by_session ON contexts (tenant_id, session_id, updated_at, id) WHERE session_id IS NOT NULL;
CREATE INDEX contexts_by_expiry ON contexts (expires_at) WHERE expires_at IS NOT NULL;
-- Covers the count of active contexts.
CREATE INDEX contexts_by_status ON contexts (tenant_id, status, expires_at);

CREATE TABLE context_items (
    context_id BLOB    NOT NULL REFERENCES contexts (id) ON DELETE CASCADE,
    sequence   INTEGER NOT NULL,
    role       TEXT    NOT NULL,
    metadata   TEXT    NOT NULL,
    size_bytes INTEGER NOT NULL,
    created_at INTEGER NOT NULL,
    content    TEXT    NOT NULL,
    PRIMARY KEY (context_id, sequence)
) STRICT;

-- What full-text search covers: a context's items, and as sequence 0 its name.
CREATE TABLE search_documents (
    id         INTEGER NOT NULL PRIMARY KEY,
    context_id BLOB    NOT NULL REFERENCES contexts (id) ON DELETE CASCADE,
    sequence   INTEGER NOT NULL,
    UNIQUE (context_id, sequence)
) STRICT;
-- Keeps no text of its own: snippets are cut from the items. The words come from the service,
-- lower case and split, so that both databases find the same.
CREATE VIRTUAL TABLE search_index USING fts5 (
    words, content = '', contentless_delete = 1, tokenize = 'unicode61 remove_diacritics 0'
);
CREATE TRIGGER search_documents_deleted AFTER DELETE ON search_documents BEGIN
    DELETE FROM search_index WHERE rowid = old.id;
END;

CREATE TABLE idempotency (
    tenant_id      BLOB    NOT NULL REFERENCES tenants (id),
    route          TEXT    NOT NULL,
    key            TEXT    NOT NULL,
    fingerprint    BLOB    NOT NULL,
    context_id     BLOB    NOT NULL,
    first_sequence INTEGER NOT NULL,
    last_sequence  INTEGER NOT NULL,
    expires_at     INTEGER NOT NULL,
    PRIMARY KEY (tenant_id, route, key)
) STRICT;
CREATE INDEX idempotency_by_expiry ON idempotency (expires_at);

CREATE TABLE tools (
    id                 BLOB    NOT NULL PRIMARY KEY,
    tenant_id          BLOB    NOT NULL REFERENCES tenants (id),
    name               TEXT    NOT NULL,
    description        TEXT    NOT NULL,
    method             TEXT    NOT NULL,
    url                TEXT    NOT NULL,
    headers            TEXT    NOT NULL,
    input_schema       TEXT    NOT NULL,
    timeout_ms         INTEGER NOT NULL,
    read_only          INTEGER NOT NULL,
    idempotent         INTEGER NOT NULL,
    destructive        INTEGER NOT NULL,
    credentials_key_id TEXT,
    credentials        BLOB,
    version            INTEGER NOT NULL,
    revision           INTEGER NOT NULL,
    created_at         INTEGER NOT NULL,
    updated_at         INTEGER NOT NULL,
    UNIQUE (tenant_id, name)
) STRICT;
CREATE INDEX tools_by_revision ON tools (revision);

-- Removed tools, so that a watch can tell; forgotten after a while.
CREATE TABLE removed_tools (
    tool_id    BLOB    NOT NULL PRIMARY KEY,
    tenant_id  BLOB    NOT NULL,
    revision   INTEGER NOT NULL,
    removed_at INTEGER NOT NULL
) STRICT;
CREATE INDEX removed_tools_by_revision ON removed_tools (revision);
CREATE INDEX removed_tools_by_time ON removed_tools (removed_at);

-- One row. Whoever changes a tool counts it up first, so revisions become visible in their order.
CREATE TABLE catalogue (
    id       INTEGER NOT NULL PRIMARY KEY CHECK (id = 1),
    revision INTEGER NOT NULL
) STRICT;
INSERT INTO catalogue (id, revision) VALUES (1, 0);

CREATE TABLE executions (
    id               BLOB    NOT NULL PRIMARY KEY,
    tenant_id        BLOB    NOT NULL REFERENCES tenants (id),
    tool_id          BLOB    NOT NULL,
    tool             TEXT    NOT NULL,
    key_id           BLOB    NOT NULL,
    status           TEXT    NOT NULL,
    priority         INTEGER NOT NULL DEFAULT 0,
    attempts         INTEGER NOT NULL DEFAULT 0,
    max_attempts     INTEGER NOT NULL DEFAULT 1,
    run_at           INTEGER,
    deadline         INTEGER,
    lease_owner      TEXT,
    lease_expires_at INTEGER,
    fencing_token    INTEGER NOT NULL DEFAULT 0,
    idempotent       INTEGER NOT NULL,
    idempotency_key  TEXT,
    arguments        TEXT    NOT NULL,
    result           TEXT,
    error_code       TEXT,
    error_message    TEXT,
    trace_id         TEXT,
    traceparent      TEXT,
    created_at       INTEGER NOT NULL,
    started_at       INTEGER,
    finished_at      INTEGER,
    updated_at       INTEGER NOT NULL
) STRICT;
CREATE INDEX executions_by_time ON executions (tenant_id, created_at, id);
CREATE INDEX executions_by_tool ON executions (tenant_id, tool, created_at, id);
CREATE INDEX executions_by_lease ON executions (lease_expires_at) WHERE status = 'running';
CREATE INDEX executions_by_turn ON executions (priority, run_at, id) WHERE status = 'queued';
CREATE INDEX executions_by_end ON executions (finished_at) WHERE finished_at IS NOT NULL;

-- What one replica does for all.
CREATE TABLE leases (
    name       TEXT    NOT NULL PRIMARY KEY,
    owner      TEXT    NOT NULL,
    expires_at INTEGER NOT NULL
) STRICT;
