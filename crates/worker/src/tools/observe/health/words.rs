//! Figures as a person reads them.

use chrono::TimeDelta;

/// A share: `0.02%`, `7.2%`, `100%`.
pub(in super::super) fn percent(share: f64) -> String {
    format!("{}%", short(share * 100.0))
}

/// A time: `340 ms`, `2.4 s`, `3 min`.
pub(in super::super) fn seconds(seconds: f64) -> String {
    match seconds {
        s if s < 1.0 => format!("{} ms", short(s * 1000.0)),
        s if s < 120.0 => format!("{} s", short(s)),
        s if s < 7200.0 => format!("{} min", short(s / 60.0)),
        s if s < 172_800.0 => format!("{} h", short(s / 3600.0)),
        s => format!("{} d", short(s / 86_400.0)),
    }
}

/// How long something has lasted.
pub(in super::super) fn lasted(time: TimeDelta) -> String {
    let whole = time.num_seconds().max(0);
    let rounded = |unit: i64| (whole + unit / 2) / unit;
    match whole {
        s if s < 120 => format!("{s} s"),
        s if s < 7200 => format!("{} min", rounded(60)),
        s if s < 172_800 => format!("{} h", rounded(3600)),
        _ => format!("{} d", rounded(86_400)),
    }
}

/// A number with two or three digits that count.
pub(in super::super) fn short(number: f64) -> String {
    let magnitude = number.abs();
    let text = match magnitude {
        m if m >= 100.0 || m == 0.0 => return format!("{number:.0}"),
        m if m >= 10.0 => format!("{number:.1}"),
        m if m >= 0.1 => format!("{number:.2}"),
        m if m >= 0.001 => format!("{number:.4}"),
        _ => return format!("{number:.1e}"),
    };
    text.trim_end_matches('0').trim_end_matches('.').to_owned()
}

/// A kind of requests.
pub(in super::super) fn kind(kind: &str) -> &str {
    match kind {
        "http" | "http_server" => "HTTP requests",
        "grpc" | "grpc_handled" => "gRPC calls",
        "mcp_tool_calls" => "MCP tool calls",
        "tool_runs" => "tool runs",
        other => other,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn figures_are_short() {
        assert_eq!(percent(0.0721), "7.21%");
        assert_eq!(percent(0.000_2), "0.02%");
        assert_eq!(percent(1.0), "100%");
        assert_eq!(percent(0.0), "0%");
        assert_eq!(seconds(0.0341), "34.1 ms");
        assert_eq!(seconds(2.4), "2.4 s");
        assert_eq!(seconds(7200.0), "2 h");
        assert_eq!(short(1e-6), "1.0e-6");
        assert_eq!(lasted(TimeDelta::minutes(14)), "14 min");
    }
}
