//! The recorder and its two formats, from declaration to page.

use super::{Declaration, Kind, Registry, Unit, own};
use crate::settings;
use ::metrics::with_local_recorder;
use opentelemetry::Context;
use opentelemetry::trace::{SpanContext, SpanId, TraceContextExt as _, TraceFlags, TraceId, TraceState};
use std::collections::HashSet;
use std::time::Duration;

const OPENMETRICS: Option<&str> = Some(
    "application/openmetrics-text;version=1.0.0;escaping=allow-utf-8;q=0.6,text/plain;version=1.0.0;q=0.3",
);

crate::metrics! {
    /// Parcels "sent",
    /// by all means.
    pub(crate) static PARCELS: Counter["tenant_id", "means"] = "parcels_total";
    /// Parcels on their way.
    pub(crate) static ON_THEIR_WAY: Gauge[] = "parcels_on_their_way";
    /// Parcels waiting.
    pub(crate) static WAITING: Gauge["tenant_id"] = "parcels_waiting";
    /// Parcels that came back.
    pub(crate) static RETURNED: Counter["why", "means"] = "parcels_returned_total",
        known: &[&["address", "refused"], &["rail", "road"]];
    /// Time a parcel takes.
    pub(crate) static DURATION: Histogram["means"] = "parcel_duration_seconds", buckets: &[0.5, 1.0, 30.0];
}

fn registry(max_series_per_metric: usize, max_label_values: usize) -> Registry {
    let settings = settings::Metrics {
        enabled: true,
        max_series_per_metric,
        max_label_values,
    };
    Registry::new("post", &[DECLARATIONS, own::DECLARATIONS], &settings).unwrap()
}

fn page(registry: &Registry, accept: Option<&str>) -> String {
    registry.render(accept).1
}

/// Runs `f` in a trace, as a request does.
fn in_trace(sampled: bool, f: impl FnOnce()) {
    let flags = if sampled {
        TraceFlags::SAMPLED
    } else {
        TraceFlags::NOT_SAMPLED
    };
    let span = SpanContext::new(
        TraceId::from(0xabc_u128),
        SpanId::from(0xdef_u64),
        flags,
        false,
        TraceState::NONE,
    );
    let _attached = Context::new().with_remote_span_context(span).attach();
    f();
}

fn traffic(registry: &Registry) {
    with_local_recorder(registry.recorder(), || {
        PARCELS.inc(["acme", "rail"]);
        PARCELS.add(2, ["} # {\n\"odd\"", "a,le=\"1"]);
        ON_THEIR_WAY.set(7_usize, []);
        in_trace(false, || DURATION.record(0.2, ["rail"]));
        in_trace(true, || {
            PARCELS.inc(["acme", "rail"]);
            DURATION.record(Duration::from_millis(700), ["rail"]);
            DURATION.record(1.0, ["rail"]);
            DURATION.record(90, ["rail"]);
        });
    });
    registry.on_scrape_gauge(&WAITING, || vec![(["acme".to_owned()], 3.0)]);
}

#[test]
fn a_declaration_tells_all_that_the_macro_was_told() {
    let parcels = DECLARATIONS[0];
    assert_eq!(parcels, *PARCELS.declaration());
    assert_eq!(parcels.help, "Parcels \"sent\", by all means.");
    assert_eq!(parcels.labels, ["tenant_id", "means"]);
    assert_eq!((parcels.kind, parcels.unit), (Kind::Counter, Unit::None));
    assert_eq!(
        (DECLARATIONS[4].kind, DECLARATIONS[4].unit),
        (Kind::Histogram, Unit::Seconds)
    );
    assert_eq!(DECLARATIONS[4].buckets, [0.5, 1.0, 30.0]);
    assert_eq!(Unit::of("process_cpu_seconds_total"), Unit::Seconds);
}

#[test]
fn prometheus_text_is_complete_and_in_order() {
    let registry = registry(100, 100);
    traffic(&registry);
    let (content_type, text) = registry.render(Some("text/html, */*;q=0.8"));
    assert_eq!(content_type, "text/plain; version=0.0.4; charset=utf-8");
    assert!(!text.contains("} # {trace_id") && !text.contains("# EOF"));
    let expected = "\
# HELP parcel_duration_seconds Time a parcel takes.
# TYPE parcel_duration_seconds histogram
parcel_duration_seconds_bucket{service=\"post\",means=\"rail\",le=\"0.5\"} 1
parcel_duration_seconds_bucket{service=\"post\",means=\"rail\",le=\"1.0\"} 3
parcel_duration_seconds_bucket{service=\"post\",means=\"rail\",le=\"30.0\"} 3
parcel_duration_seconds_bucket{service=\"post\",means=\"rail\",le=\"+Inf\"} 4
parcel_duration_seconds_sum{service=\"post\",means=\"rail\"} 91.9
parcel_duration_seconds_count{service=\"post\",means=\"rail\"} 4
# HELP parcels_on_their_way Parcels on their way.
# TYPE parcels_on_their_way gauge
parcels_on_their_way{service=\"post\"} 7
";
    assert!(text.contains(expected), "{text}");
    assert!(text.contains("parcels_waiting{service=\"post\",tenant_id=\"acme\"} 3\n"));
}

#[test]
fn openmetrics_is_well_formed() {
    let registry = registry(100, 100);
    traffic(&registry);
    let (content_type, text) = registry.render(OPENMETRICS);
    assert_eq!(
        content_type,
        "application/openmetrics-text; version=1.0.0; charset=utf-8"
    );
    check_openmetrics(&text);
    for line in [
        "# HELP parcels Parcels \\\"sent\\\", by all means.",
        "# UNIT parcel_duration_seconds seconds",
        "parcels_total{service=\"post\",tenant_id=\"} # {\\n\\\"odd\\\"\",means=\"a,le=\\\"1\"} 2",
    ] {
        assert!(text.lines().any(|have| have == line), "{line} is not in\n{text}");
    }
}

/// What OpenMetrics demands of families and lines, as far as ours have it.
fn check_openmetrics(text: &str) {
    let body = text.strip_suffix("# EOF\n").expect("ends with # EOF");
    let (mut family, mut kind, mut families, mut samples) = ("", "", HashSet::new(), HashSet::new());
    for line in body.lines() {
        if let Some(rest) = line.strip_prefix("# HELP ") {
            family = rest.split(' ').next().unwrap();
            assert!(families.insert(family), "family {family} comes twice");
        } else if let Some(rest) = line.strip_prefix("# TYPE ") {
            let (name, its_kind) = rest.split_once(' ').unwrap();
            assert_eq!(name, family);
            assert!(its_kind != "counter" || !name.ends_with("_total"), "{line}");
            kind = its_kind;
        } else if let Some(rest) = line.strip_prefix("# UNIT ") {
            let (name, unit) = rest.split_once(' ').unwrap();
            assert!(name == family && name.ends_with(&format!("_{unit}")), "{line}");
        } else {
            let name = line.split('{').next().unwrap();
            let suffix = name.strip_prefix(family).expect("samples stand in their family");
            let allowed: &[&str] = match kind {
                "counter" => &["_total"],
                "gauge" => &[""],
                _ => &["_bucket", "_sum", "_count"],
            };
            assert!(allowed.contains(&suffix), "{line}");
            let (sample, exemplar) = match line.rsplit_once(" # {trace_id=\"") {
                Some((sample, exemplar)) => (sample, Some(exemplar)),
                None => (line, None),
            };
            let (series, value) = sample.rsplit_once("} ").unwrap();
            assert!(samples.insert(series), "{series} comes twice");
            value.parse::<f64>().unwrap();
            assert!(
                exemplar.is_none() || ["_bucket", "_total"].contains(&suffix),
                "{line}"
            );
        }
    }
    assert!(!samples.is_empty());
}

#[test]
fn exemplars_are_the_last_sampled_trace_of_their_bucket() {
    let registry = registry(100, 100);
    traffic(&registry);
    let text = page(&registry, OPENMETRICS);
    let exemplar_of = |series: &str| {
        let line = text.lines().find(|line| line.starts_with(series)).unwrap();
        line.split_once(" # ").map(|(_, exemplar)| exemplar.to_owned())
    };
    let bucket =
        |le: &str| format!("parcel_duration_seconds_bucket{{service=\"post\",means=\"rail\",le=\"{le}\"}}");
    let ids = "{trace_id=\"00000000000000000000000000000abc\",span_id=\"0000000000000def\"}";
    assert_eq!(
        exemplar_of(&bucket("0.5")),
        None,
        "its only observation was not sampled"
    );
    let one = exemplar_of(&bucket("1.0")).unwrap();
    assert!(
        one.starts_with(&format!("{ids} 1 1")),
        "the last of two, on the inclusive bound: {one}"
    );
    assert_eq!(exemplar_of(&bucket("30.0")), None);
    assert!(
        exemplar_of(&bucket("+Inf"))
            .unwrap()
            .starts_with(&format!("{ids} 90 "))
    );
    let counter = "parcels_total{service=\"post\",tenant_id=\"acme\",means=\"rail\"} 2";
    assert!(exemplar_of(counter).unwrap().starts_with(&format!("{ids} 1 ")));
}

#[test]
fn a_metric_has_no_more_series_than_it_may() {
    let registry = registry(2, 100);
    with_local_recorder(registry.recorder(), || {
        for means in ["rail", "road", "air", "sea", "rail"] {
            PARCELS.inc(["acme", means]);
            DURATION.record(1.0, [means]);
        }
    });
    let text = page(&registry, None);
    assert_eq!(text.matches("\nparcels_total{").count(), 2);
    assert!(
        text.contains("tenant_id=\"acme\",means=\"rail\"} 2"),
        "known series go on"
    );
    assert!(text.contains("telemetry_series_dropped_total{service=\"post\",metric=\"parcels_total\"} 2"));
    assert!(text.contains("{service=\"post\",metric=\"parcel_duration_seconds\"} 2"));
}

#[test]
fn clients_choose_no_more_label_values_than_they_may() {
    let registry = registry(100, 2);
    with_local_recorder(registry.recorder(), || {
        for tenant in ["a", "b", "c", "d", "a"] {
            PARCELS.inc([tenant, "rail"]);
        }
        PARCELS.inc(["a", "back\\slash"]);
    });
    registry.on_scrape_gauge(&WAITING, || {
        ["a", "c", "d"].map(|tenant| ([tenant.to_owned()], 4.0)).to_vec()
    });
    let text = page(&registry, None);
    assert!(text.contains("parcels_total{service=\"post\",tenant_id=\"a\",means=\"rail\"} 2"));
    assert!(text.contains("parcels_total{service=\"post\",tenant_id=\"other\",means=\"rail\"} 2"));
    assert!(text.contains("parcels_total{service=\"post\",tenant_id=\"a\",means=\"other\"} 1"));
    assert!(
        text.contains("parcels_waiting{service=\"post\",tenant_id=\"other\"} 8"),
        "capped samples add up"
    );
    assert!(text.contains("telemetry_label_values_capped_total{service=\"post\",label=\"tenant_id\"} 4"));
}

#[test]
fn held_handles_and_statics_are_the_same_series() {
    let registry = registry(100, 100);
    with_local_recorder(registry.recorder(), || {
        let held = PARCELS.with(["acme", "rail"]);
        held.inc();
        PARCELS.inc(["acme", "rail"]);
        held.clone().add(3);
        let duration = DURATION.with(["rail"]);
        duration.record(0.1);
        // What upkeep drains stays counted, and the handle goes on.
        registry.upkeep();
        duration.record(0.1);
        DURATION.record(0.1, ["rail"]);
    });
    let text = page(&registry, None);
    assert!(text.contains("means=\"rail\"} 5"));
    assert!(text.contains("parcel_duration_seconds_count{service=\"post\",means=\"rail\"} 3"));
}

#[test]
fn counters_whose_labels_are_known_start_at_zero() {
    let registry = registry(100, 100);
    with_local_recorder(registry.recorder(), || {
        RETURNED.inc(["refused", "road"]);
        RETURNED.inc(["eaten", "air"]);
    });
    let text = page(&registry, None);
    for (why, means, count) in [
        ("address", "rail", 0),
        ("address", "road", 0),
        ("refused", "rail", 0),
        ("refused", "road", 1),
        ("eaten", "air", 1),
    ] {
        let line =
            format!("parcels_returned_total{{service=\"post\",why=\"{why}\",means=\"{means}\"}} {count}\n");
        assert!(text.contains(&line), "{text}");
    }
    assert_eq!(text.matches("\nparcels_returned_total{").count(), 5);
}

#[test]
fn totals_that_others_count_come_and_go() {
    let registry = registry(100, 100);
    let scrapes = std::sync::atomic::AtomicU32::new(0);
    registry.on_scrape_counter(&PARCELS, move || {
        let scrape = scrapes.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
        let labels = || ["acme".to_owned(), "rail".to_owned()];
        [41.0, 2.5]
            .get(scrape as usize)
            .map(|total| (labels(), *total))
            .into_iter()
            .collect()
    });
    assert!(
        page(&registry, OPENMETRICS)
            .contains("parcels_total{service=\"post\",tenant_id=\"acme\",means=\"rail\"} 41\n")
    );
    assert!(
        page(&registry, None).contains("means=\"rail\"} 2.5\n"),
        "whatever it was before"
    );
    assert!(!page(&registry, None).contains("parcels_total{"));
}

#[test]
fn what_is_sampled_at_scrape_time_comes_and_goes() {
    let registry = registry(100, 100);
    let scrapes = std::sync::atomic::AtomicU32::new(0);
    registry.on_scrape(|| ON_THEIR_WAY.add(1, []));
    registry.on_scrape_gauge(&WAITING, move || {
        let first = scrapes.fetch_add(1, std::sync::atomic::Ordering::Relaxed) == 0;
        if first {
            vec![(["acme".to_owned()], 1.0)]
        } else {
            vec![]
        }
    });
    assert!(page(&registry, None).contains("parcels_waiting{"));
    let second = page(&registry, None);
    assert!(
        !second.contains("parcels_waiting{") && !second.contains("# TYPE parcels_waiting"),
        "neither samples nor head are left"
    );
    assert!(
        second.contains("parcels_on_their_way{service=\"post\"} 2"),
        "hooks record into their registry"
    );
}

#[test]
fn counters_without_labels_start_at_zero_and_a_disabled_registry_is_empty() {
    let text = page(&registry(100, 100), None);
    assert!(text.contains("telemetry_log_lines_dropped_total{service=\"post\"} 0\n"));
    let disabled = settings::Metrics {
        enabled: false,
        ..settings::Metrics::default()
    };
    let registry = Registry::new("post", &[DECLARATIONS], &disabled).unwrap();
    traffic(&registry);
    assert_eq!(page(&registry, None), "");
    assert_eq!(page(&registry, OPENMETRICS), "# EOF\n");
}

#[test]
fn what_is_not_declared_is_refused() {
    let registry = registry(100, 100);
    with_local_recorder(registry.recorder(), || {
        ::metrics::counter!("surprise_total").increment(1)
    });
    let text = page(&registry, None);
    assert!(!text.contains("\nsurprise_total"));
    assert!(text.contains("telemetry_series_dropped_total{service=\"post\",metric=\"surprise_total\"} 1"));
    let twice: &[&[Declaration]] = &[DECLARATIONS, DECLARATIONS];
    assert!(Registry::new("post", twice, &settings::Metrics::default()).is_err());
}

#[test]
fn the_catalogue_names_every_metric_once_and_in_order() {
    let page = super::catalogue::markdown(&[("Parcels", DECLARATIONS)]);
    let expected = "\
## Parcels

| name | type | unit | labels | buckets | help |
|---|---|---|---|---|---|
| `parcel_duration_seconds` | histogram | seconds | `means` | 0.5 1 30 | Time a parcel takes. |
| `parcels_on_their_way` | gauge |  |  |  | Parcels on their way. |
| `parcels_returned_total` | counter |  | `why`, `means` |  | Parcels that came back. |
| `parcels_total` | counter |  | `tenant_id`, `means` |  | Parcels \"sent\", by all means. |
| `parcels_waiting` | gauge |  | `tenant_id` |  | Parcels waiting. |
";
    assert_eq!(page, expected);
    let common = super::catalogue::markdown(super::catalogue::COMMON);
    assert!(common.contains("| `process_cpu_seconds_total` | counter | seconds |"));
}
