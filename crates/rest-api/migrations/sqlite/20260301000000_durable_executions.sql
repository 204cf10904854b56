-- The executions table is the queue.

ALTER TABLE tools ADD COLUMN options TEXT NOT NULL DEFAULT '{}';
-- NULL: every tool.
ALTER TABLE api_keys ADD COLUMN tools TEXT;

ALTER TABLE executions ADD COLUMN idempotency_fingerprint BLOB;
ALTER TABLE executions ADD COLUMN digest TEXT NOT NULL DEFAULT '';
ALTER TABLE executions ADD COLUMN schedule_id BLOB;
ALTER TABLE executions ADD COLUMN approved_by BLOB;
ALTER TABLE executions ADD COLUMN cancel_requested INTEGER NOT NULL DEFAULT 0;
ALTER TABLE executions ADD COLUMN progress TEXT;
ALTER TABLE executions ADD COLUMN leased_at INTEGER;
ALTER TABLE executions ADD COLUMN lost_attempts INTEGER NOT NULL DEFAULT 0;
-- Queued and due. A retry that waits is not, so that looking for work never steps over those that wait.
ALTER TABLE executions ADD COLUMN ready INTEGER NOT NULL DEFAULT 1;
-- Somebody else than who began it may wait for it, so its changes are told to every replica.
ALTER TABLE executions ADD COLUMN watched INTEGER NOT NULL DEFAULT 1;

DROP INDEX executions_by_turn;
CREATE INDEX executions_ready ON executions (tenant_id, priority DESC, run_at, id, deadline)
    WHERE status = 'queued' AND ready;
-- Not on the status: nobody shall count one tenant's running ones by it.
DROP INDEX executions_by_lease;
CREATE INDEX executions_by_lease ON executions (lease_expires_at) WHERE lease_expires_at IS NOT NULL;
CREATE INDEX executions_by_run_at ON executions (ready, run_at) WHERE status = 'queued';
-- Counts of what is open, and of what one tenant has running.
CREATE INDEX executions_open ON executions (tenant_id, status)
    WHERE status IN ('queued', 'awaiting_approval', 'running', 'dead');
CREATE INDEX executions_by_deadline ON executions (deadline)
    WHERE deadline IS NOT NULL AND status IN ('queued', 'awaiting_approval');
CREATE INDEX executions_by_schedule ON executions (tenant_id, schedule_id, created_at, id) WHERE schedule_id IS NOT NULL;
CREATE UNIQUE INDEX executions_by_key ON executions (tenant_id, idempotency_key) WHERE idempotency_key IS NOT NULL;

CREATE TABLE execution_attempts (
    execution_id  BLOB    NOT NULL REFERENCES executions (id) ON DELETE CASCADE,
    -- The fencing token of its lease.
    number        INTEGER NOT NULL,
    owner         TEXT    NOT NULL,
    outcome       TEXT    NOT NULL,
    error_code    TEXT,
    error_message TEXT,
    started_at    INTEGER NOT NULL,
    finished_at   INTEGER NOT NULL,
    PRIMARY KEY (execution_id, number)
) STRICT, WITHOUT ROWID;

-- Written here, so that nobody forgets it.
CREATE TRIGGER executions_attempted AFTER UPDATE OF status ON executions
WHEN old.status = 'running' AND new.status <> 'running'
BEGIN
    INSERT INTO execution_attempts
        (execution_id, number, owner, outcome, error_code, error_message, started_at, finished_at)
    VALUES (
        old.id, old.fencing_token, COALESCE(old.lease_owner, ''),
        CASE WHEN new.lost_attempts > old.lost_attempts THEN 'lost'
             WHEN new.attempts < old.attempts THEN 'handed_back'
             WHEN new.status = 'queued' THEN 'retried'
             ELSE new.status END,
        new.error_code, new.error_message, COALESCE(old.leased_at, old.started_at, old.created_at), new.updated_at
    );
END;

CREATE TABLE schedules (
    id                BLOB    NOT NULL PRIMARY KEY,
    tenant_id         BLOB    NOT NULL REFERENCES tenants (id),
    name              TEXT    NOT NULL,
    tool              TEXT    NOT NULL,
    arguments         TEXT    NOT NULL,
    key_id            BLOB    NOT NULL,
    cron              TEXT    NOT NULL,
    timezone          TEXT    NOT NULL,
    missed_runs       TEXT    NOT NULL,
    enabled           INTEGER NOT NULL,
    priority          INTEGER NOT NULL,
    disabled_reason   TEXT,
    next_run_at       INTEGER,
    claimed_until     INTEGER,
    last_run_at       INTEGER,
    last_execution_id BLOB,
    version           INTEGER NOT NULL,
    created_at        INTEGER NOT NULL,
    updated_at        INTEGER NOT NULL,
    UNIQUE (tenant_id, name)
) STRICT;
CREATE INDEX schedules_by_turn ON schedules (next_run_at) WHERE enabled;
