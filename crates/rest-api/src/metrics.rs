//! rest-api's own metrics.

use domain::execution::ExecutionStatus;

/// From a wake-up's milliseconds to an outage's hour, in seconds.
const QUEUE_WAIT: [f64; 14] = [
    0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.5, 1.0, 5.0, 30.0, 120.0, 600.0, 3600.0,
];
/// Up to the most that a policy may allow.
const ATTEMPTS: [f64; 6] = [1.0, 2.0, 3.0, 5.0, 10.0, 20.0];

telemetry::metrics! {
    /// Contexts created, by tenant and type.
    pub static CONTEXTS_CREATED: Counter["tenant_id", "type"] = "mcp_contexts_created_total";
    /// Active contexts, by tenant. Exported by one replica.
    pub static CONTEXTS_ACTIVE: Gauge["tenant_id"] = "mcp_contexts_active";
    /// Content size of a context, bytes, whenever content is added to it.
    pub static CONTEXT_SIZE: Histogram[] = "mcp_context_size_bytes", buckets: &telemetry::metrics::buckets::BYTES_1KIB_1MIB;
    /// API keys that are accepted, by tenant. Exported by one replica.
    pub static API_KEYS_ACTIVE: Gauge["tenant_id"] = "mcp_api_keys_active";
    /// Tool executions that ended, by tool and final status.
    pub static TOOL_EXECUTIONS: Counter["tool", "status"] = "mcp_tool_executions_total";
    /// Tool executions that ended without success and were not cancelled, by tool and the error's code.
    pub static TOOL_EXECUTION_FAILURES: Counter["tool", "code"] = "mcp_tool_execution_failures_total";
    /// Duration of tool executions from request to stored outcome, seconds.
    pub static TOOL_EXECUTION_DURATION: Histogram["tool", "status"] = "mcp_tool_execution_duration_seconds", buckets: &telemetry::metrics::buckets::MCP;
    /// Tool executions that this replica waits for.
    pub static TOOL_EXECUTIONS_IN_FLIGHT: Gauge[] = "mcp_tool_executions_in_flight";
    /// Tool executions that were queued or put before an approver, by tool.
    pub static EXECUTIONS_ENQUEUED: Counter["tool"] = "mcp_executions_enqueued_total";
    /// Tool executions that stand so (queued, awaiting_approval, running, dead), by tenant. Exported by one replica.
    pub static EXECUTIONS: Gauge["tenant_id", "status"] = "mcp_executions";
    /// For how long the oldest tool execution that is due has waited for a worker, seconds; 0 when none waits. Exported
    /// by one replica.
    pub static EXECUTION_QUEUE_AGE: Gauge[] = "mcp_execution_queue_age_seconds";
    /// How long tool executions waited for a worker since they were due, seconds.
    pub static EXECUTION_QUEUE_WAIT: Histogram[] = "mcp_execution_queue_wait_seconds", buckets: &QUEUE_WAIT;
    /// Failed attempts at a tool execution that are followed by another, by tool.
    pub static EXECUTION_RETRIES: Counter["tool"] = "mcp_execution_retries_total";
    /// Attempts that a tool execution had taken when it ended.
    pub static EXECUTION_ATTEMPTS: Histogram[] = "mcp_execution_attempts", buckets: &ATTEMPTS;
    /// Tool executions whose worker or replica was lost, or whose deadline passed before they began, by tool and by what
    /// they became (queued: they run again). Those that nobody approved in time are not among them.
    pub static EXECUTIONS_REAPED: Counter["tool", "status"] = "mcp_executions_reaped_total";
    /// Runs that schedules were due for, by what became of them: enqueued, missed (their time passed and another run
    /// stands for them, or none), refused.
    pub static SCHEDULE_RUNS: Counter["result"] = "mcp_schedule_runs_total",
        known: &[&["enqueued", "missed", "refused"]];
    /// Schedules that switched themselves off, by reason.
    pub static SCHEDULES_DISABLED: Counter["reason"] = "mcp_schedules_disabled_total",
        known: &[&["timetable_invalid", "key_revoked", "tool_removed", "arguments_invalid", "not_allowed",
            "idempotency_key_taken"]];
    /// Incidents that are open, by tenant. Exported by one replica.
    pub static INCIDENTS_OPEN: Gauge["tenant_id"] = "mcp_incidents_open";
    /// Notifications of alerts, by what they came to: an incident opened, changed or resolved; all of it was known
    /// (repeated); none is open and it opens none (ignored); refused: malformed, or not with that key.
    pub static INCIDENT_NOTIFICATIONS: Counter["result"] = "mcp_incident_notifications_total",
        known: &[&["opened", "changed", "resolved", "repeated", "ignored", "refused"]];
    /// Alerts of incidents that were looked into, by whether an explanation was found or none.
    pub static INCIDENT_EXPLANATIONS: Counter["result"] = "mcp_incident_explanations_total",
        known: &[&["found", "none"]];
    /// Times that other MCP servers were asked for their tools, by result: ok or failed.
    pub static UPSTREAM_REFRESHES: Counter["result"] = "mcp_upstream_refreshes_total",
        known: &[&["ok", "failed"]];
    /// Workers' lease streams that are open.
    pub static LEASE_STREAMS: Gauge[] = "rest_api_lease_streams";
    /// Connections of the database pool, by state (idle, used).
    pub static DB_POOL_CONNECTIONS: Gauge["state"] = "db_pool_connections";
    /// Statements and transactions that were made again because they surely did not take place, by reason: another
    /// transaction was favoured (conflict), the server was told to stop (shutdown), the connection broke
    /// (connection_lost), there was none to be had (unreachable).
    pub static DB_RETRIES: Counter["reason"] = "db_retries_total",
        known: &[&["conflict", "shutdown", "connection_lost", "unreachable"]];
    /// The most connections that the database pool may open.
    pub static DB_POOL_MAX: Gauge[] = "db_pool_max_connections";
    /// Size of the database, bytes. Exported by one replica.
    pub static DB_SIZE: Gauge[] = "db_size_bytes";
    /// Whether PostgreSQL's statistics of statements can be read (1) or not (0): they want its extension
    /// pg_stat_statements. Exported by one replica; absent on SQLite.
    pub static DB_STATEMENT_STATISTICS_UP: Gauge[] = "db_statement_statistics_up";
    /// Calls of the 20 SQL statements that PostgreSQL spent the most time on, by their text without values. Exported by
    /// one replica.
    pub static DB_STATEMENT_CALLS: Counter["statement"] = "db_statement_calls_total";
    /// Time that PostgreSQL spent on those statements, seconds.
    pub static DB_STATEMENT_DURATION: Counter["statement"] = "db_statement_duration_seconds_total";
    /// Rows that those statements gave or touched.
    pub static DB_STATEMENT_ROWS: Counter["statement"] = "db_statement_rows_total";
    /// Whether this replica holds the lease to export what replicas share (1) or not (0).
    pub static LEADER: Gauge[] = "rest_api_leader";
    /// Catalogue watches that are open.
    pub static CATALOGUE_WATCHES: Gauge[] = "rest_api_catalogue_watches";
}

/// Counts an execution that ended with an error; that it was cancelled is no failure.
pub(crate) fn count_failure(tool: &str, status: ExecutionStatus, code: &str) {
    if status != ExecutionStatus::Cancelled {
        TOOL_EXECUTION_FAILURES.inc([tool, code]);
    }
}

/// Shows what may happen to a tool's executions before it does: a count that first appears at 1 hides that one from
/// `rate()`.
pub(crate) fn announce(tool: &str) {
    EXECUTION_RETRIES.add(0, [tool]);
    for status in [ExecutionStatus::Succeeded, ExecutionStatus::Failed] {
        TOOL_EXECUTIONS.add(0, [tool, status.as_str()]);
    }
    for status in [
        ExecutionStatus::Queued,
        ExecutionStatus::Dead,
        ExecutionStatus::OutcomeUnknown,
    ] {
        EXECUTIONS_REAPED.add(0, [tool, status.as_str()]);
    }
}
