//! The worker's metrics. `mcp_tool_executions_total` is rest-api's: it counts what callers see.

use telemetry::metrics::buckets;

telemetry::metrics! {
    /// Runs of tools that ended on a worker, by final status.
    pub static TOOL_RUNS: Counter["tool", "status"] = "worker_tool_runs_total";
    /// How long runs took, waiting for a slot included.
    pub static TOOL_RUN_DURATION: Histogram["tool"] = "worker_tool_run_duration_seconds", buckets: &buckets::MCP;
    /// Runs that hold a slot.
    pub static RUNS_IN_FLIGHT: Gauge[] = "worker_runs_in_flight";
    /// Runs that wait for a slot.
    pub static SLOTS_WAITING: Gauge[] = "worker_slots_waiting";
    /// How many runs may hold a slot at once.
    pub static SLOTS: Gauge[] = "worker_slots";
    /// Runs turned away because too many waited, or for too long.
    pub static OVERLOADED: Counter[] = "worker_overloaded_total";
    /// Addresses that outgoing calls were kept from, by the kind of address.
    pub static GUARD_REFUSALS: Counter["reason"] = "worker_guard_refusals_total",
        known: &[&crate::guard::Refused::WORDS];
    /// Size of the bodies that tools' endpoints answered with.
    pub static RESPONSE_SIZE: Histogram[] = "worker_response_bytes", buckets: &buckets::BYTES_1KIB_1MIB;
    /// Runs from the queue that are held: they run, wait for a slot, or their outcome is not stored yet.
    pub static LEASED_RUNS: Gauge[] = "worker_leased_runs";
    /// Whether the stream stands over which runs come from the queue: 1 or 0.
    pub static LEASE_STREAM_UP: Gauge[] = "worker_lease_stream_up";
    /// Heartbeats for runs from the queue, by result: ok or error.
    pub static HEARTBEATS: Counter["result"] = "worker_heartbeats_total",
        known: &[&["ok", "error"]];
    /// Reports on runs from the queue: of an outcome or that a run is handed_back; accepted, retried, lost (the run is
    /// another's), refused or given_up.
    pub static REPORTS: Counter["what", "result"] = "worker_reports_total",
        known: &[&["outcome", "handed_back"], &["accepted", "retried", "lost", "refused", "given_up"]];
    /// Requests to sources of telemetry, by the source's name, its kind and the result: ok, refused (what was asked is
    /// none), error, unavailable, timeout, too_large, cancelled.
    pub static SOURCE_REQUESTS: Counter["source", "kind", "result"] = "mcp_source_requests_total";
    /// How long requests to sources of telemetry took, to the end of the answer.
    pub static SOURCE_REQUEST_DURATION: Histogram["source", "kind"] = "mcp_source_request_duration_seconds",
        buckets: &buckets::MCP;
    /// Runs of scheduled jobs, by result: ok or error.
    pub static JOBS: Counter["job", "result"] = "worker_jobs_total",
        known: &[&crate::jobs::NAMES, &["ok", "error"]];
    /// How long runs of scheduled jobs took.
    pub static JOB_DURATION: Histogram["job"] = "worker_job_duration_seconds", buckets: &buckets::MCP;
    /// Rows that scheduled jobs changed or deleted.
    pub static JOB_ROWS: Counter["job"] = "worker_job_rows_total",
        known: &[&crate::jobs::NAMES];
    /// Requests to other MCP servers, by server (tenant/name) and result: ok, tool_error (the tool says that it failed),
    /// refused (the server says that the request is wrong), failed, cancelled, circuit_open (not made: the server failed
    /// too often).
    pub static UPSTREAM_REQUESTS: Counter["upstream", "result"] = "mcp_upstream_requests_total";
    /// How long requests to other MCP servers took, by server (tenant/name).
    pub static UPSTREAM_REQUEST_DURATION: Histogram["upstream"] = "mcp_upstream_request_duration_seconds",
        buckets: &buckets::MCP;
    /// Whether another MCP server is left alone because it failed again and again: 1 or 0.
    pub static UPSTREAM_CIRCUIT_OPEN: Gauge["upstream"] = "mcp_upstream_circuit_open";
}

/// Shows the gauges before anything has moved them, so that "none" is told from "unknown".
pub(crate) fn announce() {
    RUNS_IN_FLIGHT.set(0, []);
    SLOTS_WAITING.set(0, []);
    LEASED_RUNS.set(0, []);
    LEASE_STREAM_UP.set(0, []);
}
