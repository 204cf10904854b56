//! What the services held over time, and whether it grew.

use crate::{
    procfs::{self, Memory},
    report::{MEGABYTE, median},
};
use e2e::Stack;
use std::{collections::BTreeMap, fmt::Write as _, time::Duration};

/// What half an hour at the second half's slope may add, as a share of its median.
const FLAT: f64 = 0.05;

/// What a service held at one time.
#[derive(Clone, Copy, Debug)]
struct Sample {
    /// Since the begin.
    at: Duration,
    memory: Memory,
    files: usize,
    threads: usize,
}

impl Sample {
    fn resident_mb(&self) -> f64 {
        self.memory.resident as f64 / MEGABYTE
    }
}

/// All samples, by service.
#[derive(Default)]
pub(crate) struct Samples(BTreeMap<&'static str, Vec<Sample>>);

impl Samples {
    /// Looks at every service of `stack`.
    pub(crate) fn take(&mut self, stack: &Stack, at: Duration) -> anyhow::Result<()> {
        for service in stack.names() {
            let pid = stack.process(service).pid()?;
            let sample = Sample {
                at,
                memory: procfs::memory(pid)?,
                files: procfs::open_files(pid)?,
                threads: procfs::threads(pid)?,
            };
            self.0.entry(service).or_default().push(sample);
        }
        Ok(())
    }

    /// The figures minute by minute, and each service's verdict.
    pub(crate) fn table(&self) -> String {
        let mut out = String::from("\n      ");
        for service in self.0.keys() {
            let _ = write!(out, " | {service:^29}");
        }
        out.push_str("\nminute");
        for _ in self.0.keys() {
            let _ = write!(
                out,
                " | {:>7}{:>8}{:>6}{:>8}",
                "RSS MB", "heap MB", "files", "threads"
            );
        }
        out.push('\n');
        let rows = self.0.values().next().map(Vec::as_slice).unwrap_or_default();
        let mut next = Duration::ZERO;
        for (row, first) in rows.iter().enumerate() {
            if first.at < next && row + 1 < rows.len() {
                continue;
            }
            // Samples are taken a moment after they are due.
            next = first.at + Duration::from_secs(58);
            let _ = write!(out, "{:>6.1}", first.at.as_secs_f64() / 60.0);
            for samples in self.0.values() {
                let sample = samples[row];
                let _ = write!(
                    out,
                    " | {:>7.1}{:>8.1}{:>6}{:>8}",
                    sample.resident_mb(),
                    sample.memory.anonymous as f64 / MEGABYTE,
                    sample.files,
                    sample.threads
                );
            }
            out.push('\n');
        }
        out.push_str("\nsecond half     median MB   slope MB/h   30 min, of median\n");
        for (service, samples) in &self.0 {
            let trend = Trend::of(second_half(samples));
            let verdict = if trend.is_flat() { "flat" } else { "GROWS" };
            let _ = writeln!(
                out,
                "{service:14}{:>11.1}{:>13.2}{:>17.1} %  {verdict}",
                trend.median,
                trend.slope,
                trend.growth() * 100.0
            );
        }
        out.push('\n');
        out
    }

    /// The services whose memory grew.
    pub(crate) fn grown(&self) -> Vec<&'static str> {
        self.0
            .iter()
            .filter(|(_, samples)| !Trend::of(second_half(samples)).is_flat())
            .map(|(service, _)| *service)
            .collect()
    }
}

/// The later half: in the first, caches fill and pools grow to what they are used for.
fn second_half(samples: &[Sample]) -> impl Iterator<Item = (f64, f64)> + Clone {
    samples[samples.len() / 2..]
        .iter()
        .map(|sample| (sample.at.as_secs_f64() / 3600.0, sample.resident_mb()))
}

/// A line through samples, by least squares.
#[derive(Clone, Copy, Debug)]
struct Trend {
    /// Megabytes.
    median: f64,
    /// Megabytes an hour.
    slope: f64,
}

impl Trend {
    /// Through pairs of hours and megabytes.
    fn of(points: impl Iterator<Item = (f64, f64)> + Clone) -> Self {
        let count = points.clone().count().max(1) as f64;
        let mean_x = points.clone().map(|(x, _)| x).sum::<f64>() / count;
        let mean_y = points.clone().map(|(_, y)| y).sum::<f64>() / count;
        let covariance: f64 = points.clone().map(|(x, y)| (x - mean_x) * (y - mean_y)).sum();
        let variance: f64 = points.clone().map(|(x, _)| (x - mean_x).powi(2)).sum();
        Self {
            median: median(points.map(|(_, y)| y).collect()),
            slope: if variance > 0.0 {
                covariance / variance
            } else {
                0.0
            },
        }
    }

    /// What half an hour adds, as a share of the median.
    fn growth(self) -> f64 {
        self.slope / 2.0 / self.median
    }

    fn is_flat(self) -> bool {
        self.growth() < FLAT
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_steady_rise_is_seen_through_noise_and_a_fall_is_none() {
        let line = |slope: f64| {
            (0..60).map(move |n| {
                let noise = if n % 2 == 0 { 1.5 } else { -1.5 };
                (f64::from(n) / 240.0, 100.0 + noise + slope * f64::from(n) / 240.0)
            })
        };
        let rising = Trend::of(line(20.0));
        assert!((rising.slope - 20.0).abs() < 1.0, "{rising:?}");
        assert!(!rising.is_flat(), "{rising:?}");
        assert!(Trend::of(line(2.0)).is_flat());
        assert!(Trend::of(line(-50.0)).is_flat());
        assert!(Trend::of([(0.0, 5.0)].into_iter()).is_flat());
    }
}
