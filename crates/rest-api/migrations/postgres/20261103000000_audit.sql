-- The audit log. Its identifiers are UUIDv7 of `at`, so they are the order of every listing and of the purge.

CREATE TABLE audit_records (
    id             UUID    NOT NULL PRIMARY KEY,
    -- All zeros: nobody knows whose. No reference: what is no tenant's any more stays.
    tenant_id      UUID    NOT NULL,
    at             BIGINT  NOT NULL,
    key_id         UUID,
    key_name       TEXT    NOT NULL,
    door           TEXT    NOT NULL,
    action         TEXT    NOT NULL,
    arguments_hash TEXT    NOT NULL,
    arguments      TEXT,
    outcome        TEXT    NOT NULL,
    code           TEXT    NOT NULL,
    duration_us    BIGINT  NOT NULL,
    trace_id       TEXT    NOT NULL,
    execution_id   UUID,
    count          BIGINT  NOT NULL,
    address        TEXT    NOT NULL
);

CREATE INDEX audit_records_by_tenant ON audit_records (tenant_id, id);
CREATE INDEX audit_records_by_key ON audit_records (tenant_id, key_id, id) WHERE key_id IS NOT NULL;
CREATE INDEX audit_records_by_action ON audit_records (tenant_id, action, id);
CREATE INDEX audit_records_by_outcome ON audit_records (tenant_id, outcome, id) WHERE outcome <> 'ok';
CREATE INDEX audit_records_by_trace ON audit_records (trace_id) WHERE trace_id <> '';
