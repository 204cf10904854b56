//! `service_health`: how a service is, against the hour and the week before, and why.

use super::{
    answer::{self, Answer, number},
    health::{
        firing,
        parts::{Parts, within},
        requests::{self, Family, Found, Red, Routes},
        saturation::{self, Saturation},
        slos::{self, Slo},
        verdict::{Compared, Reasons, Verdict},
        words,
    },
};
use crate::{
    outcome::{Code, Failure},
    sources::{Access, Kind},
    tools::built_in::{BuiltIn, Desk},
};
use chrono::TimeDelta;
use domain::Time;
use schemars::JsonSchema;
use serde::Deserialize;
use serde_json::{Value, json};
use std::{collections::BTreeMap, time::Duration};

/// How long the search for the service may take, and then each part.
const PART: Duration = Duration::from_secs(10);
/// Alerts that are told of.
const ALERTS: usize = 20;

/// The tool.
pub(crate) struct Tool;

/// What it is called with.
#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct Arguments {
    /// Its name
    #[schemars(length(min = 1, max = 200))]
    service: String,
    /// Label that holds it; default: `service`, then `job`
    label: Option<String>,
    /// Metrics source
    source: Option<String>,
}

impl BuiltIn for Tool {
    const NAME: &'static str = "service_health";
    const TITLE: &'static str = "Health of a service";
    const DESCRIPTION: &'static str = "How a service is: verdict with reasons; rate, errors, latency now, an hour and a \
        week before, with the worst routes or tools; saturation, firing alerts, SLO burn. Start here.";
    const NEEDS: &'static [Kind] = &[Kind::Prometheus];
    type Arguments = Arguments;

    async fn run(desk: &Desk<'_>, arguments: Arguments) -> Result<Value, Failure> {
        let Arguments {
            service,
            label,
            source,
        } = arguments;
        check(&service, label.as_deref())?;
        let metrics = desk
            .sources
            .pick(Kind::Prometheus, source.as_deref(), &desk.who)?;
        let alertmanager = desk.sources.find(Kind::Alertmanager, &desk.who);
        let mut parts = Parts::default();
        // Alerts need not wait until it is known which metrics the service has.
        let (found, alerts) = tokio::join!(
            within(
                PART,
                requests::find(&metrics, &service, label.as_deref(), desk.now)
            ),
            within(
                PART,
                firing::of_service(alertmanager.as_ref(), &metrics, &service, desk.now)
            ),
        );
        let mut health = Health {
            service: &service,
            alerts_known: alerts.is_ok(),
            requests_known: found.is_ok(),
            ..Health::default()
        };
        let found = parts.take("metrics", found);
        health.alerts = parts.take("alerts", alerts);
        parts.any()?;
        match &found {
            Some(found) => health.measure(&metrics, found, desk.now, &mut parts).await,
            None if !health.requests_known => {}
            None => {
                health
                    .is_not_there(&metrics, label.as_deref(), desk.now, &mut parts)
                    .await
            }
        }
        if alertmanager.is_none() {
            parts
                .notes
                .push("no Alertmanager: whether an alert is silenced is not known".to_owned());
        }
        Ok(health.answer(&metrics, desk.now, parts))
    }
}

fn check(service: &str, label: Option<&str>) -> Result<(), Failure> {
    let invalid = |message: &str| Err(Failure::new(Code::InvalidArguments, message));
    if service.is_empty() || service.len() > 200 {
        return invalid("`service` is a name of at most 200 bytes");
    }
    let is_label = |label: &str| {
        let letters = |c: char| c.is_ascii_alphanumeric() || c == '_';
        !label.is_empty() && label.chars().all(letters) && !label.starts_with(|c: char| c.is_ascii_digit())
    };
    if !label.is_none_or(is_label) {
        return invalid("`label` is no label's name");
    }
    Ok(())
}

/// What was found of a service.
#[derive(Default)]
struct Health<'a> {
    service: &'a str,
    families: Vec<&'static Family>,
    alerts: Vec<firing::Alert>,
    /// Whether it was found out which fire: none of them may mean that nobody answered.
    alerts_known: bool,
    /// The same of the service's metrics, and of the requests that come in now.
    requests_known: bool,
    requests: BTreeMap<&'static str, Compared>,
    routes: Routes,
    routes_before: Routes,
    saturation: Saturation,
    slos: BTreeMap<String, Slo>,
}

impl Health<'_> {
    async fn measure(&mut self, metrics: &Access, found: &Found, now: Time, parts: &mut Parts) {
        let hour = now - TimeDelta::hours(1);
        let week = now - TimeDelta::weeks(1);
        let red = async |at| within(PART, requests::red(metrics, found, at)).await;
        let (current, an_hour_ago, a_week_ago, routes, routes_before, saturation, slos) = tokio::join!(
            red(now),
            red(hour),
            red(week),
            within(PART, requests::routes(metrics, found, now, false)),
            within(PART, requests::routes(metrics, found, hour, true)),
            within(PART, saturation::ask(metrics, &found.place, now)),
            within(PART, slos::all(metrics, now)),
        );
        self.requests_known = current.is_ok();
        let current = parts.take("requests now", current);
        let an_hour_ago = parts.take("requests an hour before", an_hour_ago);
        let a_week_ago = parts.take("requests a week before", a_week_ago);
        let of = |red: &BTreeMap<_, Red>, kind| red.get(kind).copied().unwrap_or_default();
        for family in &found.families {
            let compared = Compared {
                now: of(&current, family.kind),
                hour: of(&an_hour_ago, family.kind),
                week: of(&a_week_ago, family.kind),
            };
            self.requests.insert(family.kind, compared);
        }
        self.families = found.families.clone();
        self.routes = parts.take("routes", routes);
        self.routes_before = parts.take("routes an hour before", routes_before);
        self.saturation = parts.take("saturation", saturation);
        self.slos = parts.take("objectives", slos);
        self.slos
            .retain(|_, slo| slo.budgets.iter().any(|budget| budget.service == self.service));
    }

    async fn is_not_there(&self, metrics: &Access, label: Option<&str>, now: Time, parts: &mut Parts) {
        let known = within(PART, requests::services(metrics, label, now)).await;
        let known = parts.take("other services", known);
        let mut note = format!("no metrics of `{}` that you may see", self.service);
        if !known.is_empty() {
            note.push_str(&format!("; there are: {}", known.join(", ")));
        }
        parts.notes.push(note);
    }

    fn answer(&self, metrics: &Access, now: Time, mut parts: Parts) -> Value {
        let mut reasons = Reasons::default();
        for family in self.families.iter().filter(|_| self.requests_known) {
            if let Some(compared) = self.requests.get(family.kind) {
                reasons.requests(family, compared, &self.routes);
            }
        }
        reasons.saturation(&self.saturation);
        reasons.alerts(&self.alerts);
        reasons.slos(&self.slos, self.service);
        let has_requests = self
            .requests
            .values()
            .any(|compared| compared.now != Red::default());
        let is_there = has_requests || self.saturation.replicas().is_some();
        let (verdict, reasons) = reasons.decide(is_there && self.was_answered());
        let requests: Vec<Value> = self.families.iter().map(|family| self.told(family)).collect();
        let shown = self.alerts.iter().take(ALERTS).map(firing::Alert::told);
        let mut answer = Answer::from(metrics);
        answer
            .set("service", self.service)
            .set("at", answer::time(now))
            .set("verdict", verdict.as_str())
            .set("summary", self.sentence(verdict, &reasons))
            .set("reasons", reasons)
            .set("requests", requests)
            .set_some(
                "replicas",
                self.saturation
                    .replicas()
                    .map(|(up, of)| json!({ "up": number(up), "of": number(of) })),
            )
            .set("saturation", self.saturation.told())
            .set("dependencies_down", self.saturation.dependencies_down())
            .set("alerts", shown.collect::<Vec<_>>())
            .set("slos", self.budgets())
            .truncated(self.alerts.len().min(ALERTS), self.alerts.len());
        if ["rest-api", "mcp-server"].contains(&self.service) && !self.families.is_empty() {
            parts
                .notes
                .push("HTTP percentiles leave out /mcp, tool runs and imports".to_owned());
        }
        for note in parts.notes {
            answer.note(note);
        }
        answer.finish("alerts")
    }

    /// Whether so much was found out that silence means health.
    fn was_answered(&self) -> bool {
        self.requests_known && self.alerts_known
    }

    fn told(&self, family: &Family) -> Value {
        let kind = family.kind;
        let Compared { now, hour, week } = self.requests.get(kind).copied().unwrap_or_default();
        json!({
            "kind": kind,
            "now": now.told(),
            "hour_before": hour.told(),
            "week_before": week.told(),
            "slowest": self.routes.slowest(kind, Some(&self.routes_before)),
            "failing": self.routes.failing(kind),
        })
    }

    fn budgets(&self) -> Vec<Value> {
        let of_service = self.slos.iter().flat_map(|(name, slo)| {
            let budgets = slo.budgets.iter().filter(|budget| budget.service == self.service);
            budgets.map(move |budget| {
                let mut told = budget.told(&["5m", "1h", "6h", "3d"]);
                told["slo"] = json!(name);
                told
            })
        });
        of_service.collect()
    }

    fn sentence(&self, verdict: Verdict, reasons: &[String]) -> String {
        let service = self.service;
        match verdict {
            Verdict::Unknown if self.was_answered() => {
                format!("Nothing is known of {service}.")
            }
            Verdict::Unknown => {
                format!(
                    "Whether {service} is healthy is not known, for not everything could be asked: see the notes."
                )
            }
            Verdict::Healthy => {
                let busiest = self.requests.iter().max_by(|(_, a), (_, b)| {
                    let rate = |compared: &Compared| compared.now.rate.unwrap_or_default();
                    rate(a).total_cmp(&rate(b))
                });
                let figures = busiest.and_then(|(kind, compared)| {
                    let rate = words::short(compared.now.rate?);
                    let errors = words::percent(compared.now.errors.unwrap_or_default());
                    let p95 = compared
                        .now
                        .p95
                        .map(|p95| format!(", p95 {}", words::seconds(p95)));
                    let kind = words::kind(kind);
                    Some(format!(
                        ": {rate} {kind}/s, {errors} fail{}",
                        p95.unwrap_or_default()
                    ))
                });
                format!("{service} is healthy{}.", figures.unwrap_or_default())
            }
            Verdict::Degraded | Verdict::Failing => {
                let told = reasons
                    .iter()
                    .take(4)
                    .map(String::as_str)
                    .collect::<Vec<_>>()
                    .join("; ");
                let more = match reasons.len().saturating_sub(4) {
                    0 => String::new(),
                    more => format!("; and {more} more"),
                };
                format!("{service} is {}: {told}{more}.", verdict.as_str())
            }
        }
    }
}

#[cfg(test)]
mod tests;
