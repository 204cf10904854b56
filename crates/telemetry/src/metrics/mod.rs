//! Metrics: declared once and typed, kept by a bounded recorder, exposed as Prometheus text or OpenMetrics.
//!
//! A metric is declared with [`metrics!`](crate::metrics!) and recorded through the static it declares; no name
//! stands at a call site. What is recorded goes to the recorder that [`init`](crate::init) installed; in tests,
//! to a [`Registry`] of their own:
//!
//! ```
//! telemetry::metrics! {
//!     /// Doors opened.
//!     pub static DOORS_OPENED: Counter["door"] = "doors_opened_total";
//! }
//! # fn main() -> anyhow::Result<()> {
//! let registry = telemetry::metrics::Registry::new("porter", &[DECLARATIONS], &Default::default())?;
//! metrics::with_local_recorder(registry.recorder(), || DOORS_OPENED.inc(["front"]));
//! let (_, page) = registry.render(None);
//! assert!(page.contains(r#"doors_opened_total{service="porter",door="front"} 1"#));
//! # Ok(())
//! # }
//! ```

pub mod buckets;
pub mod catalogue;
mod declaration;
mod exemplar;
mod exposition;
mod instruments;
mod limits;
pub mod own;
mod recorder;
mod registry;
#[cfg(test)]
mod tests;

pub use declaration::{Declaration, Kind, Unit};
pub(crate) use exposition::Samples;
pub use instruments::{Counter, CounterHandle, Gauge, GaugeHandle, Histogram, HistogramHandle, Number};
pub use recorder::Recorder;
pub use registry::Registry;
