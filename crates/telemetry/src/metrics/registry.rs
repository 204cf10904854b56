//! All series of a service and everything that is asked at scrape time.

use super::{Declaration, Gauge};
use crate::settings;
use std::sync::Arc;

/// All metrics of one service.
#[derive(Debug, Clone)]
pub struct Registry(Arc<()>);

impl Registry {
    /// A registry that knows the given declarations.
    pub fn new(_service: &str, _declarations: &[&'static [Declaration]], _settings: &settings::Metrics) -> anyhow::Result<Self> {
        Ok(Self(Arc::new(())))
    }

    /// What is scraped.
    pub fn render(&self, _accept: Option<&str>) -> (&'static str, String) {
        ("text/plain; version=0.0.4; charset=utf-8", String::new())
    }

    /// Runs `hook` before each rendering.
    pub fn on_scrape(&self, _hook: impl Fn() + Send + Sync + 'static) {}

    /// Renders `gauge` from what `sample` gives.
    pub fn on_scrape_gauge<const N: usize>(
        &self,
        _gauge: &'static Gauge<N>,
        _sample: impl Fn() -> Vec<([String; N], f64)> + Send + Sync + 'static,
    ) {
    }
}
