//! What bounds the number of series, whatever clients send.

use crate::settings;
use parking_lot::Mutex;
use std::collections::{HashMap, HashSet};

/// Labels whose values clients choose.
pub(super) const CAPPED: [&str; 4] = ["tenant_id", "tool", "type", "upstream"];

/// No honest value is longer; templates of routes are the longest.
const MAX_VALUE_BYTES: usize = 200;

/// What a value becomes that is not told apart.
const OTHER: &str = "other";

/// The limits, and how much of them is used.
#[derive(Debug)]
pub(super) struct Limits {
    max_series: usize,
    max_values: usize,
    series: Mutex<HashMap<&'static str, usize>>,
    values: Mutex<[HashSet<String>; CAPPED.len()]>,
}

impl Limits {
    pub(super) fn new(settings: &settings::Metrics) -> Self {
        Self {
            max_series: settings.max_series_per_metric,
            max_values: settings.max_label_values,
            series: Mutex::default(),
            values: Mutex::default(),
        }
    }

    /// The most series a metric may have.
    pub(super) fn max_series(&self) -> usize {
        self.max_series
    }

    /// Takes one more series of a metric, or tells that it has all it may have.
    pub(super) fn take_series(&self, metric: &'static str) -> bool {
        let mut series = self.series.lock();
        let count = series.entry(metric).or_default();
        let free = *count < self.max_series;
        *count += usize::from(free);
        free
    }

    /// The value itself while its label may have one more, else `None` for [`OTHER`].
    ///
    /// A backslash is refused everywhere: the exporter escapes it ambiguously, so that two values could become the
    /// same series twice, which makes a whole scrape fail.
    fn admits(&self, label: &str, value: &str) -> bool {
        if value.len() > MAX_VALUE_BYTES || value.contains('\\') {
            return false;
        }
        let Some(at) = CAPPED.iter().position(|capped| *capped == label) else {
            return true;
        };
        if value == OTHER {
            return true;
        }
        let known = &mut self.values.lock()[at];
        known.contains(value) || (known.len() < self.max_values && known.insert(value.to_owned()))
    }

    /// The value that a label gets: the given one or `other`.
    pub(super) fn value<'a>(&self, label: &str, value: &'a str) -> &'a str {
        if self.admits(label, value) { value } else { OTHER }
    }
}
