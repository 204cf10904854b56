//! What the product knows of its own telemetry: runbooks, the catalogue of metrics, dashboards. The same for everybody.

use super::{JSON, Uri};
use knowledge::Runbook;
use rmcp::model::{Resource, ResourceContents};
use serde_json::json;
use std::fmt::Write as _;

pub(super) const MARKDOWN: &str = "text/markdown";
/// How long a line of the index is at most, characters.
const LINE: usize = 160;

/// Those that are listed one by one; the others are found through the index and the templates.
pub(super) fn list() -> [Resource; 2] {
    [
        Resource::new(Uri::RUNBOOKS, "runbooks")
            .with_description("Which alert has which runbook, and the dashboards whose queries can be read")
            .with_mime_type(MARKDOWN),
        Resource::new(Uri::METRICS, "metrics")
            .with_description("Every metric of the services: type, unit, labels, meaning")
            .with_mime_type(MARKDOWN),
    ]
}

/// A line for each runbook and each dashboard.
pub(super) fn index() -> ResourceContents {
    let mut text = "# Runbooks\n\n".to_owned();
    for runbook in knowledge::runbooks() {
        let _ = writeln!(text, "- {}: {}", Uri::Runbook(runbook.alert), about(runbook));
    }
    text.push_str("\n# Dashboards\n\n");
    for dashboard in knowledge::dashboards() {
        let _ = writeln!(text, "- {}: {}", Uri::Dashboard(dashboard.uid), dashboard.title);
    }
    ResourceContents::text(text, Uri::RUNBOOKS).with_mime_type(MARKDOWN)
}

/// The beginning of what it says below its title, on one line.
fn about(runbook: &Runbook) -> String {
    let words = runbook
        .text
        .lines()
        .skip(1)
        .skip_while(|line| line.trim().is_empty())
        .take_while(|line| !line.trim().is_empty());
    let line = words.collect::<Vec<_>>().join(" ");
    match line.char_indices().nth(LINE) {
        Some((end, _)) => format!("{}…", line[..end].trim_end()),
        None => line,
    }
}

/// An alert's runbook, where there is one.
pub(crate) fn runbook(alert: &str) -> Option<ResourceContents> {
    let found = knowledge::runbooks()
        .iter()
        .find(|runbook| runbook.alert == alert)?;
    let uri = Uri::Runbook(found.alert).to_string();
    Some(ResourceContents::text(found.text, uri).with_mime_type(MARKDOWN))
}

/// What every metric means.
pub(super) fn metrics() -> ResourceContents {
    ResourceContents::text(knowledge::metric_catalogue(), Uri::METRICS).with_mime_type(MARKDOWN)
}

/// What a dashboard's panels ask.
pub(crate) fn dashboard(uid: &str) -> Option<ResourceContents> {
    let found = knowledge::dashboards()
        .iter()
        .find(|dashboard| dashboard.uid == uid)?;
    let panels = found.panels.iter();
    let panels: Vec<_> = panels
        .map(|panel| json!({"title": panel.title, "queries": panel.queries}))
        .collect();
    let note = "$name stands for a variable of the dashboard: put a value or .* in its place, a time such as 5m for \
                $__rate_interval and $__interval";
    let value = json!({"uid": found.uid, "title": found.title, "panels": panels, "note": note});
    let uri = Uri::Dashboard(found.uid).to_string();
    Some(ResourceContents::text(value.to_string(), uri).with_mime_type(JSON))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(contents: ResourceContents) -> String {
        match contents {
            ResourceContents::TextResourceContents { text, .. } => text,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn the_index_leads_to_everything_in_it() {
        let index = text(index());
        for runbook in knowledge::runbooks() {
            let uri = format!("runbook://{}", runbook.alert);
            assert_eq!(uri.parse(), Ok(Uri::Runbook(runbook.alert)));
            assert!(index.contains(&format!("{uri}: ")), "{uri}");
            assert!(about(runbook).len() > 20, "{uri}");
        }
        for dashboard in knowledge::dashboards() {
            let uri = format!("dashboard://{}", dashboard.uid);
            assert_eq!(uri.parse(), Ok(Uri::Dashboard(dashboard.uid)));
            assert!(index.contains(&uri), "{uri}");
        }
        assert!(index.len() < 16_000, "{}", index.len());
    }

    #[test]
    fn a_dashboard_is_its_queries() {
        let text = text(dashboard("service").expect("it is shipped"));
        assert!(text.contains("http_requests_total"), "{text}");
        assert!(dashboard("nope").is_none() && runbook("nope").is_none());
    }
}
