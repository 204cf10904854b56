//! What every service measures, whatever it does: declared here, recorded by the layers.

use super::{buckets, limits::CAPPED};

crate::metrics! {
    /// HTTP requests answered. `path` is the route's template or `unmatched`; a client that hung up counts as
    /// status 499.
    pub static HTTP_REQUESTS: Counter["method", "path", "status"] = "http_requests_total";
    /// Time from a request's arrival to its response's headers.
    pub static HTTP_REQUEST_DURATION: Histogram["method", "path", "status"] = "http_request_duration_seconds",
        buckets: &buckets::DURATION;
    /// HTTP requests being answered.
    pub static HTTP_REQUESTS_IN_FLIGHT: Gauge[] = "http_requests_in_flight";

    /// RPCs answered. `code` is the gRPC status, from the trailers too.
    pub static GRPC_SERVER_REQUESTS: Counter["method", "code"] = "grpc_server_requests_total";
    /// Time from an RPC's arrival to the end of its response.
    pub static GRPC_SERVER_REQUEST_DURATION: Histogram["method", "code"] = "grpc_server_request_duration_seconds",
        buckets: &buckets::DURATION;
    /// RPCs made to another service.
    pub static GRPC_CLIENT_REQUESTS: Counter["peer", "method", "code"] = "grpc_client_requests_total";
    /// Time from sending an RPC to the end of its response.
    pub static GRPC_CLIENT_REQUEST_DURATION: Histogram["peer", "method", "code"] =
        "grpc_client_request_duration_seconds", buckets: &buckets::DURATION;

    /// HTTP requests made to the outside. `status` is the status code, or `error` when none came.
    pub static HTTP_CLIENT_REQUESTS: Counter["method", "status"] = "http_client_requests_total";
    /// Time from sending an HTTP request to its response's headers.
    pub static HTTP_CLIENT_REQUEST_DURATION: Histogram["method", "status"] =
        "http_client_request_duration_seconds", buckets: &buckets::DURATION;

    /// Time that a database operation took, failed ones included.
    pub static DB_QUERY_DURATION: Histogram["operation"] = "db_query_duration_seconds", buckets: &buckets::DB;
    /// Database operations that failed.
    pub static DB_QUERY_ERRORS: Counter["operation"] = "db_query_errors_total";

    /// Requests that asked to be debugged (`X-Debug-Trace`), counted by the service that the caller entered: granted,
    /// forbidden (the key lacks the scope `debug`, or there is no good key), or limited (too many at once). gRPC counts
    /// what it refuses to pass on as well.
    pub static DEBUG_REQUESTS: Counter["outcome"] = "debug_requests_total",
        known: &[&["granted", "forbidden", "limited"]];
    /// Requests kept at `/debug/traces`, by reason. One that was slow and failed counts as both.
    pub static RECENT_REQUESTS: Counter["reason"] = "recent_requests_total", known: &[&["slow", "failed", "debug"]];
    /// Changes of the log level while the service runs: by request, or because a change for a time has expired.
    pub static LOG_LEVEL_CHANGES: Counter["cause"] = "log_level_changes_total", known: &[&["request", "expiry"]];

    /// Events logged, by level.
    pub static LOG_EVENTS: Counter["level"] = "log_events_total",
        known: &[&["error", "warn", "info", "debug", "trace"]];
    /// Log lines lost because the writer could not keep up.
    pub static LOG_LINES_DROPPED: Counter[] = "telemetry_log_lines_dropped_total";
    /// Spans lost on their way to the collector, by reason.
    pub static SPANS_DROPPED: Counter["reason"] = "telemetry_spans_dropped_total",
        known: &[&["queue_full", "export_failed"]];
    /// Recordings lost because their metric has all the series it may have.
    pub static SERIES_DROPPED: Counter["metric"] = "telemetry_series_dropped_total";
    /// Recordings whose label value became `other`, because the label has all the values it may have.
    pub static LABEL_VALUES_CAPPED: Counter["label"] = "telemetry_label_values_capped_total",
        known: &[&CAPPED];
}
