//! rest-api's own metrics.

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
    /// Duration of tool executions from request to stored outcome, seconds.
    pub static TOOL_EXECUTION_DURATION: Histogram["tool", "status"] = "mcp_tool_execution_duration_seconds", buckets: &telemetry::metrics::buckets::MCP;
    /// Tool executions that this replica waits for.
    pub static TOOL_EXECUTIONS_IN_FLIGHT: Gauge[] = "mcp_tool_executions_in_flight";
    /// Connections of the database pool, by state (idle, used).
    pub static DB_POOL_CONNECTIONS: Gauge["state"] = "db_pool_connections";
    /// The most connections that the database pool may open.
    pub static DB_POOL_MAX: Gauge[] = "db_pool_max_connections";
    /// Whether this replica holds the lease to export what replicas share (1) or not (0).
    pub static LEADER: Gauge[] = "rest_api_leader";
    /// Catalogue watches that are open.
    pub static CATALOGUE_WATCHES: Gauge[] = "rest_api_catalogue_watches";
}
