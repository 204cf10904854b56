//! What one look at a page costs.

use super::usage::Admin;
use crate::subject::Subject;
use std::time::{Duration, Instant};

/// A page that somebody asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Page {
    Metrics,
    Heap,
    Cpu,
    FlameGraph,
    Tasks,
    TasksText,
    Traces,
}

/// What it cost.
#[derive(Clone, Copy, Debug)]
pub(super) struct Cost {
    /// Until all of it was there.
    pub(super) took: Duration,
    /// CPU seconds of the service.
    pub(super) cpu: f64,
    /// Its size, bytes.
    pub(super) size: usize,
}

impl Page {
    pub(super) const EVERY: [Self; 7] = [
        Self::Metrics,
        Self::Heap,
        Self::Cpu,
        Self::FlameGraph,
        Self::Tasks,
        Self::TasksText,
        Self::Traces,
    ];

    pub(super) fn path(self) -> &'static str {
        match self {
            // To compare the others with: every service is asked for it each 15 seconds.
            Self::Metrics => "/metrics",
            Self::Heap => "/debug/pprof/heap",
            Self::Cpu => "/debug/pprof/profile?seconds=1",
            Self::FlameGraph => "/debug/pprof/profile?seconds=1&format=svg",
            Self::Tasks => "/debug/pprof/tasks",
            Self::TasksText => "/debug/pprof/tasks?debug=1",
            Self::Traces => "/debug/traces",
        }
    }

    /// Asks for it once.
    pub(super) async fn cost(self, admin: &Admin, subject: &Subject) -> anyhow::Result<Cost> {
        let cpu = || Ok::<f64, anyhow::Error>(subject.cpu()?.iter().sum());
        let (before, begin) = (cpu()?, Instant::now());
        let size = admin.get(self.path()).await?;
        let took = begin.elapsed();
        Ok(Cost {
            took,
            cpu: cpu()? - before,
            size,
        })
    }
}
