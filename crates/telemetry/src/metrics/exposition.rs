//! The two text formats that Prometheus reads.
//!
//! The exporter writes the older one. Its families are sorted here, described from their declarations, and — for
//! OpenMetrics — given units and exemplars. In both, bounds are written as floats (`le="1.0"`), as Prometheus 3
//! stores them, so that rules need not know which version scraped.

use super::recorder::{Exemplars, Recorder};
use super::{Declaration, Kind, Unit};
use metrics_exporter_prometheus::formatting::sanitize_label_value;
use std::collections::HashMap;
use std::collections::btree_map::{BTreeMap, Entry};
use std::fmt::Write as _;

/// A text format.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Format {
    /// Prometheus' own.
    Text,
    /// OpenMetrics, which has exemplars.
    OpenMetrics,
}

impl Format {
    /// The format that an `Accept` header prefers; the plain one unless OpenMetrics is asked for.
    pub(super) fn negotiate(accept: Option<&str>) -> Self {
        let mut quality = HashMap::from([("application/openmetrics-text", 0.0), ("text/plain", 0.0)]);
        for range in accept.unwrap_or_default().split(',') {
            let mut parts = range.split(';').map(str::trim);
            let media_type = parts.next().unwrap_or_default().to_ascii_lowercase();
            let q = parts
                .find_map(|part| part.strip_prefix("q="))
                .map_or(1.0, |q| q.parse().unwrap_or(0.0));
            if let Some(best) = quality.get_mut(media_type.as_str()) {
                *best = f32::max(*best, q);
            }
        }
        let openmetrics = quality["application/openmetrics-text"];
        if openmetrics > 0.0 && openmetrics >= quality["text/plain"] {
            Self::OpenMetrics
        } else {
            Self::Text
        }
    }

    /// The content type, without which Prometheus 3 refuses a scrape.
    pub(super) fn content_type(self) -> &'static str {
        match self {
            Self::Text => "text/plain; version=0.0.4; charset=utf-8",
            Self::OpenMetrics => "application/openmetrics-text; version=1.0.0; charset=utf-8",
        }
    }

    /// What ends every page.
    pub(super) fn end(self) -> &'static str {
        match self {
            Self::Text => "",
            Self::OpenMetrics => "# EOF\n",
        }
    }
}

/// What is sampled at scrape time, given to those who sample.
#[derive(Debug)]
pub(crate) struct Samples<'a> {
    recorder: &'a Recorder,
    families: BTreeMap<&'static str, BTreeMap<Vec<String>, f64>>,
}

impl<'a> Samples<'a> {
    pub(super) fn new(recorder: &'a Recorder) -> Self {
        Self {
            recorder,
            families: BTreeMap::new(),
        }
    }

    /// Adds a sample of a declared metric. Samples that share all labels, as those of capped values do, add up.
    pub(crate) fn push(&mut self, declaration: &Declaration, labels: &[&str], value: f64) {
        let family = self.families.entry(declaration.name).or_default();
        let labels: Vec<String> = declaration
            .labels
            .iter()
            .zip(labels)
            .map(|(name, value)| self.recorder.label_value(name, value).to_owned())
            .collect();
        let room = family.len() < self.recorder.limits.max_series();
        match family.entry(labels) {
            Entry::Occupied(mut sum) => *sum.get_mut() += value,
            Entry::Vacant(new) if room => _ = new.insert(value),
            Entry::Vacant(_) => self.recorder.count_dropped(declaration.name, 1),
        }
    }
}

/// Writes what was recorded and what was sampled.
pub(super) fn render(recorder: &Recorder, samples: &Samples<'_>, format: Format) -> String {
    let recorded = recorder.exporter().render();
    let mut families: BTreeMap<&str, String> = BTreeMap::new();
    let exemplars = if format == Format::OpenMetrics {
        recorder.exemplars()
    } else {
        HashMap::new()
    };
    // Lines end in values and newlines in labels are escaped: only families are set apart by an empty line.
    for family in recorded.split("\n\n") {
        let Some(name) = family
            .strip_prefix("# TYPE ")
            .and_then(|rest| rest.split(' ').next())
        else {
            continue;
        };
        let lines = families.entry(name).or_default();
        for line in family.lines().skip(1) {
            write_recorded(lines, line, &exemplars);
        }
    }
    for (name, family) in &samples.families {
        let lines = families.entry(name).or_default();
        for (labels, value) in family {
            write_sampled(lines, recorder, name, labels, *value);
        }
    }
    // A counter that first appears with a value hides its first increase from `rate()`.
    for declaration in recorder.declarations() {
        let lines = match declaration.kind {
            Kind::Counter if declaration.labels.is_empty() => families.entry(declaration.name).or_default(),
            _ => continue,
        };
        if lines.is_empty() {
            write_sampled(lines, recorder, declaration.name, &[], 0.0);
        }
    }
    let mut page = String::with_capacity(recorded.len() + recorded.len() / 2);
    for (name, lines) in &families {
        if let Some(declaration) = recorder.declaration(name) {
            write_head(&mut page, declaration, format);
            page.push_str(lines);
        }
    }
    page.push_str(format.end());
    page
}

/// Copies a line of the exporter's, with its bound as a float and its exemplar.
fn write_recorded(page: &mut String, line: &str, exemplars: &HashMap<String, Exemplars>) {
    let Some((series, value)) = line.rsplit_once("} ") else {
        return;
    };
    let bucket = series
        .rsplit_once(",le=\"")
        .and_then(|(head, bound)| Some((head, bound.strip_suffix('"')?)));
    match bucket {
        Some((head, bound)) => {
            let float = if bound.contains(['.', 'I']) { "" } else { ".0" };
            // Writing to a String does not fail.
            let _ = write!(page, "{head},le=\"{bound}{float}\"}} {value}");
            if let (Some(Exemplars::ByBucket(buckets)), Ok(bound)) = (exemplars.get(head), bound.parse()) {
                buckets.slot(bound).write(page);
            }
        }
        None => {
            page.push_str(line);
            if let Some(Exemplars::Last(slot)) = exemplars.get(series) {
                slot.write(page);
            }
        }
    }
    page.push('\n');
}

fn write_sampled(page: &mut String, recorder: &Recorder, name: &str, labels: &[String], value: f64) {
    let _ = write!(page, "{name}{{service=\"{}\"", recorder.service());
    let names = recorder
        .declaration(name)
        .map_or(&[][..], |declaration| declaration.labels);
    for (name, value) in names.iter().zip(labels) {
        let _ = write!(page, ",{name}=\"{}\"", sanitize_label_value(value));
    }
    let _ = writeln!(page, "}} {value}");
}

fn write_head(page: &mut String, declaration: &Declaration, format: Format) {
    let Declaration {
        name,
        kind,
        unit,
        help,
        ..
    } = *declaration;
    let help = help.replace('\\', "\\\\").replace('\n', "\\n");
    let (name, help) = match format {
        Format::Text => (name, help),
        Format::OpenMetrics => (
            if kind == Kind::Counter {
                name.strip_suffix("_total").unwrap_or(name)
            } else {
                name
            },
            help.replace('"', "\\\""),
        ),
    };
    let _ = writeln!(page, "# HELP {name} {help}\n# TYPE {name} {}", kind.as_str());
    if format == Format::OpenMetrics && unit != Unit::None {
        let _ = writeln!(page, "# UNIT {name} {}", unit.as_str());
    }
}
