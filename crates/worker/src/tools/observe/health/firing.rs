//! Alerts that fire: as Alertmanager has them, or as Prometheus does where there is no Alertmanager.

use super::figures::{quoted, vector};
use crate::{
    outcome::Failure,
    sources::{Access, Matcher},
    tools::observe::{alerts, answer},
};
use domain::Time;
use serde_json::{Map, Value};
use std::{cmp::Ordering, collections::BTreeMap};

/// An alert that is active.
#[derive(Clone, Debug, PartialEq)]
pub(in super::super) struct Alert {
    /// Its labels.
    pub(in super::super) labels: BTreeMap<String, String>,
    /// What its rule says of it.
    pub(in super::super) annotations: BTreeMap<String, String>,
    /// Since when, where that is known.
    pub(in super::super) since: Option<Time>,
    /// `firing` or `pending`; or what keeps it quiet: `silenced`, `inhibited`, `muted`.
    pub(in super::super) state: String,
}

impl Alert {
    /// A label's value; empty without it.
    pub(in super::super) fn label(&self, name: &str) -> &str {
        self.labels.get(name).map_or("", String::as_str)
    }

    /// What it is called.
    pub(in super::super) fn name(&self) -> &str {
        self.label("alertname")
    }

    /// Whether it fires, and nobody keeps it quiet.
    pub(in super::super) fn is_firing(&self) -> bool {
        self.state == "firing"
    }

    /// One of its annotations.
    pub(in super::super) fn annotation(&self, name: &str) -> Option<&str> {
        self.annotations.get(name).map(String::as_str)
    }

    /// Its labels as they are answered: values of an endless length are cut.
    pub(in super::super) fn told_labels(&self) -> Value {
        let cut = |(name, value): (&String, &String)| (name.clone(), answer::cut(value, 200));
        self.labels.iter().map(cut).collect()
    }

    /// In few words, for a list of several.
    pub(in super::super) fn told(&self) -> Value {
        let mut told = Map::new();
        told.insert("alert".to_owned(), self.name().into());
        told.insert("severity".to_owned(), self.label("severity").into());
        told.insert("state".to_owned(), self.state.as_str().into());
        if let Some(since) = self.since {
            told.insert("since".to_owned(), answer::time(since).into());
        }
        if let Some(summary) = self.annotation("summary") {
            told.insert("summary".to_owned(), answer::cut(summary, 200).into());
        }
        told.into()
    }

    /// How grave: lower is graver.
    fn rank(&self) -> usize {
        let grades = ["critical", "error", "warning", "info"];
        let known = grades.iter().position(|grade| *grade == self.label("severity"));
        known.unwrap_or(grades.len()) + if self.is_firing() { 0 } else { grades.len() + 1 }
    }
}

/// The gravest first, then the oldest.
pub(in super::super) fn order(a: &Alert, b: &Alert) -> Ordering {
    let by_age = || (a.since.is_none(), a.since).cmp(&(b.since.is_none(), b.since));
    a.rank().cmp(&b.rank()).then_with(by_age)
}

/// The active alerts of Alertmanager that have these labels.
///
/// # Errors
/// [`Failure`]
pub(in super::super) async fn of_alertmanager(
    access: &Access,
    labels: &[(&str, &str)],
) -> Result<Vec<Alert>, Failure> {
    let conditions: Vec<Matcher> = labels
        .iter()
        .map(|(name, value)| Matcher {
            name: (*name).to_owned(),
            value: (*value).to_owned(),
        })
        .collect();
    let active = alerts::alerts(access, &conditions).await?;
    let read = |alert: alerts::Alert| Alert {
        state: match alert.state() {
            "active" => "firing",
            quiet => quiet,
        }
        .to_owned(),
        labels: alert.labels,
        annotations: alert.annotations,
        since: Some(alert.starts_at),
    };
    Ok(active.into_iter().map(read).collect())
}

/// The alerts of Prometheus that have these labels, with when each began.
///
/// # Errors
/// [`Failure`]
pub(in super::super) async fn of_prometheus(
    access: &Access,
    labels: &[(&str, &str)],
    at: Time,
) -> Result<Vec<Alert>, Failure> {
    let matchers: Vec<String> = labels
        .iter()
        .map(|(name, value)| format!("{name}={}", quoted(value)))
        .collect();
    let matchers = matchers.join(",");
    // The samples of the second are the times at which they began; `ALERTS` alone says pending or firing.
    let alerts = vector(access, &format!("ALERTS{{{matchers}}}"), at).await?;
    let began = if alerts.is_empty() {
        Vec::new()
    } else {
        vector(access, &format!("ALERTS_FOR_STATE{{{matchers}}}"), at).await?
    };
    let own = |labels: &BTreeMap<String, String>| -> BTreeMap<String, String> {
        let kept = labels
            .iter()
            .filter(|(name, _)| !["__name__", "alertstate"].contains(&name.as_str()));
        kept.map(|(name, value)| (name.clone(), value.clone())).collect()
    };
    let began: BTreeMap<_, _> = began
        .iter()
        .map(|sample| (own(&sample.labels), sample.value))
        .collect();
    let alerts = alerts.iter().map(|sample| {
        let labels = own(&sample.labels);
        #[expect(clippy::cast_possible_truncation, reason = "seconds since 1970")]
        let since = began
            .get(&labels)
            .and_then(|began| Time::from_timestamp(*began as i64, 0));
        Alert {
            since,
            state: sample.label("alertstate").to_owned(),
            annotations: BTreeMap::new(),
            labels,
        }
    });
    Ok(alerts.collect())
}

/// The alerts of a service: those that name it as `service` or as `job`, gravest first.
///
/// # Errors
/// [`Failure`]
pub(in super::super) async fn of_service(
    alertmanager: Option<&Access>,
    prometheus: &Access,
    service: &str,
    at: Time,
) -> Result<Vec<Alert>, Failure> {
    let ask = async |label: &str| match alertmanager {
        Some(alertmanager) => of_alertmanager(alertmanager, &[(label, service)]).await,
        None => of_prometheus(prometheus, &[(label, service)], at).await,
    };
    let (named, of_job) = tokio::try_join!(ask("service"), ask("job"))?;
    let mut alerts = named;
    for alert in of_job {
        if !alerts.iter().any(|known| known.labels == alert.labels) {
            alerts.push(alert);
        }
    }
    alerts.sort_by(order);
    Ok(alerts)
}

/// An object's texts.
pub(in super::super) fn texts(object: &Value) -> BTreeMap<String, String> {
    let entries = object.as_object().into_iter().flatten();
    entries
        .filter_map(|(name, value)| Some((name.clone(), value.as_str()?.to_owned())))
        .collect()
}
