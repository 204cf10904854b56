//! What came out of calling tools, as text.

use super::{Place, Way, Wire};
use crate::{
    driver::{Phase, quantile},
    report::{median, millis},
};
use std::{fmt::Write as _, time::Duration};

/// In which order a call passes them; the loader has its share of the machine, too.
const HOPS: [&str; 6] = [
    "loader",
    "bare rmcp",
    "mcp-server",
    "rest-api",
    "worker",
    "endpoint",
];
/// The median from the request to the endpoint, at most.
const START_AIM: Duration = Duration::from_millis(10);
/// tools/call beside the bare server, at least.
const TOOLS_AIM: f64 = 0.5;

impl Place {
    fn median(&self, way: Way, of: impl Fn(&Phase) -> f64) -> f64 {
        median(self.phases[&way].iter().map(of).collect())
    }

    /// How many times as fast `way` is as `base`: the median over the rounds, in each of which both had their turn.
    fn ratio(&self, way: Way, base: Way) -> f64 {
        let pairs = self.phases[&way].iter().zip(&self.phases[&base]);
        median(pairs.map(|(phase, base)| phase.rate / base.rate).collect())
    }

    /// CPU microseconds a call.
    fn micros(&self, way: Way, hop: &str) -> Option<f64> {
        let hops = way.hops();
        let at = if hop == "loader" {
            hops.len()
        } else {
            hops.iter().position(|name| *name == hop)?
        };
        Some(self.median(way, |phase| phase.cpu[at] * 1e6))
    }

    /// Each way that was measured with the one that it is compared with.
    fn ways(&self) -> impl Iterator<Item = (Way, Way)> {
        self.phases.keys().map(|way| match way {
            Way::Mcp(wire) => (*way, Way::Bare(*wire)),
            _ => (*way, Way::Direct),
        })
    }

    /// From request to endpoint, each way that was timed.
    fn starts(&self) -> impl Iterator<Item = (&'static str, &[Duration])> {
        self.delays.iter().map(|(way, delays)| {
            let name = match way {
                Way::Queued => "Prefer: respond-async",
                _ => "waiting",
            };
            (name, delays.as_slice())
        })
    }
}

/// Every way's figures.
pub(crate) fn table(place: &Place) -> String {
    let mut out = format!(
        "{:29}{:>9}{:>9}{:>9}{:>9} | CPU in µs a call, and its share\n",
        format!("Calls of a tool, {}", place.database),
        "calls/s",
        "p50 ms",
        "p99 ms",
        "ratio"
    );
    let _ = write!(out, "{:65} |", "");
    for hop in HOPS {
        let _ = write!(out, "{hop:>13}");
    }
    out.push('\n');
    for (way, base) in place.ways() {
        let _ = write!(
            out,
            "  {:27}{:>9.0}{:>9.2}{:>9.2}{:>9.2} |",
            way.name(),
            place.median(way, |phase| phase.rate),
            place.median(way, |phase| millis(phase.p50)),
            place.median(way, |phase| millis(phase.p99)),
            place.ratio(way, base),
        );
        let all: f64 = HOPS.iter().filter_map(|hop| place.micros(way, hop)).sum();
        for hop in HOPS {
            let cell = place
                .micros(way, hop)
                .map(|micros| format!("{micros:.0} {:>3.0} %", micros / all * 100.0));
            let _ = write!(out, "{:>13}", cell.unwrap_or_default());
        }
        out.push('\n');
    }
    for (name, delays) in place.starts() {
        let _ = writeln!(
            out,
            "  request to endpoint, {name}: median {:.2} ms, p99 {:.2} ms of {} calls, {} ms apart",
            millis(quantile(delays, 0.5)),
            millis(quantile(delays, 0.99)),
            delays.len(),
            super::APART.as_millis(),
        );
    }
    out.push_str(
        "ratio: tools/call beside bare rmcp, all others beside the endpoint itself. Queued: p50 and p99 are of the 202.\n\n",
    );
    out
}

/// One line for each aim.
pub(crate) fn aims(place: &Place) -> String {
    let mut out = String::new();
    let mut aim = |met: bool, text: String| {
        let verdict = if met { "met" } else { "MISSED" };
        let _ = writeln!(out, "  {verdict:7}{}: {text}", place.database);
    };
    if let Some(delays) = place.delays.get(&Way::Queued) {
        let median = quantile(delays, 0.5);
        let text = format!(
            "median from enqueuing to the endpoint: {:.2} ms, aim below {} ms",
            millis(median),
            START_AIM.as_millis()
        );
        aim(median < START_AIM, text);
    }
    for wire in [Wire::Modern, Wire::Legacy] {
        if place.phases.contains_key(&Way::Mcp(wire)) {
            let ratio = place.ratio(Way::Mcp(wire), Way::Bare(wire));
            let text = format!(
                "{} of bare rmcp that calls the same endpoint: {ratio:.2} ×, aim at least {TOOLS_AIM:.2} ×",
                Way::Mcp(wire).name()
            );
            aim(ratio >= TOOLS_AIM, text);
        }
    }
    out
}
