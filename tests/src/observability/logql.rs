//! Checks the shape of a LogQL query: brackets, selectors and the labels in them, the stages of the pipeline, the
//! functions' names. Loki itself parses it where a stack runs.

use regex::Regex;
use std::sync::LazyLock;

/// What streams are told apart by in Loki.
const STREAM_LABELS: [&str; 5] = [
    "service",
    "service_name",
    "environment",
    "deployment_environment_name",
    "level",
];

/// Stages that begin with a word.
const STAGES: [&str; 12] = [
    "json",
    "logfmt",
    "pattern",
    "regexp",
    "unpack",
    "line_format",
    "label_format",
    "drop",
    "keep",
    "decolorize",
    "unwrap",
    "distinct",
];

/// Functions and aggregations, and what may stand before a bracket besides.
const FUNCTIONS: [&str; 46] = [
    "absent_over_time",
    "avg",
    "avg_over_time",
    "bottomk",
    "by",
    "bytes",
    "bytes_over_time",
    "bytes_rate",
    "count",
    "count_over_time",
    "duration",
    "duration_seconds",
    "first_over_time",
    "group_left",
    "group_right",
    "ignoring",
    "ip",
    "label_replace",
    "last_over_time",
    "max",
    "max_over_time",
    "min",
    "min_over_time",
    "on",
    "quantile_over_time",
    "rate",
    "rate_counter",
    "sort",
    "sort_desc",
    "stddev",
    "stddev_over_time",
    "stdvar",
    "stdvar_over_time",
    "sum",
    "sum_over_time",
    "topk",
    "approx_topk",
    "unwrap",
    "vector",
    "without",
    "and",
    "or",
    "unless",
    "bool",
    "offset",
    "ignore",
];

/// Texts, words, and signs; all else is space.
static TOKEN: LazyLock<Regex> = LazyLock::new(|| {
    Regex::new(r##""(?:[^"\\]|\\.)*"|`[^`]*`|[A-Za-z_][A-Za-z0-9_.]*|[0-9][0-9A-Za-z.]*|[|!=<>]?[=~>]|[|{}()\[\],+*/%^<>!-]|#[^\n]*|["`]|\S"##)
        .expect("a constant pattern")
});

/// All that is wrong with a query.
pub(super) fn check(query: &str) -> Vec<String> {
    let tokens: Vec<&str> = TOKEN
        .find_iter(query)
        .map(|token| token.as_str())
        .filter(|token| !token.starts_with('#'))
        .collect();
    let mut findings = brackets(&tokens);
    if findings.is_empty() {
        let mut streams = 0;
        for (at, token) in tokens.iter().enumerate() {
            match *token {
                "{" => {
                    streams += 1;
                    findings.extend(stream(&tokens[at + 1..]));
                }
                "|" => findings.extend(stage(&tokens[at + 1..])),
                "(" if at > 0 && is_word(tokens[at - 1]) && !FUNCTIONS.contains(&tokens[at - 1]) => {
                    findings.push(format!("there is no function {}", tokens[at - 1]));
                }
                "(" if at > 0 && of_range(tokens[at - 1]) && !has_range(&tokens[at + 1..]) => {
                    findings.push(format!("{} needs a range: […]", tokens[at - 1]));
                }
                _ => {}
            }
        }
        if streams == 0 {
            findings.push("selects no stream: there is no {…}".to_owned());
        }
    }
    for finding in &mut findings {
        *finding = format!("LogQL: {finding}");
    }
    findings
}

/// Whether a function is one of a range.
fn of_range(function: &str) -> bool {
    function.ends_with("_over_time") || ["rate", "bytes_rate", "rate_counter"].contains(&function)
}

/// Whether a range stands before the bracket closes.
fn has_range(tokens: &[&str]) -> bool {
    let mut open = 1;
    let inside = tokens.iter().take_while(|token| {
        open += match **token {
            "(" => 1,
            ")" => -1,
            _ => 0,
        };
        open > 0
    });
    inside.copied().any(|token| token == "[")
}

fn is_word(token: &str) -> bool {
    token.starts_with(|c: char| c.is_ascii_alphabetic() || c == '_')
}

fn is_text(token: &str) -> bool {
    token.len() > 1 && token.starts_with(['"', '`'])
}

fn brackets(tokens: &[&str]) -> Vec<String> {
    let mut open = Vec::new();
    for token in tokens {
        match *token {
            "{" | "(" | "[" => open.push(*token),
            "}" | ")" | "]" => {
                let fits = matches!(
                    (open.pop(), *token),
                    (Some("{"), "}") | (Some("("), ")") | (Some("["), "]")
                );
                if !fits {
                    return vec![format!("`{token}` closes nothing")];
                }
            }
            "\"" | "`" => return vec!["a text is not closed".to_owned()],
            _ => {}
        }
    }
    open.last()
        .map(|open| format!("`{open}` is not closed"))
        .into_iter()
        .collect()
}

/// What stands between the braces: `label op "value", …`.
fn stream(tokens: &[&str]) -> Vec<String> {
    let inside: Vec<&str> = tokens.iter().copied().take_while(|token| *token != "}").collect();
    let mut findings = Vec::new();
    let mut narrow = false;
    for matcher in inside.split(|token| *token == ",") {
        match matcher {
            [] => {}
            [label, op @ ("=" | "=~" | "!=" | "!~"), value] if is_word(label) && is_text(value) => {
                if !STREAM_LABELS.contains(label) {
                    findings.push(format!(
                        "streams have no label {label}, only {}",
                        STREAM_LABELS.join(", ")
                    ));
                }
                let value = value.trim_matches(['"', '`']);
                narrow |= *op == "=" && !value.is_empty();
                narrow |= *op == "=~" && Regex::new(&format!("^(?:{value})$")).is_ok_and(|r| !r.is_match(""));
            }
            other => findings.push(format!("`{}` is no matcher", other.join(" "))),
        }
    }
    if findings.is_empty() && !narrow {
        findings.push("a selector must hold a matcher that excludes the empty value".to_owned());
    }
    findings
}

/// What comes after `|`: a stage, or a comparison of a label.
fn stage(tokens: &[&str]) -> Option<String> {
    let skipped = tokens.iter().position(|token| *token != "(").unwrap_or_default();
    let tokens = &tokens[skipped..];
    let comparison = ["=", "==", "!=", "=~", "!~", "<", ">", "<=", ">="];
    match tokens {
        [word, ..] if STAGES.contains(word) => None,
        [label, op, value, ..] if is_word(label) && comparison.contains(op) => {
            let fits = is_text(value) || value.starts_with(|c: char| c.is_ascii_digit()) || *value == "ip";
            (!fits).then(|| format!("{label} is compared with {value}"))
        }
        [other, ..] => Some(format!("there is no stage {other}")),
        [] => Some("nothing follows `|`".to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::check;

    #[test]
    fn queries_that_are_right() {
        for query in [
            r#"{service="worker"}"#,
            r#"{service=~".+", level="error"} |= "a \"b\" {" != `c` | json | trace_id="abc""#,
            r#"sum by (service, level) (count_over_time({service=~"a|b"} | level=~"warn|error" [5m]))"#,
            r#"topk(5, sum by (target) (rate({service_name="x"} | json | line_format "{{.message}}" [1m]))) > 0.5"#,
            r#"quantile_over_time(0.95, {service="rest-api"} | json | unwrap duration(took) [5m]) by (service)"#,
        ] {
            assert_eq!(check(query), [""; 0], "{query}");
        }
    }

    #[test]
    fn queries_that_are_wrong() {
        for (query, finding) in [
            (r#"{service="worker""#, "`{` is not closed"),
            (r#"{service="worker}"#, "a text is not closed"),
            (r#"{job="worker"}"#, "streams have no label job"),
            (r#"{service=~".*"}"#, "excludes the empty value"),
            (r#"{service="worker"} | jsn"#, "there is no stage jsn"),
            (
                r#"{service="worker"} | level=error"#,
                "level is compared with error",
            ),
            (
                r#"summ(rate({service="worker"}[5m]))"#,
                "there is no function summ",
            ),
            (
                r#"sum(rate({service="worker"})) by (x) > rate({service="worker"}[1m])"#,
                "rate needs a range",
            ),
            ("sort(5)", "selects no stream"),
        ] {
            let findings = check(query).join("; ");
            assert!(findings.contains(finding), "{query}: {findings}");
        }
    }
}
