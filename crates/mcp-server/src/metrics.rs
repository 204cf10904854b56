//! mcp-server's own metrics.

telemetry::metrics! {
    /// Duration of MCP operations, from the message's arrival to its answer (`mcp.server.operation.duration`). `tool`
    /// is empty but for tools/call, and `other` for tools that are not registered; `error_type` is empty on success.
    pub static OPERATION_DURATION: Histogram["method", "tool", "error_type"] = "mcp_server_operation_duration_seconds",
        buckets: &telemetry::metrics::buckets::MCP;
    /// Sessions of protocol versions before 2026-07-28 that this replica holds.
    pub static SESSIONS_ACTIVE: Gauge[] = "mcp_sessions_active";
    /// Open `subscriptions/listen` streams.
    pub static SUBSCRIPTIONS_ACTIVE: Gauge[] = "mcp_subscriptions_active";
    /// Resources that clients of this replica are told of when they change.
    pub static RESOURCE_SUBSCRIPTIONS_ACTIVE: Gauge[] = "mcp_resource_subscriptions_active";
    /// Registered tools of all tenants in this replica's copy of the catalogue.
    pub static CATALOGUE_TOOLS: Gauge[] = "mcp_catalogue_tools";
    /// Time since this replica's copy of the catalogue was last known to be true; 0 while it is being followed.
    pub static CATALOGUE_AGE: Gauge[] = "mcp_catalogue_age_seconds";
    /// Catalogue watches that ended and had to be opened anew.
    pub static CATALOGUE_RECONNECTS: Counter[] = "mcp_catalogue_reconnects_total";
}
