//! What came out, as text.

use crate::{
    driver::{Phase, Turn},
    footprint::Footprint,
    procfs::Memory,
    subjects::{Subjects, Variant, Workload},
};
use std::{collections::BTreeMap, fmt::Write as _, time::Duration};

/// Bytes.
pub(crate) const MEGABYTE: f64 = 1024.0 * 1024.0;

/// All turns.
#[derive(Default)]
pub(crate) struct Results(BTreeMap<(Workload, Variant), Vec<Turn>>);

impl Results {
    /// Adds a turn. Every server must have had as many as the others when results are asked for.
    pub(crate) fn add(&mut self, workload: Workload, variant: Variant, turn: Turn) {
        self.0.entry((workload, variant)).or_default().push(turn);
    }

    /// The median over a server's turns.
    fn median(&self, workload: Workload, variant: Variant, of: impl Fn(&Turn) -> f64) -> f64 {
        median(self.0[&(workload, variant)].iter().map(of).collect())
    }

    /// By how much `variant` exceeds `base`: the median over the rounds, in each of which both had their turn.
    fn ratio(&self, workload: Workload, variant: Variant, base: Variant, of: impl Fn(&Turn) -> f64) -> f64 {
        let turns = self.0[&(workload, variant)]
            .iter()
            .zip(&self.0[&(workload, base)]);
        median(turns.map(|(turn, base)| of(turn) / of(base)).collect())
    }
}

/// The median; there must be a value.
pub(crate) fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    let middle = values.len() / 2;
    if values.len().is_multiple_of(2) {
        (values[middle - 1] + values[middle]) / 2.0
    } else {
        values[middle]
    }
}

/// Every server's figures: flat out on the left, at the common rate on the right.
pub(crate) fn table(results: &Results, subjects: &Subjects, rate: f64) -> String {
    let mut out = format!(
        "{:28}{:^55} | {:^55}\n",
        "",
        "flat out",
        format!("at {rate:.0} requests/s")
    );
    for workload in Workload::ALL {
        let services = workload.services();
        let size = subjects.subject(workload, Variant::Bare).answer;
        let _ = writeln!(out, "{} ({size} bytes)", workload.name());
        let cpu = [services[0], services.get(1).unwrap_or(&"")];
        let columns = ["requests/s", "p50 ms", "p99 ms", cpu[0], cpu[1]];
        let steady = ["p50 ms", cpu[0], cpu[1], "own/bare", "all/off"];
        let _ = writeln!(
            out,
            "  {:26}{} |{}",
            "CPU in µs a request",
            row(columns),
            row(steady)
        );
        for &variant in Variant::of(workload) {
            let median = |of: &dyn Fn(&Turn) -> f64| results.median(workload, variant, of);
            let micros = |process: usize, phase: fn(&Turn) -> &Phase| {
                let takes_part = subjects.subject(workload, variant).processes.len() > process;
                let cpu = || median(&|turn| phase(turn).cpu[process] * 1e6);
                if takes_part {
                    format!("{:.1}", cpu())
                } else {
                    String::new()
                }
            };
            let ratio =
                |base, of: fn(&Turn) -> f64| format!("{:.2}", results.ratio(workload, variant, base, of));
            let columns = [
                format!("{:.0}", median(&|turn| turn.flat_out.rate)),
                format!("{:.2}", median(&|turn| millis(turn.flat_out.p50))),
                format!("{:.2}", median(&|turn| millis(turn.flat_out.p99))),
                micros(0, |turn| &turn.flat_out),
                micros(1, |turn| &turn.flat_out),
            ];
            let steady = [
                format!("{:.2}", median(&|turn| millis(turn.steady.p50))),
                micros(0, |turn| &turn.steady),
                micros(1, |turn| &turn.steady),
                ratio(Variant::Bare, own),
                match variant {
                    Variant::Bare | Variant::BareCall => String::new(),
                    _ => ratio(Variant::Off, together),
                },
            ];
            let _ = writeln!(out, "  {:26}{} |{}", variant.name(), row(columns), row(steady));
        }
        out.push('\n');
    }
    out.push_str("own/bare: the called process beside the bare server. all/off: all processes beside telemetry off.\n\n");
    out
}

fn row<T: std::fmt::Display>(columns: [T; 5]) -> String {
    columns.map(|column| format!("{column:>11}")).concat()
}

fn own(turn: &Turn) -> f64 {
    turn.steady.own()
}

fn together(turn: &Turn) -> f64 {
    turn.steady.together()
}

/// Every service's start and memory.
pub(crate) fn footprints(footprints: &[Footprint], after: &[(&'static str, Memory)]) -> String {
    let mut out = format!(
        "{:14}{:>18}{:>10}{:>12}{:>13}{:>16}\n",
        "", "start to ready ms", "slowest", "idle RSS MB", "of it heap", "after load MB"
    );
    for (footprint, (_, after)) in footprints.iter().zip(after) {
        let slowest = footprint.starts.iter().max().copied().unwrap_or_default();
        let _ = writeln!(
            out,
            "{:14}{:>18.0}{:>10.0}{:>12.1}{:>13.1}{:>16.1}",
            footprint.service,
            footprint.start_ms(),
            millis(slowest),
            footprint.idle_mb(),
            footprint.idle.anonymous as f64 / MEGABYTE,
            after.resident as f64 / MEGABYTE,
        );
    }
    out.push('\n');
    out
}

impl Footprint {
    fn start_ms(&self) -> f64 {
        median(self.starts.iter().copied().map(millis).collect())
    }

    fn idle_mb(&self) -> f64 {
        self.idle.resident as f64 / MEGABYTE
    }
}

/// Milliseconds.
pub(crate) fn millis(time: Duration) -> f64 {
    time.as_secs_f64() * 1e3
}

/// One line for each aim.
pub(crate) fn aims(results: &Results, footprints: &[Footprint]) -> String {
    let mut out = String::new();
    let mut aim = |what: String, measured: f64, limit: f64, unit: &str| {
        let by = (measured / limit - 1.0).abs() * 100.0;
        let (verdict, side) = if measured <= limit {
            ("met", "below")
        } else {
            ("MISSED", "above")
        };
        let _ = writeln!(
            out,
            "  {verdict:7}{what}: {measured:.2}{unit}, aim {limit:.2}{unit} ({by:.0} % {side})"
        );
    };
    for workload in Workload::ALL {
        for (variant, limit) in [(Variant::Unsampled, 1.10), (Variant::Sampled, 1.5)] {
            let ratio = results.ratio(workload, variant, Variant::Off, together);
            aim(
                format!("CPU of {}: {}, of telemetry off", workload.name(), variant.name()),
                ratio,
                limit,
                " ×",
            );
        }
    }
    for workload in [Workload::Modern, Workload::Legacy] {
        for variant in [Variant::Off, Variant::Unsampled] {
            let ratio = results.ratio(workload, variant, Variant::Bare, own);
            let calling = results.ratio(workload, variant, Variant::BareCall, own);
            aim(
                format!(
                    "CPU of {}: mcp-server, {}, of bare rmcp (with the RPC that it makes: {calling:.2} ×)",
                    workload.name(),
                    variant.name()
                ),
                ratio,
                1.5,
                " ×",
            );
        }
    }
    for footprint in footprints {
        aim(
            format!("{} idle", footprint.service),
            footprint.idle_mb(),
            40.0,
            " MB",
        );
        aim(
            format!("{} start to ready", footprint.service),
            footprint.start_ms(),
            300.0,
            " ms",
        );
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    fn turn(cpu: &[f64]) -> Turn {
        let steady = Phase {
            cpu: cpu.to_vec(),
            ..Phase::default()
        };
        Turn {
            steady,
            ..Turn::default()
        }
    }

    #[test]
    fn ratios_are_taken_within_each_round() {
        let mut results = Results::default();
        // The machine was twice as slow in the second round, which the ratio must not see.
        for (off, on) in [(1.0, 1.2), (2.0, 2.4), (1.0, 9.0)] {
            results.add(Workload::Rest, Variant::Off, turn(&[off]));
            results.add(Workload::Rest, Variant::Sampled, turn(&[on]));
        }
        let ratio = results.ratio(Workload::Rest, Variant::Sampled, Variant::Off, together);
        assert!((ratio - 1.2).abs() < 1e-9, "{ratio}");
        assert_eq!(median(vec![4.0, 1.0, 3.0, 2.0]), 2.5);
    }
}
