//! What can be cited out of what was found: queries, traces, log lines.

use domain::{JsonObject, incident::clean};
use serde::{Deserialize, Serialize};
use serde_json::Value;

/// How many of each are kept of one item, and the characters of one.
const MOST: usize = 20;
const QUERY: usize = 1000;
const LINE: usize = 300;
/// How deep a result is looked into.
const DEPTH: usize = 12;

/// What can be cited.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub(super) struct Cited {
    /// PromQL or LogQL.
    pub queries: Vec<String>,
    /// Identifiers, hexadecimal.
    pub traces: Vec<String>,
    /// Lines of logs.
    pub lines: Vec<String>,
}

impl Cited {
    /// Out of a tool's result.
    pub(super) fn of_result(result: &Value) -> Self {
        let mut cited = Self::default();
        cited.walk(result, DEPTH);
        cited
    }

    /// Out of a result that tells of more than its readers may see: what the installation itself says, its rules and its
    /// runbook. Nothing that was measured.
    pub(super) fn of_rules(result: &Value) -> Self {
        let mut cited = Self::default();
        let rules = result["rules"].as_array().into_iter().flatten();
        rules
            .filter_map(|rule| rule["expr"].as_str())
            .for_each(|query| cited.query(query));
        let runbook = Self::of_text(result["runbook"].as_str().unwrap_or_default());
        runbook.queries.iter().for_each(|query| cited.query(query));
        cited
    }

    /// Out of an item: what its metadata says of it, or what its text holds.
    pub(super) fn of_item(content: &str, metadata: &JsonObject) -> Self {
        let said = metadata.get("citations").cloned();
        if let Some(said) = said.and_then(|said| serde_json::from_value::<Self>(said).ok()) {
            let mut cited = Self::default();
            said.queries.iter().for_each(|query| cited.query(query));
            said.traces.iter().for_each(|trace| cited.trace(trace));
            said.lines.iter().for_each(|line| cited.line(line));
            return cited;
        }
        match serde_json::from_str::<Value>(content) {
            Ok(value) if value.is_object() || value.is_array() => Self::of_result(&value),
            _ => Self::of_text(content),
        }
    }

    /// Out of Markdown: blocks of code by their language, queries that stand as code, identifiers of traces anywhere.
    fn of_text(text: &str) -> Self {
        let mut cited = Self::default();
        let mut block: Option<(&str, String)> = None;
        for line in text.lines() {
            let fence = line.trim_start().strip_prefix("```");
            match (&mut block, fence) {
                (None, Some(language)) => block = Some((language.trim(), String::new())),
                (Some((language, inside)), Some(_)) => {
                    cited.block(language, inside);
                    block = None;
                }
                (Some((_, inside)), None) => {
                    inside.push_str(line);
                    inside.push('\n');
                }
                (None, None) => cited.inline(line),
            }
        }
        if let Some((language, inside)) = block {
            cited.block(language, &inside);
        }
        let hex = |c: char| !c.is_ascii_hexdigit();
        text.split(hex)
            .filter(|word| word.len() == 32)
            .for_each(|word| cited.trace(word));
        cited
    }

    fn block(&mut self, language: &str, inside: &str) {
        match language.to_ascii_lowercase().as_str() {
            "promql" | "logql" | "query" => self.query(inside),
            "log" | "logs" => inside.lines().for_each(|line| self.line(line)),
            "json" => {
                if let Ok(value) = serde_json::from_str::<Value>(inside) {
                    self.walk(&value, DEPTH);
                }
            }
            _ => {}
        }
    }

    fn inline(&mut self, line: &str) {
        let lower = line.to_ascii_lowercase();
        if ["promql", "logql", "query", "queried"]
            .iter()
            .any(|word| lower.contains(word))
        {
            let spans = line.split('`').skip(1).step_by(2);
            spans
                .filter(|span| span.contains(['{', '(']))
                .for_each(|span| self.query(span));
        }
    }

    fn walk(&mut self, value: &Value, depth: usize) {
        if depth == 0 {
            return;
        }
        match value {
            Value::Object(members) => {
                for (name, value) in members {
                    self.member(name, value, depth);
                }
            }
            Value::Array(values) => values.iter().for_each(|value| self.walk(value, depth - 1)),
            _ => {}
        }
    }

    fn member(&mut self, name: &str, value: &Value, depth: usize) {
        let texts = || texts(value);
        match name {
            "query" | "expr" | "expression" | "promql" | "logql" | "queries" => {
                texts().for_each(|text| self.query(text));
            }
            "trace_id" | "traceID" | "traceId" | "trace_ids" | "traces" | "example_traces" => {
                texts().for_each(|text| self.trace(text));
            }
            "line" | "lines" | "log_lines" | "logs" => texts().for_each(|text| self.line(text)),
            _ => {}
        }
        self.walk(value, depth - 1);
    }

    fn query(&mut self, text: &str) {
        keep(&mut self.queries, clean(text, QUERY));
    }

    fn trace(&mut self, text: &str) {
        if (16..=32).contains(&text.len()) && text.chars().all(|c| c.is_ascii_hexdigit()) {
            keep(&mut self.traces, text.to_ascii_lowercase());
        }
    }

    fn line(&mut self, text: &str) {
        keep(&mut self.lines, clean(text, LINE));
    }
}

/// The texts that a value is or lists.
fn texts(value: &Value) -> impl Iterator<Item = &str> {
    let listed = value.as_array().map_or(&[][..], Vec::as_slice);
    value
        .as_str()
        .into_iter()
        .chain(listed.iter().filter_map(Value::as_str))
}

fn keep(kept: &mut Vec<String>, text: String) {
    if !text.is_empty() && kept.len() < MOST && !kept.contains(&text) {
        kept.push(text);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    const TRACE: &str = "0af7651916cd43dd8448eb211c80319c";

    #[test]
    fn a_result_is_cited() {
        let cited = Cited::of_result(&json!({
            "rule": {"expr": "up == 0"},
            "values": [{"query": "rate(x[5m])", "value": 3}],
            "logs": [{"line": "it broke", "count": 4}],
            "traces": [{"trace_id": TRACE, "duration_ms": 3}, {"trace_id": "not one"}],
        }));
        assert_eq!(cited.queries, ["up == 0", "rate(x[5m])"]);
        assert_eq!(
            (cited.traces, cited.lines),
            (vec![TRACE.to_owned()], vec!["it broke".to_owned()])
        );
    }

    #[test]
    fn of_what_others_may_not_see_the_rules_are_cited() {
        let cited = Cited::of_rules(&json!({
            "rules": [{"expr": "up == 0", "labels": {"tenant_id": "other"}}],
            "runbook": "Look:\n\n```promql\nrate(x[5m])\n```\n```log\nno\n```",
            "values": {"query": "up{tenant_id=\"other\"}"},
            "log_lines": [{"line": "a secret of another"}],
            "traces": [{"trace_id": TRACE}],
        }));
        assert_eq!(cited.queries, ["up == 0", "rate(x[5m])"]);
        assert!(cited.traces.is_empty() && cited.lines.is_empty());
    }

    #[test]
    fn an_agents_words_are_cited() {
        let text = format!(
            "I queried `sum(rate(http_requests_total[5m]))` and saw `nothing`.\n\n```logql\n{{service=\"a\"}}\n```\n\
             trace {TRACE}, then:\n```log\nERROR one\nERROR two\n```\n```json\n{{\"expr\": \"up\"}}\n```"
        );
        let cited = Cited::of_item(&text, &JsonObject::new());
        assert_eq!(
            cited.queries,
            ["sum(rate(http_requests_total[5m]))", "{service=\"a\"}", "up"]
        );
        assert_eq!(cited.traces, [TRACE]);
        assert_eq!(cited.lines, ["ERROR one", "ERROR two"]);
    }
}
