//! The declarations as a document.

use super::{Declaration, Kind, own};
use crate::{directories, profiles, runtime, tasks};
use std::fmt::Write as _;

/// What every service measures, in groups, to stand before a service's own.
pub const COMMON: &[(&str, &[Declaration])] = &[
    ("Requests, logs and telemetry itself", own::DECLARATIONS),
    ("Process and runtime", runtime::DECLARATIONS),
    ("Tasks", tasks::DECLARATIONS),
    ("Profiles", profiles::DECLARATIONS),
    ("Disk space", directories::DECLARATIONS),
];

/// A table for each group, sorted by name. The same declarations give the same text.
#[must_use]
pub fn markdown(groups: &[(&str, &[Declaration])]) -> String {
    let mut page = String::new();
    for (title, declarations) in groups {
        let mut declarations: Vec<_> = declarations.iter().collect();
        declarations.sort_by_key(|declaration| declaration.name);
        // Writing to a String does not fail.
        let _ = writeln!(
            page,
            "## {title}\n\n| name | type | unit | labels | buckets | help |"
        );
        page.push_str("|---|---|---|---|---|---|\n");
        for declaration in declarations {
            write_row(&mut page, declaration);
        }
        page.push('\n');
    }
    page.truncate(page.trim_end().len());
    page.push('\n');
    page
}

fn write_row(page: &mut String, declaration: &Declaration) {
    let Declaration {
        name,
        kind,
        unit,
        help,
        labels,
        buckets,
        known: _,
    } = *declaration;
    let labels = labels
        .iter()
        .map(|label| format!("`{label}`"))
        .collect::<Vec<_>>()
        .join(", ");
    let buckets = match kind {
        Kind::Histogram => buckets.iter().map(f64::to_string).collect::<Vec<_>>().join(" "),
        Kind::Counter | Kind::Gauge => String::new(),
    };
    let help = help.replace('|', "\\|").replace('\n', " ");
    let _ = writeln!(
        page,
        "| `{name}` | {} | {} | {labels} | {buckets} | {help} |",
        kind.as_str(),
        unit.as_str()
    );
}
