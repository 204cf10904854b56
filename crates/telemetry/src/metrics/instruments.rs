//! The three instruments, declared as statics, and handles to single series of them.

use super::{Declaration, Kind};
use ::metrics::{Key, Label, Level, Metadata, with_recorder};
use std::time::Duration;

/// What a gauge or a histogram takes: integers, floats, and durations (as seconds).
pub trait Number {
    /// The value as it is kept. Integers beyond 2⁵³ lose their last digits.
    fn into_f64(self) -> f64;
}

macro_rules! number {
    ($($type:ty),+) => {$(
        impl Number for $type {
            fn into_f64(self) -> f64 {
                self as f64
            }
        }
    )+};
}
number!(f64, u16, u32, u64, usize, i32, i64);

impl Number for Duration {
    fn into_f64(self) -> f64 {
        self.as_secs_f64()
    }
}

static METADATA: Metadata<'static> = Metadata::new("telemetry", Level::INFO, None);

fn key<const N: usize>(declaration: &Declaration, values: [&str; N]) -> Key {
    if N == 0 {
        return Key::from_static_name(declaration.name);
    }
    let labels: Vec<Label> = declaration
        .labels
        .iter()
        .zip(values)
        .map(|(&name, value)| Label::new(name, value.to_owned()))
        .collect();
    Key::from_parts(declaration.name, labels)
}

const fn checked<const N: usize>(declaration: Declaration, kind: Kind) -> Declaration {
    assert!(
        declaration.kind as u8 == kind as u8,
        "the declaration is of another kind"
    );
    assert!(
        declaration.labels.len() == N,
        "the declaration has another number of labels"
    );
    declaration
}

/// A value that only grows, by whole numbers. Label values are given in the declared order.
#[derive(Debug)]
pub struct Counter<const N: usize>(Declaration);

impl<const N: usize> Counter<N> {
    /// The counter of a declaration; made by [`metrics!`](crate::metrics!).
    #[must_use]
    pub const fn new(declaration: Declaration) -> Self {
        Self(checked::<N>(declaration, Kind::Counter))
    }

    /// What it was declared as.
    #[must_use]
    pub const fn declaration(&self) -> &Declaration {
        &self.0
    }

    /// Adds one.
    pub fn inc(&self, labels: [&str; N]) {
        self.add(1, labels);
    }

    /// Adds `count`. With 0, the series appears without having counted anything.
    pub fn add(&self, count: u64, labels: [&str; N]) {
        self.with(labels).add(count);
    }

    /// One series of it, to be kept where it is used often. Taken before [`init`](crate::init), it records nothing.
    #[must_use]
    pub fn with(&self, labels: [&str; N]) -> CounterHandle {
        CounterHandle(with_recorder(|recorder| {
            recorder.register_counter(&key(&self.0, labels), &METADATA)
        }))
    }
}

/// A value that goes up and down. Label values are given in the declared order.
#[derive(Debug)]
pub struct Gauge<const N: usize>(Declaration);

impl<const N: usize> Gauge<N> {
    /// The gauge of a declaration; made by [`metrics!`](crate::metrics!).
    #[must_use]
    pub const fn new(declaration: Declaration) -> Self {
        Self(checked::<N>(declaration, Kind::Gauge))
    }

    /// What it was declared as.
    #[must_use]
    pub const fn declaration(&self) -> &Declaration {
        &self.0
    }

    /// Sets it.
    pub fn set(&self, value: impl Number, labels: [&str; N]) {
        self.with(labels).set(value);
    }

    /// Raises it.
    pub fn add(&self, value: impl Number, labels: [&str; N]) {
        self.with(labels).add(value);
    }

    /// Lowers it.
    pub fn sub(&self, value: impl Number, labels: [&str; N]) {
        self.with(labels).sub(value);
    }

    /// One series of it, to be kept where it is used often. Taken before [`init`](crate::init), it records nothing.
    #[must_use]
    pub fn with(&self, labels: [&str; N]) -> GaugeHandle {
        GaugeHandle(with_recorder(|recorder| {
            recorder.register_gauge(&key(&self.0, labels), &METADATA)
        }))
    }
}

/// A distribution in buckets. Label values are given in the declared order.
#[derive(Debug)]
pub struct Histogram<const N: usize>(Declaration);

impl<const N: usize> Histogram<N> {
    /// The histogram of a declaration; made by [`metrics!`](crate::metrics!).
    #[must_use]
    pub const fn new(declaration: Declaration) -> Self {
        Self(checked::<N>(declaration, Kind::Histogram))
    }

    /// What it was declared as.
    #[must_use]
    pub const fn declaration(&self) -> &Declaration {
        &self.0
    }

    /// Records one observation; a `Duration` counts in seconds.
    pub fn record(&self, value: impl Number, labels: [&str; N]) {
        self.with(labels).record(value);
    }

    /// One series of it, to be kept where it is used often. Taken before [`init`](crate::init), it records nothing.
    #[must_use]
    pub fn with(&self, labels: [&str; N]) -> HistogramHandle {
        HistogramHandle(with_recorder(|recorder| {
            recorder.register_histogram(&key(&self.0, labels), &METADATA)
        }))
    }
}

/// One series of a [`Counter`].
#[derive(Debug, Clone)]
pub struct CounterHandle(::metrics::Counter);

impl CounterHandle {
    /// Adds one.
    pub fn inc(&self) {
        self.0.increment(1);
    }

    /// Adds `count`.
    pub fn add(&self, count: u64) {
        self.0.increment(count);
    }
}

/// One series of a [`Gauge`].
#[derive(Debug, Clone)]
pub struct GaugeHandle(::metrics::Gauge);

impl GaugeHandle {
    /// Sets it.
    pub fn set(&self, value: impl Number) {
        self.0.set(value.into_f64());
    }

    /// Raises it.
    pub fn add(&self, value: impl Number) {
        self.0.increment(value.into_f64());
    }

    /// Lowers it.
    pub fn sub(&self, value: impl Number) {
        self.0.decrement(value.into_f64());
    }
}

/// One series of a [`Histogram`].
#[derive(Debug, Clone)]
pub struct HistogramHandle(::metrics::Histogram);

impl HistogramHandle {
    /// Records one observation; a `Duration` counts in seconds.
    pub fn record(&self, value: impl Number) {
        self.0.record(value.into_f64());
    }
}
