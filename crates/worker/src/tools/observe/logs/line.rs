//! One line of a log, as a person would read it.

use chrono::DateTime;
use domain::{JsonObject, Time};
use serde_json::Value;

/// What says who wrote a line and when, which is told beside it.
const TOLD_APART: [&str; 14] = [
    "timestamp",
    "time",
    "ts",
    "level",
    "service",
    "version",
    "environment",
    "trace_id",
    "span_id",
    "request_id",
    "target",
    "message",
    "msg",
    "severity",
];

/// A line.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Line {
    /// When it was written.
    pub time: Time,
    /// Who wrote it.
    pub service: Option<String>,
    /// Its level, in small letters.
    pub level: Option<String>,
    /// What it says; fields of JSON as `target: message key=value …`.
    pub text: String,
    /// The trace that it belongs to.
    pub trace_id: Option<String>,
    /// The request that it belongs to.
    pub request_id: Option<String>,
}

/// The lines of Loki's streams, which come apart, in one order.
pub(crate) fn of_streams(streams: &[Value], forward: bool) -> Vec<Line> {
    let mut lines: Vec<Line> = streams.iter().flat_map(of_stream).collect();
    lines.sort_by(|a, b| {
        let order = a.time.cmp(&b.time);
        if forward { order } else { order.reverse() }
    });
    lines
}

fn of_stream(stream: &Value) -> impl Iterator<Item = Line> {
    let labels = &stream["stream"];
    let entries = stream["values"].as_array().into_iter().flatten();
    entries.filter_map(move |entry| {
        let nanos: i64 = entry[0].as_str()?.parse().ok()?;
        Some(read(
            DateTime::from_timestamp_nanos(nanos),
            labels,
            entry[1].as_str()?,
        ))
    })
}

fn read(time: Time, labels: &Value, raw: &str) -> Line {
    let fields: Option<JsonObject> = Some(raw)
        .filter(|raw| raw.starts_with('{'))
        .and_then(|raw| serde_json::from_str(raw).ok());
    // Structured metadata stands among the labels. Where a line was sent without it, it may say the same itself.
    let told = |names: &[&str]| {
        let label = names.iter().find_map(|name| labels[*name].as_str());
        let field = || {
            let fields = fields.as_ref()?;
            names.iter().find_map(|name| fields.get(*name)?.as_str())
        };
        label
            .or_else(field)
            .filter(|value| !value.is_empty())
            .map(str::to_owned)
    };
    Line {
        time,
        service: told(&["service", "service_name"]),
        level: told(&["level", "detected_level"]).map(|level| level.to_lowercase()),
        trace_id: told(&["trace_id"]),
        request_id: told(&["request_id"]),
        text: match &fields {
            Some(fields) => of_fields(fields),
            None => raw.trim_end().to_owned(),
        },
    }
}

/// `target: message key=value …`
fn of_fields(fields: &JsonObject) -> String {
    let word = |names: &[&str]| names.iter().find_map(|name| fields.get(*name)?.as_str());
    let mut parts = Vec::new();
    match (word(&["target"]), word(&["message", "msg"])) {
        (Some(target), Some(message)) => parts.push(format!("{target}: {message}")),
        (Some(only), None) | (None, Some(only)) => parts.push(only.to_owned()),
        (None, None) => {}
    }
    for (key, value) in fields {
        if !TOLD_APART.contains(&key.as_str()) {
            parts.push(format!("{key}={}", bare(value)));
        }
    }
    parts.join(" ")
}

/// Without quotes where none are needed to see its end.
fn bare(value: &Value) -> String {
    match value.as_str() {
        Some(text) if !text.is_empty() && !text.contains(char::is_whitespace) => text.to_owned(),
        _ => value.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    /// As Loki 3.7 answers, shortened by labels that nobody reads.
    fn streams() -> Value {
        json!([
            {
                "stream": {
                    "detected_level": "error", "environment": "local", "level": "error", "request_id": "err-8",
                    "service": "rest-api", "service_name": "rest-api", "tenant": "acme",
                    "trace_id": "0000000000000000000000000000def8"
                },
                "values": [[
                    "1795422780100743168",
                    "{\"timestamp\":\"2026-11-23T08:33:00.123456Z\",\"level\":\"ERROR\",\"service\":\"rest-api\",\
                     \"version\":\"0.1.0\",\"environment\":\"local\",\"target\":\"rest_api::store\",\
                     \"message\":\"query failed\",\"took_ms\":1008,\"error\":\"timed out\",\"tenant\":\"acme\"}"
                ]]
            },
            {
                "stream": { "service_name": "postgres", "detected_level": "info" },
                "values": [["1795422781000000000", "LOG:  checkpoint\n"], ["1795422779000000000", "{not JSON"]]
            }
        ])
    }

    #[test]
    fn lines_of_all_streams_come_in_one_order() {
        let streams = streams();
        let lines = of_streams(streams.as_array().unwrap(), false);
        let texts: Vec<&str> = lines.iter().map(|line| line.text.as_str()).collect();
        let failed = "rest_api::store: query failed error=\"timed out\" took_ms=1008 tenant=acme";
        let sorted = |text: &str| {
            let mut words: Vec<String> = text.split_whitespace().map(str::to_owned).collect();
            words.sort();
            words
        };
        assert_eq!(sorted(texts[1]), sorted(failed));
        assert!(
            texts[1].starts_with("rest_api::store: query failed "),
            "{}",
            texts[1]
        );
        assert_eq!([texts[0], texts[2]], ["LOG:  checkpoint", "{not JSON"]);
        let forward = of_streams(streams.as_array().unwrap(), true);
        assert_eq!(forward[0].text, "{not JSON");
    }

    #[test]
    fn who_wrote_a_line_is_told_by_labels_or_by_itself() {
        let line = read(
            Time::UNIX_EPOCH,
            &json!({}),
            r#"{"service":"worker","level":"WARN","trace_id":"a","msg":"x"}"#,
        );
        assert_eq!(line.service.as_deref(), Some("worker"));
        assert_eq!(line.level.as_deref(), Some("warn"));
        assert_eq!(line.trace_id.as_deref(), Some("a"));
        assert_eq!((line.request_id, line.text.as_str()), (None, "x"));
    }
}
