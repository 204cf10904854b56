//! The rules behind an alert, as Prometheus has them.

use super::firing::{Alert, texts};
use crate::{
    outcome::{Code, Failure},
    sources::{Access, Matcher, time},
    tools::observe::answer,
};
use serde_json::{Map, Value, json};
use std::{collections::BTreeMap, time::Duration};

/// A rule.
#[derive(Clone, Debug)]
pub(in super::super) struct Rule {
    /// Its expression.
    pub(in super::super) expr: String,
    /// How long that must hold.
    holds: Duration,
    /// What it adds to the labels.
    pub(in super::super) labels: BTreeMap<String, String>,
    /// What it says, with the templates not filled in.
    pub(in super::super) annotations: BTreeMap<String, String>,
    /// Why it could not be evaluated.
    error: Option<String>,
    /// What it found, each with its value.
    pub(in super::super) active: Vec<(Alert, Option<f64>)>,
}

impl Rule {
    /// How long its expression must hold, where it must: `5m`.
    pub(in super::super) fn holds(&self) -> Option<String> {
        (!self.holds.is_zero()).then(|| time::short(self.holds))
    }

    /// As it is answered.
    pub(in super::super) fn told(&self) -> Value {
        let mut told = Map::new();
        told.insert("expr".to_owned(), answer::cut(&self.expr, 1500).into());
        if let Some(holds) = self.holds() {
            told.insert("for".to_owned(), holds.into());
        }
        told.insert("labels".to_owned(), json!(self.labels));
        if let Some(error) = &self.error {
            told.insert("error".to_owned(), answer::cut(error, 300).into());
        }
        told.into()
    }
}

/// The rules that raise an alert of this name, those that found something first. Only what the caller may see of what
/// they found.
///
/// # Errors
/// [`Failure`]
pub(in super::super) async fn named(access: &Access, alert: &str) -> Result<Vec<Rule>, Failure> {
    // Prometheus before 2.4x knows no `rule_name[]` and tells all of them.
    let query = [("type", "alert".to_owned()), ("rule_name[]", alert.to_owned())];
    let answer = access.get("/api/v1/rules", &query).await?;
    let unexpected = || Failure::new(Code::SourceError, "the answer holds no groups of rules");
    let groups = answer["data"]["groups"].as_array().ok_or_else(unexpected)?;
    let rules = groups
        .iter()
        .flat_map(|group| group["rules"].as_array().into_iter().flatten());
    // A rule is everybody's, unless it sets another value than the enforced one.
    let seen = |rule: &&Value| {
        access.matchers().iter().all(|matcher| {
            let label = rule["labels"][&matcher.name].as_str();
            label.is_none_or(|label| label == matcher.value || label.contains("{{"))
        })
    };
    let named = rules.filter(|rule| rule["name"] == alert && rule["type"] == "alerting");
    let named = named.filter(seen);
    let mut rules: Vec<Rule> = named.map(|rule| read(rule, access.matchers())).collect();
    rules.sort_by_key(|rule| std::cmp::Reverse(rule.active.len().min(1)));
    Ok(rules)
}

fn read(rule: &Value, matchers: &[Matcher]) -> Rule {
    let active = rule["alerts"].as_array().into_iter().flatten().map(|alert| {
        let read = Alert {
            labels: texts(&alert["labels"]),
            annotations: texts(&alert["annotations"]),
            since: alert["activeAt"].as_str().and_then(|time| time.parse().ok()),
            state: alert["state"].as_str().unwrap_or("firing").to_owned(),
        };
        let value = alert["value"].as_str().and_then(|value| value.parse().ok());
        (read, value)
    });
    let seen = |(alert, _): &(Alert, Option<f64>)| {
        matchers
            .iter()
            .all(|matcher| alert.label(&matcher.name) == matcher.value)
    };
    Rule {
        expr: rule["query"].as_str().unwrap_or_default().to_owned(),
        holds: Duration::try_from_secs_f64(rule["duration"].as_f64().unwrap_or_default()).unwrap_or_default(),
        labels: texts(&rule["labels"]),
        annotations: texts(&rule["annotations"]),
        error: rule["lastError"]
            .as_str()
            // It may name series of others.
            .filter(|error| !error.is_empty() && matchers.is_empty())
            .map(str::to_owned),
        active: active.filter(seen).collect(),
    }
}
