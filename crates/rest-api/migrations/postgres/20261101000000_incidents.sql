-- Incidents: what the alerts of one group come to, and the explanations that are looked for.

CREATE TABLE incidents (
    id          UUID   NOT NULL PRIMARY KEY,
    tenant_id   UUID   NOT NULL REFERENCES tenants (id),
    -- SHA-256 of the group's key.
    group_hash  BYTEA  NOT NULL,
    -- Not a reference: the context may be deleted, the incident was all the same.
    context_id  UUID   NOT NULL,
    key_id      UUID   NOT NULL,
    title       TEXT   NOT NULL,
    severity    TEXT   NOT NULL,
    status      TEXT   NOT NULL,
    -- Names, JSON.
    alerts      TEXT   NOT NULL,
    -- All that is known of each, JSON.
    known       TEXT   NOT NULL,
    started_at  BIGINT NOT NULL,
    resolved_at BIGINT,
    version     BIGINT NOT NULL,
    created_at  BIGINT NOT NULL,
    updated_at  BIGINT NOT NULL,
    -- When it was last told of, to the hour.
    heard_at    BIGINT NOT NULL
);
CREATE UNIQUE INDEX incidents_open ON incidents (tenant_id, group_hash) WHERE status = 'firing';
CREATE INDEX incidents_by_group ON incidents (tenant_id, group_hash, created_at, id);
CREATE INDEX incidents_by_time ON incidents (tenant_id, created_at, id);
CREATE INDEX incidents_firing ON incidents (tenant_id, created_at, id) WHERE status = 'firing';
CREATE INDEX incidents_by_word ON incidents (heard_at) WHERE status = 'firing';
CREATE INDEX incidents_by_end ON incidents (resolved_at) WHERE resolved_at IS NOT NULL;

CREATE TABLE incident_explanations (
    incident_id  UUID    NOT NULL REFERENCES incidents (id) ON DELETE CASCADE,
    position     INTEGER NOT NULL,
    tenant_id    UUID    NOT NULL,
    alert        TEXT    NOT NULL,
    arguments    TEXT    NOT NULL,
    execution_id UUID,
    created_at   BIGINT  NOT NULL,
    -- When it is looked at; NULL: no more.
    next_at      BIGINT,
    PRIMARY KEY (incident_id, position)
);
CREATE INDEX incident_explanations_by_turn ON incident_explanations (next_at) WHERE next_at IS NOT NULL;
