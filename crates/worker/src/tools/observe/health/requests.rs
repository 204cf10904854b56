//! Rate, errors and duration of what a service is asked, by the metrics that services commonly have.

use super::{
    figures::{Figures, Sample, quoted, vector},
    words,
};
use crate::{outcome::Failure, sources::Access, tools::observe::answer};
use domain::Time;
use serde_json::{Value, json};
use std::collections::BTreeMap;

/// Labels that name a service; the first that knows it is taken.
const LABELS: [&str; 2] = ["service", "job"];

/// The window of rates.
const WINDOW: &str = "5m";

/// How many routes are told of, by slowness and by failures.
const ROUTES: usize = 5;

/// Metrics of one kind of request.
pub(in super::super) struct Family {
    /// What is asked: `http`, `grpc` …
    pub(in super::super) kind: &'static str,
    /// Counts all of them; `$s` stands for matchers.
    count: &'static str,
    /// Matchers of those that count, in all queries.
    only: &'static str,
    /// Matchers of those that failed: one of these, whichever label the service uses.
    failed: &'static [&'static str],
    /// Their durations, likewise.
    duration: &'static str,
    /// Matchers of those whose duration says something of the service itself.
    own_time: &'static str,
    /// Labels that tell routes or tools apart.
    by: &'static str,
    /// The share of failures from which the service itself is failing; nothing where it may be the fault of others.
    pub(in super::super) failing_at: Option<f64>,
}

impl Family {
    /// The name of what counts them.
    fn name(&self) -> &'static str {
        self.count.split('{').next().unwrap_or_default()
    }

    fn counted(&self, matchers: &str) -> String {
        self.count.replace("$s", matchers)
    }

    /// The buckets of their durations.
    fn timed(&self, matchers: &str) -> String {
        self.duration.replace("$s", matchers)
    }
}

const GRPC_FAULTS: &str = r#"code=~"UNKNOWN|DEADLINE_EXCEEDED|UNIMPLEMENTED|INTERNAL|UNAVAILABLE|DATA_LOSS""#;

/// Those of our own services first, then those of OpenTelemetry and of the usual gRPC middleware.
pub(in super::super) const FAMILIES: [Family; 6] = [
    Family {
        kind: "http",
        count: "http_requests_total{$s}",
        only: "",
        failed: &[r#"status=~"5..""#, r#"code=~"5..""#, r#"status_code=~"5..""#],
        duration: "http_request_duration_seconds_bucket{$s}",
        // What takes as long as what it calls has figures of its own.
        own_time: r#"path!~"/mcp|/api/v1/tools/.+/execute|/api/v1/tools/import""#,
        by: "method, path, route, handler",
        failing_at: Some(0.05),
    },
    Family {
        kind: "http_server",
        count: "http_server_request_duration_seconds_count{$s}",
        only: "",
        failed: &[r#"http_response_status_code=~"5..""#],
        duration: "http_server_request_duration_seconds_bucket{$s}",
        own_time: "",
        by: "http_request_method, http_route",
        failing_at: Some(0.05),
    },
    Family {
        kind: "grpc",
        count: "grpc_server_requests_total{$s}",
        only: r#"method!~".+/(Watch|Lease|Follow)""#,
        failed: &[GRPC_FAULTS],
        duration: "grpc_server_request_duration_seconds_bucket{$s}",
        // These wait for a tool.
        own_time: r#"method!~".+/(Run|Follow)""#,
        by: "method",
        failing_at: Some(0.05),
    },
    Family {
        kind: "grpc_handled",
        count: "grpc_server_handled_total{$s}",
        only: r#"grpc_type!~".*stream""#,
        failed: &[r#"grpc_code=~"Unknown|DeadlineExceeded|Unimplemented|Internal|Unavailable|DataLoss""#],
        duration: "grpc_server_handling_seconds_bucket{$s}",
        own_time: "",
        by: "grpc_service, grpc_method",
        failing_at: Some(0.05),
    },
    Family {
        kind: "mcp_tool_calls",
        count: "mcp_server_operation_duration_seconds_count{$s}",
        only: r#"method="tools/call""#,
        failed: &[r#"error_type!="""#],
        duration: "mcp_server_operation_duration_seconds_bucket{$s}",
        own_time: "",
        by: "tool",
        failing_at: None,
    },
    Family {
        kind: "tool_runs",
        count: "worker_tool_runs_total{$s}",
        only: "",
        failed: &[r#"status=~"failed|dead|outcome_unknown""#],
        duration: "worker_tool_run_duration_seconds_bucket{$s}",
        own_time: "",
        by: "tool",
        failing_at: None,
    },
];

/// Rate, errors and duration at one time. What is not known is absent.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(in super::super) struct Red {
    /// Requests a second.
    pub(in super::super) rate: Option<f64>,
    /// The share that failed.
    pub(in super::super) errors: Option<f64>,
    /// Seconds.
    pub(in super::super) p50: Option<f64>,
    /// Seconds.
    pub(in super::super) p95: Option<f64>,
    /// Seconds.
    pub(in super::super) p99: Option<f64>,
}

impl Red {
    /// As it is answered; `null` where nothing is known.
    pub(in super::super) fn told(&self) -> Value {
        let figures = [
            ("rate", self.rate),
            ("errors", self.errors),
            ("p50", self.p50),
            ("p95", self.p95),
            ("p99", self.p99),
        ];
        let known = figures
            .into_iter()
            .filter_map(|(name, value)| Some((name.to_owned(), answer::number(value?))));
        let known: serde_json::Map<_, _> = known.collect();
        if known.is_empty() {
            Value::Null
        } else {
            known.into()
        }
    }
}

/// Where a service is to be found.
#[derive(Clone, Debug)]
pub(in super::super) struct Place {
    /// The label that names it.
    pub(in super::super) label: String,
    /// Its name.
    pub(in super::super) service: String,
}

impl Place {
    /// The matcher that selects it, with others.
    pub(in super::super) fn matchers(&self, more: &[&str]) -> String {
        let mut matchers = format!("{}={}", self.label, quoted(&self.service));
        for more in more.iter().filter(|more| !more.is_empty()) {
            matchers.push(',');
            matchers.push_str(more);
        }
        matchers
    }
}

/// A service, and the kinds of requests that it counts.
pub(in super::super) struct Found {
    /// By which label.
    pub(in super::super) place: Place,
    /// What it counts.
    pub(in super::super) families: Vec<&'static Family>,
}

/// Looks for a service by `label`, or by the labels that commonly name one.
///
/// # Errors
/// [`Failure`]
pub(in super::super) async fn find(
    access: &Access,
    service: &str,
    label: Option<&str>,
    at: Time,
) -> Result<Option<Found>, Failure> {
    let names: Vec<&str> = FAMILIES.iter().map(Family::name).chain(["up"]).collect();
    let names = format!("__name__=~{}", quoted(&names.join("|")));
    let labels = label.map_or(LABELS.to_vec(), |label| vec![label]);
    let places: Vec<Place> = labels
        .into_iter()
        .map(|label| Place {
            label: label.to_owned(),
            service: service.to_owned(),
        })
        .collect();
    let mut figures = Figures::default();
    for place in &places {
        let query = format!("count by (__name__) ({{{}}})", place.matchers(&[&names]));
        figures.add(&place.label, &query);
    }
    let mut known = figures.ask(access, at).await?;
    // A service that counts requests under any of the labels is found there; one that is only up, where it is.
    let counted = |samples: &[Sample]| -> Vec<&'static Family> {
        let has = |family: &&Family| {
            samples
                .iter()
                .any(|sample| sample.label("__name__") == family.name())
        };
        FAMILIES.iter().filter(has).collect()
    };
    let mut found: Option<Found> = None;
    for place in places {
        let Some(samples) = known.remove(&place.label) else {
            continue;
        };
        let families = counted(&samples);
        if found
            .as_ref()
            .is_none_or(|found| found.families.len() < families.len())
        {
            found = Some(Found { place, families });
        }
    }
    Ok(found)
}

/// The names of services that count requests, for somebody who asked for one that is not there; at most 30.
///
/// # Errors
/// [`Failure`]
pub(in super::super) async fn services(
    access: &Access,
    label: Option<&str>,
    at: Time,
) -> Result<Vec<String>, Failure> {
    let names: Vec<&str> = FAMILIES.iter().map(Family::name).chain(["up"]).collect();
    let names = quoted(&names.join("|"));
    let labels = label.map_or(LABELS.join(", "), str::to_owned);
    let query = format!("count by ({labels}) ({{__name__=~{names}}})");
    let samples = vector(access, &query, at).await?;
    let named = samples.iter().flat_map(|sample| sample.labels.values().cloned());
    let mut services: Vec<String> = named.collect();
    services.sort_unstable();
    services.dedup();
    services.truncate(30);
    Ok(services)
}

/// Rate, errors and duration of each kind at a time.
///
/// # Errors
/// [`Failure`]
pub(in super::super) async fn red(
    access: &Access,
    found: &Found,
    at: Time,
) -> Result<BTreeMap<&'static str, Red>, Failure> {
    let mut figures = Figures::default();
    for family in &found.families {
        let kind = family.kind;
        let all = family.counted(&found.place.matchers(&[family.only]));
        figures.add(&format!("{kind} rate"), &format!("sum(rate({all}[{WINDOW}]))"));
        figures.add(&format!("{kind} failed"), &failed(family, &found.place, ""));
        let own = family.timed(&found.place.matchers(&[family.only, family.own_time]));
        for (name, quantile) in [("p50", 0.5), ("p95", 0.95), ("p99", 0.99)] {
            let query = format!("histogram_quantile({quantile}, sum by (le) (rate({own}[{WINDOW}])))");
            figures.add(&format!("{kind} {name}"), &query);
        }
    }
    let known = figures.ask(access, at).await?;
    let figure = |kind: &str, name: &str| Some(known.get(&format!("{kind} {name}"))?.first()?.value);
    let red = found.families.iter().map(|family| {
        let kind = family.kind;
        let rate = figure(kind, "rate");
        // A counter of failures that is not there yet has counted none.
        let failed = figure(kind, "failed").unwrap_or(0.0);
        let errors = rate.filter(|rate| *rate > 0.0).map(|rate| failed / rate);
        let red = Red {
            rate,
            errors,
            p50: figure(kind, "p50"),
            p95: figure(kind, "p95"),
            p99: figure(kind, "p99"),
        };
        (kind, red)
    });
    Ok(red.collect())
}

/// Failures a second, by labels where some are given.
fn failed(family: &Family, place: &Place, by: &str) -> String {
    let sums = family.failed.iter().map(|failed| {
        let failed = family.counted(&place.matchers(&[family.only, failed]));
        format!("sum by ({by}) (rate({failed}[{WINDOW}]))")
    });
    format!("({})", sums.collect::<Vec<_>>().join(" or "))
}

/// The routes or tools of a service that stand out.
#[derive(Clone, Debug, Default)]
pub(in super::super) struct Routes {
    /// By kind: those with the longest 95th percentile, in seconds, longest first.
    slowest: BTreeMap<&'static str, Vec<Sample>>,
    /// By kind: those that fail most, in failures a second, most first.
    failing: BTreeMap<&'static str, Vec<Sample>>,
}

impl Routes {
    /// The slowest of a kind, with what it took at another time where that is known.
    pub(in super::super) fn slowest(&self, kind: &str, before: Option<&Self>) -> Vec<Value> {
        let samples = self.slowest.get(kind).into_iter().flatten();
        let told = samples.take(ROUTES).map(|sample| {
            let mut told = sample.told(&[]);
            told["p95"] = answer::number(sample.value);
            let then = before.and_then(|before| before.slowest.get(kind));
            let then = then.and_then(|then| then.iter().find(|then| then.labels == sample.labels));
            if let Some(then) = then {
                told["hour_before"] = answer::number(then.value);
            }
            told
        });
        told.collect()
    }

    /// Those of a kind that fail most, with the failures a second.
    pub(in super::super) fn failing(&self, kind: &str) -> Vec<Value> {
        let samples = self.failing.get(kind).into_iter().flatten();
        let told = samples.take(ROUTES).map(|sample| {
            let mut told = sample.told(&[]);
            told["failures"] = json!(answer::number(sample.value));
            told
        });
        told.collect()
    }

    /// The first of a kind in words: `POST /api/v1/keys`.
    pub(in super::super) fn worst(&self, kind: &str, slow: bool) -> Option<String> {
        let of = if slow { &self.slowest } else { &self.failing };
        let sample = of.get(kind)?.first()?;
        let words = sample.labels.iter().filter(|(name, _)| *name != "figure");
        let words: Vec<&str> = words.map(|(_, value)| value.as_str()).collect();
        Some(words.join(" ")).filter(|words| !words.is_empty())
    }

    /// What stands out most, in a sentence: by slowness or by failures.
    pub(in super::super) fn sentence(&self, slow: bool) -> Option<String> {
        let of = if slow { &self.slowest } else { &self.failing };
        let mut firsts: Vec<(&str, &Sample)> = of
            .iter()
            .filter_map(|(kind, samples)| Some((*kind, samples.first()?)))
            .collect();
        firsts.sort_by(|(_, a), (_, b)| b.value.total_cmp(&a.value));
        let told = firsts.into_iter().take(2).filter_map(|(kind, sample)| {
            let route = self.worst(kind, slow)?;
            let figure = if slow {
                format!("p95 {}", words::seconds(sample.value))
            } else {
                format!("{}/s", words::short(sample.value))
            };
            Some(format!("`{route}` ({}, {figure})", words::kind(kind)))
        });
        let told: Vec<String> = told.collect();
        let what = if slow { "Slowest now" } else { "Failing most now" };
        (!told.is_empty()).then(|| format!("{what}: {}.", told.join(", ")))
    }

    /// By kind, as it is answered.
    pub(in super::super) fn told(&self) -> Value {
        let mut told = serde_json::Map::new();
        for family in &FAMILIES {
            let (slowest, failing) = (self.slowest(family.kind, None), self.failing(family.kind));
            if !(slowest.is_empty() && failing.is_empty()) {
                told.insert(
                    family.kind.to_owned(),
                    json!({ "slowest": slowest, "failing": failing }),
                );
            }
        }
        told.into()
    }
}

/// The routes that stand out at a time; `all`: for comparison with another time, so as many as may be compared.
///
/// # Errors
/// [`Failure`]
pub(in super::super) async fn routes(
    access: &Access,
    found: &Found,
    at: Time,
    all: bool,
) -> Result<Routes, Failure> {
    let most = if all { 20 * ROUTES } else { ROUTES };
    let mut figures = Figures::default();
    for family in &found.families {
        let Family { kind, by, .. } = family;
        let timed = family.timed(&found.place.matchers(&[family.only]));
        let asked = timed.replacen("_bucket{", "_count{", 1);
        // A route that was asked once has no percentile worth telling.
        let query = format!(
            "topk({most}, histogram_quantile(0.95, sum by (le, {by}) (rate({timed}[{WINDOW}]))) \
             and sum by ({by}) (increase({asked}[{WINDOW}])) > 2)"
        );
        figures.add(&format!("{kind} slow"), &query);
        if !all {
            let failed = failed(family, &found.place, by);
            figures.add(&format!("{kind} failed"), &format!("topk({most}, {failed} > 0)"));
        }
    }
    let mut known = figures.ask(access, at).await?;
    let mut routes = Routes::default();
    for family in &found.families {
        let kind = family.kind;
        let mut sorted = |name: &str| {
            let mut samples = known.remove(&format!("{kind} {name}")).unwrap_or_default();
            samples.iter_mut().for_each(|sample| {
                sample.labels.remove("figure");
            });
            samples.sort_by(|a, b| b.value.total_cmp(&a.value));
            samples
        };
        let (slow, failed) = (sorted("slow"), sorted("failed"));
        routes.slowest.insert(kind, slow);
        routes.failing.insert(kind, failed);
    }
    Ok(routes)
}
