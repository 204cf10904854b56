//! Metrics: declared once and typed, kept by a bounded recorder, exposed as Prometheus text or OpenMetrics.
//!
//! A metric is declared with [`metrics!`](crate::metrics!) and recorded through the static it declares; no name
//! stands at a call site. What is recorded goes to the recorder that [`init`](crate::init) installed; in tests,
//! to that of [`metrics::with_local_recorder`](::metrics::with_local_recorder).

pub mod buckets;
mod declaration;
mod instruments;
pub mod own;
mod registry;

pub use declaration::{Declaration, Kind, Unit};
pub use instruments::{Counter, CounterHandle, Gauge, GaugeHandle, Histogram, HistogramHandle, Number};
pub use registry::Registry;
