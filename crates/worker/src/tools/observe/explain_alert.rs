//! `explain_alert`: what is to be known of an alert, in one answer: its rule, what it measures now, its runbook, and the
//! log lines and traces of its service around its beginning.

mod evidence;
mod summary;

use super::{
    answer::{self, Answer},
    health::{
        firing::{self, Alert},
        parts::{Parts, within},
        rules::{self, Rule},
        runbook,
    },
};
use crate::{
    outcome::{Code, Failure},
    sources::{Access, Kind, time::Range},
    tools::built_in::{BuiltIn, Desk},
};
use chrono::TimeDelta;
use domain::Time;
use evidence::Evidence;
use schemars::JsonSchema;
use serde::Deserialize;
use serde_json::{Value, json};
use std::{collections::BTreeMap, time::Duration};

/// How long each part may take. There are three rounds of them at most.
const PART: Duration = Duration::from_secs(9);
/// Instances that are told of.
const INSTANCES: usize = 10;
/// Rules that are: the same name may stand for several severities.
const RULES: usize = 3;

/// The tool.
pub(crate) struct Tool;

/// What it is called with.
#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct Arguments {
    /// Its name
    #[schemars(length(min = 1, max = 200))]
    alert: String,
    /// Only instances with these labels
    #[serde(default)]
    labels: BTreeMap<String, String>,
    /// Metrics source
    source: Option<String>,
}

impl BuiltIn for Tool {
    const NAME: &'static str = "explain_alert";
    const TITLE: &'static str = "Explain an alert";
    const DESCRIPTION: &'static str = "All about an alert in one answer: summary, rule, who fires since when, values now, \
        worst routes or tools, runbook, warnings and errors in the logs and example traces around its beginning, links.";
    const NEEDS: &'static [Kind] = &[Kind::Prometheus];
    type Arguments = Arguments;

    async fn run(desk: &Desk<'_>, arguments: Arguments) -> Result<Value, Failure> {
        let Arguments {
            alert,
            labels,
            source,
        } = arguments;
        if alert.is_empty() || alert.len() > 200 || labels.len() > 20 {
            let message = "`alert` is a name of at most 200 bytes, `labels` are at most 20";
            return Err(Failure::new(Code::InvalidArguments, message));
        }
        let metrics = desk
            .sources
            .pick(Kind::Prometheus, source.as_deref(), &desk.who)?;
        let mut parts = Parts::default();
        let subject = Subject::find(desk, &metrics, alert, labels, &mut parts).await?;
        let evidence = Evidence::gather(desk, &metrics, &subject, &mut parts).await;
        Ok(told(&metrics, desk, &subject, &evidence, parts))
    }
}

/// An alert as it stands.
struct Subject {
    name: String,
    /// Those that raise it, as far as the caller may know.
    rules: Vec<Rule>,
    /// Those that are active, gravest first, each with its value where that is known.
    instances: Vec<(Alert, Option<f64>)>,
    /// Of the gravest instance, those that were asked for over them.
    labels: BTreeMap<String, String>,
    /// Prometheus said what is active.
    is_sure: bool,
    /// Around its beginning; the last half hour where it is not active.
    window: Range,
    now: Time,
}

impl Subject {
    async fn find(
        desk: &Desk<'_>,
        metrics: &Access,
        name: String,
        wanted: BTreeMap<String, String>,
        parts: &mut Parts,
    ) -> Result<Self, Failure> {
        let alertmanager = desk.sources.find(Kind::Alertmanager, &desk.who);
        let conditions = [("alertname", name.as_str())];
        let notified = async {
            let access = alertmanager.as_ref()?;
            Some(within(PART, firing::of_alertmanager(access, &conditions)).await)
        };
        let (rules, notified, active) = tokio::join!(
            within(PART, rules::named(metrics, &name)),
            notified,
            within(PART, firing::of_prometheus(metrics, &conditions, desk.now)),
        );
        let is_sure = rules.is_ok() || active.is_ok();
        let (rules, active) = (parts.take("the rule", rules), parts.take("active series", active));
        let is_told = matches!(notified, Some(Ok(_)));
        let notified = notified.map_or_else(Vec::new, |notified| parts.take("Alertmanager", notified));
        if knowledge::runbook(&name).is_none() {
            parts.any()?;
        }
        let mut instances = instances(&rules, notified, active);
        let own = !instances.is_empty();
        instances.retain(|(alert, _)| wanted.iter().all(|(name, value)| alert.label(name) == value));
        let mut subject = Self::new(name, rules, instances, wanted, desk.now);
        subject.is_sure = is_sure;
        if !metrics.matchers().is_empty() && !own {
            // The rule is the platform's. Who has such an alert may know why; anybody else need not.
            subject.rules.clear();
            parts
                .notes
                .push("the rule is shown to those who have such an alert".to_owned());
        }
        subject.is_known(is_told, parts)?;
        Ok(subject)
    }

    fn new(
        name: String,
        rules: Vec<Rule>,
        instances: Vec<(Alert, Option<f64>)>,
        wanted: BTreeMap<String, String>,
        now: Time,
    ) -> Self {
        let first = instances.first().map(|(alert, _)| alert);
        let mut labels = first.map(|alert| alert.labels.clone()).unwrap_or_default();
        labels.extend(wanted);
        let half_an_hour = TimeDelta::minutes(30);
        let began = first.and_then(|alert| alert.since).filter(|since| *since <= now);
        let window = match began {
            Some(began) => Range {
                start: began - TimeDelta::minutes(10),
                end: now.min(began + half_an_hour),
            },
            None => Range {
                start: now - half_an_hour,
                end: now,
            },
        };
        Self {
            name,
            rules,
            instances,
            labels,
            is_sure: true,
            window,
            now,
        }
    }

    /// Refuses what nobody has heard of, where all were asked.
    fn is_known(&self, is_told: bool, parts: &mut Parts) -> Result<(), Failure> {
        let nothing = self.rules.is_empty() && self.instances.is_empty();
        if nothing && knowledge::runbook(&self.name).is_none() {
            let name = answer::cut(&self.name, 100);
            let message = format!(
                "no rule, no runbook and no active alert `{name}` that you may see; list_alerts tells what fires"
            );
            return Err(Failure::new(Code::InvalidArguments, message));
        }
        if !is_told {
            parts
                .notes
                .push("no word of Alertmanager: whether it is silenced is not known".to_owned());
        }
        Ok(())
    }

    /// Whose alert it is.
    fn service(&self) -> Option<&str> {
        let named = ["service", "job"]
            .iter()
            .find_map(|label| self.labels.get(*label));
        named.map(String::as_str).filter(|name| !name.is_empty())
    }

    /// What its annotations say, filled in where it is active.
    fn annotation(&self, name: &str) -> Option<&str> {
        let mut active = self.instances.iter();
        let filled = active.find_map(|(alert, _)| alert.annotation(name));
        let plain = || self.rules.first()?.annotations.get(name).map(String::as_str);
        // A template that is not filled in says nothing to anybody.
        filled.or_else(|| plain().filter(|text| !text.contains("{{")))
    }

    /// Whether it is about slowness rather than failures.
    fn is_about_time(&self) -> bool {
        let words = ["Latency", "Slow", "Delay"];
        words.iter().any(|word| self.name.contains(word))
            || self
                .rules
                .first()
                .is_some_and(|rule| rule.expr.contains("duration_seconds_bucket"))
    }

    fn state(&self) -> &str {
        self.instances
            .first()
            .map_or("inactive", |(alert, _)| &alert.state)
    }
}

/// What is active: as the rule tells, with Alertmanager's word on who is told; as Alertmanager has them, or the series
/// `ALERTS`, where the rule is not to be had.
fn instances(rules: &[Rule], notified: Vec<Alert>, active: Vec<Alert>) -> Vec<(Alert, Option<f64>)> {
    let of_rules = rules.iter().flat_map(|rule| rule.active.iter().cloned());
    let mut instances: Vec<(Alert, Option<f64>)> = of_rules.collect();
    for (alert, _) in &mut instances {
        // Prometheus may have sent it on with labels of the installation.
        let same = |told: &&Alert| alert.labels.iter().all(|(name, value)| told.label(name) == value);
        if let Some(told) = notified.iter().find(same).filter(|told| !told.is_firing()) {
            alert.state.clone_from(&told.state);
        }
    }
    if instances.is_empty() {
        let others = if notified.is_empty() { active } else { notified };
        instances.extend(others.into_iter().map(|alert| (alert, None)));
    }
    instances.sort_by(|(a, _), (b, _)| firing::order(a, b));
    instances
}

fn told(
    metrics: &Access,
    desk: &Desk<'_>,
    subject: &Subject,
    evidence: &Evidence,
    mut parts: Parts,
) -> Value {
    let instances = subject.instances.iter().take(INSTANCES).map(|(alert, value)| {
        let mut told = json!({ "labels": alert.told_labels(), "state": alert.state });
        if let Some(since) = alert.since {
            told["since"] = answer::time(since).into();
        }
        if let Some(value) = value {
            told["value"] = answer::number(*value);
        }
        told
    });
    let rules: Vec<Value> = subject.rules.iter().take(RULES).map(Rule::told).collect();
    let book = runbook::beginning(&subject.name);
    if let Some((_, false)) = book {
        parts.notes.push(format!(
            "the whole runbook, with its commands: runbook://{}",
            subject.name
        ));
    }
    let mut answer = Answer::from(metrics);
    answer
        .set("alert", subject.name.as_str())
        .set("at", answer::time(desk.now))
        .set("state", subject.state())
        .set("summary", summary::markdown(subject, evidence))
        .set("rules", rules)
        .set("instances", instances.collect::<Vec<_>>())
        .truncated(subject.instances.len().min(INSTANCES), subject.instances.len())
        .set_some(
            "description",
            subject
                .annotation("description")
                .map(|text| answer::cut(text, 600)),
        )
        .set_some("runbook", book.map(|(text, _)| text))
        .set("links", evidence::links(desk, metrics, subject, evidence));
    evidence.tell(&mut answer);
    for note in parts.notes {
        answer.note(note);
    }
    answer.finish("instances")
}

#[cfg(test)]
mod tests;
