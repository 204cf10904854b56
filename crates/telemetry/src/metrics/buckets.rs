//! Bounds of histograms: the upper, inclusive ends of their buckets.

/// Requests and RPCs, in seconds. Holds 0.5 and 1, where the SLOs and alerts cut.
pub const DURATION: [f64; 13] = [
    0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0,
];

/// MCP operations and tool calls, in seconds: the bounds that OpenTelemetry's conventions recommend.
pub const MCP: [f64; 14] = [
    0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0, 30.0, 60.0, 120.0, 300.0,
];

/// Queries, Redis commands and other short round trips, in seconds.
pub const DB: [f64; 11] = [
    0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.05, 0.1, 0.5, 5.0,
];

/// Sizes from 1 KiB to 1 MiB, doubling, in bytes.
pub const BYTES_1KIB_1MIB: [f64; 11] = [
    1024.0,
    2048.0,
    4096.0,
    8192.0,
    16384.0,
    32768.0,
    65536.0,
    131_072.0,
    262_144.0,
    524_288.0,
    1_048_576.0,
];
