//! Alerts and silences as Alertmanager has them, and what of them a caller may see.

pub(crate) mod silence;

use crate::{
    outcome::{Code, Failure},
    sources::{Access, Matcher},
};
use domain::Time;
use serde::{Deserialize, de::DeserializeOwned};
use serde_json::Value;
use std::collections::BTreeMap;

/// An alert that fires.
#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Alert {
    /// What tells it from others; `alertname` is its name.
    pub labels: BTreeMap<String, String>,
    /// What it says.
    #[serde(default)]
    pub annotations: BTreeMap<String, String>,
    /// Since when it fires.
    pub starts_at: Time,
    /// Alertmanager's own identifier for the set of labels.
    pub fingerprint: String,
    /// Whether anybody is told.
    pub status: Status,
}

/// Whether anybody is told of an alert, and why not.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Status {
    /// The silences that keep it quiet.
    #[serde(default)]
    pub silenced_by: Vec<String>,
    /// The alerts that do, by fingerprint.
    #[serde(default)]
    pub inhibited_by: Vec<String>,
    /// The times in which its route is mute.
    #[serde(default)]
    pub muted_by: Vec<String>,
}

impl Alert {
    /// A label; empty where it has none of this name.
    pub(crate) fn label(&self, name: &str) -> &str {
        self.labels.get(name).map_or("", String::as_str)
    }

    /// `active`, or what keeps it quiet: `silenced`, `inhibited`, `muted`.
    pub(crate) fn state(&self) -> &'static str {
        match &self.status {
            status if !status.silenced_by.is_empty() => "silenced",
            status if !status.inhibited_by.is_empty() => "inhibited",
            status if !status.muted_by.is_empty() => "muted",
            _ => "active",
        }
    }

    /// How bad it is: 0 is the worst.
    pub(crate) fn rank(&self) -> usize {
        let known = ["critical", "page", "error", "warning", "info", "none"];
        let severity = self.label("severity");
        // An unknown word may mean anything; it stands with warnings.
        known.iter().position(|word| *word == severity).unwrap_or(3)
    }
}

/// What fires, the worst first, and of the same kind what nobody keeps quiet and what is newest. Only what holds each of
/// `conditions` and what is enforced.
///
/// # Errors
/// [`Failure`]
pub(crate) async fn alerts(access: &Access, conditions: &[Matcher]) -> Result<Vec<Alert>, Failure> {
    let wanted: Vec<&Matcher> = access.matchers().iter().chain(conditions).collect();
    let mut alerts: Vec<Alert> = access
        .get("/api/v2/alerts", &filters(&wanted))
        .await?
        .read(read)?;
    // Alertmanager has done so; a proxy before it that drops parameters must not open what is closed.
    alerts.retain(|alert| {
        wanted
            .iter()
            .all(|wanted| alert.label(&wanted.name) == wanted.value)
    });
    alerts.sort_by_key(|alert| {
        (
            alert.rank(),
            alert.state() != "active",
            std::cmp::Reverse(alert.starts_at),
        )
    });
    Ok(alerts)
}

/// The parameters that make Alertmanager filter.
fn filters(matchers: &[&Matcher]) -> Vec<(&'static str, String)> {
    let filter = |matcher: &&Matcher| ("filter", equals(&matcher.name, &matcher.value));
    matchers.iter().map(filter).collect()
}

/// `name="value"`
fn equals(name: &str, value: &str) -> String {
    let value = value
        .replace('\\', r"\\")
        .replace('"', "\\\"")
        .replace('\n', r"\n");
    format!("{name}=\"{value}\"")
}

fn read<T: DeserializeOwned>(answer: Value) -> Result<T, Failure> {
    serde_json::from_value(answer).map_err(|error| {
        let message = format!("the source answered with something that is not Alertmanager's: {error}");
        Failure::new(Code::SourceError, message)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_are_escaped_as_alertmanager_reads_them() {
        assert_eq!(equals("a", "b\"c\\\nd"), r#"a="b\"c\\\nd""#);
    }
}
