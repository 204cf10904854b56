//! The metrics of this crate.

telemetry::metrics! {
    /// Whether Redis answers: 1 or 0. Absent where none is configured.
    pub static UP: Gauge[] = "redis_up";
    /// Redis commands by result: ok, error (failed or timed out), away (not tried, Redis is known to be away).
    pub static COMMANDS: Counter["command", "result"] = "redis_commands_total",
        known: &[&["GET", "SET", "DEL", "EVAL", "PUBLISH"], &["ok", "error", "away"]];
    /// How long Redis commands took, those that failed included.
    pub static COMMAND_DURATION: Histogram["command"] = "redis_command_duration_seconds",
        buckets: &telemetry::metrics::buckets::DB;
    /// Rate limit decisions: allowed or limited, by what was limited.
    pub static DECISIONS: Counter["scope", "decision"] = "rate_limit_decisions_total",
        known: &[&["rest", "mcp"], &["allowed", "limited"]];
}
