//! Incidents: what the alerts of one group come to, from the first that fires to the last that is resolved.
//!
//! Labels and annotations are others' words: they are cut and freed of control characters where they come in
//! ([`Alert::new`]), and are never logged or made a metric's label.

mod merge;

pub use merge::{ALERTS_KEPT, Merged, STALE, merge};

use crate::{ApiKeyId, ContextId, IncidentId, Invalid, TenantId, Time};
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet};

/// The most alerts in one notification.
pub const MAX_ALERTS: usize = 1000;
/// The most characters of a group's key.
pub const MAX_GROUP_KEY: usize = 8192;
/// The most characters of a title, as of a context's name.
const MAX_TITLE: usize = 200;
/// The most names of alerts that are listed.
const MAX_NAMES: usize = 50;
/// What is kept of an alert's labels and annotations: how many, and the characters of a name.
const MAX_LABELS: usize = 24;
const MAX_ANNOTATIONS: usize = 8;
const MAX_NAME: usize = 100;
/// The characters of a label's and of an annotation's value that are kept.
const MAX_LABEL: usize = 200;
const MAX_ANNOTATION: usize = 500;
/// The characters of an address that is kept; a longer one is left out, for cut it leads nowhere.
const MAX_URL: usize = 2000;
/// Labels that say what is concerned, the best first.
const SUBJECTS: [&str; 5] = ["service", "job", "namespace", "instance", "slo"];

/// Whether an incident goes on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum IncidentStatus {
    /// At least one of its alerts fires.
    Firing,
    /// None does any more. It stays so: what fires later is another incident.
    Resolved,
}

impl IncidentStatus {
    /// The word that stands in databases and on the wire.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Firing => "firing",
            Self::Resolved => "resolved",
        }
    }
}

impl std::str::FromStr for IncidentStatus {
    type Err = Invalid;
    fn from_str(s: &str) -> Result<Self, Self::Err> {
        match s {
            "firing" => Ok(Self::Firing),
            "resolved" => Ok(Self::Resolved),
            _ => Err(Invalid::new("status", "'firing' or 'resolved'")),
        }
    }
}

/// One alert, as an incident knows it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Alert {
    /// What tells it from others: Alertmanager's hash of its labels.
    pub fingerprint: String,
    /// `alertname`.
    pub name: String,
    /// `severity`; empty when it has none.
    pub severity: String,
    /// Cut; empty for the many of a large incident.
    pub labels: BTreeMap<String, String>,
    /// Cut; empty for the many of a large incident.
    pub annotations: BTreeMap<String, String>,
    /// Where its expression is shown: http or https.
    pub generator_url: Option<String>,
    /// When it began to fire.
    pub starts_at: Time,
    /// When it ended; `None` while it fires.
    pub ends_at: Option<Time>,
    /// When its end was heard of.
    pub end_told_at: Option<Time>,
    /// Its beginning was not told, or is ahead of this clock: `starts_at` is when it was heard of. Not kept.
    #[serde(skip)]
    pub start_guessed: bool,
}

/// What is said of an alert, as it came.
#[derive(Clone, Debug, Default)]
pub struct Said {
    /// Alertmanager's hash of the labels.
    pub fingerprint: String,
    /// All labels.
    pub labels: BTreeMap<String, String>,
    /// All annotations.
    pub annotations: BTreeMap<String, String>,
    /// Where its expression is shown.
    pub generator_url: String,
}

impl Alert {
    /// An alert that fires since `starts_at`, out of others' words.
    pub fn new(said: &Said, starts_at: Time) -> Self {
        let labels = cut(&said.labels, MAX_LABELS, MAX_LABEL);
        let word = |label: &str| labels.get(label).cloned().unwrap_or_default();
        let name = Some(word("alertname")).filter(|name| !name.is_empty());
        Self {
            fingerprint: fingerprint(said),
            name: name.unwrap_or_else(|| "unnamed".to_owned()),
            severity: clean(&word("severity").to_lowercase(), 32),
            annotations: cut(&said.annotations, MAX_ANNOTATIONS, MAX_ANNOTATION),
            generator_url: web_address(&said.generator_url),
            labels,
            starts_at,
            ends_at: None,
            end_told_at: None,
            start_guessed: false,
        }
    }

    /// The same, ended.
    pub fn ended(mut self, at: Time, told: Time) -> Self {
        self.ends_at = Some(at.max(self.starts_at));
        self.end_told_at = Some(told);
        self
    }

    /// Whether it fires.
    pub fn fires(&self) -> bool {
        self.ends_at.is_none()
    }

    /// How severe it is: the greater, the more.
    pub fn rank(&self) -> u8 {
        rank(&self.severity)
    }

    /// What it is about: the label that says so best, and its value.
    pub fn subject(&self) -> Option<(&'static str, &str)> {
        let word = |label: &&'static str| Some((*label, self.labels.get(*label)?.as_str()));
        SUBJECTS
            .iter()
            .filter_map(word)
            .find(|(_, value)| !value.is_empty() && !value.ends_with('…'))
    }

    /// The alert that matters most: fires, is severe, began first.
    fn weight(&self) -> impl Ord {
        (self.rank(), self.fires(), std::cmp::Reverse(self.starts_at))
    }
}

/// What is heard of a group of alerts at once.
#[derive(Clone, Debug)]
pub struct Notification {
    /// The group, in Alertmanager's words.
    pub group_key: String,
    /// Whether the whole group is said to be over.
    pub over: bool,
    /// The group's alerts, at most [`MAX_ALERTS`].
    pub alerts: Vec<Alert>,
    /// How many more there were, which were not sent.
    pub truncated: u64,
}

impl Notification {
    /// Holds it to the limits.
    ///
    /// # Errors
    /// The first rule that is broken.
    pub fn check(&self) -> Result<(), Invalid> {
        crate::validate::text("groupKey", &self.group_key, MAX_GROUP_KEY)?;
        if self.alerts.is_empty() || self.alerts.len() > MAX_ALERTS {
            let expected = format!("1 to {MAX_ALERTS} alerts: set max_alerts where there are more");
            return Err(Invalid::new("alerts", expected));
        }
        Ok(())
    }

    /// The group as it is looked up: SHA-256 of its key.
    pub fn group(&self) -> [u8; 32] {
        let mut group = [0; 32];
        let hash = ring::digest::digest(&ring::digest::SHA256, self.group_key.as_bytes());
        group.copy_from_slice(hash.as_ref());
        group
    }
}

/// An incident in short: what follows from its alerts.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Summary {
    /// For people, e.g. `HighLatency: rest-api`; at most 200 characters.
    pub title: String,
    /// The worst that any of its alerts had.
    pub severity: String,
    /// Whether it goes on.
    pub status: IncidentStatus,
    /// Its alerts' names, the most severe first, each once, at most 50.
    pub alerts: Vec<String>,
    /// When the first of them began to fire.
    pub started_at: Time,
    /// When the last of them ended, if it is over.
    pub resolved_at: Option<Time>,
}

impl Summary {
    /// What `alerts`, at least one, come to.
    pub fn of(alerts: &[Alert], status: IncidentStatus, now: Time) -> Self {
        let sorted = by_weight(alerts);
        let severity = sorted.first().map_or("", |alert| alert.severity.as_str());
        let ends = alerts.iter().filter_map(|alert| alert.ends_at).max();
        Self {
            title: title(&sorted),
            severity: if severity.is_empty() { "none" } else { severity }.to_owned(),
            status,
            alerts: names(&sorted),
            started_at: alerts.iter().map(|alert| alert.starts_at).min().unwrap_or(now),
            resolved_at: (status == IncidentStatus::Resolved).then(|| ends.unwrap_or(now)),
        }
    }
}

/// An incident.
#[derive(Clone, Debug, PartialEq)]
pub struct Incident {
    /// Identifier.
    pub id: IncidentId,
    /// Whose it is: the tenant of the key that delivered the first alert.
    pub tenant_id: TenantId,
    /// The context that it is told in, which may be deleted.
    pub context_id: ContextId,
    /// The key that delivered the first alert, and in whose name its cause is looked for.
    pub key_id: ApiKeyId,
    /// What its alerts come to.
    pub summary: Summary,
    /// Grows with every change.
    pub version: i64,
    /// When it was heard of.
    pub created_at: Time,
    /// When it last changed.
    pub updated_at: Time,
}

/// The alerts, the most important first.
pub fn by_weight(alerts: &[Alert]) -> Vec<&Alert> {
    let mut sorted: Vec<&Alert> = alerts.iter().collect();
    sorted.sort_by(|a, b| b.weight().cmp(&a.weight()));
    sorted
}

/// The one that was said, else one of the labels, for those who send none.
fn fingerprint(said: &Said) -> String {
    let said_one = clean(&said.fingerprint, 64);
    if !said_one.is_empty() {
        return said_one;
    }
    let labels = serde_json::to_string(&said.labels).unwrap_or_default();
    let hash = ring::digest::digest(&ring::digest::SHA256, labels.as_bytes());
    hash.as_ref()
        .iter()
        .take(8)
        .map(|byte| format!("{byte:02x}"))
        .collect()
}

fn names(sorted: &[&Alert]) -> Vec<String> {
    let mut seen = BTreeSet::new();
    let names = sorted.iter().map(|alert| alert.name.as_str());
    let new = names.filter(|name| seen.insert(*name));
    new.take(MAX_NAMES).map(str::to_owned).collect()
}

/// The most important alert's name, how many others there are, and what all of them are about.
fn title(sorted: &[&Alert]) -> String {
    let Some(first) = sorted.first() else {
        return "Incident".to_owned();
    };
    let others = sorted
        .iter()
        .map(|alert| &alert.name)
        .collect::<BTreeSet<_>>()
        .len()
        - 1;
    let what = match others {
        0 => first.name.clone(),
        1 => format!("{} and another", first.name),
        n => format!("{} and {n} others", first.name),
    };
    let subject = |label: &&str| {
        let value = first.labels.get(*label).filter(|value| !value.is_empty())?;
        let common = sorted
            .iter()
            .filter(|alert| !alert.labels.is_empty())
            .all(|alert| alert.labels.get(*label) == Some(value));
        common.then_some(value)
    };
    match SUBJECTS.iter().find_map(subject) {
        Some(subject) => clean(&format!("{what}: {subject}"), MAX_TITLE),
        None => clean(&what, MAX_TITLE),
    }
}

fn rank(severity: &str) -> u8 {
    match severity {
        "" | "none" => 0,
        "info" | "low" => 1,
        // Somebody's own word matters as much as a warning.
        "error" | "high" => 3,
        "critical" | "page" | "emergency" | "fatal" => 4,
        _ => 2,
    }
}

/// One line of at most `max` characters: what controls a terminal, a log or the direction of text is a space.
pub fn clean(text: &str, max: usize) -> String {
    let plain = |c: char| if c.is_control() || is_format(c) { ' ' } else { c };
    let mut line = String::new();
    let mut length = 0;
    for word in text.chars().map(plain).collect::<String>().split_whitespace() {
        for c in (length > 0).then_some(' ').into_iter().chain(word.chars()) {
            if length + 1 >= max {
                line.push('…');
                return line;
            }
            line.push(c);
            length += 1;
        }
    }
    line
}

/// Characters that change how others are shown, or are not shown themselves.
fn is_format(c: char) -> bool {
    matches!(c, '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2060}'..='\u{206f}' | '\u{feff}')
}

fn cut(words: &BTreeMap<String, String>, most: usize, max: usize) -> BTreeMap<String, String> {
    // What names an alert must not be crowded out by what comes before it in the alphabet.
    let first = ["alertname", "severity"].into_iter().chain(SUBJECTS);
    let known = first.filter_map(|name| words.get_key_value(name));
    let all = known.chain(words);
    let mut kept = BTreeMap::new();
    for (name, value) in all {
        if kept.len() >= most {
            break;
        }
        kept.insert(clean(name, MAX_NAME), clean(value, max));
    }
    kept
}

/// An address that a browser may be sent to, if it is one.
pub fn web_address(text: &str) -> Option<String> {
    let plain = |c: char| c.is_ascii_graphic() && !matches!(c, '<' | '>' | '"' | '`' | '\\' | '|' | '^');
    let web = text.starts_with("https://") || text.starts_with("http://");
    (web && text.len() <= MAX_URL && text.chars().all(plain)).then(|| text.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    pub(super) fn at(second: i64) -> Time {
        Time::from_timestamp(1_700_000_000 + second, 0).expect("a time")
    }

    pub(super) fn alert(name: &str, severity: &str, service: &str, starts: i64) -> Alert {
        let label = |name: &str, value: &str| (name.to_owned(), value.to_owned());
        let said = Said {
            fingerprint: format!("{name}-{service}"),
            labels: [
                label("alertname", name),
                label("severity", severity),
                label("service", service),
            ]
            .into(),
            ..Said::default()
        };
        Alert::new(&said, at(starts))
    }

    #[test]
    fn others_words_are_cut_and_cleaned() {
        let many = (0..100).map(|i| (format!("a{i}"), "x".repeat(5000)));
        let labels: BTreeMap<_, _> = many
            .chain([(
                "alertname".to_owned(),
                "Evil\u{202e}\n\u{1b}[31m  name".to_owned(),
            )])
            .collect();
        let said = Said {
            labels: labels.clone(),
            annotations: labels,
            generator_url: "javascript:alert(1)".into(),
            ..Said::default()
        };
        let alert = Alert::new(&said, at(0));
        assert_eq!(alert.name, "Evil [31m name");
        assert_eq!(
            (alert.labels.len(), alert.annotations.len()),
            (MAX_LABELS, MAX_ANNOTATIONS)
        );
        assert_eq!(alert.labels["a0"].chars().count(), MAX_LABEL);
        assert_eq!(alert.generator_url, None);
        assert_eq!(clean("abcdef", 4), "abc…");
        assert!(web_address("https://prometheus/graph?g0.expr=up%7B%7D").is_some());
        assert!(web_address("https://x/ onload").is_none());
    }

    #[test]
    fn a_summary_names_the_worst_and_what_it_is_about() {
        let one = [alert("HighLatency", "warning", "rest-api", 5)];
        let summary = Summary::of(&one, IncidentStatus::Firing, at(9));
        assert_eq!(
            (summary.title.as_str(), summary.severity.as_str()),
            ("HighLatency: rest-api", "warning")
        );
        assert_eq!((summary.started_at, summary.resolved_at), (at(5), None));

        let two = [
            alert("HighLatency", "warning", "rest-api", 5).ended(at(8), at(9)),
            alert("DatabaseDown", "critical", "worker", 6).ended(at(7), at(9)),
        ];
        let summary = Summary::of(&two, IncidentStatus::Resolved, at(9));
        assert_eq!(summary.title, "DatabaseDown and another");
        assert_eq!(summary.alerts, ["DatabaseDown", "HighLatency"]);
        assert_eq!((summary.started_at, summary.resolved_at), (at(5), Some(at(8))));
    }
}
