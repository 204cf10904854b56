//! What came out, as text.

use super::{Case, Debugging, Facilities, Page, Usage};
use crate::{
    driver::Phase,
    report::{MEGABYTE, median, millis},
};
use std::fmt::Write as _;

/// The most that all facilities together may cost while nobody uses them, of what a request costs without.
const AIM: f64 = 1.05;

impl Debugging {
    fn median(&self, case: Case, of: impl Fn(&Phase) -> f64) -> f64 {
        median(self.phases[&case].iter().map(of).collect())
    }

    /// CPU beside that with all facilities off, in each round.
    fn ratios(&self, case: Case) -> Vec<f64> {
        let off = &self.phases[&Case::AtRest(Facilities::Off)];
        let pairs = self.phases[&case].iter().zip(off);
        let mut ratios: Vec<f64> = pairs.map(|(phase, off)| phase.own() / off.own()).collect();
        ratios.sort_by(f64::total_cmp);
        ratios
    }
}

/// Every case's figures, then every page's.
pub(crate) fn table(debugging: &Debugging) -> String {
    let mut out = format!(
        "Debugging: GET /api/v1/contexts/{{id}} at {:.0} requests/s, none sampled, access log, SQLite\n\
         {:32}{:>16}{:>12}{:>16}{:>9}{:>9}{:>13}\n",
        debugging.rate,
        "",
        "CPU µs/request",
        "of all off",
        "half of rounds",
        "p50 ms",
        "p99 ms",
        "resident MB"
    );
    out.push_str("At rest\n");
    for facilities in Facilities::EVERY {
        let case = Case::AtRest(facilities);
        // Of the first round: later ones come after what was done in between.
        let resident = debugging.resident[&case].first();
        row(&mut out, debugging, case, facilities.name(), resident);
    }
    out.push_str("In use, all on\n");
    for usage in Usage::EVERY {
        let case = Case::InUse(usage);
        let resident = debugging.resident[&case].iter().max();
        row(&mut out, debugging, case, usage.name(), resident);
    }
    out.push_str("\nOne look at a page\n");
    let _ = writeln!(
        out,
        "  {:44}{:>10}{:>10}{:>10}{:>10}",
        "", "first ms", "ms", "CPU ms", "KB"
    );
    for page in Page::EVERY {
        let costs = &debugging.pages[&page];
        let _ = writeln!(
            out,
            "  {:44}{:>10.1}{:>10.1}{:>10.2}{:>10.1}",
            page.path(),
            costs.first().map_or(0.0, |cost| millis(cost.took)),
            median(costs.iter().map(|cost| millis(cost.took)).collect()),
            median(costs.iter().map(|cost| cost.cpu * 1e3).collect()),
            median(costs.iter().map(|cost| cost.size as f64 / 1024.0).collect()),
        );
    }
    out.push('\n');
    out
}

fn row(out: &mut String, debugging: &Debugging, case: Case, name: &str, resident: Option<&u64>) {
    let resident = resident.copied().unwrap_or_default() as f64 / MEGABYTE;
    let ratios = debugging.ratios(case);
    let (low, high) = (ratios[ratios.len() / 4], ratios[ratios.len() * 3 / 4]);
    let _ = writeln!(
        out,
        "  {name:30}{:>16.1}{:>12.3}{:>16}{:>9.2}{:>9.2}{resident:>13.1}",
        debugging.median(case, |phase| phase.own() * 1e6),
        median(ratios),
        format!("{low:.2} to {high:.2}"),
        debugging.median(case, |phase| millis(phase.p50)),
        debugging.median(case, |phase| millis(phase.p99)),
    );
}

/// One line for the aim.
pub(crate) fn aims(debugging: &Debugging) -> String {
    let ratio = median(debugging.ratios(Case::AtRest(Facilities::All)));
    let verdict = if ratio <= AIM { "met" } else { "MISSED" };
    format!(
        "  {verdict:7}CPU with all debugging facilities at rest, of all off: {ratio:.3} ×, aim {AIM:.2} ×\n"
    )
}
