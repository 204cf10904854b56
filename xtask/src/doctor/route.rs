//! Alertmanager's configuration: whom an alert reaches.

use super::prometheus::{items, text};
use serde_json::Value;

/// Labels of an alert.
pub(super) type Labels<'a> = [(&'a str, &'a str)];

/// The receivers that an alert with these labels reaches, in the order of the routes.
pub(super) fn receivers(config: &Value, labels: &Labels<'_>) -> Vec<String> {
    let route = &config["route"];
    let mut found = Vec::new();
    walk(route, &text(&route["receiver"]), labels, &mut found);
    found
}

/// Whether a route below took it; the route itself takes it otherwise.
fn walk(route: &Value, inherited: &str, labels: &Labels<'_>, found: &mut Vec<String>) {
    let own = route["receiver"].as_str().unwrap_or(inherited);
    let mut taken = false;
    for below in items(&route["routes"]) {
        if takes(below, labels) {
            taken = true;
            walk(below, own, labels, found);
            if below["continue"] != true {
                break;
            }
        }
    }
    if !taken {
        found.push(own.to_owned());
    }
}

fn takes(route: &Value, labels: &Labels<'_>) -> bool {
    let old = [("match", false), ("match_re", true)];
    let old = old.into_iter().flat_map(|(key, is_regex)| {
        let pairs = route[key].as_object().into_iter().flatten();
        pairs.map(move |(name, value)| Matcher {
            name: name.clone(),
            value: text(value),
            is_regex,
            is_equal: true,
        })
    });
    let new = items(&route["matchers"]).filter_map(|one| Matcher::parse(one.as_str()?));
    // What cannot be judged here is taken for another alert's.
    old.chain(new).all(|matcher| matcher.fits(labels) == Some(true))
}

/// The ways in which a receiver tells somebody: `slack`, `webhook` …
pub(super) fn ways(config: &Value, receiver: &str) -> Vec<String> {
    let receiver = items(&config["receivers"]).find(|one| one["name"] == receiver);
    let parts = receiver.and_then(Value::as_object).into_iter().flatten();
    parts
        .filter(|(_, value)| value.as_array().is_some_and(|all| !all.is_empty()))
        .filter_map(|(key, _)| key.strip_suffix("_configs").map(str::to_owned))
        .collect()
}

/// A condition on one label.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Matcher {
    pub(super) name: String,
    pub(super) value: String,
    pub(super) is_regex: bool,
    pub(super) is_equal: bool,
}

impl Matcher {
    /// Reads `severity = "critical"`, `a!="b"`, `a=~b|c`.
    fn parse(matcher: &str) -> Option<Self> {
        let at = matcher.find(['=', '!'])?;
        let (name, rest) = matcher.split_at(at);
        let operators = [
            ("=~", true, true),
            ("!~", true, false),
            ("!=", false, false),
            ("=", false, true),
        ];
        let found = operators.into_iter().find_map(|(operator, is_regex, is_equal)| {
            Some((rest.strip_prefix(operator)?, is_regex, is_equal))
        });
        let (value, is_regex, is_equal) = found?;
        let unquoted = |text: &str| text.trim().trim_matches('"').to_owned();
        Some(Self {
            name: unquoted(name),
            value: unquoted(value),
            is_regex,
            is_equal,
        })
    }

    /// Whether labels meet it, one that is missing being empty; `None` where that cannot be told without a regular
    /// expression's whole language.
    pub(super) fn fits(&self, labels: &Labels<'_>) -> Option<bool> {
        let value = labels.iter().find(|(name, _)| *name == self.name);
        let value = value.map_or("", |(_, value)| value);
        let is_same = if self.is_regex {
            like(&self.value, value)?
        } else {
            self.value == value
        };
        Some(is_same == self.is_equal)
    }
}

/// Whether a whole value is like a pattern of alternatives with `.*` and `.+` in them.
fn like(pattern: &str, value: &str) -> Option<bool> {
    let pattern = pattern.trim_start_matches('^').trim_end_matches('$');
    let inner = pattern.strip_prefix('(').and_then(|rest| rest.strip_suffix(')'));
    let pattern = inner.map_or(pattern, |inner| inner.strip_prefix("?:").unwrap_or(inner));
    let mut any = false;
    for one in pattern.split('|') {
        any |= alternative(one, value)?;
    }
    Some(any)
}

fn alternative(pattern: &str, value: &str) -> Option<bool> {
    let Some(at) = pattern.find(".*").or_else(|| pattern.find(".+")) else {
        // A dot in a name means itself often enough.
        let is_plain = !pattern.contains(['[', ']', '(', ')', '?', '*', '+', '{', '}', '\\', '^', '$']);
        return is_plain.then_some(pattern == value);
    };
    let (before, after) = (&pattern[..at], &pattern[at + 2..]);
    if before.contains(".+") || after.contains(['*', '+']) {
        return None;
    }
    let least = usize::from(&pattern[at..at + 2] == ".+");
    let middle = value
        .strip_prefix(before)
        .and_then(|rest| rest.strip_suffix(after));
    alternative(before, before).and(alternative(after, after))?;
    Some(middle.is_some_and(|middle| middle.len() >= least))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{servers::monitoring::read, workspace::Workspace};
    use serde_json::json;

    fn config() -> anyhow::Result<Value> {
        let path = Workspace::find()?.root.join("deploy/alertmanager/config.yml");
        Ok(serde_json::to_value(read(&path)?)?)
    }

    #[test]
    fn our_own_routes_lead_where_they_should() -> anyhow::Result<()> {
        let config = config()?;
        let whom = |labels: &Labels<'_>| receivers(&config, labels).join(",");
        assert_eq!(
            whom(&[("alertname", "HighErrorRate"), ("severity", "critical")]),
            "agents,page"
        );
        assert_eq!(
            whom(&[("alertname", "Watchdog"), ("severity", "none")]),
            "dead-man"
        );
        assert_eq!(whom(&[("alertname", "X"), ("severity", "unheard-of")]), "slack");
        assert_eq!(ways(&config, "page"), ["pagerduty", "slack"]);
        assert_eq!(ways(&config, "dead-man"), ["webhook"]);
        Ok(())
    }

    #[test]
    fn a_route_may_go_on_and_a_receiver_may_be_empty() {
        let config = json!({
            "route": { "receiver": "all", "routes": [
                { "matchers": ["severity=\"critical\""], "receiver": "page", "continue": true },
                { "match_re": { "alertname": "High.*|Low" }, "routes": [{ "match": { "team": "x" }, "receiver": "x" }] },
                { "matchers": ["severity!=\"critical\""], "receiver": "never" },
            ]},
            "receivers": [{ "name": "page" }, { "name": "all", "email_configs": [] }],
        });
        let critical = [("alertname", "HighLoad"), ("severity", "critical")];
        assert_eq!(receivers(&config, &critical), ["page", "all"]);
        let team = [("alertname", "Low"), ("severity", "critical"), ("team", "x")];
        assert_eq!(receivers(&config, &team), ["page", "x"]);
        assert!(ways(&config, "page").is_empty() && ways(&config, "all").is_empty());
    }

    #[test]
    fn patterns_are_judged_or_left_undecided() {
        for (pattern, value, expected) in [
            ("a|b", "b", Some(true)),
            ("a|b", "ab", Some(false)),
            ("^(a|b)$", "a", Some(true)),
            (".*", "", Some(true)),
            (".+", "", Some(false)),
            ("High.*", "HighLoad", Some(true)),
            ("High.+Rate", "HighErrorRate", Some(true)),
            ("aa.*aa", "aaa", Some(false)),
            ("[ab]", "a", None),
        ] {
            assert_eq!(like(pattern, value), expected, "{pattern} {value}");
        }
    }
}
