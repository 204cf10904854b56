-- The executions table is the queue.

ALTER TABLE tools ADD COLUMN options TEXT NOT NULL DEFAULT '{}';
-- NULL: every tool.
ALTER TABLE api_keys ADD COLUMN tools TEXT;

ALTER TABLE executions ADD COLUMN idempotency_fingerprint BYTEA;
ALTER TABLE executions ADD COLUMN digest TEXT NOT NULL DEFAULT '';
ALTER TABLE executions ADD COLUMN schedule_id UUID;
ALTER TABLE executions ADD COLUMN approved_by UUID;
ALTER TABLE executions ADD COLUMN cancel_requested BOOLEAN NOT NULL DEFAULT FALSE;
ALTER TABLE executions ADD COLUMN progress TEXT;
ALTER TABLE executions ADD COLUMN leased_at BIGINT;
ALTER TABLE executions ADD COLUMN lost_attempts INTEGER NOT NULL DEFAULT 0;
-- Queued and due. A retry that waits is not, so that looking for work never steps over those that wait.
ALTER TABLE executions ADD COLUMN ready BOOLEAN NOT NULL DEFAULT TRUE;
-- Somebody else than who began it may wait for it, so its changes are told to every replica.
ALTER TABLE executions ADD COLUMN watched BOOLEAN NOT NULL DEFAULT TRUE;

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
    execution_id  UUID    NOT NULL REFERENCES executions (id) ON DELETE CASCADE,
    -- The fencing token of its lease.
    number        BIGINT  NOT NULL,
    owner         TEXT    NOT NULL,
    outcome       TEXT    NOT NULL,
    error_code    TEXT,
    error_message TEXT,
    started_at    BIGINT  NOT NULL,
    finished_at   BIGINT  NOT NULL,
    PRIMARY KEY (execution_id, number)
);

-- Written here, so that nobody forgets it.
CREATE FUNCTION execution_attempted() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    INSERT INTO execution_attempts
        (execution_id, number, owner, outcome, error_code, error_message, started_at, finished_at)
    VALUES (
        OLD.id, OLD.fencing_token, COALESCE(OLD.lease_owner, ''),
        CASE WHEN NEW.lost_attempts > OLD.lost_attempts THEN 'lost'
             WHEN NEW.attempts < OLD.attempts THEN 'handed_back'
             WHEN NEW.status = 'queued' THEN 'retried'
             ELSE NEW.status END,
        NEW.error_code, NEW.error_message, COALESCE(OLD.leased_at, OLD.started_at, OLD.created_at), NEW.updated_at
    );
    RETURN NULL;
END $$;
CREATE TRIGGER executions_attempted AFTER UPDATE OF status ON executions FOR EACH ROW
WHEN (OLD.status = 'running' AND NEW.status <> 'running')
EXECUTE FUNCTION execution_attempted();

CREATE TABLE schedules (
    id                UUID    NOT NULL PRIMARY KEY,
    tenant_id         UUID    NOT NULL REFERENCES tenants (id),
    name              TEXT    NOT NULL,
    tool              TEXT    NOT NULL,
    arguments         TEXT    NOT NULL,
    key_id            UUID    NOT NULL,
    cron              TEXT    NOT NULL,
    timezone          TEXT    NOT NULL,
    missed_runs       TEXT    NOT NULL,
    enabled           BOOLEAN NOT NULL,
    priority          INTEGER NOT NULL,
    disabled_reason   TEXT,
    next_run_at       BIGINT,
    claimed_until     BIGINT,
    last_run_at       BIGINT,
    last_execution_id UUID,
    version           BIGINT  NOT NULL,
    created_at        BIGINT  NOT NULL,
    updated_at        BIGINT  NOT NULL,
    UNIQUE (tenant_id, name)
);
CREATE INDEX schedules_by_turn ON schedules (next_run_at) WHERE enabled;
