//! What is declared about a metric, and the macro that declares it.

/// How a metric's values add up.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// Only grows.
    Counter,
    /// Goes up and down.
    Gauge,
    /// A distribution in buckets.
    Histogram,
}

impl Kind {
    /// The name in `# TYPE` lines.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Counter => "counter",
            Self::Gauge => "gauge",
            Self::Histogram => "histogram",
        }
    }
}

/// What a metric's values are measured in: always a base unit.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Unit {
    /// A plain count.
    None,
    /// Seconds.
    Seconds,
    /// Bytes.
    Bytes,
    /// A share, 0 to 1.
    Ratio,
}

impl Unit {
    /// The word as it ends a metric's name; empty for a plain count.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::None => "",
            Self::Seconds => "seconds",
            Self::Bytes => "bytes",
            Self::Ratio => "ratio",
        }
    }

    /// The unit that a metric's name ends with, before `_total`.
    #[must_use]
    pub const fn of(name: &str) -> Self {
        let name = without_suffix(name.as_bytes(), b"_total");
        if ends_with(name, b"_seconds") {
            Self::Seconds
        } else if ends_with(name, b"_bytes") {
            Self::Bytes
        } else if ends_with(name, b"_ratio") {
            Self::Ratio
        } else {
            Self::None
        }
    }
}

/// Everything that is known about a metric before it has a value. Made by [`metrics!`](crate::metrics!).
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Declaration {
    /// The name, as scraped.
    pub name: &'static str,
    /// How its values add up.
    pub kind: Kind,
    /// What they are measured in.
    pub unit: Unit,
    /// What it tells, in one or two sentences.
    pub help: &'static str,
    /// The names of its labels, in the order in which values are given. `service` comes to them by itself.
    pub labels: &'static [&'static str],
    /// A histogram's bounds, ascending; empty for the others.
    pub buckets: &'static [f64],
    /// A counter's label values, for each label all that there are; empty where they are not known beforehand. Each
    /// combination is exported from the start: a counter that first appears with a value hides its first increase from
    /// `rate()`.
    pub known: &'static [&'static [&'static str]],
}

impl Declaration {
    /// Checks and makes a declaration. The unit is the one that the name ends with.
    ///
    /// # Panics
    /// At compile time, when evaluated in a constant: on a name that is not snake case, a counter whose name does
    /// not end with `_total` (and anything else whose name does), a histogram without ascending bounds.
    #[must_use]
    pub const fn new(
        kind: Kind,
        name: &'static str,
        help: &'static str,
        labels: &'static [&'static str],
        buckets: &'static [f64],
    ) -> Self {
        assert!(is_snake_case(name.as_bytes()), "a metric's name is in snake case");
        let total = ends_with(name.as_bytes(), b"_total");
        assert!(
            matches!(kind, Kind::Counter) == total,
            "counters, and only they, end with _total"
        );
        assert!(
            matches!(kind, Kind::Histogram) != buckets.is_empty(),
            "histograms, and only they, have buckets"
        );
        let mut i = 1;
        while i < buckets.len() {
            assert!(buckets[i - 1] < buckets[i], "a histogram's bounds ascend");
            i += 1;
        }
        let mut i = 0;
        while i < labels.len() {
            assert!(
                is_snake_case(labels[i].as_bytes()),
                "a label's name is in snake case"
            );
            i += 1;
        }
        Self {
            name,
            kind,
            unit: Unit::of(name),
            help: help.trim_ascii(),
            labels,
            buckets,
            known: &[],
        }
    }

    /// The same with its label values known beforehand.
    ///
    /// # Panics
    /// At compile time, when evaluated in a constant: on anything but a counter, or when there are not values for each
    /// label.
    #[must_use]
    pub const fn with_known(mut self, known: &'static [&'static [&'static str]]) -> Self {
        assert!(matches!(self.kind, Kind::Counter), "only counters start at 0");
        assert!(
            known.len() == self.labels.len(),
            "every label has its known values"
        );
        self.known = known;
        self
    }

    /// Every combination of the known label values.
    pub(super) fn known_series(&self) -> Vec<Vec<&'static str>> {
        if self.known.is_empty() {
            return Vec::new();
        }
        self.known.iter().fold(vec![Vec::new()], |series, values| {
            let with = |head: &Vec<&'static str>, value| head.iter().copied().chain([value]).collect();
            series
                .iter()
                .flat_map(|head| values.iter().map(move |value| with(head, *value)))
                .collect()
        })
    }
}

const fn is_snake_case(name: &[u8]) -> bool {
    let mut i = 0;
    while i < name.len() {
        let digit = name[i].is_ascii_digit();
        if !(name[i].is_ascii_lowercase() || name[i] == b'_' || (digit && i > 0)) {
            return false;
        }
        i += 1;
    }
    !name.is_empty()
}

const fn ends_with(name: &[u8], suffix: &[u8]) -> bool {
    without_suffix(name, suffix).len() < name.len()
}

const fn without_suffix<'a>(name: &'a [u8], suffix: &[u8]) -> &'a [u8] {
    let Some(cut) = name.len().checked_sub(suffix.len()) else {
        return name;
    };
    let (head, tail) = name.split_at(cut);
    let mut i = 0;
    while i < suffix.len() {
        if tail[i] != suffix[i] {
            return name;
        }
        i += 1;
    }
    head
}

/// Declares metrics, once a module:
///
/// ```
/// telemetry::metrics! {
///     /// Contexts created.
///     pub static CONTEXTS_CREATED: Counter["tenant_id", "type"] = "mcp_contexts_created_total";
///     /// Size of a context's content.
///     pub static CONTEXT_SIZE: Histogram[] = "mcp_context_size_bytes",
///         buckets: &telemetry::metrics::buckets::BYTES_1KIB_1MIB;
/// }
/// # fn main() {
/// CONTEXTS_CREATED.inc(["acme", "manual"]);
/// CONTEXT_SIZE.record(2048, []);
/// # }
/// ```
///
/// A counter whose label values are known beforehand names them, label by label: `known: &[&["ok", "error"]]`. Then all
/// of its series are there from the start.
///
/// The doc comment is the metric's help. Beside the statics stands `DECLARATIONS`, to be given to
/// [`init`](crate::init).
#[macro_export]
macro_rules! metrics {
    ($(
        $(#[doc = $help:literal])+
        $vis:vis static $metric:ident: $kind:ident[$($label:literal),* $(,)?] = $name:literal
        $(, buckets: $buckets:expr)?
        $(, known: $known:expr)?;
    )+) => {
        /// Every metric declared here.
        #[allow(unreachable_pub, reason = "the module may be private")]
        pub const DECLARATIONS: &[$crate::metrics::Declaration] = &[$(
            $crate::metrics::Declaration::new(
                $crate::metrics::Kind::$kind, $name, concat!($($help),+), &[$($label),*],
                $crate::metrics!(@buckets $($buckets)?),
            )$(.with_known($known))?,
        )+];
        $(
            $(#[doc = $help])+
            $vis static $metric: $crate::metrics::$kind<{
                let labels: &[&str] = &[$($label),*];
                labels.len()
            }> = $crate::metrics::$kind::new($crate::metrics::Declaration::new(
                $crate::metrics::Kind::$kind, $name, concat!($($help),+), &[$($label),*],
                $crate::metrics!(@buckets $($buckets)?),
            )$(.with_known($known))?);
        )+
    };
    (@buckets $buckets:expr) => { $buckets };
    (@buckets) => { &[] };
}
